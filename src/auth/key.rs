//! Keys, and whether one of them made a signature.
//!
//! A key belongs to one algorithm for good, so that a token cannot have a public key used as a shared secret.

use jwt_simple::{
    prelude::{
        Duration, ECDSAP256PublicKeyLike as _, ES256PublicKey, Ed25519PublicKey, EdDSAPublicKeyLike as _, HS256Key,
        HS384Key, HS512Key, MACLike, NoCustomClaims, RS256PublicKey, RSAPublicKeyLike as _, Token, UnixTimeStamp,
        VerificationOptions,
    },
    reexports::{ct_codecs, serde_json},
};

use super::{
    claims,
    token::{Algorithm, KeyError},
};

/// A key and its algorithm.
pub(super) enum Key {
    Hs256(HS256Key),
    Hs384(HS384Key),
    Hs512(HS512Key),
    Rs256(Box<RS256PublicKey>),
    Es256(Box<ES256PublicKey>),
    EdDsa(Ed25519PublicKey),
}

/// A token taken apart and decoded, of which nothing is believed yet.
pub(super) struct Signed<'a> {
    /// All of it, as it came.
    pub(super) token: &'a str,
    /// What is signed: header and payload as they came, with the dot between them.
    pub(super) message: &'a str,
    /// The payload: JSON, if it is any good.
    pub(super) payload: &'a str,
    pub(super) signature: &'a [u8],
}

impl Key {
    /// The shared secret of one of the HMAC algorithms; `None` for the others.
    pub(super) fn from_secret(algorithm: Algorithm, secret: &[u8]) -> Option<Self> {
        match algorithm {
            Algorithm::Hs256 => Some(Self::Hs256(HS256Key::from_bytes(secret))),
            Algorithm::Hs384 => Some(Self::Hs384(HS384Key::from_bytes(secret))),
            Algorithm::Hs512 => Some(Self::Hs512(HS512Key::from_bytes(secret))),
            Algorithm::Rs256 | Algorithm::Es256 | Algorithm::EdDsa => None,
        }
    }

    /// A public key in PEM: SPKI for all, PKCS#1 for RSA too. RSA keys have 2048–4096 bits and the exponent 65537.
    ///
    /// # Errors
    /// It is none of these. Private keys and certificates are not taken either.
    pub(super) fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let pem = pem.trim();
        let rsa = || RS256PublicKey::from_pem(pem).ok().map(|key| Self::Rs256(Box::new(key)));
        let p256 = || ES256PublicKey::from_pem(pem).ok().map(|key| Self::Es256(Box::new(key)));
        let ed25519 = || Ed25519PublicKey::from_pem(pem).ok().map(Self::EdDsa);
        rsa().or_else(p256).or_else(ed25519).ok_or_else(|| {
            KeyError("the key is not a public key in PEM: RSA of 2048-4096 bits, EC P-256 or Ed25519".to_owned())
        })
    }

    /// A public key as a JWK, read strictly: `use` and `key_ops` allow it to verify signatures, `alg` is absent or
    /// `algorithm`, and nothing of a private key is there. `None` for all others.
    pub(super) fn from_jwk(algorithm: Algorithm, jwk: &str) -> Option<Self> {
        match algorithm {
            Algorithm::Rs256 => Some(Self::Rs256(Box::new(RS256PublicKey::from_jwk(jwk).ok()?))),
            Algorithm::Es256 => Some(Self::Es256(Box::new(ES256PublicKey::from_jwk(jwk).ok()?))),
            Algorithm::EdDsa => Some(Self::EdDsa(Ed25519PublicKey::from_jwk(jwk).ok()?)),
            Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => None,
        }
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Hs256(_) => Algorithm::Hs256,
            Self::Hs384(_) => Algorithm::Hs384,
            Self::Hs512(_) => Algorithm::Hs512,
            Self::Rs256(_) => Algorithm::Rs256,
            Self::Es256(_) => Algorithm::Es256,
            Self::EdDsa(_) => Algorithm::EdDsa,
        }
    }

    /// Whether this key made the signature. Secrets are compared in constant time.
    pub(super) fn signed(&self, signed: &Signed<'_>) -> bool {
        match self {
            Self::Hs256(key) => is_tag(key, signed),
            Self::Hs384(key) => is_tag(key, signed),
            Self::Hs512(key) => is_tag(key, signed),
            Self::Rs256(key) => is_accepted(key.verify_token::<NoCustomClaims>(signed.token, options()), signed),
            Self::Es256(key) => is_accepted(key.verify_token::<NoCustomClaims>(signed.token, options()), signed),
            Self::EdDsa(key) => signed
                .signature
                .try_into()
                .is_ok_and(|signature| key.public_key().as_ref().verify(signed.message, &signature).is_ok()),
        }
    }
}

