use serde_json::Value as Json;

use super::*;
use crate::adapter::test_support::{hex, unhex};

fn written(json: &str) -> String {
    let mut out = Vec::new();
    json_to_msgpack(json, &mut out).unwrap();
    hex(&out)
}

fn read(bytes: &str) -> Result<String, FormatError> {
    to_json(&unhex(bytes), usize::MAX).map(|(json, _)| json)
}

/// What notepack.io 3.0.1 writes for `JSON.parse` of the text.
#[test]
fn json_is_written_as_notepack_writes_it() {
    let cases = [
        ("null", "c0"),
        ("true", "c3"),
        ("false", "c2"),
        ("0", "00"),
        ("-0", "00"),
        ("-0.0", "00"),
        ("1", "01"),
        ("127", "7f"),
        ("128", "cc80"),
        ("255", "ccff"),
        ("256", "cd0100"),
        ("65535", "cdffff"),
        ("65536", "ce00010000"),
        ("4294967295", "ceffffffff"),
        ("4294967296", "cf0000000100000000"),
        ("9007199254740991", "cf001fffffffffffff"),
        ("9007199254740992", "cf0020000000000000"),
        ("-1", "ff"),
        ("-32", "e0"),
        ("-33", "d0df"),
        ("-128", "d080"),
        ("-129", "d1ff7f"),
        ("-32768", "d18000"),
        ("-32769", "d2ffff7fff"),
        ("-2147483648", "d280000000"),
        ("-2147483649", "d3ffffffff7fffffff"),
        ("-9007199254740991", "d3ffe0000000000001"),
        ("1.0", "01"),
        ("1e3", "cd03e8"),
        ("1E+3", "cd03e8"),
        ("-2.0", "fe"),
        ("1.5", "cb3ff8000000000000"),
        ("-1.5", "cbbff8000000000000"),
        ("0.1", "cb3fb999999999999a"),
        ("1e-7", "cb3e7ad7f29abcaf48"),
        (r#""""#, "a0"),
        (r#""a""#, "a161"),
        (r#""é€😀""#, "a9c3a9e282acf09f9880"),
        (r#""\u00e9\uD83D\ude00\n\"\\\/\b\f\r\t""#, "aec3a9f09f98800a225c2f080c0d09"),
        (r#""\\n\\u0041\\""#, "a95c6e5c75303034315c"),
        ("[]", "90"),
        ("{}", "80"),
        (r#"[1,[2,"x"],{"a":null}]"#, "93019202a17881a161c0"),
        (r#"{"b":1,"a":[true,false]}"#, "82a16201a16192c3c2"),
        (" \t\r\n{ \"a\" : [ 1 , 2 ] } ", "81a161920102"),
    ];
    for (json, expected) in cases {
        assert_eq!(written(json), expected, "{json}");
    }
}

/// notepack.io loses or corrupts these.
#[test]
fn integers_keep_all_their_digits_and_larger_ones_become_floats() {
    let cases = [
        ("9007199254740993", "cf0020000000000001", "9007199254740993"),
        ("18446744073709551615", "cfffffffffffffffff", "18446744073709551615"),
        ("18446744073709551616", "cb43f0000000000000", "18446744073709552000"),
        ("-9223372036854775808", "d38000000000000000", "-9223372036854775808"),
        ("-9223372036854775809", "d38000000000000000", "-9223372036854775808"),
        ("1e300", "cb7e37e43c8800759c", "1e+300"),
        ("-1e300", "cbfe37e43c8800759c", "-1e+300"),
        ("1e999", "cb7ff0000000000000", "null"),
        ("-1e999", "cbfff0000000000000", "null"),
    ];
    for (json, bytes, back) in cases {
        assert_eq!(written(json), bytes, "{json}");
        assert_eq!(read(bytes).unwrap(), back, "{json}");
    }
}

#[test]
fn half_a_surrogate_pair_becomes_a_replacement_character() {
    let cases = [
        (r#""\ud800""#, "\u{fffd}"),
        (r#""\udc00""#, "\u{fffd}"),
        (r#""a\ud800b""#, "a\u{fffd}b"),
        (r#""\ud800\n""#, "\u{fffd}\n"),
        (r#""\ud800\\""#, "\u{fffd}\\"),
        (r#""\ud800x\udc00""#, "\u{fffd}x\u{fffd}"),
        (r#""\ud800\u0041""#, "\u{fffd}A"),
        (r#""\ud800\ud83d\ude00""#, "\u{fffd}😀"),
        (r#""\ud83d\ude00\udc00""#, "😀\u{fffd}"),
    ];
    for (json, expected) in cases {
        let mut out = Vec::new();
        write_str(&mut out, expected);
        assert_eq!(written(json), hex(&out), "{json}");
    }
}

#[test]
fn what_is_no_json_is_refused() {
    let cases = [
        "",
        " ",
        "nul",
        "nulll",
        "tru",
        "fals",
        "True",
        "NaN",
        "Infinity",
        "-",
        "+1",
        "01",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x1",
        "--1",
        "\"",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\u+123\"",
        "\"\n\"",
        "\"\u{1f}\"",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "]",
        "[1}",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "{a:1}",
        "{1:1}",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        "{,}",
        "1 2",
        "{} x",
        "null,",
        "\u{feff}1",
        "\u{a0}1",
        "'a'",
        "/**/1",
    ];
    for json in cases {
        assert!(serde_json::from_str::<Json>(json).is_err(), "{json:?} is JSON");
        assert_eq!(json_to_msgpack(json, &mut Vec::new()), Err(FormatError::NotJson), "{json:?}");
    }
}

#[test]
fn lengths_take_the_smallest_form() {
    fn check(write: impl Fn(&mut Vec<u8>, usize), heads: &[(usize, &str)]) {
        for (length, head) in heads {
            let mut out = Vec::new();
            write(&mut out, *length);
            assert!(hex(&out).starts_with(head), "{length}: {}", hex(out.get(..5).unwrap_or(&out)));
            let mut reader = Reader::new(&out);
            let read = match reader.value().unwrap_or(Value::Nil) {
                Value::Str(bytes) | Value::Bin(bytes) => bytes.len(),
                Value::Array(count) | Value::Map(count) => count,
                other => panic!("{other:?}"),
            };
            assert_eq!(read, *length);
        }
    }
    check(
        |out, length| write_str(out, &"x".repeat(length)),
        &[
            (0, "a0"),
            (31, "bf"),
            (32, "d920"),
            (255, "d9ff"),
            (256, "da0100"),
            (65535, "daffff"),
            (65536, "db00010000"),
        ],
    );
    check(
        |out, length| write_bin(out, &vec![0; length]),
        &[(0, "c400"), (255, "c4ff"), (256, "c50100"), (65535, "c5ffff"), (65536, "c600010000")],
    );
    let filled = |head: fn(&mut Vec<u8>, usize), size: usize| {
        move |out: &mut Vec<u8>, count: usize| {
            head(out, count);
            out.resize(out.len() + count * size, 0xc0);
        }
    };
    check(filled(write_array, 1), &[(0, "90"), (15, "9f"), (16, "dc0010"), (65535, "dcffff"), (65536, "dd00010000")]);
    check(filled(write_map, 2), &[(0, "80"), (15, "8f"), (16, "de0010"), (65535, "deffff"), (65536, "df00010000")]);
}

#[test]
fn arrays_and_objects_of_any_size_are_written_from_json() {
    for count in [0, 1, 15, 16, 17, 65535, 65536] {
        let mut expected = Vec::new();
        write_array(&mut expected, 2);
        write_array(&mut expected, count);
        (0..count).for_each(|index| write_u64(&mut expected, index as u64));
        write_map(&mut expected, count);
        for index in 0..count {
            write_str(&mut expected, &format!("k{index}"));
            write_nil(&mut expected);
        }
        let numbers: Vec<_> = (0..count).map(|index| index.to_string()).collect();
        let fields: Vec<_> = (0..count).map(|index| format!("\"k{index}\":null")).collect();
        let json = format!("[[{}],{{{}}}]", numbers.join(","), fields.join(","));
        let mut out = Vec::new();
        json_to_msgpack(&json, &mut out).unwrap();
        assert!(out == expected, "{count}");
        assert!(to_json(&out, usize::MAX).unwrap().0 == json, "{count}");
    }
}

#[test]
fn an_objects_fields_are_its_map_without_the_head() {
    for json in ["{}", r#"{"a":1}"#, r#" {"a":{"b":[1,{}]},"c":"é"} "#, r#"{"_placeholder":true,"num":0}"#] {
        let (count, fields) = object_fields(json).unwrap();
        let mut out = Vec::new();
        write_map(&mut out, count);
        out.extend_from_slice(&fields);
        assert_eq!(hex(&out), written(json), "{json}");
    }
    for json in ["[]", "1", "null", "\"{}\""] {
        assert_eq!(object_fields(json), Err(FormatError::Expected("a JSON object")), "{json}");
    }
    for json in ["", "{", "{}x", "{\"a\":1}}", "{\"a\"}"] {
        assert_eq!(object_fields(json), Err(FormatError::NotJson), "{json}");
    }
}

#[test]
fn json_may_be_nested_64_deep() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested = |depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
        assert_eq!(json_to_msgpack(&nested(MAX_JSON_DEPTH), &mut Vec::new()), Ok(()));
        assert_eq!(json_to_msgpack(&nested(MAX_JSON_DEPTH + 1), &mut Vec::new()), Err(FormatError::TooDeep));
        assert_eq!(json_to_msgpack(&nested(1_000_000), &mut Vec::new()), Err(FormatError::TooDeep));
    }
    let object = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    assert!(object_fields(&object(MAX_JSON_DEPTH)).is_ok());
    assert_eq!(object_fields(&object(MAX_JSON_DEPTH + 1)), Err(FormatError::TooDeep));
}

#[test]
fn every_form_is_read() {
    let cases: &[(&str, &str)] = &[
        ("00", "0"),
        ("7f", "127"),
        ("e0", "-32"),
        ("ff", "-1"),
        ("c0", "null"),
        ("c2", "false"),
        ("c3", "true"),
        ("cc05", "5"),
        ("cd0005", "5"),
        ("ce00000005", "5"),
        ("cf0000000000000005", "5"),
        ("cfffffffffffffffff", "18446744073709551615"),
        ("d005", "5"),
        ("d0fb", "-5"),
        ("d1fffb", "-5"),
        ("d2fffffffb", "-5"),
        ("d3fffffffffffffffb", "-5"),
        ("d38000000000000000", "-9223372036854775808"),
        ("ca3fc00000", "1.5"),
        ("ca3dcccccd", "0.10000000149011612"),
        ("cb3ff8000000000000", "1.5"),
        ("cb4000000000000000", "2"),
        ("cb8000000000000000", "0"),
        ("cb7ff8000000000000", "null"),
        ("cb7ff0000000000000", "null"),
        ("cbfff0000000000000", "null"),
        ("cb444b1ae4d6e2ef50", "1e+21"),
        ("cb444b1ae4d6e2ef4f", "999999999999999900000"),
        ("cb3eb0c6f7a0b5ed8d", "0.000001"),
        ("cb3e7ad7f29abcaf48", "1e-7"),
        ("cbbe7ad7f29abcaf48", "-1e-7"),
        ("a0", "\"\""),
        ("a3616263", "\"abc\""),
        ("d903616263", "\"abc\""),
        ("da0003616263", "\"abc\""),
        ("db00000003616263", "\"abc\""),
        ("aa22005c2f080c0a0d097f", "\"\\\"\\u0000\\\\/\\b\\f\\n\\r\\t\u{7f}\""),
        ("a21f1e", "\"\\u001f\\u001e\""),
        ("a3e280a8", "\"\u{2028}\""),
        // Not UTF-8; half a surrogate pair.
        ("a2ff61", "\"\u{fffd}a\""),
        ("a3eda080", "\"\u{fffd}\u{fffd}\u{fffd}\""),
        ("90", "[]"),
        ("dc0001c0", "[null]"),
        ("dd00000001c0", "[null]"),
        ("80", "{}"),
        ("81a161c0", "{\"a\":null}"),
        ("de0001a161c0", "{\"a\":null}"),
        ("df00000001a161c0", "{\"a\":null}"),
        ("8305c3e0c2cf0000000100000000c0", "{\"5\":true,\"-32\":false,\"4294967296\":null}"),
        // Not ours to drop: the reader does.
        ("82a16101a16102", "{\"a\":1,\"a\":2}"),
        // undefined, alone, in an array and in maps.
        ("d40000", "null"),
        ("9201d40000", "[1,null]"),
        ("81a161d40000", "{}"),
        ("83a161d40000a16201a163d40000", "{\"b\":1}"),
        // Other extensions.
        ("d40500", "null"),
        ("d5000000", "null"),
        ("d5050000", "null"),
        ("d60000000000", "null"),
        ("d705000000000000000000".get(..20).unwrap(), "null"),
        ("d80000000000000000000000000000000000", "null"),
        ("d8ff00000000000000000000000000000000", "null"),
        ("c70105ff", "null"),
        ("c700ff", "null"),
        ("c704ff00000000", "null"),
        ("c80001057f", "null"),
        ("c900000001057f", "null"),
        ("81a161d40501", "{\"a\":null}"),
    ];
    for (bytes, expected) in cases {
        let read = read(bytes);
        assert_eq!(read.as_deref(), Ok(*expected), "{bytes}");
        let value: Json = serde_json::from_str(&read.unwrap()).unwrap();
        drop(value);
    }
}

/// What notepack.io 3.0.1 and `JSON.stringify` make of them.
#[test]
fn moments_become_what_clients_see_of_a_date() {
    let cases = [
        ("d6ff6553f100", "2023-11-14T22:13:20.000Z"),
        ("d7ff1d5353006553f100", "2023-11-14T22:13:20.123Z"),
        ("c70cff00000000ffffffffffffffff", "1969-12-31T23:59:59.000Z"),
        ("c70cff1d5353000000000000000000", "1970-01-01T00:00:00.492Z"),
        ("c70cff3b9ac9ffffffffffffffffff", "1970-01-01T00:00:00.000Z"),
        ("d7ffffffffff00000000", "2378-04-22T19:24:49.073Z"),
        ("d7ff00000003ffffffff", "2514-05-30T01:53:03.000Z"),
        ("c70cff00000000000007dba8218000", "+275760-09-13T00:00:00.000Z"),
        ("c70cff00000000fffff8245dde8000", "-271818-06-28T02:01:36.000Z"),
        ("c70cff00000000fffffff1868ba580", "0000-01-01T02:22:56.000Z"),
        ("c70cff000f4240fffffff1868b8400", "0000-01-01T00:00:00.001Z"),
        ("c70cff0000000000000000386d4380", "2000-01-01T00:00:00.000Z"),
        ("c70cff000000000000003afff44180", "+010000-01-01T00:00:00.000Z"),
        ("d7ff000f423f00000000", "2378-04-22T19:24:48.000Z"),
        ("c70cff000f423fffffffffffffffff", "1969-12-31T23:59:59.001Z"),
        ("c70cff00000000fffffff1886e0900", "0001-01-01T00:00:00.000Z"),
        ("c70cff3b8b87c0fffffff1868b83ff", "-000001-12-31T23:59:59.999Z"),
        ("c70cff3b8b87c00000003afff4417f", "9999-12-31T23:59:59.999Z"),
        ("c70cff00000000fffff82457de8000", "-271821-04-20T00:00:00.000Z"),
        ("d7ffee2e1f0038bb0bff", "2000-02-28T23:59:59.999Z"),
        ("d6ff38bb0c00", "2000-02-29T00:00:00.000Z"),
        ("d6ffffffffff", "2106-02-07T06:28:15.000Z"),
        ("d70000000000000003e8", "1970-01-01T00:00:01.000Z"),
        ("d700ffffffffffffffff", "1969-12-31T23:59:59.999Z"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(read(bytes), Ok(format!("\"{expected}\"")), "{bytes}");
    }
    for invalid in [
        "c70cff00000000000007dba8218001",
        "c70cff00000000fffff82457de7fff",
        "c70cff000000007fffffffffffffff",
        "c70cffffffffff8000000000000000",
        "d7008000000000000000",
        "d7007fffffffffffffff",
    ] {
        assert_eq!(read(invalid).as_deref(), Ok("null"), "{invalid}");
    }
}

#[test]
fn bytes_become_attachments() {
    let bytes = unhex("93c403010203 81a161c40104 c70200ffee");
    let (json, attachments) = to_json(&bytes, usize::MAX).unwrap();
    let placeholder = |num: usize| format!("{{\"_placeholder\":true,\"num\":{num}}}");
    assert_eq!(json, format!("[{},{{\"a\":{}}},{}]", placeholder(0), placeholder(1), placeholder(2)));
    assert_eq!(attachments, [&[1, 2, 3][..], &[4], &[0xff, 0xee]]);
    // And back, but for the old form of an `ArrayBuffer`.
    let mut out = Vec::new();
    let attachments: Vec<_> = attachments.into_iter().map(Cow::Borrowed).collect();
    assert_eq!(write_values(&mut out, &json, &attachments), Ok(1));
    assert_eq!(hex(&out), hex(&unhex("93c403010203 81a161c40104 c402ffee")));
    for (json, expected) in [
        (r#"{"_placeholder":true,"num":2}"#, Ok("c402ffee")),
        (r#"{"num":1.0,"_placeholder":true}"#, Err(FormatError::BadPlaceholder)),
        (r#"{"_placeholder":true,"num":3}"#, Err(FormatError::BadPlaceholder)),
        (r#"{"_placeholder":true,"num":-1}"#, Err(FormatError::BadPlaceholder)),
        (r#"{"_placeholder":true}"#, Err(FormatError::BadPlaceholder)),
        (r#"{"_placeholder":false,"num":0}"#, Ok("82ac5f706c616365686f6c646572c2a36e756d00")),
        (r#"{"_placeholder":false,"num":9,"_placeholder":true,"num":0}"#, Ok("c403010203")),
    ] {
        let mut out = Vec::new();
        let written = write_values(&mut out, json, &attachments).map(|_| hex(&out));
        assert_eq!(written.as_deref().map_err(|error| *error), expected, "{json}");
    }
}

#[test]
fn no_more_than_10_attachments() {
    let bytes = |count: usize| [vec![0x90 | count as u8], [0xc4, 1, 7].repeat(count)].concat();
    assert_eq!(to_json(&bytes(MAX_ATTACHMENTS), usize::MAX).unwrap().1.len(), MAX_ATTACHMENTS);
    assert_eq!(to_json(&bytes(MAX_ATTACHMENTS + 1), usize::MAX), Err(FormatError::TooManyAttachments));
}

/// A client takes it for an attachment, and closes when there is none of that number.
#[test]
fn a_forged_placeholder_is_refused_beside_attachments() {
    let forged = "82ac5f706c616365686f6c646572c3a36e756d05";
    assert_eq!(read(forged).as_deref(), Ok(r#"{"_placeholder":true,"num":5}"#));
    for bytes in [format!("92{forged}c40101"), format!("92c40101{forged}"), format!("81a16192{forged}c40101")] {
        assert_eq!(read(&bytes), Err(FormatError::BadPlaceholder), "{bytes}");
    }
    let harmless = "92c4010182ac5f706c616365686f6c646572c2a36e756d05";
    assert!(read(harmless).is_ok());
}

#[test]
fn values_may_be_nested_32_deep() {
    for open in ["91", "81a161"] {
        let nested = |depth: usize| format!("{}c0", open.repeat(depth));
        assert!(read(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(read(&nested(MAX_DEPTH + 1)), Err(FormatError::TooDeep));
        assert_eq!(read(&nested(500_000)), Err(FormatError::TooDeep));
    }
}

#[test]
fn no_more_text_than_asked_for() {
    for (bytes, length) in
        [("c0", 4), ("a3616263", 5), ("a20000", 14), ("93010203", 7), ("81a161c40101", 35), ("c403000000", 29)]
    {
        assert_eq!(to_json(&unhex(bytes), length).map(|(json, _)| json.len()), Ok(length), "{bytes}");
        let too_large = FormatError::TooLarge { max_bytes: length - 1 };
        assert_eq!(to_json(&unhex(bytes), length - 1), Err(too_large), "{bytes}");
    }
}

#[test]
fn only_strings_and_integers_are_keys() {
    for key in
        ["c0", "c2", "c3", "cb3ff8000000000000", "c40161", "90", "80", "91a161", "d40000", "d40505", "d6ff00000000"]
    {
        assert_eq!(read(&format!("81{key}01")), Err(FormatError::BadKey), "{key}");
    }
}

#[test]
fn exactly_one_value() {
    for bytes in ["c0", "01", "a161", "93010203", "81a161c0", "c40101", "d40000", "c70cff00000000ffffffffffffffff"] {
        assert!(read(bytes).is_ok(), "{bytes}");
        assert_eq!(read(&format!("{bytes}c0")), Err(FormatError::Trailing), "{bytes}");
        for end in 0..bytes.len() / 2 {
            assert_eq!(read(&bytes[..end * 2]), Err(FormatError::Truncated), "{bytes} cut at {end}");
        }
    }
    assert_eq!(read("c1"), Err(FormatError::UnusedByte));
    assert_eq!(read("91c1"), Err(FormatError::UnusedByte));
}

/// An announcement costs neither memory nor time: this test takes no gigabytes and no minutes.
#[test]
fn what_is_announced_is_not_believed() {
    for head in [
        "ddffffffff",
        "dfffffffff",
        "dbffffffff",
        "c6ffffffff",
        "c9ffffffff00",
        "c9ffffffffff",
        "dcffff",
        "deffff",
        "daffff",
        "c5ffff",
        "c8ffff00",
        "9f",
        "8f",
        "bf",
        "c4ff",
        "d9ff",
        "c7ff00",
    ] {
        for bytes in [head.to_owned(), format!("{head}0000"), format!("93{head}"), format!("{head}{head}")] {
            assert!(
                matches!(read(&bytes), Err(FormatError::Truncated | FormatError::TooDeep | FormatError::BadKey)),
                "{bytes}"
            );
            let bytes = unhex(&bytes);
            assert_eq!(Reader::new(&bytes).skip(), Err(FormatError::Truncated), "{}", hex(&bytes));
        }
    }
}

#[test]
fn no_more_elements_are_told_than_there_are_bytes() {
    for (bytes, expected) in [
        ("92c0c0", Ok(Value::Array(2))),
        ("92c0", Err(FormatError::Truncated)),
        ("dc0002c0c0", Ok(Value::Array(2))),
        ("dd00000002c0", Err(FormatError::Truncated)),
        ("81c0c0", Ok(Value::Map(1))),
        ("81c0", Err(FormatError::Truncated)),
        ("de0002c0c0c0", Err(FormatError::Truncated)),
        ("df00000002c0c0c0c0", Ok(Value::Map(2))),
    ] {
        assert_eq!(Reader::new(&unhex(bytes)).value(), expected, "{bytes}");
    }
}

#[test]
fn skipping_knows_no_depth() {
    for (open, close) in [("91", "c0"), ("81a161", "c0"), ("92c0", "c0")] {
        let bytes = unhex(&format!("{}{close}", open.repeat(1_000_000)));
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.skip(), Ok(()));
        assert_eq!(reader.finish(), Ok(()));
        let mut reader = Reader::new(&bytes[..bytes.len() - 1]);
        assert_eq!(reader.skip(), Err(FormatError::Truncated));
    }
}

#[test]
fn fields_are_found_by_name() {
    let mut bytes = Vec::new();
    json_to_msgpack(r#"{"a":1,"x":{"a":9},"b":[2],"a":3}"#, &mut bytes).unwrap();
    let mut reader = Reader::new(&bytes);
    let [a, b, c] = reader.fields(["a", "b", "c"], "a map").unwrap();
    assert_eq!(reader.finish(), Ok(()));
    assert_eq!(a.unwrap().value(), Ok(Value::Unsigned(3)));
    assert_eq!(b.unwrap().value(), Ok(Value::Array(1)));
    assert!(c.is_none());
    // Keys of any type, and undefined values.
    let bytes = unhex("84 c001 92a161a16202 a16105 a162d40000");
    let [a, b] = Reader::new(&bytes).fields(["a", "b"], "a map").unwrap();
    assert_eq!(a.unwrap().value(), Ok(Value::Unsigned(5)));
    assert!(b.is_none());
    let bytes = unhex("9101");
    assert_eq!(Reader::new(&bytes).fields(["a"], "a map").map(|_| ()), Err(FormatError::Expected("a map")));
}

/// Any JSON value goes through MessagePack unchanged.
#[test]
fn json_comes_back_the_same() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..2000 {
        let value = some_json(&mut random, 5);
        let json = value.to_string();
        let mut bytes = Vec::new();
        json_to_msgpack(&json, &mut bytes).unwrap();
        let (back, attachments) = to_json(&bytes, usize::MAX).unwrap();
        assert_eq!(serde_json::from_str::<Json>(&back).unwrap(), value, "{json}");
        assert!(attachments.is_empty());
        let mut reader = Reader::new(&bytes);
        assert_eq!((reader.skip(), reader.finish()), (Ok(()), Ok(())));
    }
}

fn some_json(random: &mut fastrand::Rng, depth: usize) -> Json {
    match random.u8(..if depth == 0 { 6 } else { 8 }) {
        0 => Json::Null,
        1 => Json::Bool(random.bool()),
        2 => Json::from(random.u64(..) >> random.u32(..64)),
        3 => Json::from(-(random.u32(..) as i64 >> random.u32(..32))),
        // Not whole: those come back as integers, which are another number to serde_json.
        4 => Json::from(f64::from(random.i16(..)) + 0.5),
        5 => Json::String(some_text(random)),
        6 => (0..random.usize(..20)).map(|_| some_json(random, depth - 1)).collect(),
        _ => Json::Object((0..random.usize(..20)).map(|_| (some_text(random), some_json(random, depth - 1))).collect()),
    }
}

fn some_text(random: &mut fastrand::Rng) -> String {
    const CHARS: [char; 12] = ['a', ' ', '"', '\\', '\n', '\0', '\u{7f}', 'é', '\u{2028}', '€', '😀', 'u'];
    (0..random.usize(..40)).map(|_| CHARS[random.usize(..CHARS.len())]).collect()
}

#[test]
fn any_bytes_are_read_without_harm() {
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..20_000 {
        let mut bytes: Vec<u8> = (0..random.usize(..64)).map(|_| random.u8(..)).collect();
        if let Some(first) = bytes.first_mut() {
            *first = [0x9f, 0x8f, 0xdc, 0xde, *first][random.usize(..5)];
        }
        if let Ok((json, _)) = to_json(&bytes, 1 << 20) {
            let value: Result<Json, _> = serde_json::from_str(&json);
            assert!(value.is_ok(), "{} gave {json}", hex(&bytes));
            let mut reader = Reader::new(&bytes);
            assert_eq!((reader.skip(), reader.finish()), (Ok(()), Ok(())), "{}", hex(&bytes));
        }
    }
}
