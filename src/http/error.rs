//! What can be wrong with a request, and which answer that deserves.

use std::fmt;

/// Why a request gets an error for an answer. Built by the parsers of this module and by the router.
///
/// The answer is made by [`Response::from_error`](super::Response::from_error) alone. Display says
/// what was expected, never what was sent: it goes into the answer's body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HttpError {
    /// A CR without LF or an LF without CR where a line may end.
    LineEnd,
    /// A NUL or another control byte in the head or in trailers.
    ControlByte,
    /// More empty lines before the request line than anybody sends by accident.
    EmptyLines,
    /// The first line is not `method SP target SP version`.
    RequestLine,
    /// The target is neither a path nor an `http:` or `https:` URL, nor `*` with OPTIONS.
    Target,
    /// A header line begins with whitespace: folded, or hidden behind the request line.
    Folded,
    /// A header line is not `name ":" value`; includes a space before the colon.
    Field,
    /// An HTTP/1.1 request without Host.
    HostMissing,
    /// More than one Host.
    HostRepeated,
    /// The Host is not `host[:port]`.
    HostInvalid,
    /// Content-Length is not one number of decimal digits below 2^64.
    LengthInvalid,
    /// More than one Content-Length, even if they agree.
    LengthRepeated,
    /// Content-Length beside Transfer-Encoding.
    LengthWithCoding,
    /// Transfer-Encoding is not exactly `chunked`, once.
    TransferCoding,
    /// Transfer-Encoding in an HTTP/1.0 request.
    CodingInHttp10,
    /// A chunk's size line is not 1–16 hexadecimal digits, then CRLF or an extension.
    ChunkSize,
    /// A chunk's data is not followed by CRLF.
    ChunkEnd,
    /// A chunk extension holds a control byte, or all of a body's extensions together are too long.
    ChunkExtension {
        /// Bytes that the extensions of one body may have together.
        max_bytes: usize,
    },
    /// The Origin header holds bytes that no origin has.
    OriginMalformed,
    /// The Origin is not allowed by `CORS_ALLOWED_ORIGINS`.
    OriginForbidden,
    /// No such path.
    NotFound,
    /// The path exists, but not with this method.
    MethodNotAllowed {
        /// The value of the answer's Allow header, such as `GET, HEAD`.
        allow: &'static str,
    },
    /// The request was not complete in time.
    RequestTimeout,
    /// The body is longer than its route takes, as announced or as counted.
    BodyTooLarge {
        /// Bytes that the route takes.
        max_bytes: usize,
    },
    /// The request target is too long.
    TargetTooLong {
        /// Bytes that a target may have.
        max_bytes: usize,
    },
    /// The body's Content-Type is not one that the route reads.
    UnsupportedMediaType {
        /// The type it reads, such as `application/json`.
        expected: &'static str,
    },
    /// Expect asks for something other than `100-continue`.
    ExpectationFailed,
    /// The head is too long.
    HeadTooLarge {
        /// Bytes that a head may have.
        max_bytes: usize,
    },
    /// The head has too many header lines.
    TooManyHeaders {
        /// Lines that a head may have.
        max_headers: usize,
    },
    /// The trailers after a chunked body are too long.
    TrailersTooLarge {
        /// Bytes that the trailers may have together.
        max_bytes: usize,
    },
    /// The client asks too often, or has too much open.
    RateLimited {
        /// When to try again; sent in the body, and rounded up to seconds as Retry-After.
        retry_after_ms: u32,
    },
    /// Our fault.
    Internal,
    /// A method that no route has.
    MethodUnknown,
    /// The service cannot answer now: too many connections, draining, or Redis is away.
    Unavailable {
        /// When to try again; sent in the body, and rounded up to seconds as Retry-After.
        retry_after_ms: u32,
    },
    /// The request's major version is not 1.
    VersionUnsupported,
}

impl HttpError {
    /// The answer's status code.
    pub const fn status(&self) -> u16 {
        match self {
            Self::LineEnd
            | Self::ControlByte
            | Self::EmptyLines
            | Self::RequestLine
            | Self::Target
            | Self::Folded
            | Self::Field
            | Self::HostMissing
            | Self::HostRepeated
            | Self::HostInvalid
            | Self::LengthInvalid
            | Self::LengthRepeated
            | Self::LengthWithCoding
            | Self::TransferCoding
            | Self::CodingInHttp10
            | Self::ChunkSize
            | Self::ChunkEnd
            | Self::ChunkExtension { .. }
            | Self::OriginMalformed => 400,
            Self::OriginForbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed { .. } => 405,
            Self::RequestTimeout => 408,
            Self::BodyTooLarge { .. } => 413,
            Self::TargetTooLong { .. } => 414,
            Self::UnsupportedMediaType { .. } => 415,
            Self::ExpectationFailed => 417,
            Self::HeadTooLarge { .. } | Self::TooManyHeaders { .. } | Self::TrailersTooLarge { .. } => 431,
            Self::RateLimited { .. } => 429,
            Self::Internal => 500,
            Self::MethodUnknown => 501,
            Self::Unavailable { .. } => 503,
            Self::VersionUnsupported => 505,
        }
    }