/// Not by `verify_token`, which takes no secret under 12 bytes and no integer as `sub`.
fn is_tag(key: &impl MACLike, signed: &Signed<'_>) -> bool {
    ct_codecs::verify(&key.authentication_tag(signed.message.as_bytes()), signed.signature)
}

/// The library looks at the signature only. Claims, and the time above all, are for `claims`: the library's clock has
/// whole seconds, and wraps in 2106. So it is 1970 for the library, where everything is still good.
fn options() -> Option<VerificationOptions> {
    Some(VerificationOptions {
        accept_future: true,
        time_tolerance: Some(Duration::from_secs(0)),
        artificial_time: Some(UnixTimeStamp::from_secs(0)),
        ..VerificationOptions::default()
    })
}

/// Whether `verify_token` accepted the signature.
///
/// It offers no other way to the keys of RSA and P-256, and where `sub` or `jti` is an integer it cannot read the
/// claims. It reads the header, checks the signature, and reads the claims, in that order: so if the header can be
/// read, and JSON could not, the signature was good. A test holds it to that order.
fn is_accepted<T>(verified: Result<T, jwt_simple::Error>, signed: &Signed<'_>) -> bool {
    match verified {
        Ok(_) => true,
        Err(error) => {
            error.is::<serde_json::Error>()
                && claims::have_integer_ids(signed.payload)
                && Token::decode_metadata(signed.token).is_ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ed25519_vector_of_rfc_8037() {
        // Appendix A.4. The payload is no JSON, which is not this module's business.
        let message = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let tag = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        let jwk = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let token = format!("{message}.{tag}");
        let signature = super::super::mint::decode(tag);
        let key = Key::from_jwk(Algorithm::EdDsa, jwk).unwrap();
        let long = [&signature[..], &[0]].concat();
        let signed = |message, signature| key.signed(&Signed { token: &token, message, payload: "", signature });
        assert!(signed(message, &signature));
        assert!(!signed("eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmd", &signature));
        assert!(!signed(message, &signature[..63]));
        assert!(!signed(message, &long));
        assert!(!signed(message, &[]));
    }

    #[test]
    fn pem_tells_the_kind_of_key() {
        use super::super::mint;
        for (pem, algorithm) in [
            (mint::rsa_pem(), Algorithm::Rs256),
            (mint::p256_pem(), Algorithm::Es256),
            (mint::ed25519_pem(), Algorithm::EdDsa),
            (format!("\n  {}\r\n\n", mint::p256_pem().trim()), Algorithm::Es256),
        ] {
            assert_eq!(Key::from_pem(&pem).map(|key| key.algorithm()), Ok(algorithm), "{pem}");
        }
    }

    #[test]
    fn other_pem_is_refused() {
        use super::super::mint;
        let cut = mint::rsa_pem().replace('A', "");
        for pem in [
            "",
            "secret",
            "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &cut,
            &mint::p256_private_pem(),
            // 1024 bits.
            "-----BEGIN PUBLIC KEY-----\nMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDmj+sfBOoYd/YLGdnsz6tKtL3A\n\
             wv/+mvkXQD05vAnZEmEFhu1ZQKw2W5bq32e64pAH95spLsgvfEEsu4+IU+MACbff\n\
             92H2ZD2eUBzzqFhhnYv9Z/13eWQXYUVDmtA/VSftZdPLnCGQn3A1BBDC63KvNqh6\n\
             bIIPT5uWAj3tIX9C2QIDAQAB\n-----END PUBLIC KEY-----",
        ] {
            assert!(Key::from_pem(pem).is_err(), "{pem}");
        }
    }
}
