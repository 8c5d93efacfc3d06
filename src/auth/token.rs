//! Tokens: compact JWS (RFC 7515), verified with what the configuration says and nothing that the token says.
//!
//! Here: the form, the header, and which key. `key` checks the signature, `claims` reads what is signed, [`jwks`] holds
//! key sets. Whether a token was revoked is not asked here.
//!
//! [`jwks`]: super::jwks

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    Identity,
    claims::ClaimRules,
    jwks::KeySet,
    key::{Key, Signed},
    object::{Object, string},
};

/// How tokens are verified.
#[derive(Clone)]
pub struct TokenSettings {
    /// The `alg` that a token may have: one at least, all HMAC or none. With one public key, only the key's own.
    pub algorithms: Vec<Algorithm>,
    /// Which kind of key, and the key.
    pub key: KeySource,
    /// The claim that is the user id. Default: the first that is there of `sub`, `user_id`, `identity`, `id`.
    pub user_claim: Option<String>,
    /// Whether a token without `exp` is refused.
    pub require_exp: bool,
    /// What `iss` must be, if set.
    pub issuer: Option<String>,
    /// What `aud` must be or hold, if set.
    pub audience: Option<String>,
}

/// The algorithms that can be configured (RFC 7518, RFC 8037).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSA, PKCS#1 v1.5, with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

/// Where the keys come from.
#[derive(Clone)]
pub enum KeySource {
    /// A shared secret of at least one byte, for the HMAC family.
    Secret(Vec<u8>),
    /// One public key in PEM: RSA, P-256 or Ed25519.
    Pem(String),
    /// A key set, for the public-key family. It is empty until [`Verifier::set_keys`] is called.
    Jwks,
}

/// Verifies tokens. Shared by all connections: takes no lock but, with a key set, to read which one is in force.
pub struct Verifier {
    algorithms: Vec<Algorithm>,
    claims: ClaimRules,
    keys: Keys,
}

enum Keys {
    /// One per algorithm.
    Fixed(Vec<Key>),
    Set(RwLock<Arc<KeySet>>),
}

/// Why a token was refused. Never holds anything of the token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenError {
    /// Not a token, or one that may not be trusted; says what was expected.
    Invalid(&'static str),
    /// It was good until a while ago. Only said of a token with which nothing else is wrong.
    Expired,
    /// The key set has no key of that `kid` (any more, or yet).
    UnknownKey,
}

/// Why there is no verifying with such a configuration. Never holds the key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyError(pub String);

/// Longest token, in bytes.
pub const TOKEN_MAX_BYTES: usize = 8 * 1024;
/// Longest `kid`, in characters.
pub const KID_MAX_CHARS: usize = 256;

const PARTS: TokenError = TokenError::Invalid("a token: three parts of base64url with dots between them");
const SIGNATURE: TokenError = TokenError::Invalid("a signature by the key");

/// Header members that change what is signed, or bring a key along.
const REFUSED_MEMBERS: [&str; 6] = ["crit", "b64", "jwk", "jku", "x5u", "x5c"];

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 6] = [Self::Hs256, Self::Hs384, Self::Hs512, Self::Rs256, Self::Es256, Self::EdDsa];

    /// The name in a token's `alg`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of exactly that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    /// Whether both sides share one secret.
    pub const fn is_hmac(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }
}

impl Verifier {
    /// A verifier for these settings.
    ///
    /// # Errors
    /// The key does not fit the algorithms, or cannot be read.
    pub fn new(settings: TokenSettings) -> Result<Self, KeyError> {
        let TokenSettings { algorithms, key, user_claim, require_exp, issuer, audience } = settings;
        let keys = Keys::new(&algorithms, &key)?;
        Ok(Self { algorithms, claims: ClaimRules { user_claim, require_exp, issuer, audience }, keys })
    }

    /// Verifies a token at `now`, in ms since the epoch. A `Bearer ` before the token is not part of it.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify(&self, token: &str, now: u64) -> Result<Identity, TokenError> {
        if token.len() > TOKEN_MAX_BYTES {
            return Err(TokenError::Invalid("a token of at most 8192 bytes"));
        }
        let (message, tag) = token.rsplit_once('.').ok_or(PARTS)?;
        // A fourth part would leave a dot in the header's or the payload's, and a dot is not base64url.
        let (header, payload) = message.split_once('.').ok_or(PARTS)?;
        let header = decode_text(header)?;
        let payload = decode_text(payload)?;
        let signature = decode(tag)?;

        let header = Header::read(&header, &self.algorithms)?;
        let signed = Signed { token, message, payload: &payload, signature: &signature };
        if !self.keys.signed(&header, &signed)? {
            return Err(SIGNATURE);
        }
        self.claims.read(&payload, now)
    }

    /// Replaces the key set by what a JWKS document holds (see [`jwks`](super::jwks) for its limits), and returns how
    /// many keys are usable. A token without `kid` is verified only if one key alone is of its algorithm.
    ///
    /// # Errors
    /// Not a key set, or one without a usable key: the keys stay as they were. Nor can another kind of key be replaced.
    pub fn set_keys(&self, jwks: &[u8]) -> Result<usize, KeyError> {
        let Keys::Set(set) = &self.keys else {
            return Err(KeyError("a key set, where the key is fixed".to_owned()));
        };
        let keys = KeySet::parse(jwks, &self.algorithms)?;
        let usable = keys.len();
        *set.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(usable)
    }
}