    /// The stable name in the answer's body and in metric labels: the contract's code where it has one.
    pub const fn code(&self) -> &'static str {
        match self.status() {
            403 => "forbidden",
            404 => "not_found",
            405 => "method_not_allowed",
            408 => "request_timeout",
            413 => "too_large",
            414 => "uri_too_long",
            415 => "unsupported_media_type",
            417 => "expectation_failed",
            429 => "rate_limited",
            431 => "headers_too_large",
            500 => "internal",
            501 => "not_implemented",
            503 => "unavailable",
            505 => "version_not_supported",
            _ => "bad_request",
        }
    }

    /// Whether the connection must end with this answer, because the place where the next request
    /// begins is not known, or because what stands there is not worth reading.
    ///
    /// Of the others the caller still has to read the request's body, or close as well.
    pub const fn closes(&self) -> bool {
        !matches!(
            self,
            Self::OriginMalformed
                | Self::OriginForbidden
                | Self::NotFound
                | Self::MethodNotAllowed { .. }
                | Self::UnsupportedMediaType { .. }
                | Self::RateLimited { .. }
                | Self::Unavailable { .. }
        )
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LineEnd => f.write_str("expected every line to end with CR LF"),
            Self::ControlByte => f.write_str("expected no control bytes in a header"),
            Self::EmptyLines => f.write_str("expected a request line after the empty lines"),
            Self::RequestLine => f.write_str("expected a request line of method, target and version"),
            Self::Target => f.write_str("expected a request target that is a path"),
            Self::Folded => f.write_str("expected no header line that begins with whitespace"),
            Self::Field => f.write_str("expected header lines of the form name: value"),
            Self::HostMissing => f.write_str("expected a Host header"),
            Self::HostRepeated => f.write_str("expected one Host header only"),
            Self::HostInvalid => f.write_str("expected a Host of the form host or host:port"),
            Self::LengthInvalid => f.write_str("expected a Content-Length of decimal digits only"),
            Self::LengthRepeated => f.write_str("expected one Content-Length only"),
            Self::LengthWithCoding => f.write_str("expected Content-Length or Transfer-Encoding, not both"),
            Self::TransferCoding => f.write_str("expected no Transfer-Encoding but chunked"),
            Self::CodingInHttp10 => f.write_str("expected no Transfer-Encoding in HTTP/1.0"),
            Self::ChunkSize => f.write_str("expected a chunk size of 1 to 16 hexadecimal digits"),
            Self::ChunkEnd => f.write_str("expected CR LF after a chunk's data"),
            Self::ChunkExtension { max_bytes } => {
                write!(f, "expected chunk extensions without control bytes, at most {max_bytes} bytes in all")
            }
            Self::OriginMalformed => f.write_str("expected an Origin of visible ASCII characters"),
            Self::OriginForbidden => f.write_str("expected an Origin that this service allows"),
            Self::NotFound => f.write_str("expected a path that exists"),
            Self::MethodNotAllowed { allow } => write!(f, "expected one of the methods {allow}"),
            Self::RequestTimeout => f.write_str("expected the whole request sooner"),
            Self::BodyTooLarge { max_bytes } => write!(f, "expected a body of at most {max_bytes} bytes"),
            Self::TargetTooLong { max_bytes } => write!(f, "expected a request target of at most {max_bytes} bytes"),
            Self::UnsupportedMediaType { expected } => write!(f, "expected a body of type {expected}"),
            Self::ExpectationFailed => f.write_str("expected no Expect but 100-continue"),
            Self::HeadTooLarge { max_bytes } => write!(f, "expected a request head of at most {max_bytes} bytes"),
            Self::TooManyHeaders { max_headers } => write!(f, "expected at most {max_headers} header lines"),
            Self::TrailersTooLarge { max_bytes } => write!(f, "expected trailers of at most {max_bytes} bytes"),
            Self::RateLimited { retry_after_ms } => {
                write!(f, "expected fewer requests, try again in {retry_after_ms} ms")
            }
            Self::Internal => f.write_str("the server failed to answer"),
            Self::MethodUnknown => f.write_str("expected a method that this service knows"),
            Self::Unavailable { retry_after_ms } => {
                write!(f, "the service cannot answer now, try again in {retry_after_ms} ms")
            }
            Self::VersionUnsupported => f.write_str("expected HTTP/1.1 or HTTP/1.0"),
        }
    }
}

impl std::error::Error for HttpError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_code() {
        let cases = [
            (HttpError::LineEnd, 400, "bad_request", true),
            (HttpError::LengthWithCoding, 400, "bad_request", true),
            (HttpError::OriginMalformed, 400, "bad_request", false),
            (HttpError::OriginForbidden, 403, "forbidden", false),
            (HttpError::NotFound, 404, "not_found", false),
            (HttpError::MethodNotAllowed { allow: "GET" }, 405, "method_not_allowed", false),
            (HttpError::RequestTimeout, 408, "request_timeout", true),
            (HttpError::BodyTooLarge { max_bytes: 1 }, 413, "too_large", true),
            (HttpError::TargetTooLong { max_bytes: 1 }, 414, "uri_too_long", true),
            (HttpError::UnsupportedMediaType { expected: "text/plain" }, 415, "unsupported_media_type", false),
            (HttpError::ExpectationFailed, 417, "expectation_failed", true),
            (HttpError::HeadTooLarge { max_bytes: 1 }, 431, "headers_too_large", true),
            (HttpError::TooManyHeaders { max_headers: 1 }, 431, "headers_too_large", true),
            (HttpError::RateLimited { retry_after_ms: 1 }, 429, "rate_limited", false),
            (HttpError::Internal, 500, "internal", true),
            (HttpError::MethodUnknown, 501, "not_implemented", true),
            (HttpError::Unavailable { retry_after_ms: 1 }, 503, "unavailable", false),
            (HttpError::VersionUnsupported, 505, "version_not_supported", true),
        ];
        for (error, status, code, closes) in cases {
            assert_eq!((error.status(), error.code(), error.closes()), (status, code, closes), "{error:?}");
            let text = error.to_string();
            assert!(text.starts_with(char::is_lowercase) && !text.ends_with('.'), "{text}");
        }
        assert!(size_of::<HttpError>() <= 24);
    }
}
