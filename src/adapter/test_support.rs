//! What the tests of all formats need.

use serde_json::Value;

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Spaces are for the reader.
pub(super) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    assert_eq!(digits.len() % 2, 0, "{text}");
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// A fixture, and the lists of vectors in it.
pub(super) fn vectors(text: &str, key: &str) -> Vec<Value> {
    let fixture: Value = serde_json::from_str(text).unwrap();
    fixture[key].as_array().unwrap().clone()
}

/// Calls `decode` with the payload cut at every byte, then with single bytes replaced, and then with several.
pub(super) fn damage(payload: &[u8], seed: u64, mut decode: impl FnMut(&[u8])) {
    for end in 0..=payload.len() {
        decode(&payload[..end]);
    }
    let mut random = fastrand::Rng::with_seed(seed);
    let mut damaged = payload.to_vec();
    for at in 0..payload.len() {
        for byte in [0, 0xff, 0xc1, 0xdd, 0xdf, 0x90, b'"', b'{', payload[at] ^ (1 << random.u8(..8)), random.u8(..)] {
            damaged[at] = byte;
            decode(&damaged);
        }
        damaged[at] = payload[at];
    }
    for _ in 0..200 {
        let mut damaged = payload.to_vec();
        for _ in 0..random.usize(1..8) {
            let at = random.usize(..damaged.len());
            match random.u8(..3) {
                0 => damaged[at] = random.u8(..),
                1 if damaged.len() > 1 => drop(damaged.remove(at)),
                _ => damaged.insert(at, random.u8(..)),
            }
        }
        decode(&damaged);
    }
}
