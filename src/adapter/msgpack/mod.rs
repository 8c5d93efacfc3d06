//! MessagePack as `notepack.io` reads and writes it, and its way to JSON text and back.
//!
//! Strings from outside need not be UTF-8: what is not becomes U+FFFD, as in Node. Lengths and counts are believed only
//! as far as there are bytes left, so nothing is allocated for what is merely announced.
//!
//! <https://github.com/msgpack/msgpack/blob/master/spec.md>

use std::{borrow::Cow, fmt::Write as _};

use crate::adapter::{FormatError, MAX_ATTACHMENTS, MAX_DEPTH, json};

/// Depth of arrays and objects in JSON text that is written as MessagePack.
pub const MAX_JSON_DEPTH: usize = 64;

/// A value that has been read. Of arrays and maps only the number of elements: these follow.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value<'a> {
    /// Nothing.
    Nil,
    /// JavaScript's `undefined`, as old versions of `notepack.io` write it. New ones write nil.
    Undefined,
    /// True or false.
    Bool(bool),
    /// An integer that is not negative.
    Unsigned(u64),
    /// A negative integer.
    Negative(i64),
    /// A number of either precision.
    Float(f64),
    /// A string, not checked to be UTF-8.
    Str(&'a [u8]),
    /// Bytes.
    Bin(&'a [u8]),
    /// An array of so many elements.
    Array(usize),
    /// A map of so many keys, each followed by its value.
    Map(usize),
    /// A moment, in ms since the epoch, within the bounds of JavaScript's dates.
    Time(i64),
    /// An extension that means nothing here, or a moment outside those bounds.
    Extension,
}

/// What is left to be read.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the beginning of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Reads a scalar, or how many elements an array or map has. No more are announced than there are bytes for.
    ///
    /// # Errors
    /// There is no whole value.
    pub fn value(&mut self) -> Result<Value<'a>, FormatError> {
        let [first] = self.array()?;
        Ok(match first {
            0..=0x7f => Value::Unsigned(first.into()),
            0x80..=0x8f => self.map((first & 0x0f).into())?,
            0x90..=0x9f => self.elements((first & 0x0f).into())?,
            0xa0..=0xbf => Value::Str(self.take((first & 0x1f).into())?),
            0xc0 => Value::Nil,
            0xc1 => return Err(FormatError::UnusedByte),
            0xc2 => Value::Bool(false),
            0xc3 => Value::Bool(true),
            0xc4..=0xc6 => {
                let length = self.length(first - 0xc4)?;
                Value::Bin(self.take(length)?)
            }
            0xc7..=0xc9 => {
                let length = self.length(first - 0xc7)?;
                let [kind] = self.array()?;
                let data = self.take(length)?;
                match kind.cast_signed() {
                    // How old versions write an `ArrayBuffer`.
                    0 => Value::Bin(data),
                    TIMESTAMP => timestamp_96(data),
                    _ => Value::Extension,
                }
            }
            0xca => Value::Float(f32::from_be_bytes(self.array()?).into()),
            0xcb => Value::Float(f64::from_be_bytes(self.array()?)),
            0xcc => Value::Unsigned(u8::from_be_bytes(self.array()?).into()),
            0xcd => Value::Unsigned(u16::from_be_bytes(self.array()?).into()),
            0xce => Value::Unsigned(u32::from_be_bytes(self.array()?).into()),
            0xcf => Value::Unsigned(u64::from_be_bytes(self.array()?)),
            0xd0 => integer(i8::from_be_bytes(self.array()?).into()),
            0xd1 => integer(i16::from_be_bytes(self.array()?).into()),
            0xd2 => integer(i32::from_be_bytes(self.array()?).into()),
            0xd3 => integer(i64::from_be_bytes(self.array()?)),
            0xd4..=0xd8 => {
                let [kind] = self.array()?;
                fixed_extension(kind.cast_signed(), self.take(1 << (first - 0xd4))?)
            }
            0xd9..=0xdb => {
                let length = self.length(first - 0xd9)?;
                Value::Str(self.take(length)?)
            }
            0xdc | 0xdd => {
                let count = self.length(first - 0xdc + 1)?;
                self.elements(count)?
            }
            0xde | 0xdf => {
                let count = self.length(first - 0xde + 1)?;
                self.map(count)?
            }
            0xe0..=0xff => Value::Negative(first.cast_signed().into()),
        })
    }

    /// Goes behind the next value, with all that is in it. No depth is too great.
    ///
    /// # Errors
    /// There is no whole value.
    pub fn skip(&mut self) -> Result<(), FormatError> {
        let mut pending = 1_usize;
        while pending > 0 {
            let inner = match self.value()? {
                Value::Array(count) => count,
                Value::Map(count) => count.saturating_mul(2),
                _ => 0,
            };
            pending = (pending - 1).saturating_add(inner);
        }
        Ok(())
    }

    /// Reads the head of an array.
    ///
    /// # Errors
    /// It is something else: `expected` says what ought to be there.
    pub fn array_of(&mut self, expected: &'static str) -> Result<usize, FormatError> {
        match self.value()? {
            Value::Array(count) => Ok(count),
            _ => Err(FormatError::Expected(expected)),
        }
    }

    /// Reads the head of a map.
    ///
    /// # Errors
    /// As [`array_of`](Self::array_of).
    pub fn map_of(&mut self, expected: &'static str) -> Result<usize, FormatError> {
        match self.value()? {
            Value::Map(count) => Ok(count),
            _ => Err(FormatError::Expected(expected)),
        }
    }

    /// Reads a map, and returns the places of the values of some of its keys; the last of two equal keys counts, and
    /// `undefined` is no value.
    ///
    /// # Errors
    /// As [`array_of`](Self::array_of).
    pub fn fields<const N: usize>(
        &mut self,
        names: [&str; N],
        expected: &'static str,
    ) -> Result<[Option<Self>; N], FormatError> {
        let mut found = [None; N];
        for _ in 0..self.map_of(expected)? {
            let mut key = *self;
            self.skip()?;
            let value = *self;
            self.skip()?;
            if let Value::Str(key) = key.value()?
                && let Some((_, place)) = names.iter().zip(&mut found).find(|(name, _)| name.as_bytes() == key)
            {
                *place = (!value.is_undefined()).then_some(value);
            }
        }
        Ok(found)
    }

    /// Checks that nothing follows.
    ///
    /// # Errors
    /// Something does.
    pub fn finish(self) -> Result<(), FormatError> {
        if self.rest.is_empty() { Ok(()) } else { Err(FormatError::Trailing) }
    }

    fn is_undefined(self) -> bool {
        self.rest.starts_with(&[0xd4, 0])
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], FormatError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(FormatError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(FormatError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// A length of 1, 2 or 4 bytes.
    fn length(&mut self, size: u8) -> Result<usize, FormatError> {
        let length = match size {
            0 => u8::from_be_bytes(self.array()?).into(),
            1 => u16::from_be_bytes(self.array()?).into(),
            _ => u32::from_be_bytes(self.array()?),
        };
        usize::try_from(length).map_err(|_| FormatError::Truncated)
    }

    fn elements(&self, count: usize) -> Result<Value<'a>, FormatError> {
        if count > self.rest.len() { Err(FormatError::Truncated) } else { Ok(Value::Array(count)) }
    }

    fn map(&self, count: usize) -> Result<Value<'a>, FormatError> {
        if count > self.rest.len() / 2 { Err(FormatError::Truncated) } else { Ok(Value::Map(count)) }
    }
}

