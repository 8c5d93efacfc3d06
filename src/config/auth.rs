//! How clients prove who they are: which variables go together, and which kind of key decides.

use std::fmt;

use super::reader::{Reader, parse_pem, parse_text, parse_url, parse_word};
use super::secret::Secret;
use crate::auth::token::{Algorithm, KeySource, TokenSettings};

/// How clients prove who they are.
#[derive(Clone, Debug)]
pub enum Auth {
    /// They do not: the user id is the socket id.
    None,
    /// By a token. Boxed, because it is large and there is one of it.
    Jwt(Box<JwtConfig>),
}

/// How tokens are verified.
#[derive(Clone)]
pub struct JwtConfig {
    /// Algorithms, all of one family, a key of that family, and what the claims must be. Whether a PEM text really is a
    /// key is found out by who uses it.
    pub token: TokenSettings,
    /// Where the key set comes from. `JWKS_URL`; set exactly if the key source is the key set.
    pub jwks_url: Option<Secret>,
}

impl fmt::Debug for JwtConfig {
    /// Everything but the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = match self.token.key {
            KeySource::Secret(_) => "Secret(hidden)",
            KeySource::Pem(_) => "Pem(hidden)",
            KeySource::Jwks => "Jwks",
        };
        f.debug_struct("JwtConfig")
            .field("algorithms", &self.token.algorithms)
            .field("key", &format_args!("{key}"))
            .field("user_claim", &self.token.user_claim)
            .field("require_exp", &self.token.require_exp)
            .field("issuer", &self.token.issuer)
            .field("audience", &self.token.audience)
            .field("jwks_url", &self.jwks_url)
            .finish()
    }
}

/// In production a shorter HMAC key, or key of a service, is refused; elsewhere it is a warning.
pub(super) const MIN_SECRET_BYTES: usize = 16;

/// In production a shorter HMAC key is a warning: RFC 7518 §3.2 wants as many bytes as the hash of HS256 has.
pub(super) const GOOD_SECRET_BYTES: usize = 32;

/// The two kinds of keys. A token of one must never be verified with a key of the other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Hmac,
    PublicKey,
}

impl<L: Fn(&str) -> Option<String>> Reader<L> {
    /// Reads everything that is about tokens, also if there are to be none, and decides which key is used.
    pub(super) fn auth(&mut self) -> Auth {
        let says_jwt = self.optional("AUTH_MODE", |text| parse_word(text, &AUTH_MODES));
        let algorithms = self.optional("JWT_ALGORITHMS", parse_algorithms);
        let public_key = self.optional("JWT_PUBLIC_KEY", parse_public_key);
        let jwks_url = self.optional("JWKS_URL", parse_url).map(Secret::new);
        let secret = HMAC_KEYS.iter().find_map(|name| Some((*name, self.raw(name)?)));
        let require_exp = self.flag("JWT_REQUIRE_EXP");
        let user_claim = self.optional("JWT_USER_CLAIM", parse_text);
        let issuer = self.optional("JWT_ISSUER", parse_text);
        let audience = self.optional("JWT_AUDIENCE", parse_text);

        // By what was set, not by what could be used: a mistake in a key should be one problem and not two.
        let has_public_key = PUBLIC_KEYS.iter().any(|name| self.raw(name).is_some());
        let has_key = has_public_key || secret.is_some();
        if PUBLIC_KEYS.iter().all(|name| self.raw(name).is_some()) {
            self.refuse("JWKS_URL", "to be the only one of JWKS_URL and JWT_PUBLIC_KEY".to_owned());
        }
        if self.raw("AUTH_MODE").is_none() && self.production && !has_key {
            self.refuse("AUTH_MODE", format!("{A_KEY}; or none, said explicitly in production"));
        }
        if says_jwt == Some(true) && !has_key {
            self.refuse("AUTH_MODE", format!("none, or beside it {A_KEY}"));
        }
        if !says_jwt.unwrap_or(has_key) || !has_key {
            return Auth::None;
        }

        let without_algorithms = if has_public_key { Family::PublicKey } else { Family::Hmac };
        let family = algorithms.as_deref().and_then(family_of).unwrap_or(without_algorithms);
        let algorithms = algorithms.unwrap_or_else(|| match family {
            Family::Hmac => vec![Algorithm::Hs256],
            Family::PublicKey => vec![Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa],
        });
        let key = match (family, secret, public_key) {
            (Family::Hmac, Some((name, secret)), _) => {
                if self.production && secret.len() < MIN_SECRET_BYTES {
                    self.refuse(name, too_short());
                }
                KeySource::Secret(secret.into_bytes())
            }
            (Family::Hmac, None, _) => {
                let expected = "RS256, ES256 or EdDSA, because the key that is set is a public one; \
                                HS256, HS384 and HS512 take JWT_SECRET_KEY or SECRET_KEY";
                self.refuse("JWT_ALGORITHMS", expected.to_owned());
                return Auth::None;
            }
            (Family::PublicKey, _, Some(pem)) => KeySource::Pem(pem),
            (Family::PublicKey, ..) => {
                if !has_public_key {
                    let expected = "HS256, HS384 or HS512, because the key that is set is a secret; \
                                    RS256, ES256 and EdDSA take JWT_PUBLIC_KEY or JWKS_URL";
                    self.refuse("JWT_ALGORITHMS", expected.to_owned());
                }
                KeySource::Jwks
            }
        };
        let jwks_url = jwks_url.filter(|_| matches!(key, KeySource::Jwks));
        let token = TokenSettings { algorithms, key, user_claim, require_exp, issuer, audience };
        Auth::Jwt(Box::new(JwtConfig { token, jwks_url }))
    }

