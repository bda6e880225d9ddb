//! Who called, and may be answered before everything is done that follows from the call.
//!
//! In: a connection, the question, what it means. Out: one answer. Never: answers twice.
//!
//! What a runtime waits for is that a pod's packets obey, or that a pod that ended sends nothing more; not that a file has another name. What
//! follows an answer is done under the locks of the call, so whoever comes next finds it done.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crate::cni::relay::{Answer, Question};
use crate::cni::reply::CniError;
use crate::cni::request::Request;

/// Who waits for an answer.
#[derive(Clone)]
pub(super) struct Caller {
    stream: Arc<UnixStream>,
    question: Arc<Question>,
    /// Whether the answer arrived, as soon as there is one.
    told: Arc<OnceLock<io::Result<()>>>,
}

/// So many bytes find room in a socket although nobody reads them (`net.core.wmem_default` is 208 KiB, and counts more than bytes).
const ROOM: usize = 32 << 10;
/// How long somebody who asked may take to read a longer answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers what cannot be understood.
pub(super) fn refuse(stream: &UnixStream, error: CniError) -> io::Result<()> {
    write(stream, &serde_json::to_vec(&Answer::of(Err(error)))?)
}

fn write(mut stream: &UnixStream, bytes: &[u8]) -> io::Result<()> {
    if bytes.len() > ROOM {
        stream.set_write_timeout(Some(PATIENCE))?;
    }
    stream.write_all(bytes)
}

/// That all went well, not said yet.
pub(super) struct Success {
    caller: Caller,
    bytes: Vec<u8>,
}

impl Caller {
    pub(super) fn of(stream: Arc<UnixStream>, question: Question) -> Caller {
        Caller { stream, question: Arc::new(question), told: Arc::default() }
    }

    pub(super) fn question(&self) -> &Question {
        &self.question
    }

    /// The answer that a call has if it goes well.
    pub(super) fn success(&self, request: &Request) -> Success {
        Success { caller: self.clone(), bytes: self.question.answered(Some(request), Ok(())) }
    }

    /// Answers, unless that was done. An error: nobody heard it.
    pub(super) fn tell(&self, request: Option<&Request>, outcome: Result<(), CniError>) -> io::Result<()> {
        match (self.told.get(), outcome) {
            (None, outcome) => self.say(&self.question.answered(request, outcome)),
            (Some(_), Err(error)) => {
                tracing::warn!(%error, "what was to follow an answer is left to the loop");
            }
            (Some(_), Ok(())) => {}
        }
        match self.told.get() {
            Some(Err(error)) => Err(io::Error::new(error.kind(), error.to_string())),
            _ => Ok(()),
        }
    }

    /// Who waits on this very processor goes on at once.
    fn say(&self, bytes: &[u8]) {
        self.told.get_or_init(|| {
            let told = write(&self.stream, bytes);
            thread::yield_now();
            told
        });
    }
}

impl Success {
    /// Says it.
    pub(super) fn tell(&self) {
        self.caller.say(&self.bytes);
    }
}
