//! From the claims of a verified token to an [`Identity`].
//!
//! Claims that decide something are read strictly: of the wrong type they refuse the token, and `null` is a wrong type.
//! A name or a role that cannot be read is only not there.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use serde_json::value::RawValue;

use super::{
    Identity, Meetings, Right,
    object::{Object, array, integer, string},
    token::TokenError,
};

/// What the configuration wants of claims.
pub(super) struct ClaimRules {
    pub(super) user_claim: Option<String>,
    pub(super) require_exp: bool,
    pub(super) issuer: Option<String>,
    pub(super) audience: Option<String>,
}

/// How far the issuer's clock may be from ours, in ms.
const LEEWAY_MS: u64 = 30_000;
/// Where the user id stands, unless the configuration says otherwise: what Flask's extensions have used so far.
const USER_CLAIMS: [&str; 4] = ["sub", "user_id", "identity", "id"];
const ID_MAX_CHARS: usize = 128;
const NAME_MAX_CHARS: usize = 80;

const USER_ID: TokenError =
    TokenError::Invalid("user id: a string of 1-128 printable characters, or an integer from 0 to 2^53-1");
const MEETINGS: TokenError =
    TokenError::Invalid("meetings: \"*\", an array of meeting ids, or an object of meeting ids and rights");

impl ClaimRules {
    /// Checks the claims at `now`, in ms since the epoch, and says who the bearer is.
    pub(super) fn read(&self, payload: &str, now: u64) -> Result<Identity, TokenError> {
        let claims = Object::parse(payload)
            .ok_or(TokenError::Invalid("payload: a JSON object in which no claim comes twice"))?;
        self.check_issuer(&claims)?;
        self.check_audience(&claims)?;
        if claims.member("type").is_some() && claims.string("type").as_deref() != Some("access") {
            return Err(TokenError::Invalid("type: access"));
        }
        let user_id: Arc<str> = self.user_id(&claims)?.into();
        let jti = optional(&claims, "jti", |jti| printable(jti).or_else(|| digits(jti)))
            .ok_or(TokenError::Invalid("jti: a string of 1-128 printable characters, or an integer"))?;
        let sid = optional(&claims, "sid", printable)
            .ok_or(TokenError::Invalid("sid: a string of 1-128 printable characters"))?;
        let meetings = optional(&claims, "meetings", meetings).ok_or(MEETINGS)?;
        let (issued_at, expires_at) = self.times(&claims, now)?;
        Ok(Identity {
            name: display_name(&claims, &user_id),
            user_id,
            is_admin: has_role(&claims, "admin"),
            is_service: has_role(&claims, "service"),
            meetings,
            jti: jti.map(Into::into),
            sid: sid.map(Into::into),
            issued_at,
            expires_at,
        })
    }

    fn check_issuer(&self, claims: &Object<'_>) -> Result<(), TokenError> {
        let issuer = optional(claims, "iss", string).ok_or(TokenError::Invalid("iss: a string"))?;
        match &self.issuer {
            Some(expected) if issuer.as_deref() != Some(expected) => {
                Err(TokenError::Invalid("iss: the configured issuer"))
            }
            _ => Ok(()),
        }
    }

    fn check_audience(&self, claims: &Object<'_>) -> Result<(), TokenError> {
        let audiences =
            optional(claims, "aud", strings).ok_or(TokenError::Invalid("aud: a string or an array of strings"))?;
        match &self.audience {
            Some(expected) if !audiences.is_some_and(|all| all.iter().any(|audience| audience == expected)) => {
                Err(TokenError::Invalid("aud: the configured audience"))
            }
            _ => Ok(()),
        }
    }

