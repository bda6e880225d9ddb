//! Requests to an API server, and watches.
//!
//! In: verb, path, body. Out: JSON, or an [`ApiError`]. A connection is kept and used again; one that the server closed meanwhile
//! costs one more try. Every write that Egret makes names the version it was decided on, so a write that is sent
//! twice is refused the second time, never done twice.

mod lists;

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Access;
use super::connection::{self, Stream};
use super::error::ApiError;
use super::events::Events;
use super::http::{self, Body, Framing};
use super::trust::{Trust, is_about_certificates};

/// How long the server may be silent in an answer. It gives up itself after 60 s; who waits here is a pod's start.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a watch may be silent once it has begun: longer than it is asked to live. Keep-alive probes notice a dead peer long before,
/// but not a proxy that lives and has lost its server.
const WATCH_PATIENCE: Duration = Duration::from_secs(330);
/// Longest answer that is read whole. Lists are asked for in pages.
pub(super) const LONGEST: u64 = 64 << 20;

/// Speaks to one API server. Threads may share it.
#[derive(Debug)]
pub struct Client {
    access: Access,
    trust: Trust,
    idle: Mutex<Vec<Stream>>,
    counted: Mutex<BTreeMap<(&'static str, u16), u64>>,
}

/// The server's way to say no.
#[derive(Deserialize, Default)]
struct Status {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

impl Client {
    /// Makes nothing but memory: the first request connects.
    ///
    /// # Errors
    /// If certificates or keys cannot be used.
    pub fn new(access: Access) -> Result<Client, ApiError> {
        let trust = Trust::new(&access)?;
        Ok(Client { access, trust, idle: Mutex::default(), counted: Mutex::default() })
    }

    /// Whom it speaks to, and as whom.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// How many requests were made, by verb (`WATCH` for one that began) and status; 0: nobody answered.
    pub fn requests(&self) -> BTreeMap<(&'static str, u16), u64> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, verb: &'static str, status: u16) {
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner).entry((verb, status)).or_default() += 1;
    }

    /// Reads an object or a list.
    ///
    /// # Errors
    /// [`ApiError::is_absent`] and the others.
    pub fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.request("GET", path, None)
    }

    /// Makes an object.
    ///
    /// # Errors
    /// [`ApiError::is_conflict`] if it exists, and the others.
    pub fn create(&self, path: &str, object: &Value) -> Result<Value, ApiError> {
        self.request("POST", path, Some(object))
    }

    /// Writes an object over the version that it names.
    ///
    /// # Errors
    /// [`ApiError::is_conflict`] if it has another version, and the others.
    pub fn replace(&self, path: &str, object: &Value) -> Result<Value, ApiError> {
        self.request("PUT", path, Some(object))
    }

