//! A list as it comes: each object is given away before the next is read, so a list of 10,000 takes the memory of one.
//!
//! In: the bytes of a list. Out: what the caller keeps of each object, and what the list says of itself. Knows no kind.

use std::fmt;
use std::io::Read;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// What a list says of itself.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct About {
    /// The version that its objects are of.
    pub(super) resource_version: String,
    /// How the next page is asked for; empty: there is none.
    pub(super) r#continue: String,
}

/// Reads a list, and keeps of each object what `keep` makes of it.
pub(super) fn read<T>(
    reader: impl Read,
    keep: &mut dyn FnMut(Value) -> T,
) -> Result<(Vec<T>, About), serde_json::Error> {
    let mut from = serde_json::Deserializer::from_reader(reader);
    let found = from.deserialize_map(List(keep))?;
    from.end()?;
    Ok(found)
}

struct List<'a, T>(&'a mut dyn FnMut(Value) -> T);

impl<'de, T> Visitor<'de> for List<'_, T> {
    type Value = (Vec<T>, About);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let (mut items, mut about) = (None, About::default());
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "items" => items = Some(map.next_value_seed(Items(&mut *self.0))?),
                "metadata" => about = map.next_value()?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        // Another object is not an empty list.
        Ok((items.ok_or_else(|| M::Error::missing_field("items"))?, about))
    }
}

struct Items<'a, T>(&'a mut dyn FnMut(Value) -> T);

impl<'de, T> DeserializeSeed<'de> for Items<'_, T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T> Visitor<'de> for Items<'_, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("objects")
    }

    fn visit_unit<E: Error>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new()) // Go writes an empty list so
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut sequence: S) -> Result<Vec<T>, S::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push((self.0)(item));
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<(Vec<String>, About), serde_json::Error> {
        read(text.as_bytes(), &mut |item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned())
    }

    #[test]
    fn a_list_is_its_objects_and_what_it_says_of_itself() {
        let (found, about) = names(
            r#"{"kind": "List", "metadata": {"resourceVersion": "7", "continue": "abc", "remainingItemCount": 3},
                "items": [{"metadata": {"name": "a"}, "spec": {"x": [1, {}]}}, {"metadata": {"name": "b"}}]}"#,
        )
        .unwrap();
        assert_eq!(found, ["a", "b"]);
        assert_eq!(about, About { resource_version: "7".into(), r#continue: "abc".into() });
        assert_eq!(names(r#"{"items": null, "metadata": {}}"#).unwrap(), (vec![], About::default()));
    }

    #[test]
    fn what_is_cut_off_or_is_no_list_is_an_error_and_not_a_short_list() {
        for text in
            [r#"{"items": [{"metadata": {"name": "a"}}"#, r#"{"kind": "Pod"}"#, "[]", r#"{"items": {}}"#, ""]
        {
            assert!(names(text).is_err(), "{text}");
        }
    }
}
