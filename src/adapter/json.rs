//! JSON text, read token by token without building values.
//!
//! `serde_json` cannot be used for it: it refuses lone surrogates (`"\ud800"`), which JavaScript and Python write, and
//! which a client's event may hold.

use std::{borrow::Cow, fmt::Write as _};

use crate::adapter::{FormatError, MAX_DEPTH};

/// What a value begins with. Of arrays and objects only the bracket has been read.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Token<'a> {
    Null,
    Bool(bool),
    /// As it was written.
    Number(&'a str),
    String(Text<'a>),
    Array,
    Object,
}

/// What stands between the quotes of a string.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    /// What it means. A surrogate without its other half, which no Rust string can hold, becomes U+FFFD.
    pub(super) fn unescape(self) -> Cow<'a, str> {
        let mut parts = self.0.split('\\');
        let first = parts.next().unwrap_or("");
        if first.len() == self.0.len() {
            return Cow::Borrowed(self.0);
        }
        let mut text = String::with_capacity(self.0.len());
        text.push_str(first);
        // The first half of a pair, awaiting the second.
        let mut half: Option<u32> = None;
        while let Some(part) = parts.next() {
            let mut chars = part.chars();
            let (char, rest) = match chars.next() {
                // An escaped backslash: the split has taken it for the beginning of the next escape.
                None => ('\\', parts.next().unwrap_or("")),
                Some('u') => {
                    let (digits, rest) = part.split_at_checked(5).unwrap_or((part, ""));
                    let unit = digits.get(1..).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0);
                    if let Some(high) = half.take() {
                        if (0xdc00..0xe000).contains(&unit) {
                            let code = 0x10000 + ((high & 0x3ff) << 10) + (unit & 0x3ff);
                            text.push(char::from_u32(code).unwrap_or('\u{fffd}'));
                            text.push_str(rest);
                            continue;
                        }
                        text.push('\u{fffd}');
                    }
                    if (0xd800..0xdc00).contains(&unit) && rest.is_empty() {
                        half = Some(unit);
                        continue;
                    }
                    (char::from_u32(unit).unwrap_or('\u{fffd}'), rest)
                }
                Some(escape) => (unescape_char(escape), chars.as_str()),
            };
            if half.take().is_some() {
                text.push('\u{fffd}');
            }
            text.push(char);
            text.push_str(rest);
        }
        if half.is_some() {
            text.push('\u{fffd}');
        }
        Cow::Owned(text)
    }
}

fn unescape_char(escape: char) -> char {
    match escape {
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        other => other,
    }
}

/// A number's value.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Number {
    Unsigned(u64),
    Signed(i64),
    /// A number with a fraction or an exponent, or an integer that the others cannot hold.
    Float(f64),
}

impl Number {
    /// `text` is that of a [`Token::Number`].
    pub(super) fn parse(text: &str) -> Self {
        if let Ok(number) = text.parse() {
            return Self::Unsigned(number);
        }
        if let Ok(number) = text.parse() {
            return Self::Signed(number);
        }
        Self::Float(text.parse().unwrap_or(f64::NAN))
    }
}