/// The type of extension that is a moment.
const TIMESTAMP: i8 = -1;
const NS_PER_MS: i128 = 1_000_000;
const MS_PER_DAY: i64 = 86_400_000;
/// JavaScript knows no dates further than this from 1970, in ms.
const TIME_MAX_MS: u64 = 8_640_000_000_000_000;

fn integer(number: i64) -> Value<'static> {
    u64::try_from(number).map_or(Value::Negative(number), Value::Unsigned)
}

/// An extension of 1, 2, 4, 8 or 16 bytes.
fn fixed_extension(kind: i8, data: &[u8]) -> Value<'static> {
    if let Ok(seconds) = data.try_into()
        && kind == TIMESTAMP
    {
        return time(u32::from_be_bytes(seconds).into(), 0);
    }
    match (kind, data.try_into().map(u64::from_be_bytes)) {
        (TIMESTAMP, Ok(both)) => time((both & 0x3_ffff_ffff).into(), both >> 34),
        // How old versions write a `Date`, and `undefined`.
        (0, Ok(ms)) => time_ms(ms.cast_signed().into()),
        (0, Err(_)) if data.len() == 1 => Value::Undefined,
        _ => Value::Extension,
    }
}

/// A moment of 12 bytes.
fn timestamp_96(data: &[u8]) -> Value<'static> {
    let Some((ns, seconds)) = data.split_first_chunk() else { return Value::Extension };
    let Ok(seconds) = seconds.try_into() else { return Value::Extension };
    time(i64::from_be_bytes(seconds).into(), u32::from_be_bytes(*ns).into())
}

