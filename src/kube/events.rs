//! A watch, one event at a time.
//!
//! In: the body of an answer that does not end, a line per event. Out: events, or the server's word that it ends. Never: begins a watch
//! anew; who follows a kind knows from where.

use std::io::{BufRead, BufReader, Read};

use serde::Deserialize;
use serde_json::Value;

use super::client::LONGEST;
use super::connection::Stream;
use super::error::ApiError;
use super::http::Body;

/// What a watch says, one event at a time.
#[derive(Debug)]
pub struct Events {
    pub(super) reader: BufReader<Body<Stream>>,
    pub(super) server: String,
    pub(super) path: String,
}

/// One event of a watch.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The object is there, or has changed.
    Is(Value),
    /// It is gone; its last form.
    Gone(Value),
    /// Nothing happened up to this version.
    Bookmark(String),
}

impl Events {
    /// Waits for the next; `None`: the server ended the watch.
    ///
    /// # Errors
    /// If the connection breaks, or the server says that the version is too old.
    #[allow(clippy::should_implement_trait, reason = "it fails, and iterators of results invite to go on")]
    pub fn next(&mut self) -> Result<Option<Event>, ApiError> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let unreachable = |source| ApiError::Unreachable { server: self.server.clone(), source };
            let count =
                self.reader.by_ref().take(LONGEST).read_until(b'\n', &mut line).map_err(unreachable)?;
            if count == 0 {
                return Ok(None);
            }
            if !line.trim_ascii().is_empty() {
                return self.event(&line).map(Some);
            }
        }
    }

    fn event(&self, line: &[u8]) -> Result<Event, ApiError> {
        #[derive(Deserialize)]
        struct Wire {
            r#type: String,
            object: Value,
        }
        let odd = |why: String| ApiError::Odd { server: self.server.clone(), why };
        let Wire { r#type, object } = serde_json::from_slice(line)
            .map_err(|e| odd(format!("an event of {} is no JSON: {e}", self.path)))?;
        match r#type.as_str() {
            "ADDED" | "MODIFIED" => Ok(Event::Is(object)),
            "DELETED" => Ok(Event::Gone(object)),
            "BOOKMARK" => Ok(Event::Bookmark(
                object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned(),
            )),
            "ERROR" => Err(ApiError::Refused {
                verb: "GET",
                path: self.path.clone(),
                status: object["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(500),
                reason: object["reason"].as_str().unwrap_or_default().to_owned(),
                message: object["message"].as_str().unwrap_or_default().to_owned(),
            }),
            other => Err(odd(format!("an event of {} is `{other}`", self.path))),
        }
    }
}