    fn user_id<'a>(&self, claims: &Object<'a>) -> Result<Cow<'a, str>, TokenError> {
        let claim = match &self.user_claim {
            Some(name) => claims.member(name),
            None => USER_CLAIMS.into_iter().find_map(|name| claims.member(name)),
        };
        claim.and_then(|id| printable(id).or_else(|| digits(id))).ok_or(USER_ID)
    }

    /// `iat` and `exp` in ms.
    fn times(&self, claims: &Object<'_>, now: u64) -> Result<(Option<u64>, Option<u64>), TokenError> {
        let ms =
            |name| optional(claims, name, integer).map(|seconds| seconds.map(|seconds| seconds.saturating_mul(1000)));
        let not_before = ms("nbf").ok_or(TokenError::Invalid("nbf: an integer from 0 to 2^53-1"))?;
        let issued_at = ms("iat").ok_or(TokenError::Invalid("iat: an integer from 0 to 2^53-1"))?;
        let expires_at = ms("exp").ok_or(TokenError::Invalid("exp: an integer from 0 to 2^53-1"))?;
        let latest_start = now.saturating_add(LEEWAY_MS);
        if not_before.is_some_and(|start| start > latest_start) {
            return Err(TokenError::Invalid("nbf: not in the future"));
        }
        if issued_at.is_some_and(|start| start > latest_start) {
            return Err(TokenError::Invalid("iat: not in the future"));
        }
        match expires_at {
            None if self.require_exp => Err(TokenError::Invalid("exp: when the token expires")),
            Some(end) if now > end.saturating_add(LEEWAY_MS) => Err(TokenError::Expired),
            _ => Ok((issued_at, expires_at)),
        }
    }
}

/// Whether `sub` or `jti` is an integer, which libraries that go by the letter of RFC 7519 refuse.
pub(super) fn have_integer_ids(payload: &str) -> bool {
    Object::parse(payload).is_some_and(|claims| {
        ["sub", "jti"].iter().filter_map(|name| claims.member(name)).any(|id| integer(id).is_some())
    })
}

/// The claim of that name, or that there is none. `None` if it is there and cannot be read.
fn optional<'a, T>(claims: &Object<'a>, name: &str, read: impl FnOnce(&'a RawValue) -> Option<T>) -> Option<Option<T>> {
    match claims.member(name) {
        None => Some(None),
        Some(claim) => read(claim).map(Some),
    }
}

fn printable(value: &RawValue) -> Option<Cow<'_, str>> {
    string(value)
        .filter(|id| (1..=ID_MAX_CHARS).contains(&id.chars().count()))
        .filter(|id| !id.chars().any(char::is_control))
}

fn digits(value: &RawValue) -> Option<Cow<'static, str>> {
    integer(value).map(|number| number.to_string().into())
}

/// One string, or an array of nothing but strings.
fn strings(value: &RawValue) -> Option<Vec<Cow<'_, str>>> {
    match string(value) {
        Some(one) => Some(vec![one]),
        None => array(value)?.into_iter().map(string).collect(),
    }
}

fn display_name(claims: &Object<'_>, user_id: &str) -> Arc<str> {
    let local_part = |email: Cow<'_, str>| email.split_once('@').map(|(local, _)| local.to_owned());
    claims
        .string("name")
        .and_then(|name| presentable(&name))
        .or_else(|| claims.string("username").and_then(|name| presentable(&name)))
        .or_else(|| claims.string("email").and_then(local_part).and_then(|name| presentable(&name)))
        .or_else(|| presentable(user_id))
        // An id of spaces only.
        .unwrap_or_else(|| user_id.chars().take(NAME_MAX_CHARS).collect())
        .into()
}

/// At most 80 characters, none of them a control character, and no white space around them. `None` if nothing is left.
fn presentable(name: &str) -> Option<String> {
    let name: String = name.chars().filter(|char| !char.is_control()).collect();
    let name: String = name.trim().chars().take(NAME_MAX_CHARS).collect();
    let name = name.trim_end();
    (!name.is_empty()).then(|| name.to_owned())
}

fn has_role(claims: &Object<'_>, role: &str) -> bool {
    let roles = claims.member("roles").and_then(|roles| match string(roles) {
        Some(one) => Some(vec![one]),
        None => Some(array(roles)?.into_iter().filter_map(string).collect()),
    });
    claims.string("role").as_deref() == Some(role) || roles.is_some_and(|roles| roles.iter().any(|one| one == role))
}

