//! The plugin of `mode: cluster`: it asks the agent of its node, and says what the agent says.
//!
//! In: a [`Request`]. Out: the agent's answer; where no agent is, what can be known without one. Never: changes a kernel, opens TLS,
//! or waits longer than a runtime does.
//!
//! The agent is away while it is upgraded, was killed, or has not started yet. Then a pod that is provably not selected starts, every
//! other one gets error 11 and is tried again; DEL succeeds, because the agent forgets pods whose namespace is gone; STATUS is well as
//! long as a last plan lies on disk, because an error there would have everything evicted that runs on this node.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr};
use nix::sys::socket::{connect, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;

use super::awake::Awake;
use super::records::node_named;
use super::unasked;
use crate::clock;
use crate::cni::Node;
use crate::cni::environment::{Environment, Verb};
use crate::cni::relay::{Answer, Destination, Heard, LONGEST, Question};
use crate::cni::reply::{CniError, Code, Reply};
use crate::cni::request::Request;
use crate::config::{Config, RUN_DIR};
use crate::hash;

/// How long a verb may take. The kubelet gives up after two minutes and begins anew; what is asked then finds the same queue.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same for STATUS, which has a second in all.
const STATUS_PATIENCE: Duration = Duration::from_millis(800);
/// Longest path of a Unix socket, with its end (unix(7)).
const LONGEST_PATH: usize = 107;

/// Where the agent of a node listens: beside the node's records, or, where that path is too long for a socket, above them.
pub fn door(run_dir: &Path, node: &str) -> PathBuf {
    let beside = run_dir.join(node).join("agent.sock");
    if beside.as_os_str().len() <= LONGEST_PATH {
        return beside;
    }
    run_dir.join(format!("{:08x}.sock", hash::stable32(node.as_bytes())))
}

/// The plugin that asks. A call goes to the agent as it came, which takes three of its keys; what the agent then prints, it prints. It
/// understands the call itself only where there is more to be said: to read a configuration and a result into values was a fifth of its life.
#[derive(Debug, Default)]
pub struct Thin {
    /// What became of the question, where it was asked so and the answer was none to print.
    asked: Mutex<Option<Asked>>,
}

impl Thin {
    /// It has not asked yet.
    pub const fn new() -> Thin {
        Thin { asked: Mutex::new(None) }
    }

    fn ask(&self, request: &Request) -> Asked {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).take();
        asked.unwrap_or_else(|| ask(request))
    }

    fn answered(&self, request: &Request) -> Result<(), CniError> {
        match self.ask(request) {
            Asked::Answered(outcome) => outcome,
            Asked::Absent(why) | Asked::Lost(why) => Err(later(request, &why)),
        }
    }
}

impl Node for &Thin {
    fn pass_on(&self, environment: &Environment, stdin: &[u8]) -> Option<Reply> {
        let verb = environment.verb;
        if matches!(verb, Verb::Status | Verb::Version) {
            return None; // STATUS has a deadline, and goes a way of its own
        }
        let to = Destination::of(stdin)?;
        let question = Question::of(environment, stdin).wanting_reply();
        match put(&question, &to, verb) {
            Put::Reply(reply) => Some(reply),
            Put::Asked(asked) => {
                *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked);
                None
            }
        }
    }

    fn add(&self, request: &Request) -> Result<(), CniError> {
        match self.ask(request) {
            Asked::Answered(outcome) => outcome,
            Asked::Absent(why) => unasked::start(request, &request.config, &why, None),
            Asked::Lost(why) => Err(later(request, &why)),
        }
    }

    fn del(&self, request: &Request) -> Result<(), CniError> {
        match self.ask(request) {
            Asked::Answered(outcome) => outcome,
            Asked::Absent(why) | Asked::Lost(why) => {
                tracing::warn!(network = %request.network, container = %request.container_id, why, "left to the agent");
                Ok(())
            }
        }
    }

    fn del_unread(&self, _: &str, _: &str) {}

    fn check(&self, request: &Request) -> Result<(), CniError> {
        self.answered(request)
    }

    fn gc(&self, request: &Request) -> Result<(), CniError> {
        self.answered(request)
    }

    fn status(&self, request: &Request) -> Result<(), CniError> {
        let why = match self.ask(request) {
            Asked::Answered(outcome) => return outcome,
            Asked::Absent(why) | Asked::Lost(why) => why,
        };
        unasked::status(&request.config, &why)
    }
}

fn later(request: &Request, why: &str) -> CniError {
    let verb = request.verb.name();
    CniError::new(Code::TryAgainLater, format!("{why}; {verb} is tried again when it answers"))
}

/// What became of a question.
#[derive(Debug)]
enum Asked {
    /// The agent said so.
    Answered(Result<(), CniError>),
    /// Nobody listens.
    Absent(String),
    /// Somebody listens and did not answer, or not in time: it may have been done.
    Lost(String),
}

