//! Cache keys and the recipes that they are made of.
//!
//! A [`CacheKey`] names a computation: what is done, and the contents it is done to. A [`KeyRecipe`] is the same
//! thing before hashing, as named parts, so that two keys that differ can be told apart by name (`explain.rs`).
//! Knows nothing of what the parts mean.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::hash::{Hash, Hasher};

/// 32 bytes of SHA-256 that name a computation. Printed, and written wherever it is kept, as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct CacheKey(pub [u8; 32]);

impl CacheKey {
    /// Hashes `bytes`. Callers that hash several fields must make their concatenation unambiguous themselves.
    pub fn of(bytes: &[u8]) -> CacheKey {
        CacheKey(Sha256::digest(bytes).into())
    }

    /// Hashes what a value that derives [`Hash`] feeds to a hasher, which differs between versions of the program: for
    /// keys that are forgotten with the process.
    pub fn of_hash(value: &impl Hash) -> CacheKey {
        struct Sha(Sha256);
        impl Hasher for Sha {
            fn write(&mut self, bytes: &[u8]) {
                self.0.update(bytes);
            }
            fn finish(&self) -> u64 {
                unreachable!("nothing that derives Hash asks for it")
            }
        }
        let mut sha = Sha(Sha256::new());
        value.hash(&mut sha);
        CacheKey(sha.0.finalize().into())
    }

    /// 64 lower-case hex digits.
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }

    /// Reads what [`CacheKey::to_hex`] writes; `None` for anything else.
    pub fn from_hex(hex: &str) -> Option<CacheKey> {
        if hex.len() != 64 || !hex.is_ascii() {
            return None;
        }
        let mut bytes = [0u8; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok()?;
        }
        Some(CacheKey(bytes))
    }
}

impl From<CacheKey> for String {
    fn from(key: CacheKey) -> String {
        key.to_hex()
    }
}

impl TryFrom<String> for CacheKey {
    type Error = &'static str;

    fn try_from(hex: String) -> Result<CacheKey, &'static str> {
        CacheKey::from_hex(&hex).ok_or("a key has 64 hex digits")
    }
}

/// Two lower-case hex digits for each byte. Keys are printed some hundred times for each step of a long chain.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({})", &self.to_hex()[..12])
    }
}

/// One named input of a computation, such as `("arg", "/bin/sh")` or `("input 0", "<content id>")`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipePart {
    /// What the part is; names may repeat, order counts.
    pub name: String,
    /// Its value, or the hex digest of a value that is long.
    pub value: String,
}

/// The named parts that a key is made of, in order. Two recipes with equal parts have equal keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecipe {
    /// In the order in which they were added.
    pub parts: Vec<RecipePart>,
}

impl KeyRecipe {
    /// A recipe without parts.
    pub fn new() -> KeyRecipe {
        KeyRecipe::default()
    }

    /// Adds a part.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.parts.push(RecipePart { name: name.into(), value: value.into() });
    }

    /// The key: SHA-256 over each part's name and value, each preceded by its length in bytes as 8 bytes, big endian.
    pub fn key(&self) -> CacheKey {
        let mut hasher = Sha256::new();
        for part in &self.parts {
            for text in [&part.name, &part.value] {
                hasher.update((text.len() as u64).to_be_bytes());
                hasher.update(text.as_bytes());
            }
        }
        CacheKey(hasher.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        let recipe = |parts: &[(&str, &str)]| {
            let mut recipe = KeyRecipe::new();
            parts.iter().for_each(|(name, value)| recipe.push(*name, *value));
            recipe.key()
        };
        assert_ne!(recipe(&[("a", "bc")]), recipe(&[("ab", "c")]));
        assert_ne!(recipe(&[("a", "b"), ("c", "d")]), recipe(&[("a", "bcd")]));
        assert_eq!(recipe(&[("a", "b")]), recipe(&[("a", "b")]));
    }

    #[test]
    fn hex_round_trips() {
        let key = CacheKey::of(b"x");
        assert_eq!(CacheKey::from_hex(&key.to_hex()), Some(key));
        assert_eq!(CacheKey::from_hex("zz"), None);
        assert_eq!(CacheKey::from_hex(&"é".repeat(32)), None);
    }
}
