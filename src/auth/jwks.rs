//! The Auth Service's key set (RFC 7517), as far as it verifies tokens.
//!
//! Read once per fetch. Fetching it is left to [`authenticator`](super::authenticator).

use super::{
    key::Key,
    object::{Object, array, string},
    token::{Algorithm, KID_MAX_CHARS, KeyError, TokenError},
};

/// The usable keys of one document.
#[derive(Default)]
pub(super) struct KeySet(Vec<Entry>);

struct Entry {
    kid: Option<Box<str>>,
    key: Key,
}

/// Largest document, in bytes.
pub const JWKS_MAX_BYTES: usize = 256 * 1024;
/// Most keys in a document, whether they are usable or not.
pub const JWKS_MAX_KEYS: usize = 64;

impl KeySet {
    /// Reads the keys of these algorithms. Keys that are for something else, or wrong, are passed over, as the RFC
    /// wants it: the set must be able to grow kinds of key that we do not know.
    ///
    /// # Errors
    /// Not a key set, too large, or without a usable key.
    pub(super) fn parse(jwks: &[u8], algorithms: &[Algorithm]) -> Result<Self, KeyError> {
        if jwks.len() > JWKS_MAX_BYTES {
            return Err(KeyError(format!("a key set of {} bytes, at most {JWKS_MAX_BYTES}", jwks.len())));
        }
        let document = str::from_utf8(jwks).ok().and_then(Object::parse);
        let Some(keys) = document.and_then(|set| set.member("keys")).and_then(array) else {
            return Err(KeyError("not a key set: no object with an array `keys`".to_owned()));
        };
        if keys.len() > JWKS_MAX_KEYS {
            return Err(KeyError(format!("a key set of {} keys, at most {JWKS_MAX_KEYS}", keys.len())));
        }
        let usable: Vec<_> = keys.into_iter().filter_map(|key| Entry::parse(key.get(), algorithms)).collect();
        if usable.is_empty() {
            return Err(KeyError("a key set without a usable key".to_owned()));
        }
        Ok(Self(usable))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The one key that a token may be signed with.
    ///
    /// # Errors
    /// [`TokenError::UnknownKey`] if another document might have it, else [`TokenError::Invalid`].
    pub(super) fn select(&self, algorithm: Algorithm, kid: Option<&str>) -> Result<&Key, TokenError> {
        let mut named = self.0.iter().filter(|entry| kid.is_none() || entry.kid.as_deref() == kid).peekable();
        if named.peek().is_none() {
            return Err(TokenError::UnknownKey);
        }
        let mut fitting = named.filter(|entry| entry.key.algorithm() == algorithm);
        match (fitting.next(), fitting.next()) {
            (Some(entry), None) => Ok(&entry.key),
            (Some(_), Some(_)) => Err(TokenError::Invalid("kid: the name of exactly one key")),
            (None, _) if kid.is_none() => Err(TokenError::UnknownKey),
            (None, _) => Err(TokenError::Invalid("kid: a key of the algorithm in alg")),
        }
    }
}

impl Entry {
    fn parse(jwk: &str, algorithms: &[Algorithm]) -> Option<Self> {
        let members = Object::parse(jwk)?;
        let curve = members.string("crv");
        let algorithm = match (members.string("kty")?.as_ref(), curve.as_deref()) {
            ("RSA", None) => Algorithm::Rs256,
            ("EC", Some("P-256")) => Algorithm::Es256,
            ("OKP", Some("Ed25519")) => Algorithm::EdDsa,
            // Among them `oct`: a secret that is published is none.
            _ => return None,
        };
        let kid = match members.member("kid") {
            None => None,
            Some(kid) => Some(string(kid).filter(|kid| kid.chars().count() <= KID_MAX_CHARS)?.into()),
        };
        if !algorithms.contains(&algorithm) {
            return None;
        }
        Some(Self { kid, key: Key::from_jwk(algorithm, jwk)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::mint;

    const ALL: [Algorithm; 3] = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];

    fn parse(keys: &[String]) -> Result<KeySet, KeyError> {
        KeySet::parse(mint::jwks(keys).as_bytes(), &ALL)
    }

    fn algorithm(selected: Result<&Key, TokenError>) -> Result<Algorithm, TokenError> {
        selected.map(Key::algorithm)
    }

    #[test]
    fn usable_keys_are_counted() {
        let rsa = mint::rsa_jwk();
        let p256 = mint::p256_jwk();
        let ed25519 = mint::ed25519_jwk();
        assert!(rsa.contains(r#""use":"sig""#) && rsa.contains(r#""alg":"RS256""#), "{rsa}");
        let without = |jwk: &str, member: &str| jwk.replace(member, r#""x-other":1"#);
        let cases: &[(&str, String, bool)] = &[
            ("RSA", rsa.clone(), true),
            ("P-256", p256.clone(), true),
            ("Ed25519", ed25519.clone(), true),
            ("no use", without(&rsa, r#""use":"sig""#), true),
            ("no alg", without(&rsa, r#""alg":"RS256""#), true),
            ("for encryption", rsa.replace(r#""use":"sig""#, r#""use":"enc""#), false),
            ("alg of another key", rsa.replace("RS256", "ES256"), false),
            ("alg of the same type", rsa.replace("RS256", "PS256"), false),
            ("alg of HMAC", rsa.replace("RS256", "HS256"), false),
            ("alg is no string", rsa.replace(r#""RS256""#, "7"), false),
            ("another curve", p256.replace("P-256", "P-384"), false),
            ("no kty", without(&p256, r#""kty":"EC""#), false),
            ("unknown kty", p256.replace(r#""EC""#, r#""XY""#), false),
            ("off the curve", p256.replace(r#""x":""#, r#""x":"A"#), false),
            ("private", mint::p256_private_jwk(), false),
            ("secret", r#"{"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0"}"#.to_owned(), false),
            ("secret with alg", r#"{"kty":"oct","alg":"HS256","k":"c2VjcmV0c2VjcmV0"}"#.to_owned(), false),
            ("member twice", ed25519.replacen('{', r#"{"use":"sig","#, 1), false),
            ("kid", ed25519.replacen('{', r#"{"kid":"k","#, 1), true),
            ("kid is no string", ed25519.replacen('{', r#"{"kid":7,"#, 1), false),
            ("kid is null", ed25519.replacen('{', r#"{"kid":null,"#, 1), false),
            ("longest kid", ed25519.replacen('{', &format!(r#"{{"kid":"{}","#, "k".repeat(256)), 1), true),
            ("kid too long", ed25519.replacen('{', &format!(r#"{{"kid":"{}","#, "k".repeat(257)), 1), false),
            ("no object", "7".to_owned(), false),
        ];
        // Beside a good one, because a set must have one.
        let good = mint::with_kid(&mint::ed25519_jwk(), "good");
        for (name, jwk, usable) in cases {
            let set = parse(&[good.clone(), jwk.clone()]).unwrap();
            assert_eq!(set.len(), 1 + usize::from(*usable), "{name}: {jwk}");
            assert_eq!(parse(std::slice::from_ref(jwk)).is_ok(), *usable, "{name}, alone");
        }
    }

    #[test]
    fn keys_of_other_algorithms_are_passed_over() {
        let jwks = mint::jwks(&[mint::rsa_jwk(), mint::p256_jwk(), mint::ed25519_jwk()]);
        assert_eq!(KeySet::parse(jwks.as_bytes(), &ALL).unwrap().len(), 3);
        assert_eq!(KeySet::parse(jwks.as_bytes(), &[Algorithm::Es256]).unwrap().len(), 1);
        assert!(KeySet::parse(mint::jwks(&[mint::rsa_jwk()]).as_bytes(), &[Algorithm::Es256]).is_err());
    }

    #[test]
    fn what_is_no_key_set_is_refused() {
        for document in [
            "",
            "{}",
            "[]",
            "null",
            "<html>",
            r#"{"keys":{}}"#,
            r#"{"keys":null}"#,
            r#"{"keys":[]}"#,
            r#"{"keys":[1,2]}"#,
            r#"{"keys":[],"keys":[]}"#,
        ] {
            assert!(KeySet::parse(document.as_bytes(), &ALL).is_err(), "{document}");
        }
        assert!(KeySet::parse(b"\xff\xfe", &ALL).is_err());
    }

    #[test]
    fn number_of_keys_and_bytes_is_limited() {
        let mut keys = vec![mint::ed25519_jwk(); JWKS_MAX_KEYS];
        assert_eq!(parse(&keys).unwrap().len(), JWKS_MAX_KEYS);
        keys.push(r#"{"kty":"other"}"#.to_owned());
        assert!(parse(&keys).is_err());

        let mut document = mint::jwks(&[mint::ed25519_jwk()]);
        document.push_str(&" ".repeat(JWKS_MAX_BYTES - document.len()));
        assert!(KeySet::parse(document.as_bytes(), &ALL).is_ok());
        document.push(' ');
        assert!(KeySet::parse(document.as_bytes(), &ALL).is_err());
    }

    #[test]
    fn kid_selects() {
        let set = parse(&[
            mint::with_kid(&mint::rsa_jwk(), "r"),
            mint::with_kid(&mint::p256_jwk(), "p"),
            mint::with_kid(&mint::ed25519_jwk(), "both"),
            mint::with_kid(&mint::p256_jwk(), "both"),
            mint::with_kid(&mint::p256_jwk(), "twice"),
            mint::with_kid(&mint::p256_jwk(), "twice"),
        ])
        .unwrap();
        use Algorithm::{EdDsa, Es256, Rs256};
        let invalid = |result: Result<Algorithm, TokenError>| matches!(result, Err(TokenError::Invalid(_)));
        assert_eq!(algorithm(set.select(Rs256, Some("r"))), Ok(Rs256));
        assert_eq!(algorithm(set.select(Es256, Some("p"))), Ok(Es256));
        assert_eq!(algorithm(set.select(Es256, Some("both"))), Ok(Es256));
        assert_eq!(algorithm(set.select(EdDsa, Some("both"))), Ok(EdDsa));
        assert!(invalid(algorithm(set.select(Es256, Some("r")))), "a key of another type");
        assert!(invalid(algorithm(set.select(Es256, Some("twice")))), "not clear which");
        for unknown in ["", "R", "r ", "../r", "r\0", "x"] {
            assert_eq!(algorithm(set.select(Rs256, Some(unknown))), Err(TokenError::UnknownKey), "{unknown:?}");
        }
        assert_eq!(algorithm(set.select(Rs256, None)), Ok(Rs256), "the only one");
        assert!(invalid(algorithm(set.select(Es256, None))), "several");
        assert_eq!(algorithm(KeySet::default().select(Es256, None)), Err(TokenError::UnknownKey));
    }
}
