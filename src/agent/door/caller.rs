//! Who called, and may be answered before everything is done that follows from the call.
//!
//! In: a connection, the question, what it means. Out: one answer. Never: answers twice.
//!
//! What a runtime waits for is that a pod's packets obey, or that a pod that ended sends nothing more; not that a file has another name. What
//! follows an answer is done under the locks of the call, so whoever comes next finds it done.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};

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

/// How long somebody who asked may take to read an answer for which the socket has no room.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers what cannot be understood.
pub(super) fn refuse(stream: &UnixStream, error: CniError) -> io::Result<()> {
    write(stream, &serde_json::to_vec(&Answer::of(Err(error)))?)
}

fn write(mut stream: &UnixStream, bytes: &[u8]) -> io::Result<()> {
    let at_once = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let sent = match send(stream.as_raw_fd(), bytes, at_once) {
        Err(Errno::EAGAIN | Errno::EINTR) => 0,
        sent => sent?,
    };
    if sent == bytes.len() {
        return Ok(());
    }
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&bytes[sent..])
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
            (None, outcome) => drop(self.write(&self.question.answered(request, outcome))),
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

    /// Says that all went well, where little follows.
    pub(super) fn say(&self, request: &Request) {
        self.write(&self.question.answered(Some(request), Ok(())));
    }

    /// Whether it was not said before.
    fn write(&self, bytes: &[u8]) -> bool {
        let mut now = false;
        self.told.get_or_init(|| {
            now = true;
            write(&self.stream, bytes)
        });
        now
    }
}

impl Success {
    /// Says it. Who waits on this very processor goes on at once: much follows here.
    pub(super) fn tell(&self) {
        if self.caller.write(&self.bytes) {
            thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn an_answer_for_which_there_is_no_room_is_written_while_it_is_read() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let answer: Vec<u8> = (0..4 << 20).map(|n: u32| n.to_le_bytes()[0]).collect();
        let mut said = Vec::new();
        thread::scope(|scope| {
            let (ours, answer) = (ours, &answer);
            scope.spawn(move || write(&ours, answer).unwrap());
            theirs.read_to_end(&mut said).unwrap();
        });
        assert!(said == answer);
    }

    #[test]
    fn who_went_away_is_an_error_and_no_signal() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert_eq!(write(&ours, b"yes").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
