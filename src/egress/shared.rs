//! A part of plans that most of them have in common with the one before: made once, with its text.
//!
//! In: a value. Out: the same, and its text, for all plans that share it. Never: shared by who changes it: a change makes a copy of one's
//! own. A node's uplinks are as many as its pods where each pod's end has an address, and to copy, compare and write them at each call was
//! as much as all the rest of a plan.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

use serde::de::Deserializer;
use serde::ser::{Error, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

/// A value that is copied when it is changed.
#[derive(Debug, Clone, Default)]
pub struct Shared<T>(Arc<Inner<T>>);

#[derive(Debug, Default)]
struct Inner<T> {
    value: T,
    text: OnceLock<Box<RawValue>>,
}

impl<T: Clone> Clone for Inner<T> {
    /// Who wants one of his own is about to change it.
    fn clone(&self) -> Inner<T> {
        Inner { value: self.value.clone(), text: OnceLock::new() }
    }
}

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Shared<T> {
        Shared(Arc::new(Inner { value, text: OnceLock::new() }))
    }
}

impl<T: PartialEq> Shared<T> {
    /// Shares this in place of its own, if they are the same.
    pub fn share(&mut self, other: &Shared<T>) {
        if self == other {
            self.0 = Arc::clone(&other.0);
        }
    }
}

impl<T> Shared<T> {
    /// Whether a copy of the other that nobody changed.
    pub(super) fn is_one_with(&self, other: &Shared<T>) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T: Serialize> Shared<T> {
    /// What it says, as JSON.
    ///
    /// # Errors
    /// None, but for a value that has no text.
    pub fn text(&self) -> serde_json::Result<&RawValue> {
        if let Some(text) = self.0.text.get() {
            return Ok(text);
        }
        let text = to_raw_value(&self.0.value)?;
        Ok(self.0.text.get_or_init(|| text))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        let own = Arc::make_mut(&mut self.0);
        own.text.take();
        &mut own.value
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Shared<T>) -> bool {
        self.is_one_with(other) || self.0.value == other.0.value
    }
}

impl<T: Eq> Eq for Shared<T> {}

impl<T: Serialize> Serialize for Shared<T> {
    /// As JSON alone: a plan is written in no other form.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text().map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Shared<T>, D::Error> {
        T::deserialize(deserializer).map(Shared::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_is_changed_says_something_else_and_the_other_one_what_it_said() {
        let first = Shared::from(vec![1, 2]);
        let said = serde_json::to_string(&first).unwrap();
        let mut second = first.clone();
        assert!(first == second && first.is_one_with(&second));
        second.push(3);
        assert_ne!(first, second);
        assert_eq!(serde_json::to_string(&second).unwrap(), "[1,2,3]");
        assert_eq!(serde_json::to_string(&first).unwrap(), said);
        assert_eq!(serde_json::from_str::<Shared<Vec<i32>>>(&said).unwrap(), first);
    }

    #[test]
    fn what_is_the_same_is_shared_and_nothing_else() {
        let (before, mut same, mut other) = (Shared::from(1), Shared::from(1), Shared::from(2));
        same.share(&before);
        other.share(&before);
        assert!(before.is_one_with(&same) && *other == 2);
    }
}
