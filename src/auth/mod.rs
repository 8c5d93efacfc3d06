//! Who somebody is, and what they may do.
//!
//! [`token`] turns a token into an [`Identity`]; [`jwks`] reads the Auth Service's key set, which [`authenticator`]
//! fetches; [`access`] decides rights.
//! Nothing here reads a clock or opens a connection: `now` is an argument, and HTTP goes through [`Fetch`].
//! The chat asks before it does anything.

pub mod access;
pub mod authenticator;
mod claims;
pub mod identity;
pub mod jwks;
mod key;
#[cfg(test)]
mod mint;
mod object;
pub mod token;

use std::{future::Future, pin::Pin, time::Duration};

pub use access::Access;
pub use authenticator::Authenticator;
pub use identity::{Identity, Meetings, Right};

/// Makes HTTP requests to the Auth Service. `fetch::Client` does it; tests answer by themselves.
pub trait Fetch: Send + Sync + 'static {
    /// One request and its answer.
    fn fetch(
        &self,
        request: FetchRequest,
    ) -> Pin<Box<dyn Future<Output = Result<FetchResponse, FetchError>> + Send + '_>>;
}

/// A request to the Auth Service.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// `http://` or `https://`.
    pub url: String,
    /// A JSON body to `POST`, or nothing for a `GET`.
    pub json: Option<String>,
    /// For everything: name look-up, connecting, TLS, the answer.
    pub timeout: Duration,
    /// Longest body of an answer.
    pub max_bytes: usize,
}

/// An answer of the Auth Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchResponse {
    /// The HTTP status.
    pub status: u16,
    /// Complete.
    pub body: Vec<u8>,
}

/// Why there was no answer. For logs: never the URL's credentials or query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FetchError {
    /// Not a URL that can be fetched.
    BadUrl,
    /// Name look-up, connection, TLS or HTTP failed, with what the library says.
    Failed(String),
    /// Not within the timeout.
    Timeout,
    /// The body is longer than allowed.
    TooLarge,
}
