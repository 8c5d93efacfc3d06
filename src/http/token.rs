//! Tokens and comma lists, the two shapes most header values have (RFC 9110 §5.6).

/// `tchar` of RFC 9110 §5.6.2: what methods, field names and list tokens are made of.
pub(super) const fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

/// Whether `bytes` is a token: one `tchar` or more, nothing else.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().copied().all(is_tchar)
}

/// A byte that no part of a head or trailer may hold: controls other than the tab (RFC 9110 §5.5).
pub(super) const fn is_forbidden_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

/// The elements of a comma list, without the whitespace around them; empty elements are skipped.
///
/// Knows no quoted strings: none of the lists that decide anything here has them.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_the_bytes_of_the_rfc() {
        let allowed = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        for byte in 0..=u8::MAX {
            assert_eq!(is_tchar(byte), allowed.contains(&byte), "{byte:#04x}");
        }
        assert!(is_token(b"websocket"));
        assert!(!is_token(b""));
        assert!(!is_token(b"a b"));
    }

    #[test]
    fn lists_are_split_and_trimmed() {
        let cases: &[(&[u8], &[&[u8]])] =
            &[(b"", &[]), (b"a", &[b"a"]), (b" a ,\tb", &[b"a", b"b"]), (b",, a,,", &[b"a"])];
        for (value, expected) in cases {
            assert_eq!(list(value).collect::<Vec<_>>(), *expected, "{value:?}");
        }
    }
}