/// The rest of a ms is cut off towards 1970, as JavaScript does.
fn time(seconds: i128, ns: u64) -> Value<'static> {
    time_ms((seconds * (1000 * NS_PER_MS) + i128::from(ns)) / NS_PER_MS)
}

fn time_ms(ms: i128) -> Value<'static> {
    match i64::try_from(ms) {
        Ok(ms) if ms.unsigned_abs() <= TIME_MAX_MS => Value::Time(ms),
        _ => Value::Extension,
    }
}

/// The JSON text of the one value that `bytes` hold, and its binary parts: see [`JsonWriter`].
///
/// # Errors
/// `bytes` are not exactly one value, it cannot be JSON, or exceeds a limit.
#[cfg(test)]
pub(crate) fn to_json(bytes: &[u8], max_bytes: usize) -> Result<(String, Vec<&[u8]>), FormatError> {
    let mut reader = Reader::new(bytes);
    let mut out = JsonWriter::new(max_bytes);
    out.value(&mut reader)?;
    reader.finish()?;
    out.finish()
}

/// Writes values as JSON text, as Node's `JSON.stringify` would, with commas between them.
///
/// In the place of bytes stands `{"_placeholder":true,"num":n}`. What JSON cannot say is `null`, except that an
/// `undefined` in a map is left out. Integers keep all their digits.
#[derive(Debug)]
pub struct JsonWriter<'a> {
    json: String,
    attachments: Vec<&'a [u8]>,
    max_bytes: usize,
    /// A map calls itself a placeholder: with attachments it would be taken for one.
    is_forged: bool,
}

impl<'a> JsonWriter<'a> {
    /// At most `max_bytes` of text.
    pub fn new(max_bytes: usize) -> Self {
        Self { json: String::new(), attachments: Vec::new(), max_bytes, is_forged: false }
    }

    /// Appends the next value of `reader`.
    ///
    /// # Errors
    /// There is no whole value, it cannot be JSON, or exceeds a limit: [`MAX_ATTACHMENTS`], [`MAX_DEPTH`] or the bytes.
    pub fn value(&mut self, reader: &mut Reader<'a>) -> Result<(), FormatError> {
        if !self.json.is_empty() {
            self.json.push(',');
        }
        self.nested(reader, MAX_DEPTH)
    }

    /// The text and the attachments.
    ///
    /// # Errors
    /// There are attachments, and a map that would be taken for one.
    pub fn finish(self) -> Result<(String, Vec<&'a [u8]>), FormatError> {
        if self.is_forged && !self.attachments.is_empty() {
            return Err(FormatError::BadPlaceholder);
        }
        Ok((self.json, self.attachments))
    }

    fn nested(&mut self, reader: &mut Reader<'a>, max_depth: usize) -> Result<(), FormatError> {
        let inner = max_depth.checked_sub(1).ok_or(FormatError::TooDeep);
        match reader.value()? {
            Value::Array(count) => {
                let inner = inner?;
                self.json.push('[');
                for index in 0..count {
                    if index > 0 {
                        self.json.push(',');
                    }
                    self.nested(reader, inner)?;
                }
                self.json.push(']');
            }
            Value::Map(count) => {
                self.map(reader, count, inner?)?;
            }
            scalar => self.scalar(scalar)?,
        }
        self.check_size()
    }

