//! What the caller gets: JSON for standard output and an exit status. The only module that writes standard output.
//!
//! In: the outcome of a verb. Out: bytes, printed once. Never: logs, or half an answer; a panic is answered too.

use std::fs::File;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::prev_result::PrevResult;
use super::version::Version;

/// Error numbers. Below 100 they are the specification's (SPEC 1.1.0, "Error"; 8 is the Go library's), from 100 on ours.
/// `docs/configuration.md` lists them for operators. 3 is not here: it tells a runtime that no DEL is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Code {
    /// `cniVersion` is not spoken, or too old for the verb.
    IncompatibleVersion = 1,
    /// A known key has a value that is not served; the message names both.
    UnsupportedField = 2,
    /// A CNI_* variable is missing or malformed; the message names it.
    InvalidEnvironment = 4,
    /// Reading or writing failed.
    Io = 5,
    /// Standard input, or prevResult in it, is not what it should be.
    Decode = 6,
    /// The network configuration is wrong; the message names the key.
    InvalidConfig = 7,
    /// CNI_NETNS is the plugin's own namespace.
    InvalidNetns = 8,
    /// Nothing is wrong with the request; the runtime tries again.
    TryAgainLater = 11,
    /// STATUS: not even a pod without egress could start. Never 51, which adds that running pods suffer: what is wired goes on by itself, and
    /// what may keep a pod from starting (no room, no directory, no agent yet) takes nothing from those that run.
    NotAvailable = 50,
    /// The pod's network namespace is gone, another one, or not one at all.
    NetnsUnusable = 100,
    /// The pod's interface is missing in its namespace.
    InterfaceMissing = 101,
    /// Kernel state could not be made.
    WiringFailed = 102,
    /// CHECK: what an ADD left is not what is there.
    CheckDifference = 103,
    /// The pod's traffic does not pass through this node's forwarding, so it cannot be redirected.
    TrafficBypassesNode = 104,
    /// The pod asks for what its namespace may not have.
    NotPermitted = 105,
    /// A defect of Egret: it panicked.
    Defect = 199,
}

impl Code {
    /// All of them.
    const ALL: [Code; 16] = [
        Code::IncompatibleVersion,
        Code::UnsupportedField,
        Code::InvalidEnvironment,
        Code::Io,
        Code::Decode,
        Code::InvalidConfig,
        Code::InvalidNetns,
        Code::TryAgainLater,
        Code::NotAvailable,
        Code::NetnsUnusable,
        Code::InterfaceMissing,
        Code::WiringFailed,
        Code::CheckDifference,
        Code::TrafficBypassesNode,
        Code::NotPermitted,
        Code::Defect,
    ];

    /// The one with this number.
    pub fn of(number: u16) -> Option<Code> {
        Code::ALL.into_iter().find(|code| *code as u16 == number)
    }
}

/// An error as CNI knows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{msg}{}{details}", if details.is_empty() { "" } else { "; " })]
pub struct CniError {
    /// Its number.
    pub code: Code,
    /// A sentence for the pod's events: what failed, with values, and the next step.
    pub msg: String,
    /// More of the same; may be empty.
    pub details: String,
}

impl CniError {
    /// An error without details.
    pub fn new(code: Code, msg: impl Into<String>) -> CniError {
        CniError { code, msg: msg.into(), details: String::new() }
    }

    /// Adds details.
    #[must_use]
    pub fn details(mut self, details: impl Into<String>) -> CniError {
        self.details = details.into();
        self
    }

    /// The same error without the words that containerd's go-cni takes for "already gone": it swallows a DEL error that
    /// contains one of them (scenario 5.12).
    #[must_use]
    pub fn for_del(mut self) -> CniError {
        for text in [&mut self.msg, &mut self.details] {
            for (word, instead) in [("not found", "missing"), ("o such file or directory", "ot there")] {
                *text = text.replace(word, instead);
            }
        }
        self
    }
}

/// What is printed, and the exit status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// One JSON document with a newline, or nothing.
    pub stdout: Vec<u8>,
    /// 0 or, as the reference library has it, 1.
    pub exit: u8,
}

impl Reply {
    /// DEL, CHECK, GC and STATUS that succeeded.
    pub fn nothing() -> Reply {
        Reply { stdout: Vec::new(), exit: 0 }
    }