fn meetings(claim: &RawValue) -> Option<Meetings> {
    if let Some(text) = string(claim) {
        return (text == "*").then_some(Meetings::All);
    }
    let listed: Option<HashMap<_, _>> = match array(claim) {
        Some(ids) => ids.into_iter().map(|id| Some((meeting_id(id)?, Right::Write))).collect(),
        None => Object::parse(claim.get())?
            .members()
            .map(|(id, right)| is_meeting_id(id).then_some((id.into(), Right::from_name(&string(right)?)?)))
            .collect(),
    };
    listed.map(Meetings::Listed)
}

fn meeting_id(value: &RawValue) -> Option<Box<str>> {
    string(value).filter(|id| is_meeting_id(id)).or_else(|| digits(value)).map(Into::into)
}

fn is_meeting_id(id: &str) -> bool {
    (1..=ID_MAX_CHARS).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::mint::NOW;

    fn rules() -> ClaimRules {
        ClaimRules { user_claim: None, require_exp: true, issuer: None, audience: None }
    }

    /// Good claims for an hour, and these.
    fn with(members: &str) -> String {
        let comma = if members.is_empty() { "" } else { "," };
        format!(r#"{{"exp":1700003600{comma}{members}}}"#)
    }

    /// For the user `u1`, and these.
    fn read(members: &str) -> Result<Identity, TokenError> {
        rules().read(&with(&format!(r#""sub":"u1"{}{members}"#, if members.is_empty() { "" } else { "," })), NOW)
    }

    fn is_invalid<T>(result: &Result<T, TokenError>) -> bool {
        matches!(result, Err(TokenError::Invalid(_)))
    }

    #[test]
    fn fewest_claims() {
        let identity = read("").unwrap();
        let expected = Identity { expires_at: Some(1_700_003_600_000), ..Identity::anonymous("u1") };
        assert_eq!(identity, expected);
    }

    #[test]
    fn all_claims() {
        let identity = read(
            r#""iat":1699999999,"nbf":1699999999,"jti":"j","sid":"s","name":"Ann","role":"admin","roles":["service"],
            "type":"access","iss":"x","aud":["y"],"meetings":{"m1":"read","7":"write","a_.:-B":"host"},"fresh":false,
            "csrf":null,"nested":{"a":1,"a":2}"#,
        )
        .unwrap();
        let rights = [("m1", Right::Read), ("7", Right::Write), ("a_.:-B", Right::Host)];
        let expected = Identity {
            user_id: "u1".into(),
            name: "Ann".into(),
            is_admin: true,
            is_service: true,
            meetings: Some(Meetings::Listed(rights.into_iter().map(|(id, right)| (id.into(), right)).collect())),
            jti: Some("j".into()),
            sid: Some("s".into()),
            issued_at: Some(1_699_999_999_000),
            expires_at: Some(1_700_003_600_000),
        };
        assert_eq!(identity, expected);
    }

    #[test]
    fn payload_is_an_object_without_repetition() {
        for payload in [
            "",
            "null",
            "[]",
            r#""u1""#,
            r#"{"sub":"u1","exp":1700003600"#,
            r#"{"sub":"u1","exp":1700003600}x"#,
            r#"{"sub":"u1","sub":"u2","exp":1700003600}"#,
            r#"{"sub":"u1","s\u0075b":"u2","exp":1700003600}"#,
            r#"{"sub":"u1","exp":1,"exp":1700003600}"#,
            r#"{"sub":"u1","exp":1700003600,"x":1,"x":1}"#,
        ] {
            assert!(is_invalid(&rules().read(payload, NOW)), "{payload}");
        }
    }

    #[test]
    fn user_id_is_the_first_that_is_there() {
        let longest = "é".repeat(128);
        let cases: &[(&str, Option<&str>)] = &[
            (r#""sub":"a","user_id":"b","identity":"c","id":"d""#, Some("a")),
            (r#""user_id":"b","identity":"c","id":"d""#, Some("b")),
            (r#""identity":"c","id":"d""#, Some("c")),
            (r#""id":"d""#, Some("d")),
            (r#""sub":42"#, Some("42")),
            (r#""sub":0"#, Some("0")),
            (r#""sub":9007199254740991"#, Some("9007199254740991")),
            (&format!(r#""sub":"{longest}""#), Some(&longest)),
            (r#""sub":"\u0041 b""#, Some("A b")),
            ("", None),
            (r#""username":"a""#, None),
            (&format!(r#""sub":"{longest}é""#), None),
            (r#""sub":"","user_id":"b""#, None),
            (r#""sub":null,"user_id":"b""#, None),
            (r#""sub":9007199254740992"#, None),
            (r#""sub":-1"#, None),
            (r#""sub":1.0"#, None),
            (r#""sub":true"#, None),
            (r#""sub":["a"]"#, None),
            (r#""sub":{"id":"a"}"#, None),
            (r#""sub":"a\nb""#, None),
            (r#""sub":"a\u0000""#, None),
            (r#""sub":"a\u007f""#, None),
            (r#""sub":"a\u0085""#, None),
            (r#""sub":"\ud800""#, None),
        ];
        for (members, user_id) in cases {
            let read = rules().read(&with(members), NOW);
            assert_eq!(read.as_ref().ok().map(|identity| &*identity.user_id), *user_id, "{members}: {read:?}");
        }
    }

    #[test]
    fn user_claim_overrides_all() {
        let rules = ClaimRules { user_claim: Some("uid".to_owned()), ..rules() };
        assert_eq!(&*rules.read(&with(r#""sub":"a","uid":7"#), NOW).unwrap().user_id, "7");
        assert_eq!(rules.read(&with(r#""sub":"a","id":"b""#), NOW), Err(USER_ID));
    }

    #[test]
    fn name_is_presentable() {
        let cases: &[(&str, &str)] = &[
            ("", "u1"),
            (r#""name":"Ann","username":"b","email":"c@d""#, "Ann"),
            (r#""username":"b","email":"c@d""#, "b"),
            (r#""email":"c.c@d@e""#, "c.c"),
            (r#""email":"c""#, "u1"),
            (r#""email":"@d""#, "u1"),
            (r#""name":null,"username":"b""#, "b"),
            (r#""name":7,"username":"b""#, "b"),
            (r#""name":"","username":"b""#, "b"),
            (r#""name":" \n\u0000 ","username":"b""#, "b"),
            (r#""name":"  A\n\u007f\u0085nn \t""#, "Ann"),
            (&format!(r#""name":"{}""#, "é".repeat(80)), &"é".repeat(80)),
            (&format!(r#""name":"{}""#, "é".repeat(81)), &"é".repeat(80)),
            (&format!(r#""name":"{} b""#, "a".repeat(79)), &"a".repeat(79)),
        ];
        for (members, name) in cases {
            assert_eq!(&*read(members).unwrap().name, *name, "{members}");
        }
        for (id, name) in [("i".repeat(128), "i".repeat(80)), (" ".repeat(81), " ".repeat(80))] {
            let identity = rules().read(&with(&format!(r#""sub":"{id}""#)), NOW).unwrap();
            assert_eq!((&*identity.user_id, &*identity.name), (&*id, &*name));
        }
    }

    #[test]
    fn roles_are_those_two() {
        for (members, admin, service) in [
            (r#""role":"admin""#, true, false),
            (r#""role":"service""#, false, true),
            (r#""roles":"admin""#, true, false),
            (r#""roles":["user","admin","service"]"#, true, true),
            (r#""role":"user","roles":["service"]"#, false, true),
            (r#""role":"admin","roles":null"#, true, false),
            (r#""roles":[7,null,"admin"]"#, true, false),
            (r#""role":"Admin""#, false, false),
            (r#""role":" admin""#, false, false),
            (r#""role":["admin"]"#, false, false),
            (r#""roles":[["admin"]]"#, false, false),
            (r#""roles":{"admin":true}"#, false, false),
            (r#""role":true,"is_admin":true,"admin":true"#, false, false),
        ] {
            let identity = read(members).unwrap();
            assert_eq!((identity.is_admin, identity.is_service), (admin, service), "{members}");
        }
    }

    #[test]
    fn meetings_in_their_three_forms() {
        let longest = "m".repeat(128);
        let listed = |list: &[(&str, Right)]| {
            Some(Meetings::Listed(list.iter().map(|(id, right)| ((*id).into(), *right)).collect()))
        };
        for (claim, meetings) in [
            (r#""*""#, Some(Meetings::All)),
            ("[]", listed(&[])),
            ("{}", listed(&[])),
            (r#"["a",7,"a"]"#, listed(&[("a", Right::Write), ("7", Right::Write)])),
            (r#"{"a":"host","b":"read"}"#, listed(&[("a", Right::Host), ("b", Right::Read)])),
            (&format!(r#"["{longest}"]"#), listed(&[(&longest, Right::Write)])),
            (&format!(r#"{{"{longest}":"write"}}"#), listed(&[(&longest, Right::Write)])),
        ] {
            assert_eq!(read(&format!(r#""meetings":{claim}"#)).unwrap().meetings, meetings, "{claim}");
        }
        for claim in [
            "null",
            "true",
            "7",
            r#""a""#,
            r#""""#,
            r#"["*"]"#,
            r#"[""]"#,
            r#"["a b"]"#,
            r#"["é"]"#,
            r#"["a\n"]"#,
            "[null]",
            "[-1]",
            "[1.5]",
            r#"[["a"]]"#,
            r#"{"*":"read"}"#,
            r#"{"":"read"}"#,
            r#"{"a":"owner"}"#,
            r#"{"a":"Read"}"#,
            r#"{"a":true}"#,
            r#"{"a":null}"#,
            r#"{"a":"read","a":"host"}"#,
            &format!(r#"["{longest}m"]"#),
            &format!(r#"{{"{longest}m":"read"}}"#),
        ] {
            assert_eq!(read(&format!(r#""meetings":{claim}"#)), Err(MEETINGS), "{claim}");
        }
    }

    #[test]
    fn ids_of_token_and_login() {
        let longest = "j".repeat(128);
        for (claim, jti) in [(r#""a b""#, "a b"), ("7", "7"), (&format!("\"{longest}\""), &longest)] {
            assert_eq!(read(&format!(r#""jti":{claim}"#)).unwrap().jti.as_deref(), Some(jti), "{claim}");
        }
        assert_eq!(read(&format!(r#""sid":"{longest}""#)).unwrap().sid.as_deref(), Some(&*longest));
        for claim in ["null", "\"\"", "[]", "1.5", "-1", "true", "\"a\\n\"", &format!("\"{longest}j\"")] {
            assert!(is_invalid(&read(&format!(r#""jti":{claim}"#))), "jti {claim}");
            assert!(is_invalid(&read(&format!(r#""sid":{claim}"#))), "sid {claim}");
        }
        assert!(is_invalid(&read(r#""sid":7"#)));
    }

    #[test]
    fn only_access_tokens() {
        assert!(read(r#""type":"access""#).is_ok());
        for claim in ["\"refresh\"", "\"Access\"", "\"\"", "null", "7", "[\"access\"]"] {
            assert!(is_invalid(&read(&format!(r#""type":{claim}"#))), "{claim}");
        }
    }

    #[test]
    fn issuer_and_audience() {
        let rules = ClaimRules { issuer: Some("iss1".to_owned()), audience: Some("aud1".to_owned()), ..rules() };
        for (members, is_good) in [
            (r#""iss":"iss1","aud":"aud1""#, true),
            (r#""iss":"iss1","aud":["aud0","aud1"]"#, true),
            (r#""iss":"iss1""#, false),
            (r#""aud":"aud1""#, false),
            (r#""iss":"iss2","aud":"aud1""#, false),
            (r#""iss":"iss1/","aud":"aud1""#, false),
            (r#""iss":["iss1"],"aud":"aud1""#, false),
            (r#""iss":null,"aud":"aud1""#, false),
            (r#""iss":"iss1","aud":"aud2""#, false),
            (r#""iss":"iss1","aud":"AUD1""#, false),
            (r#""iss":"iss1","aud":[]"#, false),
            (r#""iss":"iss1","aud":["aud1",7]"#, false),
            (r#""iss":"iss1","aud":{"aud1":1}"#, false),
            (r#""iss":"iss1","aud":null"#, false),
        ] {
            let read = rules.read(&with(&format!(r#""sub":"u1",{members}"#)), NOW);
            assert_eq!(read.is_ok(), is_good, "{members}");
            assert_eq!(is_invalid(&read), !is_good, "{members}");
        }
        // Not configured: anything of the right type.
        assert!(read(r#""iss":"x","aud":["y"]"#).is_ok());
        assert!(is_invalid(&read(r#""iss":7"#)));
        assert!(is_invalid(&read(r#""aud":7"#)));
    }

    #[test]
    fn expires_after_the_leeway() {
        let end = 1_700_003_600_000;
        let at = |now| rules().read(&with(r#""sub":"u1""#), now);
        assert_eq!(at(end).unwrap().expires_at, Some(end));
        assert!(at(end + 30_000).is_ok());
        assert_eq!(at(end + 30_001), Err(TokenError::Expired));
        assert_eq!(at(u64::MAX), Err(TokenError::Expired));
        // What is wrong with an expired token will not be right with a new one.
        let refresh = rules().read(&with(r#""sub":"u1","type":"refresh""#), u64::MAX);
        assert!(is_invalid(&refresh));
    }

    #[test]
    fn exp_is_required_unless_it_is_not() {
        let lenient = ClaimRules { require_exp: false, ..rules() };
        let payload = r#"{"sub":"u1"}"#;
        assert!(is_invalid(&rules().read(payload, NOW)));
        assert_eq!(lenient.read(payload, NOW).unwrap().expires_at, None);
        assert!(is_invalid(&lenient.read(r#"{"sub":"u1","exp":null}"#, NOW)));
        assert_eq!(lenient.read(r#"{"sub":"u1","exp":1}"#, NOW), Err(TokenError::Expired));
    }

    #[test]
    fn not_before_and_issued_at() {
        let start = 1_700_003_000_000;
        for claim in ["nbf", "iat"] {
            let at = |now| rules().read(&with(&format!(r#""sub":"u1","{claim}":1700003000"#)), now);
            assert!(at(start).is_ok());
            assert!(at(start - 30_000).is_ok());
            assert!(is_invalid(&at(start - 30_001)), "{claim}");
            assert!(is_invalid(&at(0)), "{claim}");
        }
        assert_eq!(read(r#""iat":1"#).unwrap().issued_at, Some(1_000));
    }

    #[test]
    fn times_are_integers() {
        for bad in [
            "\"1700003600\"",
            "1700003600.5",
            "1700003600.0",
            "1.7e9",
            "-1",
            "-0",
            "9007199254740992",
            "9223372036854775808",
            "18446744073709551616",
            "1e400",
            "null",
            "true",
            "[]",
            "{}",
        ] {
            for claim in ["exp", "nbf", "iat"] {
                let exp = if claim == "exp" { "" } else { r#","exp":1700003600"# };
                let payload = format!(r#"{{"sub":"u1","{claim}":{bad}{exp}}}"#);
                assert!(is_invalid(&rules().read(&payload, NOW)), "{payload}");
            }
        }
        let latest = r#"{"sub":"u1","exp":9007199254740991}"#;
        assert_eq!(rules().read(latest, NOW).unwrap().expires_at, Some(9_007_199_254_740_991_000));
        assert_eq!(rules().read(r#"{"sub":"u1","exp":0}"#, NOW), Err(TokenError::Expired));
    }
}