/// A place in a JSON text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Reads a scalar, or the bracket that opens an array or object.
    pub(super) fn token(&mut self) -> Result<Token<'a>, FormatError> {
        match self.peek().ok_or(FormatError::NotJson)? {
            b'[' => {
                self.at += 1;
                Ok(Token::Array)
            }
            b'{' => {
                self.at += 1;
                Ok(Token::Object)
            }
            b'"' => self.string().map(Token::String),
            b'-' | b'0'..=b'9' => self.number().map(Token::Number),
            b't' => self.word("true", Token::Bool(true)),
            b'f' => self.word("false", Token::Bool(false)),
            b'n' => self.word("null", Token::Null),
            _ => Err(FormatError::NotJson),
        }
    }

    /// Goes to the next element of an array whose bracket has been read, or behind its end.
    pub(super) fn next_element(&mut self, is_first: &mut bool) -> Result<bool, FormatError> {
        self.next(b']', is_first)
    }

    /// Reads the next key of an object whose bracket has been read, or goes behind its end.
    pub(super) fn next_key(&mut self, is_first: &mut bool) -> Result<Option<Text<'a>>, FormatError> {
        if !self.next(b'}', is_first)? {
            return Ok(None);
        }
        if self.peek() != Some(b'"') {
            return Err(FormatError::NotJson);
        }
        let key = self.string()?;
        if self.peek() != Some(b':') {
            return Err(FormatError::NotJson);
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// Goes to the next value of a text that is nothing but values with commas between them.
    pub(super) fn next_listed(&mut self, is_first: &mut bool) -> Result<bool, FormatError> {
        match self.peek() {
            None => Ok(false),
            Some(_) if std::mem::take(is_first) => Ok(true),
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(_) => Err(FormatError::NotJson),
        }
    }

    /// Reads a whole value, and returns its text.
    ///
    /// With `attachments` every placeholder must stand for one of so many.
    pub(super) fn value(&mut self, max_depth: usize, attachments: Option<usize>) -> Result<&'a str, FormatError> {
        self.peek();
        let start = self.at;
        self.check(max_depth, attachments)?;
        Ok(self.text.get(start..self.at).unwrap_or(""))
    }

    fn check(&mut self, max_depth: usize, attachments: Option<usize>) -> Result<Token<'a>, FormatError> {
        let token = self.token()?;
        let inner = || max_depth.checked_sub(1).ok_or(FormatError::TooDeep);
        let mut is_first = true;
        match token {
            Token::Array => {
                let inner = inner()?;
                while self.next_element(&mut is_first)? {
                    self.check(inner, attachments)?;
                }
            }
            Token::Object => {
                let inner = inner()?;
                let mut placeholder = Placeholder::default();
                while let Some(key) = self.next_key(&mut is_first)? {
                    let value = self.check(inner, attachments)?;
                    placeholder.note(key, value);
                }
                if let (true, Some(count)) = (placeholder.is_one, attachments) {
                    placeholder.num.filter(|num| *num < count).ok_or(FormatError::BadPlaceholder)?;
                }
            }
            _ => {}
        }
        Ok(token)
    }

    /// Checks that nothing follows.
    pub(super) fn finish(mut self) -> Result<(), FormatError> {
        if self.peek().is_some() { Err(FormatError::NotJson) } else { Ok(()) }
    }

    fn next(&mut self, end: u8, is_first: &mut bool) -> Result<bool, FormatError> {
        let was_first = std::mem::take(is_first);
        match self.peek() {
            Some(byte) if byte == end => {
                self.at += 1;
                Ok(false)
            }
            Some(_) if was_first => Ok(true),
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            _ => Err(FormatError::NotJson),
        }
    }

    /// The next byte that is no whitespace, which is gone behind.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = self.byte()?;
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn word(&mut self, word: &str, token: Token<'a>) -> Result<Token<'a>, FormatError> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
            return Err(FormatError::NotJson);
        }
        self.at += word.len();
        Ok(token)
    }

    /// At the opening quote.
    fn string(&mut self) -> Result<Text<'a>, FormatError> {
        let start = self.at + 1;
        self.at = start;
        loop {
            match self.byte().ok_or(FormatError::NotJson)? {
                b'"' => break,
                b'\\' => {
                    self.at += 1;
                    match self.byte().ok_or(FormatError::NotJson)? {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
                        b'u' => {
                            let digits = self.text.as_bytes().get(self.at + 1..self.at + 5);
                            if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                                return Err(FormatError::NotJson);
                            }
                            self.at += 5;
                        }
                        _ => return Err(FormatError::NotJson),
                    }
                }
                0..0x20 => return Err(FormatError::NotJson),
                _ => self.at += 1,
            }
        }
        let text = self.text.get(start..self.at).unwrap_or("");
        self.at += 1;
        Ok(Text(text))
    }

    fn number(&mut self) -> Result<&'a str, FormatError> {
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        if self.byte() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(self.text.get(start..self.at).unwrap_or(""))
    }

    fn digits(&mut self) -> Result<(), FormatError> {
        let start = self.at;
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err(FormatError::NotJson) } else { Ok(()) }
    }
}

/// Whether an object stands for an attachment, and for which. As in JavaScript, the last of two equal keys counts, and
/// further keys make no difference.
#[derive(Default)]
pub(super) struct Placeholder {
    pub(super) is_one: bool,
    pub(super) num: Option<usize>,
}

impl Placeholder {
    /// Notes an object's key and value.
    pub(super) fn note(&mut self, key: Text<'_>, value: Token<'_>) {
        match &*key.unescape() {
            "_placeholder" => self.is_one = value == Token::Bool(true),
            "num" => {
                self.num = match value {
                    Token::Number(number) => number.parse().ok(),
                    _ => None,
                }
            }
            _ => {}
        }
    }
}

/// The texts of some of an object's values; the last of two equal keys counts. Everything is read.
pub(super) fn fields<'a, const N: usize>(
    reader: &mut Reader<'a>,
    names: [&str; N],
    max_depth: usize,
) -> Result<[Option<&'a str>; N], FormatError> {
    let mut found = [None; N];
    let mut is_first = true;
    while let Some(key) = reader.next_key(&mut is_first)? {
        let value = reader.value(max_depth, None)?;
        let key = key.unescape();
        if let Some((_, place)) = names.iter().zip(&mut found).find(|(name, _)| **name == key) {
            *place = Some(value);
        }
    }
    Ok(found)
}

/// Writes an object field by field, as `JSON.stringify` does.
#[derive(Debug)]
pub(super) struct ObjectWriter {
    json: String,
}

impl ObjectWriter {
    pub(super) fn new() -> Self {
        Self { json: "{".to_owned() }
    }