    /// ADD: the previous plugin's result, untouched but for `cniVersion`.
    pub fn result(prev: &PrevResult, version: Version) -> Reply {
        let mut stdout = prev.stamped(version).into_bytes();
        stdout.push(b'\n');
        Reply { stdout, exit: 0 }
    }

    /// VERSION. Does not echo the caller's version, because that needs standard input, which may never end.
    pub fn versions() -> Reply {
        let all = Version::ALL.map(Version::text);
        Reply::document(&json!({ "cniVersion": Version::NEWEST.text(), "supportedVersions": all }), 0)
    }

    /// A failure, in the caller's version.
    pub fn error(error: &CniError, version: Version) -> Reply {
        let mut object = json!({ "cniVersion": version.text(), "code": error.code as u16, "msg": error.msg });
        if !error.details.is_empty() {
            object["details"] = json!(error.details);
        }
        Reply::document(&object, 1)
    }

    fn document(value: &serde_json::Value, exit: u8) -> Reply {
        Reply { stdout: format!("{value}\n").into_bytes(), exit }
    }

    /// Writes it to standard output and returns the exit status; the second call in a process writes nothing.
    ///
    /// A closed standard output is no reason to panic (Rust ignores SIGPIPE): an answer nobody could read is a failure,
    /// so that the runtime calls DEL.
    pub fn print(&self) -> u8 {
        if PRINTED.swap(true, Ordering::SeqCst) || self.stdout.is_empty() {
            return self.exit;
        }
        // The library's own writer has a lock and a buffer, and looks for the ends of lines.
        // SAFETY: the descriptor is there for the whole life of the process, and not closed here.
        let mut out = ManuallyDrop::new(unsafe { File::from_raw_fd(libc::STDOUT_FILENO) });
        match out.write_all(&self.stdout) {
            Ok(()) => self.exit,
            Err(_) => 1,
        }
    }
}

static PRINTED: AtomicBool = AtomicBool::new(false);

/// From now on a panic ends the process with a CNI error on standard output: an empty one would become
/// "netplugin failed with no error message".
pub fn answer_panics() {
    std::panic::set_hook(Box::new(|panic| {
        // Standard error may be closed as well; `eprintln!` would panic inside the hook.
        let _ = writeln!(std::io::stderr(), "egret: {panic}");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let error =
            CniError::new(Code::Defect, format!("a defect in Egret: panic at {place}; please report it"))
                .details(panic.payload_as_str().unwrap_or_default());
        let exit = Reply::error(&error, Version::NEWEST).print();
        std::process::exit(i32::from(exit));
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn an_error_names_version_code_and_details() {
        let error = CniError::new(Code::InvalidConfig, "bad key").details("`mode`");
        let reply = Reply::error(&error, Version::V0_3_1);
        assert_eq!(
            String::from_utf8(reply.stdout).unwrap(),
            "{\"cniVersion\":\"0.3.1\",\"code\":7,\"msg\":\"bad key\",\"details\":\"`mode`\"}\n"
        );
        assert_eq!(reply.exit, 1);
        assert_eq!(error.to_string(), "bad key; `mode`");
    }

    #[test]
    fn a_del_error_never_says_what_containerd_swallows() {
        let error = CniError::new(Code::Io, "No such file or directory: pool not found")
            .details("no such file or directory")
            .for_del();
        assert_eq!((error.msg.as_str(), error.details.as_str()), ("Not there: pool missing", "not there"));
    }

    #[test]
    #[ignore = "panics on purpose; started by the test below in a process of its own"]
    fn panics() {
        answer_panics();
        panic!("one of {} belts", 3);
    }

    #[test]
    fn a_panic_is_answered_with_one_json_error_and_exit_status_1() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "cni::reply::tests::panics", "--nocapture"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stdout).unwrap();
        let answers: Vec<serde_json::Value> = text
            .split('\n')
            .filter_map(|line| serde_json::from_str(line.get(line.find('{')?..)?).ok())
            .collect();
        assert_eq!(answers.len(), 1, "{text}");
        assert_eq!(answers[0]["code"], 199);
        assert_eq!(answers[0]["details"], "one of 3 belts");
    }
}
