//! Times as RFC 3339 writes them: `2026-01-31T09:30:00.25+01:00`.

const SECONDS_PER_DAY: i64 = 86_400;

/// The time in ms since the Unix epoch, the rest of a ms cut off; `None` for anything else than a time from 1970 on.
///
/// As the RFC allows: `t` and `z`, a space for `T`, any number of digits in the fraction, and a leap second where the
/// UTC day ends, which counts as the first second of the next day. A time without an offset is none.
pub(in crate::chat) fn parse_ms(text: &str) -> Option<u64> {
    let mut reader = Reader(text.as_bytes());
    let year = reader.number(4)?;
    reader.one_of(b"-")?;
    let month = reader.number(2)?;
    reader.one_of(b"-")?;
    let day = reader.number(2)?;
    reader.one_of(b"Tt ")?;
    let hour = reader.number(2)?;
    reader.one_of(b":")?;
    let minute = reader.number(2)?;
    reader.one_of(b":")?;
    let second = reader.number(2)?;
    let ms = reader.fraction_ms()?;
    let offset_minutes = reader.offset_minutes()?;
    let is_date = (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
    if !reader.0.is_empty() || !is_date || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds =
        days_since_1970(year, month, day) * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second - offset_minutes * 60;
    if second == 60 && seconds % SECONDS_PER_DAY != 0 {
        return None;
    }
    u64::try_from(seconds * 1000 + ms).ok()
}

/// What has not been read yet.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn one_of(&mut self, bytes: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        if !bytes.contains(first) {
            return None;
        }
        self.0 = rest;
        Some(*first)
    }

    fn digit(&mut self) -> Option<i64> {
        self.one_of(b"0123456789").map(|digit| i64::from(digit - b'0'))
    }

    fn number(&mut self, digits: usize) -> Option<i64> {
        (0..digits).try_fold(0, |number, _| Some(number * 10 + self.digit()?))
    }

    fn fraction_ms(&mut self) -> Option<i64> {
        if self.one_of(b".").is_none() {
            return Some(0);
        }
        let (mut ms, mut weight) = (self.digit()? * 100, 10);
        while let Some(digit) = self.digit() {
            ms += digit * weight;
            weight /= 10;
        }
        Some(ms)
    }

    fn offset_minutes(&mut self) -> Option<i64> {
        let sign = match self.one_of(b"Zz+-")? {
            b'+' => 1,
            b'-' => -1,
            _ => return Some(0),
        };
        let hours = self.number(2)?;
        self.one_of(b":")?;
        let minutes = self.number(2)?;
        (hours <= 23 && minutes <= 59).then_some(sign * (hours * 60 + minutes))
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// In the Gregorian calendar, for years from 0. Counted from March on, so that the leap day comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    const DAYS_FROM_0_03_01_TO_1970: i64 = 719_468;
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 31, 30, 31, 30, 31 again and again: 153 days in five months.
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - DAYS_FROM_0_03_01_TO_1970
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form() {
        let cases: &[(&str, u64)] = &[
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00.001Z", 1),
            ("1985-04-12T23:20:50.52Z", 482_196_050_520),
            ("1996-12-19T16:39:57-08:00", 851_042_397_000),
            ("1937-01-01T12:00:27.87+00:20", u64::MAX),
            ("1990-12-31T23:59:60Z", 662_688_000_000),
            ("1990-12-31T15:59:60-08:00", 662_688_000_000),
            ("1990-12-31T15:59:60.5-08:00", 662_688_000_500),
            ("2000-02-29T00:00:00Z", 951_782_400_000),
            ("2024-02-29T12:00:00+00:00", 1_709_208_000_000),
            ("2024-02-29t12:00:00z", 1_709_208_000_000),
            ("2024-02-29 12:00:00Z", 1_709_208_000_000),
            ("2024-02-29T12:00:00-00:00", 1_709_208_000_000),
            ("2024-02-29T17:45:00+05:45", 1_709_208_000_000),
            ("2024-03-01T11:59:00+23:59", 1_709_208_000_000),
            ("2024-02-28T12:01:00-23:59", 1_709_208_000_000),
            ("2024-02-29T12:00:00.9Z", 1_709_208_000_900),
            ("2024-02-29T12:00:00.1239999999999999999999Z", 1_709_208_000_123),
            ("2024-12-31T23:59:59.999Z", 1_735_689_599_999),
            ("2100-02-28T23:59:59Z", 4_107_542_399_000),
            ("9999-12-31T23:59:59Z", 253_402_300_799_000),
            ("1970-01-01T00:30:00+00:30", 0),
        ];
        for (text, expected) in cases {
            // One that is right, and too early for us.
            let expected = Some(*expected).filter(|ms| *ms != u64::MAX);
            assert_eq!(parse_ms(text), expected, "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        let cases = [
            "",
            "2024",
            "2024-02-29",
            "2024-02-29T12:00Z",
            "2024-02-29T12:00:00",
            "2024-02-29T12:00:00.",
            "2024-02-29T12:00:00.Z",
            "2024-02-29T12:00:00,5Z",
            "2024-02-29T12:00:00Z ",
            " 2024-02-29T12:00:00Z",
            "2024-02-29T12:00:00ZZ",
            "2024-02-29_12:00:00Z",
            "2024-02-29T12:00:00+00",
            "2024-02-29T12:00:00+0000",
            "2024-02-29T12:00:00+24:00",
            "2024-02-29T12:00:00+00:60",
            "2024-02-29T24:00:00Z",
            "2024-02-29T12:60:00Z",
            "2024-02-29T12:00:61Z",
            "2024-02-29T12:00:60Z",
            "1990-12-31T23:59:60+01:00",
            "2023-02-29T12:00:00Z",
            "2100-02-29T12:00:00Z",
            "2024-02-30T12:00:00Z",
            "2024-04-31T12:00:00Z",
            "2024-06-31T12:00:00Z",
            "2024-09-31T12:00:00Z",
            "2024-11-31T12:00:00Z",
            "2024-01-32T12:00:00Z",
            "2024-01-00T12:00:00Z",
            "2024-00-01T12:00:00Z",
            "2024-13-01T12:00:00Z",
            "24-02-29T12:00:00Z",
            "02024-02-29T12:00:00Z",
            "2024-2-29T12:00:00Z",
            "2024/02/29T12:00:00Z",
            "-2024-02-29T12:00:00Z",
            "+2024-02-29T12:00:00Z",
            "2024-02-29T12:00:00\u{2212}08:00",
            "2024-02-29T1２:00:00Z",
            "1969-12-31T23:59:59.999Z",
            "0000-01-01T00:00:00Z",
            "1970-01-01T00:00:00+00:01",
        ];
        for text in cases {
            assert_eq!(parse_ms(text), None, "{text:?}");
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let (mut days, mut date) = (0, (1970, 1, 1));
        while date.0 < 2405 {
            let (year, month, day) = date;
            let text = format!("{year:04}-{month:02}-{day:02}T00:00:00Z");
            assert_eq!(parse_ms(&text), Some(days * 86_400_000), "{text}");
            days += 1;
            date = match date {
                (year, 12, 31) => (year + 1, 1, 1),
                (year, month, day) if day == days_in_month(year, month) => (year, month + 1, 1),
                (year, month, day) => (year, month, day + 1),
            };
        }
    }
}