    fn map(&mut self, reader: &mut Reader<'a>, count: usize, max_depth: usize) -> Result<(), FormatError> {
        self.json.push('{');
        let mut is_first = true;
        for _ in 0..count {
            let key = reader.value()?;
            if reader.is_undefined() {
                reader.skip()?;
                continue;
            }
            if !std::mem::take(&mut is_first) {
                self.json.push(',');
            }
            match key {
                Value::Str(key) => {
                    self.string(key)?;
                    self.is_forged |= key == b"_placeholder" && reader.rest.first() == Some(&0xc3);
                }
                Value::Unsigned(_) | Value::Negative(_) => {
                    self.json.push('"');
                    self.scalar(key)?;
                    self.json.push('"');
                }
                _ => return Err(FormatError::BadKey),
            }
            self.json.push(':');
            self.nested(reader, max_depth)?;
        }
        self.json.push('}');
        Ok(())
    }

    fn scalar(&mut self, value: Value<'a>) -> Result<(), FormatError> {
        // A string refuses nothing, here and below.
        let _ = match value {
            Value::Unsigned(number) => write!(self.json, "{number}"),
            Value::Negative(number) => write!(self.json, "{number}"),
            Value::Bool(value) => write!(self.json, "{value}"),
            Value::Float(number) => {
                json::write_f64(&mut self.json, number);
                Ok(())
            }
            Value::Str(text) => return self.string(text),
            Value::Bin(bytes) => {
                if self.attachments.len() >= MAX_ATTACHMENTS {
                    return Err(FormatError::TooManyAttachments);
                }
                self.attachments.push(bytes);
                write!(self.json, "{{\"_placeholder\":true,\"num\":{}}}", self.attachments.len() - 1)
            }
            Value::Time(ms) => {
                write_time(&mut self.json, ms);
                Ok(())
            }
            _ => {
                self.json.push_str("null");
                Ok(())
            }
        };
        Ok(())
    }

    fn string(&mut self, text: &[u8]) -> Result<(), FormatError> {
        // Before anything is copied: written, it is no shorter.
        if text.len() > self.max_bytes.saturating_sub(self.json.len()) {
            return Err(FormatError::TooLarge { max_bytes: self.max_bytes });
        }
        json::write_string(&mut self.json, &String::from_utf8_lossy(text));
        self.check_size()
    }

    fn check_size(&self) -> Result<(), FormatError> {
        if self.json.len() > self.max_bytes {
            return Err(FormatError::TooLarge { max_bytes: self.max_bytes });
        }
        Ok(())
    }
}

/// `"2023-11-14T22:13:20.123Z"`; years that have not four digits get a sign and six.
fn write_time(out: &mut String, ms: i64) {
    let (year, month, day) = date(ms.div_euclid(MS_PER_DAY));
    let ms = ms.rem_euclid(MS_PER_DAY);
    let (hour, minute, second, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    let _ = match year {
        0..=9999 => write!(out, "\"{year:04}"),
        _ => write!(out, "\"{year:+07}"),
    };
    let _ = write!(out, "-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z\"");
}

/// The Gregorian date that is `days` after 1970-01-01.
fn date(days: i64) -> (i64, i64, i64) {
    const DAYS_FROM_0_03_01_TO_1970: i64 = 719_468;
    const DAYS_PER_400_YEARS: i64 = 146_097;
    // Counted from March on, so that the leap day comes last.
    let days = days + DAYS_FROM_0_03_01_TO_1970;
    let (era, day) = (days.div_euclid(DAYS_PER_400_YEARS), days.rem_euclid(DAYS_PER_400_YEARS));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // 31, 30, 31, 30, 31 again and again: 153 days in five months.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    (era * 400 + year, month, day)
}

/// Appends nil.
pub fn write_nil(out: &mut Vec<u8>) {
    out.push(0xc0);
}

/// Appends true or false.
pub fn write_bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { 0xc3 } else { 0xc2 });
}

