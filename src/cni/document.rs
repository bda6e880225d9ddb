//! A JSON object of which only the first level is taken apart; every value stays the text it was.
//!
//! In: bytes. Out: raw values by key, in order. Never: changes a value's spelling, which is what makes it lossless.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Keys and raw values in the order they came, doubles included.
#[derive(Debug)]
pub(super) struct Document<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Document<'a> {
    /// Takes one object and nothing behind it.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Document<'a>, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The value of a key; of several the last, as in Go. An explicit `null` is `Some`.
    pub(super) fn raw(&self, key: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(k, _)| k == key).map(|(_, v)| *v)
    }

    /// The same, but `null` counts as absent, as in Go.
    pub(super) fn present(&self, key: &str) -> Option<&'a RawValue> {
        self.raw(key).filter(|v| v.get() != "null")
    }

    /// All of it, in order.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(k, v)| (k.as_ref(), *v))
    }

    /// Its text with the string `value` at `key`: in place, or in front where the key is missing.
    pub(super) fn with(&self, key: &str, value: &str) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut pairs: Vec<String> = Vec::with_capacity(self.0.len() + 1);
        if self.raw(key).is_none() {
            pairs.push(format!("{}:{}", quoted(key), quoted(value)));
        }
        for (k, raw) in self.entries() {
            let text = if k == key { quoted(value) } else { raw.get().to_owned() };
            pairs.push(format!("{}:{text}", quoted(k)));
        }
        format!("{{{}}}", pairs.join(","))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Document<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Document<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Document<'de>, M::Error> {
                let mut entries = Vec::new();
                while let Some(Key(key)) = map.next_key()? {
                    entries.push((key, map.next_value()?));
                }
                Ok(Document(entries))
            }
        }
        d.deserialize_map(Entries)
    }
}

/// `Cow<str>` alone would always copy.
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        d.deserialize_str(Text)
    }
}
