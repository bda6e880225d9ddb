//! The same configuration from a file, for the command line: `/etc/egret/config.json`, or a CNI list.

use std::path::Path;

use serde_json::Value;

use super::{Config, ConfigError};
use crate::api::document::{self, Format};

impl Config {
    /// Reads a file: see [`Config::entry`].
    ///
    /// # Errors
    /// If the file cannot be read, is neither JSON nor YAML, has no entry of Egret's, or a key is wrong.
    pub fn from_file(path: &Path) -> Result<Config, ConfigError> {
        Config::from_json(&Config::entry(path)?)
    }

    /// Egret's keys in a file: its map as it is, or, of a CNI list (`plugins`), the first entry of type `egret`.
    /// `.json`, `.conf` and `.conflist` are JSON, other names YAML.
    ///
    /// # Errors
    /// If the file cannot be read, is neither JSON nor YAML, or has no entry of Egret's.
    pub fn entry(path: &Path) -> Result<Value, ConfigError> {
        let text = std::fs::read(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let json = path.extension().is_some_and(|e| e == "json" || e == "conf" || e == "conflist");
        let format = if json { Format::Json } else { Format::Yaml };
        let mut documents = document::read(&text, format);
        let syntax = |what: String| ConfigError::Syntax { path: path.to_owned(), what };
        if let Some(error) = documents.errors.first() {
            return Err(syntax(format!("is not {format}: {error}")));
        }
        let (Some(value), None) = (documents.values.pop(), documents.values.pop()) else {
            return Err(syntax("holds no single map of keys and values".to_owned()));
        };
        let ours = |entry: &&Value| entry.get("type").is_some_and(|kind| kind == "egret");
        let found = match value.get("plugins") {
            Some(Value::Array(plugins)) => plugins.iter().find(ours).cloned(),
            _ => Some(value).filter(|entry| entry.get("type").is_none() || ours(&entry)),
        };
        found.ok_or_else(|| ConfigError::NoEntry(path.to_owned()))
    }
}
