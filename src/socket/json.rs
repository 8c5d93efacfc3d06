//! Walks over JSON text without building values.
//!
//! The text has been checked by serde_json before. On any other text the walk ends as well, it only finds nonsense.

/// What a lexeme is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Token {
    /// `[` or `{`.
    Open,
    /// `]` or `}`.
    Close,
    Comma,
    Colon,
    /// A string with its quotes, a number, `true`, `false` or `null`.
    Atom,
}

/// The lexemes of a JSON text, each with its offset.
struct Lexemes<'a> {
    text: &'a str,
    offset: usize,
}

impl<'a> Iterator for Lexemes<'a> {
    type Item = (Token, usize, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.text.as_bytes();
        while bytes.get(self.offset).is_some_and(|byte| is_whitespace(*byte)) {
            self.offset += 1;
        }
        let start = self.offset;
        let (token, end) = match bytes.get(start)? {
            b'[' | b'{' => (Token::Open, start + 1),
            b']' | b'}' => (Token::Close, start + 1),
            b',' => (Token::Comma, start + 1),
            b':' => (Token::Colon, start + 1),
            b'"' => (Token::Atom, string_end(bytes, start + 1)),
            _ => (Token::Atom, scalar_end(bytes, start + 1)),
        };
        self.offset = end;
        Some((token, start, self.text.get(start..end).unwrap_or("")))
    }
}

fn lexemes(text: &str) -> Lexemes<'_> {
    Lexemes { text, offset: 0 }
}

/// The offset behind the closing quote of the string whose content begins at `at`.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    loop {
        // Most of a packet is the inside of strings: eight bytes a step there, while none of them is of interest.
        while let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
            let eight = u64::from_le_bytes(*eight);
            if has_byte(eight, b'"') || has_byte(eight, b'\\') {
                break;
            }
            at += 8;
        }
        match bytes.get(at) {
            None => return bytes.len(),
            Some(b'"') => return at + 1,
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
        }
    }
}

/// Whether one of the eight bytes is `byte`: the usual trick, in which the subtraction borrows into the top bit of a
/// byte that became zero.
fn has_byte(eight: u64, byte: u8) -> bool {
    const LOW_BITS: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; 8]);
    let zero_where_equal = eight ^ u64::from_ne_bytes([byte; 8]);
    zero_where_equal.wrapping_sub(LOW_BITS) & !zero_where_equal & HIGH_BITS != 0
}

fn scalar_end(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(|byte| !is_whitespace(*byte) && !is_structural(*byte)) {
        at += 1;
    }
    at
}

fn is_structural(byte: u8) -> bool {
    matches!(byte, b',' | b':' | b'[' | b']' | b'{' | b'}' | b'"')
}

fn is_whitespace(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// `text` without the whitespace that JSON allows around a value. (A form feed, which this drops too, it allows nowhere.)
fn trim(text: &str) -> &str {
    text.trim_ascii()
}

/// The brackets, commas and colons outside of strings, each with its offset.
fn marks(text: &str) -> impl Iterator<Item = (usize, u8)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let offset = at;
            match *bytes.get(at)? {
                b'"' => at = string_end(bytes, at + 1),
                byte => {
                    at += 1;
                    if is_structural(byte) {
                        return Some((offset, byte));
                    }
                }
            }
        }
    })
}

/// Whether brackets are nested at most `max` deep.
pub(super) fn is_within_depth(text: &str, max: usize) -> bool {
    let mut depth = 0_usize;
    for (_, mark) in marks(text) {
        match mark {
            b'[' | b'{' if depth >= max => return false,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

/// An array, cut where a packet has need of it. All parts are trimmed, and empty if there is no such value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cuts<'a> {
    /// All values, without the array's brackets.
    pub(super) all: &'a str,
    pub(super) first: &'a str,
    /// All values but the first.
    pub(super) behind_first: &'a str,
    pub(super) second: &'a str,
}

/// Cuts an array, or finds it nested more than `max` deep. In one walk, because every event comes through here.
pub(super) fn cut_array(array: &str, max: usize) -> Option<Cuts<'_>> {
    let end = array.len().saturating_sub(1);
    let (mut first_end, mut second_end) = (None, None);
    let mut depth = 0_usize;
    for (offset, mark) in marks(array) {
        match mark {
            b'[' | b'{' if depth >= max => return None,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 1 && first_end.is_none() => first_end = Some(offset),
            b',' if depth == 1 && second_end.is_none() => second_end = Some(offset),
            _ => {}
        }
    }
    let part = |from: usize, to: usize| trim(array.get(from..to).unwrap_or(""));
    let behind_first = first_end.map_or(end, |comma| comma + 1);
    Some(Cuts {
        all: part(1, end),
        first: part(1, first_end.unwrap_or(end)),
        behind_first: part(behind_first, end),
        second: part(behind_first, second_end.unwrap_or(end)),
    })
}

/// Cuts a list of values (an array's text without its brackets) behind the first: that value, and what follows the
/// comma, if there is one.
pub(super) fn split_first(list: &str) -> (&str, Option<&str>) {
    let mut depth = 0_usize;
    for (offset, mark) in marks(list) {
        match mark {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                let (first, rest) = list.split_at_checked(offset).unwrap_or((list, ""));
                return (trim(first), rest.strip_prefix(','));
            }
            _ => {}
        }
    }
    (trim(list), None)
}

