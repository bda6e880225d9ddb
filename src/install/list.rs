//! Our entry in a network list. Pure.
//!
//! In: a list as its owner wrote it, our entry. Out: the list with it, or without. Never: another entry, nor a key that is not ours.

use serde_json::{Map, Value, json};

/// What we are called in a list.
pub const TYPE: &str = "egret";

/// Why a file is no list that we can stand in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Not JSON, or cut off: its writer may be at work.
    #[error("is no JSON: {0}")]
    Syntax(String),
    /// JSON, but neither a list nor a plugin.
    #[error("has neither `plugins` nor `type`: it is no network configuration")]
    Foreign,
    /// No plugin gives pods an interface: a runtime passes such a list over, and ours alone would fail every pod.
    #[error(
        "has no plugin before Egret's: install the cluster's network first, or name its list with --list"
    )]
    Empty,
    /// Plugins of this version do not hand their results on.
    #[error("is of cniVersion {0}; plugins stand behind one another only from 0.3.0 on")]
    TooOld(String),
}

/// Whose plugins these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Several plugins, one after another.
    List,
    /// One plugin alone (`.conf`): nothing can stand behind it in the same file.
    Single,
}

/// What a file is.
///
/// # Errors
/// It is nothing that a runtime would start pods with.
pub fn shape(text: &[u8]) -> Result<Shape, ListError> {
    let value = read(text)?;
    version(&value)?;
    let Some(plugins) = value["plugins"].as_array() else { return Ok(Shape::Single) };
    if plugins.iter().all(is_ours) { Err(ListError::Empty) } else { Ok(Shape::List) }
}

/// The list with our entry: where it stands already, else last, because what it needs is the result of all the others. `None`: it is
/// there, and as it should be.
///
/// # Errors
/// As [`shape`].
pub fn with(text: &[u8], entry: &Value) -> Result<Option<String>, ListError> {
    let mut list = read(text)?;
    version(&list)?;
    let Some(plugins) = list.get_mut("plugins").and_then(Value::as_array_mut) else {
        return Ok(Some(written(&wrapped(list, entry))));
    };
    if plugins.iter().all(is_ours) {
        return Err(ListError::Empty);
    }
    let before = plugins.clone();
    let mut ours = plugins.iter().position(is_ours);
    // A second one would wire every pod twice.
    let mut at = 0;
    plugins.retain(|plugin| {
        let keep = !is_ours(plugin) || Some(at) == ours;
        at += 1;
        keep
    });
    ours = plugins.iter().position(is_ours);
    match ours {
        Some(at) => plugins[at] = entry.clone(),
        None => plugins.push(entry.clone()),
    }
    let same = *plugins == before;
    Ok((!same).then(|| written(&list)))
}

/// Our entry, as it stands in a list.
pub fn entry(text: &[u8]) -> Option<Value> {
    read(text).ok()?["plugins"].as_array()?.iter().find(|plugin| is_ours(plugin)).cloned()
}

/// The list without us; `None`: we are not in it.
///
/// # Errors
/// It is no JSON.
pub fn without(text: &[u8]) -> Result<Option<String>, ListError> {
    let mut list = read(text)?;
    let Some(plugins) = list.get_mut("plugins").and_then(Value::as_array_mut) else { return Ok(None) };
    let before = plugins.len();
    plugins.retain(|plugin| !is_ours(plugin));
    let gone = plugins.len() < before;
    Ok(gone.then(|| written(&list)))
}

/// A list around a plugin that stood alone, and us behind it.
fn wrapped(mut plugin: Value, entry: &Value) -> Value {
    let mut list = Map::new();
    for key in ["cniVersion", "name"] {
        if let Some(value) = plugin.as_object_mut().and_then(|fields| fields.shift_remove(key)) {
            list.insert(key.to_owned(), value);
        }
    }
    list.insert("plugins".to_owned(), json!([plugin, entry]));
    list.into()
}

fn is_ours(plugin: &Value) -> bool {
    plugin["type"] == TYPE
}

/// What a file says.
///
/// # Errors
/// It is neither a list nor a plugin.
pub fn read(text: &[u8]) -> Result<Value, ListError> {
    let value: Value = serde_json::from_slice(text).map_err(|e| ListError::Syntax(e.to_string()))?;
    if value["plugins"].is_array() || value["type"].is_string() { Ok(value) } else { Err(ListError::Foreign) }
}