/// Appends an integer in its smallest form.
pub fn write_u64(out: &mut Vec<u8>, number: u64) {
    if let Ok(small) = u8::try_from(number) {
        if small >= 0x80 {
            out.push(0xcc);
        }
        out.push(small);
    } else if let Ok(small) = u16::try_from(number) {
        out.push(0xcd);
        out.extend_from_slice(&small.to_be_bytes());
    } else if let Ok(small) = u32::try_from(number) {
        out.push(0xce);
        out.extend_from_slice(&small.to_be_bytes());
    } else {
        out.push(0xcf);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// Appends an integer in its smallest form.
pub fn write_i64(out: &mut Vec<u8>, number: i64) {
    if let Ok(number) = u64::try_from(number) {
        write_u64(out, number);
    } else if let Ok(small) = i8::try_from(number) {
        if small < -0x20 {
            out.push(0xd0);
        }
        out.push(small.cast_unsigned());
    } else if let Ok(small) = i16::try_from(number) {
        out.push(0xd1);
        out.extend_from_slice(&small.to_be_bytes());
    } else if let Ok(small) = i32::try_from(number) {
        out.push(0xd2);
        out.extend_from_slice(&small.to_be_bytes());
    } else {
        out.push(0xd3);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// Appends a number: as an integer if it is one that fits, as in JavaScript, which knows but one kind of number.
pub fn write_f64(out: &mut Vec<u8>, number: f64) {
    const U64_END: f64 = 18_446_744_073_709_551_616.0;
    const I64_START: f64 = -9_223_372_036_854_775_808.0;
    if number.fract() != 0.0 || !(I64_START..U64_END).contains(&number) {
        out.push(0xcb);
        out.extend_from_slice(&number.to_be_bytes());
    } else if number < 0.0 {
        write_i64(out, number as i64);
    } else {
        write_u64(out, number as u64);
    }
}

/// Appends a string.
pub fn write_str(out: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(length) if length < 0x20 => out.push(0xa0 | length),
        Ok(length) => out.extend_from_slice(&[0xd9, length]),
        Err(_) => write_length(out, [0xda, 0xdb], text.len()),
    }
    out.extend_from_slice(text.as_bytes());
}

/// Appends bytes.
pub fn write_bin(out: &mut Vec<u8>, bytes: &[u8]) {
    match u8::try_from(bytes.len()) {
        Ok(length) => out.extend_from_slice(&[0xc4, length]),
        Err(_) => write_length(out, [0xc5, 0xc6], bytes.len()),
    }
    out.extend_from_slice(bytes);
}

/// Appends the head of an array, whose elements are to follow.
pub fn write_array(out: &mut Vec<u8>, count: usize) {
    match u8::try_from(count) {
        Ok(count) if count < 0x10 => out.push(0x90 | count),
        _ => write_length(out, [0xdc, 0xdd], count),
    }
}

/// Appends the head of a map, whose keys and values are to follow.
pub fn write_map(out: &mut Vec<u8>, count: usize) {
    match u8::try_from(count) {
        Ok(count) if count < 0x10 => out.push(0x80 | count),
        _ => write_length(out, [0xde, 0xdf], count),
    }
}

/// A length of 2 or 4 bytes. MessagePack has no longer ones, and nothing of ours is 4 GiB long.
fn write_length(out: &mut Vec<u8>, [short, long]: [u8; 2], length: usize) {
    if let Ok(length) = u16::try_from(length) {
        out.push(short);
        out.extend_from_slice(&length.to_be_bytes());
    } else {
        out.push(long);
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }
}

/// Appends JSON text as MessagePack, field for field.
///
/// # Errors
/// The text is not JSON, or is nested deeper than [`MAX_JSON_DEPTH`]. What was appended until then is garbage.
pub fn json_to_msgpack(json: &str, out: &mut Vec<u8>) -> Result<(), FormatError> {
    let mut reader = json::Reader::new(json);
    write_json(&mut reader, out, &NO_ATTACHMENTS, MAX_JSON_DEPTH)?;
    reader.finish()
}

/// The fields of a JSON object: how many there are, and their keys and values as MessagePack. What is missing for a
/// whole map is its head, so that fields can be added.
///
/// # Errors
/// As [`json_to_msgpack`], or the text is no object.
pub fn object_fields(json: &str) -> Result<(usize, Vec<u8>), FormatError> {
    let mut reader = json::Reader::new(json);
    if reader.token()? != json::Token::Object {
        return Err(FormatError::Expected("a JSON object"));
    }
    // Only many small fractions take more room than as text.
    let mut out = Vec::with_capacity(json.len());
    let (count, _) = write_fields(&mut reader, &mut out, &NO_ATTACHMENTS, MAX_JSON_DEPTH - 1)?;
    reader.finish()?;
    Ok((count, out))
}

/// Appends JSON values with commas between them, bytes in the places of their placeholders. Returns how many those are.
pub(super) fn write_values(out: &mut Vec<u8>, json: &str, attachments: &[Cow<'_, [u8]>]) -> Result<usize, FormatError> {
    let mut reader = json::Reader::new(json);
    let mut count = 0;
    let mut is_first = true;
    while reader.next_listed(&mut is_first)? {
        write_json(&mut reader, out, attachments, MAX_JSON_DEPTH)?;
        count += 1;
    }
    Ok(count)
}

const NO_ATTACHMENTS: [Cow<'_, [u8]>; 0] = [];

/// Without attachments placeholders are objects like others.
fn write_json(
    reader: &mut json::Reader<'_>,
    out: &mut Vec<u8>,
    attachments: &[Cow<'_, [u8]>],
    max_depth: usize,
) -> Result<(), FormatError> {
    write_token(reader, out, attachments, max_depth).map(|_| ())
}

fn write_token<'a>(
    reader: &mut json::Reader<'a>,
    out: &mut Vec<u8>,
    attachments: &[Cow<'_, [u8]>],
    max_depth: usize,
) -> Result<json::Token<'a>, FormatError> {
    let token = reader.token()?;
    match token {
        json::Token::Null => write_nil(out),
        json::Token::Bool(value) => write_bool(out, value),
        json::Token::Number(text) => match json::Number::parse(text) {
            json::Number::Unsigned(number) => write_u64(out, number),
            json::Number::Signed(number) => write_i64(out, number),
            json::Number::Float(number) => write_f64(out, number),
        },
        json::Token::String(text) => write_str(out, &text.unescape()),
        json::Token::Array => {
            let inner = max_depth.checked_sub(1).ok_or(FormatError::TooDeep)?;
            let start = out.len();
            let mut count = 0;
            let mut is_first = true;
            while reader.next_element(&mut is_first)? {
                write_json(reader, out, attachments, inner)?;
                count += 1;
            }
            set_head(out, start, count, write_array);
        }
        json::Token::Object => {
            let inner = max_depth.checked_sub(1).ok_or(FormatError::TooDeep)?;
            let start = out.len();
            let (count, placeholder) = write_fields(reader, out, attachments, inner)?;
            if placeholder.is_one && !attachments.is_empty() {
                let bytes = placeholder.num.and_then(|num| attachments.get(num)).ok_or(FormatError::BadPlaceholder)?;
                out.truncate(start);
                write_bin(out, bytes);
            } else {
                set_head(out, start, count, write_map);
            }
        }
    }
    Ok(token)
}

/// The fields of an object whose bracket has been read, and how many these are.
fn write_fields(
    reader: &mut json::Reader<'_>,
    out: &mut Vec<u8>,
    attachments: &[Cow<'_, [u8]>],
    max_depth: usize,
) -> Result<(usize, json::Placeholder), FormatError> {
    let mut count = 0;
    let mut placeholder = json::Placeholder::default();
    let mut is_first = true;
    while let Some(key) = reader.next_key(&mut is_first)? {
        write_str(out, &key.unescape());
        let value = write_token(reader, out, attachments, max_depth)?;
        placeholder.note(key, value);
        count += 1;
    }
    Ok((count, placeholder))
}

/// Puts a head before the elements that begin at `start`. Moving them is cheaper than counting them first.
fn set_head(out: &mut Vec<u8>, start: usize, count: usize, write: fn(&mut Vec<u8>, usize)) {
    let end = out.len();
    write(out, count);
    let head = out.len() - end;
    if let Some(all) = out.get_mut(start..) {
        all.rotate_right(head);
    }
}

#[cfg(test)]
mod tests;
