//! Keys, tokens and key sets for the tests of this module.

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jwt_simple::prelude::{
    ECDSAP256KeyPairLike as _, ES256KeyPair, Ed25519KeyPair, EdDSAKeyPairLike as _, HS256Key, HS384Key, HS512Key,
    JWTClaims, MACLike, RS256KeyPair, RSAKeyPairLike as _,
};
use serde_json::{Map, Value};

use super::token::{Algorithm, KeySource, TokenSettings};

/// When the tests take place, in ms since the epoch.
pub(super) const NOW: u64 = 1_700_000_000_000;
pub(super) const SECRET: &[u8] = b"a secret of thirty-two bytes, ok";
/// Good for an hour.
pub(super) const CLAIMS: &str = r#"{"sub":"u1","exp":1700003600}"#;

static RSA: LazyLock<RS256KeyPair> = LazyLock::new(|| RS256KeyPair::generate(2048).unwrap());
static P256: LazyLock<ES256KeyPair> = LazyLock::new(ES256KeyPair::generate);
static ED25519: LazyLock<Ed25519KeyPair> = LazyLock::new(Ed25519KeyPair::generate);

pub(super) fn settings(algorithms: &[Algorithm], key: KeySource) -> TokenSettings {
    let algorithms = algorithms.to_vec();
    TokenSettings { algorithms, key, user_claim: None, require_exp: true, issuer: None, audience: None }
}

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn decode(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// A token of any header and payload, signed by `sign`.
pub(super) fn token(header: &str, payload: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", encode(header), encode(payload));
    let signature = encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

pub(super) fn hs256(header: &str, payload: &str) -> String {
    hs256_with(SECRET, header, payload)
}

pub(super) fn hs256_with(secret: &[u8], header: &str, payload: &str) -> String {
    token(header, payload, |message| HS256Key::from_bytes(secret).authentication_tag(message))
}

pub(super) fn hs384(header: &str, payload: &str) -> String {
    token(header, payload, |message| HS384Key::from_bytes(SECRET).authentication_tag(message))
}

pub(super) fn hs512(header: &str, payload: &str) -> String {
    token(header, payload, |message| HS512Key::from_bytes(SECRET).authentication_tag(message))
}

pub(super) fn ed25519(header: &str, payload: &str) -> String {
    token(header, payload, |message| ED25519.key_pair().as_ref().sk.sign(message, None).to_vec())
}

/// The library signs with these two keys only what it has written itself.
pub(super) fn rs256(kid: &str, payload: &str) -> String {
    RSA.clone().with_key_id(kid).sign(claims(payload)).unwrap()
}

pub(super) fn es256(payload: &str) -> String {
    P256.sign(claims(payload)).unwrap()
}

fn claims(payload: &str) -> JWTClaims<Map<String, Value>> {
    let mut claims = JWTClaims::new();
    claims.custom = serde_json::from_str(payload).unwrap();
    claims
}

pub(super) fn rsa_pem() -> String {
    RSA.public_key().to_pem().unwrap()
}

pub(super) fn rsa_der() -> Vec<u8> {
    RSA.public_key().to_der().unwrap()
}

pub(super) fn p256_pem() -> String {
    P256.public_key().to_pem().unwrap()
}

pub(super) fn p256_private_pem() -> String {
    P256.to_pem().unwrap()
}

pub(super) fn ed25519_pem() -> String {
    ED25519.public_key().to_pem()
}

pub(super) fn rsa_jwk() -> String {
    RSA.public_key().to_jwk()
}

pub(super) fn p256_jwk() -> String {
    P256.public_key().to_jwk()
}

pub(super) fn p256_private_jwk() -> String {
    P256.to_jwk()
}

pub(super) fn ed25519_jwk() -> String {
    ED25519.public_key().to_jwk()
}

pub(super) fn with_kid(jwk: &str, kid: &str) -> String {
    jwk.replacen('{', &format!(r#"{{"kid":"{kid}","#), 1)
}

pub(super) fn jwks(keys: &[String]) -> String {
    format!(r#"{{"keys":[{}]}}"#, keys.join(","))
}
