//! Tokens: compact JWS, verified with what the configuration says and nothing that the token says.

use super::Identity;

/// How tokens are verified.
#[derive(Clone)]
pub struct TokenSettings {
    /// Only these, all of one family.
    pub algorithms: Vec<Algorithm>,
    /// Which kind of key, and the key.
    pub key: KeySource,
    /// Overrides `sub`, `user_id`, `identity`, `id`.
    pub user_claim: Option<String>,
    /// Whether `exp` is required.
    pub require_exp: bool,
    /// Must be the token's `iss`.
    pub issuer: Option<String>,
    /// Must be the token's `aud`, or one of them.
    pub audience: Option<String>,
}

/// The algorithms that can be configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// HMAC
    Hs256,
    /// HMAC
    Hs384,
    /// HMAC
    Hs512,
    /// RSA
    Rs256,
    /// P-256
    Es256,
    /// Ed25519
    EdDsa,
}

/// Where the keys come from.
#[derive(Clone)]
pub enum KeySource {
    /// A shared secret, for the HMAC family.
    Secret(Vec<u8>),
    /// One public key in PEM.
    Pem(String),
    /// A key set: [`Verifier::set_keys`] is called with it.
    Jwks,
}

/// Verifies tokens. Shared by all connections.
pub struct Verifier;

/// Why a token was refused. Never holds anything of the token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenError {
    /// Not a token, or one that may not be trusted; says what was expected.
    Invalid(&'static str),
    /// It was good until a while ago.
    Expired,
    /// The key set has no key of that `kid` (any more, or yet).
    UnknownKey,
}

/// Why there is no verifying with such a configuration. Never holds the key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyError(pub String);

impl Verifier {
    /// A verifier for these settings.
    ///
    /// # Errors
    /// The key does not fit the algorithms, or cannot be read.
    pub fn new(_settings: TokenSettings) -> Result<Self, KeyError> {
        Ok(Self)
    }

    /// Verifies a token at `now`, in ms since the epoch.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify(&self, _token: &str, _now: u64) -> Result<Identity, TokenError> {
        Err(TokenError::UnknownKey)
    }

    /// Replaces the key set by what a JWKS document holds, and returns how many keys are usable.
    ///
    /// # Errors
    /// Not a key set, or one without a usable key: the keys stay as they were.
    pub fn set_keys(&self, _jwks: &[u8]) -> Result<usize, KeyError> {
        Ok(0)
    }
}