impl Keys {
    fn new(algorithms: &[Algorithm], source: &KeySource) -> Result<Self, KeyError> {
        let refuse = |why: &str| Err(KeyError(why.to_owned()));
        let hmacs = algorithms.iter().filter(|algorithm| algorithm.is_hmac()).count();
        if algorithms.is_empty() {
            return refuse("no algorithm");
        }
        if hmacs != 0 && hmacs != algorithms.len() {
            return refuse("HMAC algorithms together with public-key algorithms");
        }
        match source {
            KeySource::Secret(_) if hmacs == 0 => refuse("a shared secret, but no HMAC algorithm"),
            KeySource::Secret(secret) if secret.is_empty() => refuse("the shared secret is empty"),
            // Most likely a public key in the wrong setting: everybody could sign with it.
            KeySource::Secret(secret) if secret.trim_ascii_start().starts_with(b"-----BEGIN ") => {
                refuse("the shared secret is a key in PEM")
            }
            KeySource::Secret(secret) => Ok(Self::Fixed(
                algorithms.iter().filter_map(|algorithm| Key::from_secret(*algorithm, secret)).collect(),
            )),
            KeySource::Pem(_) | KeySource::Jwks if hmacs != 0 => refuse("HMAC algorithms, but no shared secret"),
            KeySource::Pem(pem) => {
                let key = Key::from_pem(pem)?;
                let own = key.algorithm();
                if algorithms.iter().any(|algorithm| *algorithm != own) {
                    return Err(KeyError(format!("the public key is for {} and nothing else", own.as_str())));
                }
                Ok(Self::Fixed(vec![key]))
            }
            KeySource::Jwks => Ok(Self::Set(RwLock::default())),
        }
    }

    /// Whether the key that the configuration names for such a header made the signature.
    fn signed(&self, header: &Header, signed: &Signed<'_>) -> Result<bool, TokenError> {
        match self {
            Self::Fixed(keys) => {
                let key = keys.iter().find(|key| key.algorithm() == header.algorithm);
                Ok(key.is_some_and(|key| key.signed(signed)))
            }
            Self::Set(set) => {
                let set = Arc::clone(&set.read().unwrap_or_else(PoisonError::into_inner));
                Ok(set.select(header.algorithm, header.kid.as_deref())?.signed(signed))
            }
        }
    }
}

/// What of a header is used: to choose among the configured keys, nothing more.
struct Header {
    algorithm: Algorithm,
    kid: Option<Box<str>>,
}

impl Header {
    fn read(json: &str, algorithms: &[Algorithm]) -> Result<Self, TokenError> {
        let members =
            Object::parse(json).ok_or(TokenError::Invalid("header: a JSON object in which no member comes twice"))?;
        if REFUSED_MEMBERS.iter().any(|name| members.member(name).is_some()) {
            return Err(TokenError::Invalid("header: no crit, b64, jwk, jku, x5u, x5c"));
        }
        if let Some(kind) = members.member("typ") {
            let is_known = |kind: &str| kind.eq_ignore_ascii_case("JWT") || kind.eq_ignore_ascii_case("at+jwt");
            if !string(kind).is_some_and(|kind| is_known(&kind)) {
                return Err(TokenError::Invalid("typ: JWT or at+jwt"));
            }
        }
        let kid = match members.member("kid") {
            None => None,
            Some(kid) => Some(
                string(kid)
                    .filter(|kid| kid.chars().count() <= KID_MAX_CHARS)
                    .ok_or(TokenError::Invalid("kid: a string of at most 256 characters"))?
                    .into(),
            ),
        };
        let algorithm = members
            .string("alg")
            .and_then(|name| algorithms.iter().copied().find(|algorithm| algorithm.as_str() == name))
            .ok_or(TokenError::Invalid("alg: one that is configured"))?;
        Ok(Self { algorithm, kid })
    }
}

/// Decodes one part, in the only form in which it may be written: no padding, no bits left over, no white space.
fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    match URL_SAFE_NO_PAD.decode(part) {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes),
        Ok(_) | Err(_) => Err(PARTS),
    }
}

fn decode_text(part: &str) -> Result<String, TokenError> {
    String::from_utf8(decode(part)?).map_err(|_| PARTS)
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(expected) => write!(f, "expected {expected}"),
            Self::Expired => f.write_str("expired"),
            Self::UnknownKey => f.write_str("signed by an unknown key"),
        }
    }
}

