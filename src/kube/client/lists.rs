//! Lists of an API server, page by page.
//!
//! In: a path, and what is to be kept of each object. Out: that of all of them, and the version that they are of. Never: takes a part for the
//! whole, whoever made pages of it.

use std::io::{self, BufReader, Read};

use serde_json::Value;

use super::{Client, whole};
use crate::kube::error::ApiError;
use crate::kube::items;

/// Objects in one answer to [`Client::list`].
const PAGE: usize = 500;

impl Client {
    /// Every object of a list, page by page, and the version that they are of. `path` ends with `?` or `&`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn list(&self, path: &str) -> Result<(Vec<Value>, String), ApiError> {
        self.list_of(path, None, &mut |item| item)
    }

    /// The same, and of each object only what `keep` makes of it, as it comes: the objects themselves never stand in memory
    /// together. `since`: a version (0: any) that the list must not be older than; the server answers then from what it remembers,
    /// and need not read every object of the kind to find those of one node.
    ///
    /// # Errors
    /// As [`Client::get`]; [`ApiError::is_ahead`] where the server does not know that version yet.
    pub fn list_of<T>(
        &self,
        path: &str,
        since: Option<u64>,
        keep: &mut dyn FnMut(Value) -> T,
    ) -> Result<(Vec<T>, String), ApiError> {
        let (mut items, mut next) = (Vec::<T>::new(), String::new());
        if let Some(version) = since {
            let path = format!("{path}resourceVersionMatch=NotOlderThan&resourceVersion={version}");
            let (all, about) = self.page(&path, keep)?;
            if about.r#continue.is_empty() {
                return Ok((all, about.resource_version));
            }
            // Nobody asked for pages, and somebody in between gives some: what is not in the first is not gone.
            (items, next) = (all, about.r#continue);
        }
        loop {
            let (page, about) = match self.page(&format!("{path}limit={PAGE}&continue={next}"), keep) {
                // The pages' common version is too old by now: from the beginning.
                Err(error) if error.is_expired() && !next.is_empty() => {
                    next.clear();
                    items.clear();
                    continue;
                }
                other => other?,
            };
            items.extend(page);
            if about.r#continue.is_empty() {
                return Ok((items, about.resource_version));
            }
            next = about.r#continue;
        }
    }

    fn page<T>(
        &self,
        path: &str,
        keep: &mut dyn FnMut(Value) -> T,
    ) -> Result<(Vec<T>, items::About), ApiError> {
        let mut read = |status: u16, body: &mut dyn Read| -> io::Result<Page<T>> {
            if status == 200 {
                return Ok(Page::Items(items::read(BufReader::new(body), keep)?));
            }
            whole(body).map(|answer| Page::No(status, answer))
        };
        let outcome = self.conversed("GET", path, None, &mut read).and_then(|page| match page {
            Page::Items(found) => Ok(found),
            Page::No(status, answer) => Err(self.no_page(path, status, &answer)),
        });
        self.count("GET", outcome.as_ref().map_or_else(|e| e.status().unwrap_or_default(), |_| 200));
        outcome
    }

    fn no_page(&self, path: &str, status: u16, answer: &[u8]) -> ApiError {
        let why = || format!("a list was answered with {status}");
        let odd = || ApiError::Odd { server: self.access.server(), why: why() };
        self.judged("GET", path, status, answer).err().unwrap_or_else(odd)
    }
}

/// A page of a list, or what the server said instead.
enum Page<T> {
    Items((Vec<T>, items::About)),
    No(u16, Vec<u8>),
}