    /// Changes some fields of an object, whatever its version (RFC 7396: `null` takes a field away). For what nobody decides by:
    /// everything else names the version that it was decided on.
    ///
    /// # Errors
    /// [`ApiError::is_absent`] and the others.
    pub fn merge(&self, path: &str, fields: &Value) -> Result<Value, ApiError> {
        self.request("PATCH", path, Some(fields))
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// [`ApiError::is_absent`] and the others.
    pub fn delete(&self, path: &str) -> Result<Value, ApiError> {
        self.request("DELETE", path, None)
    }

    /// Deletes an object if it has this version still.
    ///
    /// # Errors
    /// [`ApiError::is_conflict`] if it has another, [`ApiError::is_absent`] and the others.
    pub fn delete_as(&self, path: &str, version: &str) -> Result<Value, ApiError> {
        let only = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"resourceVersion": version}});
        self.request("DELETE", path, Some(&only))
    }

    fn request(&self, verb: &'static str, path: &str, body: Option<&Value>) -> Result<Value, ApiError> {
        let outcome = self.ask(verb, path, body);
        self.count(verb, outcome.as_ref().map_or_else(|e| e.status().unwrap_or_default(), |_| 200));
        outcome
    }

    fn ask(&self, verb: &'static str, path: &str, body: Option<&Value>) -> Result<Value, ApiError> {
        let body = body.map(|value| value.to_string().into_bytes());
        let mut read = |status, body: &mut dyn Read| whole(body).map(|answer| (status, answer));
        let (status, answer) = self.conversed(verb, path, body.as_deref(), &mut read)?;
        self.judged(verb, path, status, &answer)
    }

    /// One request, and what is read of its answer. On a connection that was kept, if there is one and the server has kept it, too.
    fn conversed<T>(
        &self,
        verb: &str,
        path: &str,
        body: Option<&[u8]>,
        read: Reading<'_, T>,
    ) -> Result<T, ApiError> {
        let bytes = self.bytes(verb, path, body)?;
        let kept = self.idle().pop();
        if let Some(stream) = kept {
            match self.exchange(stream, &bytes, read) {
                Ok(answer) => return Ok(answer),
                Err(error) if is_stale(&error) || is_about_certificates(&error) => {}
                // If its machine died, nobody answers on the others that were kept either: each would be waited for in turn.
                Err(source) => {
                    self.idle().clear();
                    return Err(self.unreachable(source));
                }
            }
        }
        // That a server does not take our certificate is heard from its first answer, which nothing was read of then.
        let tls = self.tls();
        let once = self.connect(&tls).and_then(|fresh| self.exchange(fresh, &bytes, read));
        let answer = match once {
            Err(error) if is_about_certificates(&error) && self.renew(&tls) => {
                self.connect(&self.tls()).and_then(|fresh| self.exchange(fresh, &bytes, read))
            }
            once => once,
        };
        answer.map_err(|source| self.unreachable(source))
    }

    /// Follows a list from a version on. Ends when the server ends it, which it does every few minutes; ask again then.
    ///
    /// `path` has its query, with `resourceVersion` and `allowWatchBookmarks`.
    ///
    /// # Errors
    /// [`ApiError::is_expired`]: list again. And the others.
    pub fn watch(&self, path: &str) -> Result<Events, ApiError> {
        let outcome = self.begin_watch(path);
        self.count("WATCH", outcome.as_ref().map_or_else(|e| e.status().unwrap_or_default(), |_| 200));
        outcome
    }

    fn begin_watch(&self, path: &str) -> Result<Events, ApiError> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}watch=1");
        let bytes = self.bytes("GET", &path, None)?;
        // That it begins is said at once, whatever happens later.
        let begin = |tls: &Arc<ClientConfig>| {
            let mut stream = self.connect(tls)?;
            let head = send(&mut stream, &bytes)?;
            stream.get_ref().sock.set_read_timeout(Some(WATCH_PATIENCE))?;
            Ok((stream, head))
        };
        let tls = self.tls();
        let begun = match begin(&tls) {
            Err(error) if is_about_certificates(&error) && self.renew(&tls) => begin(&self.tls()),
            begun => begun,
        };
        let (stream, head) = begun.map_err(|source| self.unreachable(source))?;
        let mut body = Body::new(stream, head.framing);
        if head.status != 200 {
            let mut answer = Vec::new();
            body.by_ref()
                .take(LONGEST)
                .read_to_end(&mut answer)
                .map_err(|source| self.unreachable(source))?;
            return Err(self.judged("GET", &path, head.status, &answer).err().unwrap_or_else(|| {
                ApiError::Odd {
                    server: self.access.server(),
                    why: format!("a watch began with {}", head.status),
                }
            }));
        }
        Ok(Events { reader: BufReader::new(body), server: self.access.server(), path })
    }

    fn bytes(&self, verb: &str, path: &str, body: Option<&[u8]>) -> Result<Vec<u8>, ApiError> {
        let host = self.access.address();
        let authorization = self.access.authorization()?;
        let agent = concat!("egret/", env!("CARGO_PKG_VERSION"));
        let mut headers =
            vec![("host", host.as_str()), ("user-agent", agent), ("accept", "application/json")];
        if let Some(value) = &authorization {
            headers.push(("authorization", value));
        }
        if body.is_some() {
            let merge = verb == "PATCH";
            let kind = if merge { "application/merge-patch+json" } else { "application/json" };
            headers.push(("content-type", kind));
        }
        let path = format!("{}{path}", self.access.prefix);
        Ok(http::request(verb, &path, &headers, body))
    }

    /// For the next connection.
    fn tls(&self) -> Arc<ClientConfig> {
        let (tls, is_new) = self.trust.config(&self.access);
        if is_new {
            self.idle().clear();
        }
        tls
    }

    fn connect(&self, tls: &Arc<ClientConfig>) -> io::Result<Stream> {
        connection::connect(&self.access, tls, PATIENCE)
    }

    /// Who is refused reads once more who it is, and whom it trusts. What stands with what was known before is not used any more.
    fn renew(&self, used: &Arc<ClientConfig>) -> bool {
        let is_new = self.trust.renew(&self.access, Some(used));
        if is_new {
            self.idle().clear();
        }
        is_new
    }

    /// The connection is kept if the server keeps it.
    fn exchange<T>(&self, mut stream: Stream, bytes: &[u8], read: Reading<'_, T>) -> io::Result<T> {
        let head = send(&mut stream, bytes)?;
        let mut body = Body::new(stream, head.framing);
        let answer = read(head.status, &mut body)?;
        // A reader of JSON stops at its last bracket.
        let ended = io::copy(&mut body.by_ref().take(64), &mut io::sink())? < 64;
        if ended && head.keep && head.framing != Framing::UntilClosed {
            self.idle().push(body.reader);
        }
        Ok(answer)
    }

    fn judged(&self, verb: &'static str, path: &str, status: u16, answer: &[u8]) -> Result<Value, ApiError> {
        if (200..300).contains(&status) {
            return serde_json::from_slice(answer).map_err(|e| ApiError::Odd {
                server: self.access.server(),
                why: format!("its answer to {verb} {path} is no JSON: {e}"),
            });
        }
        if status == 401 {
            self.access.was_refused();
            self.trust.renew(&self.access, None);
            self.idle().clear();
        }
        // A proxy before the server answers in a language of its own.
        let said: Status = serde_json::from_slice(answer).unwrap_or_else(|_| Status {
            reason: String::new(),
            message: String::from_utf8_lossy(answer).lines().next().unwrap_or_default().to_owned(),
        });
        let path = path.split('?').next().unwrap_or_default().to_owned();
        Err(ApiError::Refused { verb, path, status, reason: said.reason, message: said.message })
    }

    fn unreachable(&self, source: io::Error) -> ApiError {
        ApiError::Unreachable { server: self.access.server(), source }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Stream>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads an answer, by its status.
type Reading<'a, T> = &'a mut dyn FnMut(u16, &mut dyn Read) -> io::Result<T>;

/// An answer in one piece.
fn whole(body: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    if body.take(LONGEST).read_to_end(&mut answer)? as u64 == LONGEST {
        return Err(io::Error::other(format!("its answer is longer than {LONGEST} bytes")));
    }
    Ok(answer)
}

fn send(stream: &mut Stream, bytes: &[u8]) -> io::Result<http::Head> {
    stream.get_mut().write_all(bytes)?;
    stream.get_mut().flush()?;
    http::head(stream)
}

/// The server closed a connection that was kept; nothing of an answer came.
fn is_stale(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}