impl std::error::Error for TokenError {}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for KeyError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::mint::{self, CLAIMS, NOW, SECRET};

    const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
    /// The claims of [`CLAIMS`] with integers as ids, which the library cannot read.
    const INTEGER_IDS: &str = r#"{"sub":7,"jti":8,"exp":1700003600}"#;

    fn hmac(algorithms: &[Algorithm]) -> Verifier {
        Verifier::new(mint::settings(algorithms, KeySource::Secret(SECRET.to_vec()))).unwrap()
    }

    fn pem(algorithm: Algorithm) -> Verifier {
        let pem = match algorithm {
            Algorithm::Rs256 => mint::rsa_pem(),
            Algorithm::Es256 => mint::p256_pem(),
            _ => mint::ed25519_pem(),
        };
        Verifier::new(mint::settings(&[algorithm], KeySource::Pem(pem))).unwrap()
    }

    fn jwks(algorithms: &[Algorithm], keys: &[String]) -> Verifier {
        let verifier = Verifier::new(mint::settings(algorithms, KeySource::Jwks)).unwrap();
        assert_eq!(verifier.set_keys(mint::jwks(keys).as_bytes()), Ok(keys.len()));
        verifier
    }

    #[track_caller]
    fn assert_invalid(verifier: &Verifier, token: &str, name: &str) {
        let verified = verifier.verify(token, NOW);
        assert!(matches!(verified, Err(TokenError::Invalid(_))), "{name}: {verified:?}");
    }

    /// An algorithm, a verifier for it, and a way to sign claims.
    struct Case {
        algorithm: Algorithm,
        verifier: Verifier,
        sign: fn(&str) -> String,
    }

    fn all() -> [Case; 6] {
        Algorithm::ALL.map(|algorithm| {
            let verifier = if algorithm.is_hmac() { hmac(&[algorithm]) } else { pem(algorithm) };
            let sign: fn(&str) -> String = match algorithm {
                Algorithm::Hs256 => |claims| mint::hs256(HS256, claims),
                Algorithm::Hs384 => |claims| mint::hs384(r#"{"alg":"HS384"}"#, claims),
                Algorithm::Hs512 => |claims| mint::hs512(r#"{"alg":"HS512"}"#, claims),
                Algorithm::Rs256 => |claims| mint::rs256("k", claims),
                Algorithm::Es256 => mint::es256,
                Algorithm::EdDsa => |claims| mint::ed25519(r#"{"alg":"EdDSA"}"#, claims),
            };
            Case { algorithm, verifier, sign }
        })
    }

    #[test]
    fn is_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Verifier>();
    }

    #[test]
    fn names_of_algorithms_are_exact() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_name(algorithm.as_str()), Some(algorithm));
            assert_eq!(Algorithm::from_name(&algorithm.as_str().to_lowercase()), None);
        }
        assert_eq!(Algorithm::from_name("none"), None);
    }

    #[test]
    fn every_algorithm_verifies_its_own_tokens_only() {
        let all = all();
        for Case { algorithm, verifier, .. } in &all {
            for Case { algorithm: other, sign, .. } in &all {
                let token = sign(CLAIMS);
                if other == algorithm {
                    assert_eq!(&*verifier.verify(&token, NOW).unwrap().user_id, "u1", "{algorithm:?}");
                } else {
                    assert_invalid(verifier, &token, &format!("{other:?} for {algorithm:?}"));
                }
            }
        }
    }

    #[test]
    fn signature_is_for_every_byte_of_the_token() {
        for Case { algorithm, verifier, sign } in all() {
            for claims in [CLAIMS, INTEGER_IDS] {
                let token = sign(claims);
                let other = sign(&claims.replace('7', "6"));
                let (message, tag) = token.rsplit_once('.').unwrap();
                let (other_message, other_tag) = other.rsplit_once('.').unwrap();
                assert!(verifier.verify(&token, NOW).is_ok(), "{algorithm:?} {claims}");
                assert_invalid(&verifier, &format!("{other_message}.{tag}"), &format!("{algorithm:?} {claims}"));
                assert_invalid(&verifier, &format!("{message}.{other_tag}"), &format!("{algorithm:?} {claims}"));

                let signature = mint::decode(tag);
                let mut flipped = signature.clone();
                for index in [0, signature.len() / 2, signature.len() - 1] {
                    flipped[index] ^= 1;
                    let forged = format!("{message}.{}", mint::encode(&flipped));
                    assert_invalid(&verifier, &forged, &format!("{algorithm:?} {claims}, byte {index}"));
                    flipped[index] ^= 1;
                }
                let short = &signature[..signature.len() - 1];
                let half = &signature[..signature.len() / 2];
                let long = [&signature[..], &[0]].concat();
                let led = [&[0], &signature[..]].concat();
                let twice = signature.repeat(2);
                let zeros = vec![0; signature.len()];
                for bad in [short, half, &long, &led, &twice, &zeros, &[0]] {
                    let forged = format!("{message}.{}", mint::encode(bad));
                    assert_invalid(&verifier, &forged, &format!("{algorithm:?} {claims}, {} bytes", bad.len()));
                }
                assert_invalid(&verifier, &format!("{message}."), "empty");
                assert_invalid(&verifier, message, "no signature");
            }
        }
    }

    /// [`Key::signed`] relies on the library to look at the claims after the signature only.
    #[test]
    fn integer_ids_do_not_stand_in_for_a_signature() {
        for Case { algorithm, verifier, sign } in all() {
            let identity = verifier.verify(&sign(INTEGER_IDS), NOW).unwrap();
            assert_eq!((&*identity.user_id, identity.jti.as_deref()), ("7", Some("8")), "{algorithm:?}");

            let good = sign(CLAIMS);
            let (header, _) = good.split_once('.').unwrap();
            let (_, tag) = good.rsplit_once('.').unwrap();
            for forged in [INTEGER_IDS, r#"{"sub":1,"exp":1700003600}"#, r#"{"sub":1,"iat":[],"exp":1700003600}"#] {
                let forged = format!("{header}.{}.{tag}", mint::encode(forged));
                assert_invalid(&verifier, &forged, &format!("{algorithm:?}"));
            }
        }
    }

    #[test]
    fn der_form_of_an_ecdsa_signature_is_refused() {
        let token = mint::es256(CLAIMS);
        let (message, tag) = token.rsplit_once('.').unwrap();
        let integer = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            if bytes[0] >= 0x80 {
                bytes.insert(0, 0);
            }
            [&[2, u8::try_from(bytes.len()).unwrap()], &bytes[..]].concat()
        };
        let signature = mint::decode(tag);
        let body = [integer(&signature[..32]), integer(&signature[32..])].concat();
        let der = [&[0x30, u8::try_from(body.len()).unwrap()], &body[..]].concat();
        assert_invalid(&pem(Algorithm::Es256), &format!("{message}.{}", mint::encode(der)), "DER");
    }

    #[test]
    fn vectors_of_rfc_7515() {
        let settings =
            |algorithm, key| TokenSettings { user_claim: Some("iss".to_owned()), ..mint::settings(&[algorithm], key) };
        let now = 1_300_819_380_000;
        let claims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

        // A.1
        let secret =
            mint::decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow");
        let verifier = Verifier::new(settings(Algorithm::Hs256, KeySource::Secret(secret))).unwrap();
        let token =
            format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{claims}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        let joe = verifier.verify(&token, now).unwrap();
        assert_eq!((&*joe.user_id, joe.expires_at), ("joe", Some(now)));
        assert_eq!(verifier.verify(&token, NOW), Err(TokenError::Expired));

        // A.2
        let jwk = r#"{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}"#;
        let verifier = Verifier::new(settings(Algorithm::Rs256, KeySource::Jwks)).unwrap();
        verifier.set_keys(mint::jwks(&[jwk.to_owned()]).as_bytes()).unwrap();
        let tag = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
        assert_eq!(&*verifier.verify(&format!("eyJhbGciOiJSUzI1NiJ9.{claims}.{tag}"), now).unwrap().user_id, "joe");

        // A.3
        let jwk = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
        let verifier = Verifier::new(settings(Algorithm::Es256, KeySource::Jwks)).unwrap();
        verifier.set_keys(mint::jwks(&[jwk.to_owned()]).as_bytes()).unwrap();
        let tag = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
        assert_eq!(&*verifier.verify(&format!("eyJhbGciOiJFUzI1NiJ9.{claims}.{tag}"), now).unwrap().user_id, "joe");
    }

    #[test]
    fn what_pyjwt_signs_is_verified() {
        // As flask-jwt-extended has it made: jwt.encode({...}, "secret", algorithm="HS256").
        let header = r#"{"alg":"HS256","typ":"JWT"}"#;
        let claims = r#"{"fresh":false,"iat":1699999000,"jti":"5b0d1a2e-7c9d-4b8a-9d5e-2f3c4b5a6978","type":"access","sub":"42","nbf":1699999000,"csrf":"x","exp":1700000900}"#;
        let verifier =
            Verifier::new(mint::settings(&[Algorithm::Hs256], KeySource::Secret(b"secret".to_vec()))).unwrap();
        let token = mint::hs256_with(b"secret", header, claims);
        assert_eq!(&*verifier.verify(&token, NOW).unwrap().user_id, "42");
        assert_invalid(
            &verifier,
            &mint::hs256_with(b"secret", header, &claims.replace("access", "refresh")),
            "refresh",
        );
    }

    #[test]
    fn algorithm_is_one_that_is_configured() {
        let verifier = hmac(&[Algorithm::Hs256, Algorithm::Hs384]);
        assert!(verifier.verify(&mint::hs256(HS256, CLAIMS), NOW).is_ok());
        assert!(verifier.verify(&mint::hs384(r#"{"alg":"HS384"}"#, CLAIMS), NOW).is_ok());
        assert_invalid(&verifier, &mint::hs512(r#"{"alg":"HS512"}"#, CLAIMS), "HS512");
        assert_invalid(&verifier, &mint::hs256(r#"{"alg":"HS384"}"#, CLAIMS), "HS256 under another name");
        for alg in [
            "\"none\"",
            "\"None\"",
            "\"NONE\"",
            "\"nOnE\"",
            "\"\"",
            "\"hs256\"",
            "\"HS256 \"",
            "\"HS256\\u0000\"",
            "null",
            "0",
            "true",
            "[\"HS256\"]",
            "{\"HS256\":1}",
            "\"RS256\"",
            "\"dir\"",
            "\"ES256\"",
            "\"EdDSA\"",
            "\"Ed25519\"",
        ] {
            let header = format!(r#"{{"alg":{alg}}}"#);
            assert_invalid(&verifier, &mint::hs256(&header, CLAIMS), alg);
            assert_invalid(&verifier, &mint::token(&header, CLAIMS, |_| Vec::new()), alg);
            assert_invalid(&verifier, &mint::token(&header, CLAIMS, |_| vec![0; 32]), alg);
        }
        assert_invalid(&verifier, &mint::hs256(r#"{"typ":"JWT"}"#, CLAIMS), "no alg");
        // The library would take this name too.
        assert_invalid(&pem(Algorithm::EdDsa), &mint::ed25519(r#"{"alg":"Ed25519"}"#, CLAIMS), "Ed25519");
    }

    #[test]
    fn public_key_is_no_secret() {
        let pem_text = mint::rsa_pem();
        let secrets = [
            pem_text.as_bytes().to_vec(),
            pem_text.trim().as_bytes().to_vec(),
            format!("{}\n", pem_text.trim()).into_bytes(),
            mint::rsa_der(),
            mint::rsa_jwk().into_bytes(),
        ];
        let verifiers = [
            pem(Algorithm::Rs256),
            jwks(&[Algorithm::Rs256], &[mint::rsa_jwk()]),
            jwks(&[Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa], &[mint::with_kid(&mint::rsa_jwk(), "k")]),
        ];
        for verifier in &verifiers {
            for secret in &secrets {
                for header in [HS256, r#"{"alg":"HS256","kid":"k"}"#, r#"{"alg":"RS256","kid":"k"}"#] {
                    let token = mint::hs256_with(secret, header, CLAIMS);
                    let verified = verifier.verify(&token, NOW);
                    assert!(verified.is_err(), "{header}");
                    if header.contains("HS256") {
                        assert!(matches!(verified, Err(TokenError::Invalid(_))), "{header}: {verified:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn tokens_bring_no_keys_and_no_conditions() {
        let verifier = hmac(&[Algorithm::Hs256]);
        for member in [
            r#""jwk":{"kty":"oct","k":"AAAA"}"#,
            r#""jwk":"x""#,
            r#""jwk":null"#,
            r#""jku":"https://evil.test/jwks""#,
            r#""x5u":"https://evil.test/cert""#,
            r#""x5c":["AAAA"]"#,
            r#""crit":["exp"]"#,
            r#""crit":[]"#,
            r#""b64":false"#,
            r#""b64":true"#,
            r#""crit":["b64"],"b64":false"#,
        ] {
            let header = format!(r#"{{"alg":"HS256",{member}}}"#);
            assert_invalid(&verifier, &mint::hs256(&header, CLAIMS), member);
        }
        let jwk = mint::ed25519_jwk();
        let header = format!(r#"{{"alg":"EdDSA","jwk":{jwk}}}"#);
        assert_invalid(&pem(Algorithm::EdDsa), &mint::ed25519(&header, CLAIMS), "even with the right key");
        // Only a name of a key.
        assert!(verifier.verify(&mint::hs256(r#"{"alg":"HS256","x5t":"AAAA"}"#, CLAIMS), NOW).is_ok());
    }

    #[test]
    fn header_is_read_strictly() {
        let verifier = hmac(&[Algorithm::Hs256]);
        let longest = format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "é".repeat(256));
        for header in [
            r#"{"alg":"HS256"}"#,
            r#" { "alg" : "HS256" } "#,
            r#"{"typ":"jwt","alg":"HS256"}"#,
            r#"{"typ":"at+JWT","alg":"HS256"}"#,
            r#"{"alg":"HS256","kid":""}"#,
            r#"{"alg":"HS256","kid":"../../etc/passwd"}"#,
            r#"{"alg":"HS256","other":[{"a":1,"a":2}]}"#,
            &longest,
        ] {
            assert!(verifier.verify(&mint::hs256(header, CLAIMS), NOW).is_ok(), "{header}");
        }
        let too_long = format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "k".repeat(257));
        for header in [
            "null",
            "[]",
            r#""HS256""#,
            "{}",
            r#"{"alg":"HS256""#,
            r#"{"alg":"HS256"}{}"#,
            r#"{"alg":"HS256","alg":"HS256"}"#,
            r#"{"alg":"none","alg":"HS256"}"#,
            r#"{"\u0061lg":"none","alg":"HS256"}"#,
            r#"{"alg":"HS256","kid":"a","kid":"b"}"#,
            r#"{"alg":"HS256","x":1,"x":1}"#,
            r#"{"alg":"HS256","typ":"JWE"}"#,
            r#"{"alg":"HS256","typ":"dpop+jwt"}"#,
            r#"{"alg":"HS256","typ":""}"#,
            r#"{"alg":"HS256","typ":null}"#,
            r#"{"alg":"HS256","typ":["JWT"]}"#,
            r#"{"alg":"HS256","kid":7}"#,
            r#"{"alg":"HS256","kid":null}"#,
            r#"{"alg":"HS256","kid":["k"]}"#,
            r#"{"alg":"HS256","kid":"\ud800"}"#,
            &too_long,
        ] {
            assert_invalid(&verifier, &mint::hs256(header, CLAIMS), header);
        }
        let not_utf8 = format!("{}.{}", mint::encode(b"\xff\xfe"), mint::encode(CLAIMS));
        assert_invalid(&verifier, &format!("{not_utf8}.AAAA"), "not UTF-8");
    }

    #[test]
    fn form_is_exact() {
        let verifier = hmac(&[Algorithm::Hs256]);
        // A length that leaves bits over in every part: 1 or 2 bytes modulo 3.
        let token = mint::hs256(r#"{"alg":"HS256" }"#, CLAIMS);
        assert!(verifier.verify(&token, NOW).is_ok());
        let parts: Vec<&str> = token.split('.').collect();
        let [header, payload, tag] = parts[..] else { panic!("{token}") };

        let mut bad = vec![
            String::new(),
            ".".to_owned(),
            "..".to_owned(),
            "...".to_owned(),
            header.to_owned(),
            format!("{header}.{payload}"),
            format!("{header}.{payload}."),
            format!(".{payload}.{tag}"),
            format!("{header}..{tag}"),
            format!("{token}."),
            format!(".{token}"),
            format!("{token}.{tag}"),
            format!("{header}.{payload}.{payload}.{tag}"),
            format!("{header}.{payload}.{tag}.{tag}.{tag}"),
            format!("Bearer {token}"),
            format!("\"{token}\""),
            format!("{token}é"),
            format!("{header}.{payload}.{tag}A"),
            format!("{header}.{payload}.{tag}AA"),
            format!("{header}.{payload}.{tag}AAAA"),
        ];
        for extra in [" ", "\n", "\r\n", "\t", "\0", "=", "==", "%3D", "\u{feff}"] {
            bad.push(format!("{token}{extra}"));
            bad.push(format!("{extra}{token}"));
            bad.push(format!("{header}{extra}.{payload}.{tag}"));
            bad.push(format!("{header}.{extra}{payload}.{tag}"));
            bad.push(format!("{header}.{payload}{extra}.{tag}"));
            bad.push(format!("{header}.{payload}.{}{extra}{}", &tag[..4], &tag[4..]));
        }
        for token in &bad {
            assert_invalid(&verifier, token, token);
        }
    }

    /// Forms that other decoders take for the same bytes, signed as they stand.
    #[test]
    fn other_spellings_of_base64_are_refused() {
        let verifier = hmac(&[Algorithm::Hs256]);
        let sign = |message: &str| {
            let key = jwt_simple::prelude::HS256Key::from_bytes(SECRET);
            mint::encode(jwt_simple::prelude::MACLike::authentication_tag(&key, message.as_bytes()))
        };
        // 16 and 1 or 2 more bytes than a multiple of three; `?` and `~` give `_` and `-`.
        let header = mint::encode(r#"{"alg":"HS256","x":"~~~???>>>"}"#);
        let payload = mint::encode(r#"{"sub":"~~~???>>>","exp":1700003600}"#);
        assert!(header.contains(['-', '_']) && payload.contains(['-', '_']), "{header} {payload}");
        let whole = |header: &str, payload: &str| {
            let message = format!("{header}.{payload}");
            format!("{message}.{}", sign(&message))
        };
        assert!(verifier.verify(&whole(&header, &payload), NOW).is_ok());

        let standard = |part: &str| part.replace('-', "+").replace('_', "/");
        assert_invalid(&verifier, &whole(&standard(&header), &payload), "standard alphabet, header");
        assert_invalid(&verifier, &whole(&header, &standard(&payload)), "standard alphabet, payload");
        for (part, text) in [(0, r#"{"alg":"HS256"}"#), (0, r#"{"alg":"HS256" }"#), (0, r#"{"alg":"HS256"  }"#)]
            .into_iter()
            .chain([(1, CLAIMS), (1, r#"{"sub":"u12","exp":1700003600}"#), (1, r#"{"sub":"u123","exp":1700003600}"#)])
        {
            let encoded = mint::encode(text);
            let with = |encoded: &str| if part == 0 { whole(encoded, &payload) } else { whole(&header, encoded) };
            assert!(verifier.verify(&with(&encoded), NOW).is_ok(), "{text}");
            let padding = (4 - encoded.len() % 4) % 4;
            if padding == 0 {
                continue;
            }
            assert_invalid(&verifier, &with(&format!("{encoded}{}", "=".repeat(padding))), "padding");
            let last = encoded.chars().last().unwrap();
            let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let next = alphabet.chars().nth(alphabet.find(last).unwrap() + 1).unwrap();
            let trailing = format!("{}{next}", &encoded[..encoded.len() - 1]);
            assert_invalid(&verifier, &with(&trailing), "bits left over");
        }

        // The signature is not signed: 32 bytes are 43 characters, and two bits are left over.
        let message = format!("{header}.{payload}");
        let tag = sign(&message);
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let next = alphabet.chars().nth(alphabet.find(&tag[42..]).unwrap() + 1).unwrap();
        assert_invalid(&verifier, &format!("{message}.{}{next}", &tag[..42]), "bits left over in the signature");
        assert_invalid(&verifier, &format!("{message}.{tag}="), "padding of the signature");
    }

    #[test]
    fn length_is_limited() {
        let verifier = hmac(&[Algorithm::Hs256]);
        // Three bytes of the payload are four of the token; the header brings it to any length.
        let of_length = |bytes: usize| {
            (0..4)
                .flat_map(|spaces| {
                    let header = format!(r#"{{"alg":"HS256"{}}}"#, " ".repeat(spaces));
                    let fixed = mint::hs256(&header, r#"{"x":"","sub":"u1","exp":1700003600}"#).len();
                    let fill = (bytes.saturating_sub(fixed)) / 4 * 3;
                    (0..4).map(move |more| {
                        let filler = "x".repeat(fill + more);
                        mint::hs256(&header, &format!(r#"{{"x":"{filler}","sub":"u1","exp":1700003600}}"#))
                    })
                })
                .find(|token| token.len() == bytes)
                .unwrap()
        };
        assert!(verifier.verify(&of_length(8192), NOW).is_ok());
        assert_invalid(&verifier, &of_length(8193), "8193 bytes");
        assert_invalid(&verifier, &of_length(9216), "9 KiB");
        assert_invalid(&verifier, &"a".repeat(10_000_000), "10 MB");
        assert_invalid(&verifier, &".".repeat(8192), "dots");
        let hostile = format!("{}.{}.AAAA", mint::encode("[".repeat(3000)), mint::encode("{\"a\":".repeat(600)));
        assert_invalid(&verifier, &hostile, "deep");
    }

    #[test]
    fn payload_is_a_json_object() {
        for payload in ["", "x", "null", "[]", "\"u1\"", "{", r#"{"sub":"u1","sub":"u1","exp":1700003600}"#] {
            assert_invalid(&hmac(&[Algorithm::Hs256]), &mint::hs256(HS256, payload), payload);
        }
        let message = format!("{}.{}", mint::encode(HS256), mint::encode(b"\xff"));
        assert_invalid(&hmac(&[Algorithm::Hs256]), &format!("{message}.AAAA"), "not UTF-8");
    }

    #[test]
    fn time_is_the_callers_for_every_algorithm() {
        // Past what 32 bits of seconds hold, and long ago.
        for Case { algorithm, verifier, sign } in all() {
            let late = 5_000_000_000_000;
            let token = sign(r#"{"sub":"u1","iat":4999999999,"nbf":4999999999,"exp":5000000000}"#);
            assert!(verifier.verify(&token, late).is_ok(), "{algorithm:?}");
            assert!(verifier.verify(&token, late + 30_000).is_ok(), "{algorithm:?}");
            assert_eq!(verifier.verify(&token, late + 30_001), Err(TokenError::Expired), "{algorithm:?}");
            assert!(matches!(verifier.verify(&token, NOW), Err(TokenError::Invalid(_))), "{algorithm:?}");
            let early = sign(r#"{"sub":"u1","iat":0,"nbf":0,"exp":0}"#);
            assert!(verifier.verify(&early, 0).is_ok(), "{algorithm:?}");
            assert!(verifier.verify(&early, 30_000).is_ok(), "{algorithm:?}");
            assert_eq!(verifier.verify(&early, 30_001), Err(TokenError::Expired), "{algorithm:?}");
        }
    }

    #[test]
    fn kid_selects_in_a_key_set() {
        let keys = [
            mint::with_kid(&mint::rsa_jwk(), "r"),
            mint::with_kid(&mint::ed25519_jwk(), "e"),
            mint::with_kid(&mint::p256_jwk(), "p"),
        ];
        let algorithms = [Algorithm::Rs256, Algorithm::EdDsa, Algorithm::Es256];
        let verifier = jwks(&algorithms, &keys);
        let ed25519 = |kid: &str| mint::ed25519(&format!(r#"{{"alg":"EdDSA"{kid}}}"#), CLAIMS);
        assert!(verifier.verify(&ed25519(r#","kid":"e""#), NOW).is_ok());
        assert!(verifier.verify(&ed25519(""), NOW).is_ok(), "the only one of its type");
        assert!(verifier.verify(&mint::rs256("r", CLAIMS), NOW).is_ok());
        assert!(verifier.verify(&mint::es256(CLAIMS), NOW).is_ok());
        assert_invalid(&verifier, &mint::rs256("e", CLAIMS), "RS256 with a key of Ed25519");
        assert_invalid(&verifier, &ed25519(r#","kid":"r""#), "EdDSA with a key of RSA");
        assert_invalid(&verifier, &ed25519(r#","kid":7"#), "no string");
        for kid in ["", "E", "x", "../../dev/null", "e\\u0000", "e' OR '1'='1"] {
            let token = ed25519(&format!(r#","kid":"{kid}""#));
            assert_eq!(verifier.verify(&token, NOW), Err(TokenError::UnknownKey), "{kid}");
        }
        assert_invalid(&verifier, &ed25519(&format!(r#","kid":"{}""#, "k".repeat(300))), "300 characters");

        let two = jwks(&algorithms, &[keys[1].clone(), mint::with_kid(&mint::ed25519_jwk(), "e2")]);
        assert_invalid(&two, &ed25519(""), "one of two");
    }

    #[test]
    fn key_set_is_replaced_whole_or_not_at_all() {
        let verifier = Verifier::new(mint::settings(&[Algorithm::EdDsa], KeySource::Jwks)).unwrap();
        let token = mint::ed25519(r#"{"alg":"EdDSA","kid":"e"}"#, CLAIMS);
        assert_eq!(verifier.verify(&token, NOW), Err(TokenError::UnknownKey), "before the first set");
        let set = |kid| mint::jwks(&[mint::with_kid(&mint::ed25519_jwk(), kid)]);
        assert_eq!(verifier.set_keys(set("e").as_bytes()), Ok(1));
        assert!(verifier.verify(&token, NOW).is_ok());
        for bad in ["", "{}", r#"{"keys":[]}"#, &mint::jwks(&[mint::rsa_jwk()])] {
            assert!(verifier.set_keys(bad.as_bytes()).is_err(), "{bad}");
            assert!(verifier.verify(&token, NOW).is_ok(), "{bad}");
        }
        assert_eq!(verifier.set_keys(set("other").as_bytes()), Ok(1));
        assert_eq!(verifier.verify(&token, NOW), Err(TokenError::UnknownKey));
        assert!(hmac(&[Algorithm::Hs256]).set_keys(set("e").as_bytes()).is_err());
    }

    #[test]
    fn key_must_fit_the_algorithms() {
        use Algorithm::{EdDsa, Es256, Hs256, Hs512, Rs256};
        let secret = || KeySource::Secret(vec![0x80]);
        let pem = KeySource::Pem;
        let cases: &[(&[Algorithm], KeySource, bool)] = &[
            (&[Hs256], secret(), true),
            (&[Hs256, Hs512], secret(), true),
            (&[Hs256, Hs256], secret(), true),
            (&[], secret(), false),
            (&[], KeySource::Jwks, false),
            (&[Hs256], KeySource::Secret(Vec::new()), false),
            (&[Hs256], KeySource::Secret(mint::rsa_pem().into_bytes()), false),
            (&[Hs256], KeySource::Secret(format!("\n{}", mint::ed25519_pem()).into_bytes()), false),
            (&[Rs256], secret(), false),
            (&[Hs256, Rs256], secret(), false),
            (&[Hs256, EdDsa], KeySource::Jwks, false),
            (&[Hs256, Rs256], pem(mint::rsa_pem()), false),
            (&[Hs256], pem(mint::rsa_pem()), false),
            (&[Hs256], KeySource::Jwks, false),
            (&[Rs256], pem(mint::rsa_pem()), true),
            (&[Es256], pem(mint::p256_pem()), true),
            (&[EdDsa], pem(mint::ed25519_pem()), true),
            (&[Es256], pem(mint::rsa_pem()), false),
            (&[Rs256, Es256], pem(mint::rsa_pem()), false),
            (&[Es256], pem(mint::p256_private_pem()), false),
            (&[Rs256], pem("secret".to_owned()), false),
            (&[Rs256, Es256, EdDsa], KeySource::Jwks, true),
        ];
        for (index, (algorithms, key, fits)) in cases.iter().enumerate() {
            let verifier = Verifier::new(mint::settings(algorithms, key.clone()));
            assert_eq!(verifier.is_ok(), *fits, "{index}: {algorithms:?} {:?}", verifier.err());
        }
    }

    #[test]
    fn secret_of_one_byte_is_taken() {
        let verifier = Verifier::new(mint::settings(&[Algorithm::Hs256], KeySource::Secret(vec![b'k']))).unwrap();
        assert!(verifier.verify(&mint::hs256_with(b"k", HS256, CLAIMS), NOW).is_ok());
        assert_invalid(&verifier, &mint::hs256_with(b"K", HS256, CLAIMS), "another key");
    }

    #[test]
    fn settings_reach_the_claims() {
        let settings = TokenSettings {
            user_claim: Some("uid".to_owned()),
            require_exp: false,
            issuer: Some("i".to_owned()),
            audience: Some("a".to_owned()),
            ..mint::settings(&[Algorithm::Hs256], KeySource::Secret(SECRET.to_vec()))
        };
        let verifier = Verifier::new(settings).unwrap();
        let good = r#"{"uid":7,"iss":"i","aud":["a"]}"#;
        assert_eq!(&*verifier.verify(&mint::hs256(HS256, good), NOW).unwrap().user_id, "7");
        assert_invalid(&verifier, &mint::hs256(HS256, &good.replace("\"i\"", "\"j\"")), "iss");
        assert_invalid(&verifier, &mint::hs256(HS256, &good.replace("\"a\"", "\"b\"")), "aud");
        assert_invalid(&verifier, &mint::hs256(HS256, &good.replace("uid", "sub")), "user claim");
    }
}