/// Whether every `{"_placeholder":true,"num":i}` in the text has an integer below `attachments` for `i`.
///
/// As in JavaScript, the last of two equal keys counts, and further keys make no difference.
pub(super) fn are_placeholders_valid(text: &str, attachments: usize) -> bool {
    let mut stack: Vec<Bracket> = Vec::new();
    let mut last_atom = "";
    for (token, _, lexeme) in lexemes(text) {
        match token {
            Token::Open => {
                if let Some(outer) = stack.last_mut() {
                    outer.take_value(lexeme, attachments);
                }
                stack.push(Bracket::default());
            }
            Token::Close => {
                if stack.pop().is_some_and(|bracket| bracket.is_placeholder && !bracket.is_num_valid) {
                    return false;
                }
            }
            Token::Colon => {
                if let Some(bracket) = stack.last_mut() {
                    bracket.key = Key::read(last_atom);
                }
            }
            Token::Comma => {
                if let Some(bracket) = stack.last_mut() {
                    bracket.key = Key::None;
                }
            }
            Token::Atom => {
                last_atom = lexeme;
                if let Some(bracket) = stack.last_mut() {
                    bracket.take_value(lexeme, attachments);
                }
            }
        }
    }
    true
}

/// An array or object that is open.
#[derive(Default)]
struct Bracket {
    /// Whose value comes next.
    key: Key,
    is_placeholder: bool,
    is_num_valid: bool,
}

#[derive(Default)]
enum Key {
    /// A key comes next, or this is an array.
    #[default]
    None,
    Placeholder,
    Num,
    Other,
}