    pub(super) fn finish(mut self) -> String {
        self.json.push('}');
        self.json
    }

    pub(super) fn string(&mut self, key: &str, value: &str) {
        self.key(key);
        write_string(&mut self.json, value);
    }

    pub(super) fn strings(&mut self, key: &str, values: &[String]) {
        self.key(key);
        self.json.push('[');
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.json.push(',');
            }
            write_string(&mut self.json, value);
        }
        self.json.push(']');
    }

    pub(super) fn number(&mut self, key: &str, value: u64) {
        self.raw(key, &value.to_string());
    }

    /// One value, which is checked.
    pub(super) fn value(&mut self, key: &str, value: &str) -> Result<(), FormatError> {
        let mut reader = Reader::new(value);
        reader.value(MAX_DEPTH, None)?;
        reader.finish()?;
        self.raw(key, value);
        Ok(())
    }

    /// An array of objects.
    pub(super) fn array<T>(
        &mut self,
        key: &str,
        values: &[T],
        write: impl Fn(&T, &mut Self) -> Result<(), FormatError>,
    ) -> Result<(), FormatError> {
        self.key(key);
        self.json.push('[');
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.json.push(',');
            }
            self.json.push('{');
            write(value, self)?;
            self.json.push('}');
        }
        self.json.push(']');
        Ok(())
    }

    /// Text that is JSON.
    fn raw(&mut self, key: &str, json: &str) {
        self.key(key);
        self.json.push_str(json);
    }

    fn key(&mut self, key: &str) {
        if !self.json.ends_with('{') {
            self.json.push(',');
        }
        write_string(&mut self.json, key);
        self.json.push(':');
    }
}

/// Appends a string with its quotes, as `JSON.stringify` writes it.
pub(super) fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        let (plain, special) = rest.split_at_checked(at).unwrap_or((rest, ""));
        out.push_str(plain);
        let mut chars = special.chars();
        if let Some(char) = chars.next() {
            write_escape(out, char);
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out.push('"');
}

/// Appends a string with its quotes, as Python's `json.dumps` writes it: in ASCII.
pub(super) fn write_ascii_string(out: &mut String, text: &str) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' | '\0'..' ' => write_escape(out, char),
            ' '..='~' => out.push(char),
            _ => char.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                let _ = write!(out, "\\u{unit:04x}");
            }),
        }
    }
    out.push('"');
}

/// Appends values with commas between them as Python's `json.dumps` writes them: in ASCII, and with spaces.
pub(super) fn write_python(out: &mut String, values: &str) -> Result<(), FormatError> {
    let mut reader = Reader::new(values);
    let mut is_first = true;
    loop {
        let was_first = is_first;
        if !reader.next_listed(&mut is_first)? {
            return Ok(());
        }
        if !was_first {
            out.push_str(", ");
        }
        write_python_value(out, &mut reader, MAX_DEPTH)?;
    }
}

fn write_python_value(out: &mut String, reader: &mut Reader<'_>, max_depth: usize) -> Result<(), FormatError> {
    let inner = max_depth.checked_sub(1).ok_or(FormatError::TooDeep);
    let mut is_first = true;
    match reader.token()? {
        Token::Null => out.push_str("null"),
        Token::Bool(true) => out.push_str("true"),
        Token::Bool(false) => out.push_str("false"),
        Token::Number(number) => out.push_str(number),
        Token::String(text) => write_ascii_string(out, &text.unescape()),
        Token::Array => {
            let inner = inner?;
            let mut separator = "[";
            while reader.next_element(&mut is_first)? {
                out.push_str(std::mem::replace(&mut separator, ", "));
                write_python_value(out, reader, inner)?;
            }
            out.push_str(if separator == "[" { "[]" } else { "]" });
        }
        Token::Object => {
            let inner = inner?;
            let mut separator = "{";
            while let Some(key) = reader.next_key(&mut is_first)? {
                out.push_str(std::mem::replace(&mut separator, ", "));
                write_ascii_string(out, &key.unescape());
                out.push_str(": ");
                write_python_value(out, reader, inner)?;
            }
            out.push_str(if separator == "{" { "{}" } else { "}" });
        }
    }
    Ok(())
}

fn write_escape(out: &mut String, char: char) {
    match char {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        other => {
            let _ = write!(out, "\\u{:04x}", u32::from(other));
        }
    }
}

/// Appends a number as JavaScript writes it; `null` for what JSON cannot say.
pub(super) fn write_f64(out: &mut String, number: f64) {
    let size = number.abs();
    if !number.is_finite() {
        out.push_str("null");
    } else if number == 0.0 {
        out.push('0');
    } else if (1e-6..1e21).contains(&size) {
        // A string refuses nothing, here and below.
        let _ = write!(out, "{number}");
    } else if size < 1.0 {
        let _ = write!(out, "{number:e}");
    } else {
        out.push_str(&format!("{number:e}").replace('e', "e+"));
    }
}