fn version(list: &Value) -> Result<(), ListError> {
    let said = list["cniVersion"].as_str().unwrap_or("0.1.0");
    let numbers: Vec<u32> = said.split('.').filter_map(|part| part.parse().ok()).collect();
    let old = numbers.as_slice() < &[0, 3][..];
    if old { Err(ListError::TooOld(said.to_owned())) } else { Ok(()) }
}

fn written(list: &Value) -> String {
    format!("{list:#}\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> Value {
        json!({"type": "egret", "mode": "cluster"})
    }

    fn types(text: &str) -> Vec<String> {
        let list: Value = serde_json::from_str(text).unwrap();
        list["plugins"].as_array().unwrap().iter().map(|p| p["type"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn we_stand_last_and_nothing_else_is_touched() {
        let calico = r#"{"name": "k8s-pod-network", "cniVersion": "0.3.1", "plugins": [
            {"type": "calico", "mtu": 0, "policy": {"type": "k8s"}}, {"type": "portmap", "snat": true}], "later": 1.50}"#;
        let with_us = with(calico.as_bytes(), &entry()).unwrap().unwrap();
        assert_eq!(types(&with_us), ["calico", "portmap", "egret"]);
        assert_eq!(with(with_us.as_bytes(), &entry()).unwrap(), None, "again: nothing to do");
        let back: Value = serde_json::from_str(&without(with_us.as_bytes()).unwrap().unwrap()).unwrap();
        assert_eq!(back, serde_json::from_str::<Value>(calico).unwrap());
        assert_eq!(without(calico.as_bytes()).unwrap(), None);
    }

    #[test]
    fn an_entry_keeps_its_place_takes_new_keys_and_is_never_there_twice() {
        let list = r#"{"cniVersion": "1.0.0", "name": "n", "plugins":
            [{"type": "bridge"}, {"type": "egret", "log": "debug"}, {"type": "portmap"}, {"type": "egret"}]}"#;
        let now = with(list.as_bytes(), &entry()).unwrap().unwrap();
        assert_eq!(types(&now), ["bridge", "egret", "portmap"]);
        assert!(now.contains("cluster") && !now.contains("debug"), "{now}");
    }

    #[test]
    fn a_plugin_that_stands_alone_is_put_into_a_list() {
        let alone = br#"{"cniVersion": "0.3.1", "name": "net", "type": "bridge", "ipam": {}}"#;
        assert_eq!(shape(alone).unwrap(), Shape::Single);
        let list: Value = serde_json::from_str(&with(alone, &entry()).unwrap().unwrap()).unwrap();
        assert_eq!(
            list,
            json!({"cniVersion": "0.3.1", "name": "net", "plugins": [{"type": "bridge", "ipam": {}}, entry()]})
        );
    }

    #[test]
    fn what_is_no_list_is_said() {
        let said = |text: &str| with(text.as_bytes(), &entry()).unwrap_err().to_string();
        assert!(said("{").starts_with("is no JSON"), "{}", said("{"));
        assert!(said("{}").contains("no network configuration"));
        assert!(said("[]").contains("no network configuration"));
        assert!(said(r#"{"plugins": []}"#).contains("cniVersion 0.1.0"));
        assert!(said(r#"{"cniVersion": "0.2.0", "plugins": []}"#).contains("from 0.3.0 on"));
        assert!(said(r#"{"cniVersion": "1.0.0", "plugins": []}"#).contains("no plugin before Egret's"));
        let alone = r#"{"cniVersion": "1.0.0", "plugins": [{"type": "egret"}]}"#;
        assert!(said(alone).contains("no plugin before Egret's"));
        assert_eq!(shape(alone.as_bytes()), Err(ListError::Empty));
    }

    proptest! {
        #[test]
        fn with_and_without_are_each_others_inverse(names in prop::collection::vec("[a-z]{1,4}", 1..5)) {
            let plugins: Vec<Value> = names.iter().map(|name| json!({"type": name})).collect();
            let list = json!({"cniVersion": "1.1.0", "name": "n", "plugins": plugins});
            let text = list.to_string();
            let now = with(text.as_bytes(), &entry()).unwrap().unwrap();
            prop_assert_eq!(with(now.as_bytes(), &entry()).unwrap(), None);
            let back = without(now.as_bytes()).unwrap().unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(&back).unwrap(), list);
        }
    }
}