impl Key {
    fn read(string: &str) -> Self {
        match string {
            r#""_placeholder""# => Self::Placeholder,
            r#""num""# => Self::Num,
            // The same keys may be written with escapes.
            _ if string.contains('\\') => match serde_json::from_str::<String>(string).as_deref() {
                Ok("_placeholder") => Self::Placeholder,
                Ok("num") => Self::Num,
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }
}

impl Bracket {
    /// Takes note of the value that begins with `lexeme`.
    fn take_value(&mut self, lexeme: &str, attachments: usize) {
        match self.key {
            Key::Placeholder => self.is_placeholder = lexeme == "true",
            Key::Num => self.is_num_valid = lexeme.parse::<usize>().is_ok_and(|num| num < attachments),
            Key::None | Key::Other => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lexemes_of_every_kind() {
        let text = " {\"a\\\"]\" : [ -1.5e3,true ] ,\"\":null}";
        let found: Vec<_> = lexemes(text).map(|(_, offset, lexeme)| (offset, lexeme)).collect();
        let expected = [
            (1, "{"),
            (2, "\"a\\\"]\""),
            (9, ":"),
            (11, "["),
            (13, "-1.5e3"),
            (19, ","),
            (20, "true"),
            (25, "]"),
            (27, ","),
            (28, "\"\""),
            (30, ":"),
            (31, "null"),
            (35, "}"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_walk_ends_on_any_text() {
        for text in ["", "\"", "\"\\", "\\", "{{{", "]]]", "\"é", "é\u{1f600}", "tru\"e"] {
            assert!(lexemes(text).count() <= text.len(), "{text:?}");
            split_first(text);
            is_within_depth(text, 2);
            cut_array(text, 2);
            are_placeholders_valid(text, 1);
        }
    }

    #[test]
    fn strings_end_at_their_quote_wherever_it_stands() {
        for length in 0..40 {
            for fill in ["a", "\u{80}", "\u{10ffff}", "!", "#", "[", "]"] {
                let string = format!("\"{}\"", fill.repeat(length));
                assert_eq!(split_first(&format!("{string},1")), (&*string, Some("1")));
                for escaped in 0..length {
                    let string = format!("\"{}\\\"\\\\{}\"", fill.repeat(escaped), fill.repeat(length - escaped));
                    assert_eq!(split_first(&format!("{string},1")), (&*string, Some("1")));
                }
            }
        }
    }

    #[test]
    fn lists_are_cut_behind_their_first_value() {
        let cases: &[(&str, &str, Option<&str>)] = &[
            ("", "", None),
            ("1", "1", None),
            (" 1 , 2", "1", Some(" 2")),
            ("[1,2],3,4", "[1,2]", Some("3,4")),
            (r#"{"a":",","b":[]} ,null"#, r#"{"a":",","b":[]}"#, Some("null")),
            (r#""\",",1"#, r#""\",""#, Some("1")),
        ];
        for (list, first, rest) in cases {
            assert_eq!(split_first(list), (*first, *rest), "{list}");
        }
    }

    #[test]
    fn arrays_are_cut_around_their_first_and_second_value() {
        let cases: &[(&str, [&str; 4])] = &[
            ("[]", ["", "", "", ""]),
            ("[ ]", ["", "", "", ""]),
            ("[1]", ["1", "1", "", ""]),
            ("[ 1 , [2,3] ]", ["1 , [2,3]", "1", "[2,3]", "[2,3]"]),
            (
                r#"["a,]",{"b":",","c":[4,5]} ,6,7]"#,
                [
                    r#""a,]",{"b":",","c":[4,5]} ,6,7"#,
                    r#""a,]""#,
                    r#"{"b":",","c":[4,5]} ,6,7"#,
                    r#"{"b":",","c":[4,5]}"#,
                ],
            ),
        ];
        for (array, [all, first, behind_first, second]) in cases {
            assert_eq!(cut_array(array, 3), Some(Cuts { all, first, behind_first, second }), "{array}");
        }
        assert_eq!(cut_array(r#"[{"a":[1]}]"#, 2), None);
        assert!(cut_array(r#"[{"a":[1]}]"#, 3).is_some());
    }

    #[test]
    fn depth_counts_open_brackets() {
        assert!(is_within_depth("[[1],{\"a\":[]}]", 3));
        assert!(!is_within_depth("[[1],{\"a\":[]}]", 2));
        assert!(is_within_depth(r#""[[[[""#, 0));
    }

    #[test]
    fn placeholders_name_an_attachment() {
        let cases: &[(&str, bool)] = &[
            (r#"[{"_placeholder":true,"num":0}]"#, true),
            (r#"[{"_placeholder":true,"num":1},{"_placeholder":true,"num":1}]"#, true),
            (r#"[{"a":[{"num":1,"x":{},"_placeholder":true}]}]"#, true),
            (r#"[{"_placeholder":false,"num":9}]"#, true),
            (r#"[{"num":9}]"#, true),
            (r#"["_placeholder",true,"num",9]"#, true),
            (r#"[{"x":"_placeholder","num":9}]"#, true),
            (r#"[{"_placeholder":true,"_placeholder":1,"num":9}]"#, true),
            (r#"[{"_placeholder":true,"num":9,"num":0}]"#, true),
            (r#"[{"_placeholder":true,"num":2}]"#, false),
            (r#"[{"_placeholder":true,"num":-1}]"#, false),
            (r#"[{"_placeholder":true,"num":0.5}]"#, false),
            (r#"[{"_placeholder":true,"num":"0"}]"#, false),
            (r#"[{"_placeholder":true,"num":"splice"}]"#, false),
            (r#"[{"_placeholder":true,"num":[0]}]"#, false),
            (r#"[{"_placeholder":true,"num":null}]"#, false),
            (r#"[{"_placeholder":true,"num":99999999999999999999}]"#, false),
            (r#"[{"_placeholder":true}]"#, false),
            (r#"[{"_placeholder":true,"num":0,"num":9}]"#, false),
            (r#"[{"\u005fplaceholder":true,"\u006eum":9}]"#, false),
            (r#"[{"a":{"_placeholder":true,"num":9}}]"#, false),
            (r#"[{"_placeholder":true,"num":0,"x":[{"_placeholder":true}]}]"#, false),
        ];
        for (text, expected) in cases {
            assert_eq!(are_placeholders_valid(text, 2), *expected, "{text}");
        }
    }
}
