//! Text that no log may hold.

use std::fmt;

/// A key, or a URL that may hold one. Shows itself only to who asks for it by name.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself. Compare keys that came from outside in constant time.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// As [`expose`](Self::expose), to keep.
    pub fn into_exposed(self) -> String {
        self.0
    }
}

impl fmt::Debug for Secret {
    /// Nothing of the text, not even its length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}