    /// The key of other services. It travels in a header, where blanks at its ends would be lost.
    pub(super) fn api_key(&mut self) -> Option<Secret> {
        let production = self.production;
        let key = self.optional("CHAT_API_KEY", |text| {
            if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                Err("ASCII characters without blanks and line ends, as a header can carry them".to_owned())
            } else if production && text.len() < MIN_SECRET_BYTES {
                Err(too_short())
            } else {
                Ok(text.to_owned())
            }
        });
        key.map(Secret::new)
    }
}

fn too_short() -> String {
    format!("at least {MIN_SECRET_BYTES} bytes in production, better {GOOD_SECRET_BYTES}")
}

/// A comma list of one family; a name that stands twice counts once.
fn parse_algorithms(text: &str) -> Result<Vec<Algorithm>, String> {
    let expected = || {
        "a comma list of HS256, HS384, HS512, or one of RS256, ES256, EdDSA; never of both, or a public key \
         could be taken for a secret"
            .to_owned()
    };
    let mut algorithms = Vec::new();
    for name in text.split(',').map(str::trim) {
        let (_, algorithm, _) = ALGORITHMS.iter().find(|(known, ..)| *known == name).ok_or_else(expected)?;
        if !algorithms.contains(algorithm) {
            algorithms.push(*algorithm);
        }
    }
    family_of(&algorithms).map(|_| algorithms).ok_or_else(expected)
}

/// The family to which all of them belong.
fn family_of(algorithms: &[Algorithm]) -> Option<Family> {
    let mut families = ALGORITHMS.iter().filter(|(_, known, _)| algorithms.contains(known)).map(|(.., family)| *family);
    let first = families.next()?;
    families.all(|family| family == first).then_some(first)
}

fn parse_public_key(text: &str) -> Result<String, String> {
    let pem = parse_pem(text, "PUBLIC KEY-----");
    pem.ok_or_else(|| "a public key in PEM, from -----BEGIN PUBLIC KEY----- to its end, and nothing private".to_owned())
}

const AUTH_MODES: [(&str, bool); 2] = [("jwt", true), ("none", false)];

/// The first that is set is used.
const HMAC_KEYS: [&str; 2] = ["JWT_SECRET_KEY", "SECRET_KEY"];

const PUBLIC_KEYS: [&str; 2] = ["JWT_PUBLIC_KEY", "JWKS_URL"];

const A_KEY: &str = "a key (JWT_SECRET_KEY, SECRET_KEY, JWT_PUBLIC_KEY or JWKS_URL)";

/// As RFC 7518 and RFC 8037 name them.
const ALGORITHMS: [(&str, Algorithm, Family); 6] = [
    ("HS256", Algorithm::Hs256, Family::Hmac),
    ("HS384", Algorithm::Hs384, Family::Hmac),
    ("HS512", Algorithm::Hs512, Family::Hmac),
    ("RS256", Algorithm::Rs256, Family::PublicKey),
    ("ES256", Algorithm::Es256, Family::PublicKey),
    ("EdDSA", Algorithm::EdDsa, Family::PublicKey),
];