/// The same where a reply is wanted.
enum Put {
    Reply(Reply),
    Asked(Asked),
}

fn ask(request: &Request) -> Asked {
    let Some(question) = &request.as_it_came else {
        return Asked::Absent("the call was not kept".to_owned());
    };
    let Config { run_dir, node_name, .. } = &*request.config;
    let to = Destination { run_dir: Some(run_dir.clone()), node_name: node_name.clone() };
    match put(question, &to, request.verb) {
        Put::Asked(asked) => asked,
        Put::Reply(_) => Asked::Answered(Ok(())),
    }
}

fn put(question: &Question, to: &Destination, verb: Verb) -> Put {
    let node = match node_named(to.node_name.as_deref()) {
        Ok(node) => node,
        Err(error) => return Put::Asked(Asked::Answered(Err(error))),
    };
    let path = door(to.run_dir.as_deref().unwrap_or(Path::new(RUN_DIR)), &node);
    let patience = if verb == Verb::Status { STATUS_PATIENCE } else { PATIENCE };
    let end = now() + patience;
    // Whoever connects wakes the agent, which is awake by the time that the question is written.
    let stream = match open(&path, patience) {
        Ok(stream) => stream,
        Err(error) => {
            let why = format!("the agent of node {node} is not there ({}: {error})", path.display());
            return Put::Asked(Asked::Absent(why));
        }
    };
    Put::Asked(match converse(stream, &question.bytes(), end) {
        Ok(Said::Reply(reply)) => return Put::Reply(reply),
        Ok(Said::Answer(bytes)) => match Answer::read(&bytes) {
            Ok(outcome) => Asked::Answered(outcome),
            Err(_) if bytes.is_empty() => Asked::Lost(format!("the agent of node {node} ended meanwhile")),
            Err(why) => {
                Asked::Lost(format!("the agent of node {node} gave no answer that can be read ({why})"))
            }
        },
        Err(error) => Asked::Lost(format!(
            "the agent of node {node} did not answer within {} ms ({error})",
            patience.as_millis()
        )),
    })
}

/// Connects, and makes sure that it is root who listens.
fn open(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let socket: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // A connection waits while the listener's queue is full.
    let patience = TimeVal::new(patience.as_secs().try_into().unwrap_or(1), patience.subsec_micros().into());
    setsockopt(&socket, sockopt::SendTimeout, &patience)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    let who = nix::sys::socket::getsockopt(&socket, sockopt::PeerCredentials)?;
    if who.uid() != 0 {
        return Err(io::Error::other(format!("user {} listens there, not root", who.uid())));
    }
    Ok(UnixStream::from(socket))
}

fn now() -> Duration {
    clock::now(libc::CLOCK_BOOTTIME)
}

fn converse(mut stream: UnixStream, question: &[u8], end: Duration) -> io::Result<Said> {
    stream.write_all(question)?;
    // An answer comes in one piece but for its length, so each read may take what is left.
    let left = end.saturating_sub(now()).max(Duration::from_millis(1));
    whole(&mut Awake::of(&stream, left).take(LONGEST))
}

/// What the agent says.
#[derive(Debug, PartialEq)]
enum Said {
    Reply(Reply),
    /// An [`Answer`], or what there is of it.
    Answer(Vec<u8>),
}

/// An answer to its end, or all there is. Nobody waits until the agent closes its side, too: it has other things to do.
fn whole(stream: &mut impl Read) -> io::Result<Said> {
    let (mut answer, mut piece) = (Vec::new(), [0; 1024]);
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return Ok(Said::Answer(answer)),
            Ok(length) => answer.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        match Heard::of(&answer) {
            Heard::Reply(reply) => return Ok(Said::Reply(reply)),
            Heard::Another if answer.ends_with(b"}") && Answer::read(&answer).is_ok() => {
                return Ok(Said::Answer(answer));
            }
            Heard::Part | Heard::Another => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one piece at each read, and then is silent for ever.
    struct Pieces(Vec<&'static [u8]>);

    impl Read for Pieces {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let piece = self.0.remove(0);
            into[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    #[test]
    fn an_answer_is_whole_before_the_other_side_is_closed_and_half_of_one_is_none() {
        let read = |pieces: &[&'static [u8]]| match whole(&mut Pieces(pieces.to_vec())) {
            Ok(Said::Answer(answer)) => Some(answer),
            _ => None,
        };
        let refusal: &[&[u8]] = &[b"{\"protocol\":1,\"error\":{\"code\":11,\"msg\":\"}\"}", b"}"];
        assert_eq!(read(&[b"{\"protocol\":1}"]), Some(b"{\"protocol\":1}".to_vec()));
        assert_eq!(read(refusal), Some(refusal.concat()));
        assert_eq!(read(&refusal[..1]), None, "waited for");
        assert_eq!(read(&[b"{\"proto", b""]), Some(b"{\"proto".to_vec()), "closed in the middle");
    }
}
