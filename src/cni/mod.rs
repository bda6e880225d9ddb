//! The CNI protocol (SPEC 0.3.0–1.1.0) around whatever a node does at each verb.
//!
//! In: environment and standard input of one call. Out: one [`Reply`]. Pure parts: `environment`, `request`,
//! `relay`, `prev_result`, `reply` (but for printing). The verbs' deeds are behind [`Node`]; this module knows nothing of them.

mod document;
pub mod environment;
pub mod prev_result;
pub mod relay;
pub mod reply;
pub mod request;
pub mod version;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::sync::mpsc;
use std::time::Duration;

use self::environment::{Environment, Verb};
use self::reply::{CniError, Code, Reply};
use self::request::Request;
use self::version::Version;

/// What a node does when the runtime calls. One implementation per mode, and small ones in tests.
pub trait Node: Sync {
    /// A call that somebody else understands and carries out, before anything but its variables is understood here: what is to be printed.
    /// `None`: it is read here, and comes by one of the verbs below.
    fn pass_on(&self, _: &Environment, _stdin: &[u8]) -> Option<Reply> {
        None
    }

    /// Wires the interface. Called again for the same attachment it must do no harm; on error it leaves nothing.
    fn add(&self, request: &Request) -> Result<(), CniError>;

    /// Undoes `add`, whatever of the request is missing. An error is logged and the runtime told that all is well, because
    /// libcni stops at the first error and would not call the primary plugin: what stays is for GC and reconcile.
    fn del(&self, request: &Request) -> Result<(), CniError>;

    /// Like `del` where standard input could not be read: nothing but these two is known. Best effort.
    fn del_unread(&self, container_id: &str, ifname: &str);

    /// Compares what `add` left with what is there. Changes nothing.
    fn check(&self, request: &Request) -> Result<(), CniError>;

    /// Removes every attachment of the request's network that is not valid; goes on after an error and reports all.
    fn gc(&self, request: &Request) -> Result<(), CniError>;

    /// Whether even a pod without egress could start. An error makes the whole node NotReady.
    fn status(&self, request: &Request) -> Result<(), CniError>;
}

/// containerd calls STATUS without a timeout, under a lock, every few seconds.
const STATUS_DEADLINE: Duration = Duration::from_secs(1);

/// What a plugin needs of what the library does before `main`, for one that is called earlier: who went away must not end us before the
/// call is carried out, and no file that we open may be taken for a standard stream that was closed.
pub fn prepare() {
    // SAFETY: to ignore a signal runs nothing of ours; the descriptors are looked at, and opened where they are closed.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        let mut streams = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
        libc::poll(streams.as_mut_ptr(), 3, 0);
        for _ in streams.iter().filter(|stream| stream.revents & libc::POLLNVAL != 0) {
            // The lowest that is free.
            libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        }
    }
}

/// Answers the call this process was started for, prints the answer and returns the exit status.
pub fn plugin(node: &'static dyn Node) -> u8 {
    reply::answer_panics();
    run(|name| std::env::var_os(name), standard_input, node).print()
}

fn standard_input() -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(2048); // one read for a usual request, and half a page
    // The library's own reader would have as much room again, and nothing of it would be used.
    // SAFETY: the descriptor is there for the whole life of the process, and not closed here.
    let stdin = ManuallyDrop::new(unsafe { File::from_raw_fd(libc::STDIN_FILENO) });
    // A file is asked for its size first, by two system calls; a pipe has none.
    (&*stdin).take(u64::MAX).read_to_end(&mut bytes).map(|_| bytes)
}

/// Answers one call. `variable` looks up the environment; `stdin` is read only by verbs that need it (VERSION does not:
/// a caller may leave it open for ever).
pub fn run(
    variable: impl Fn(&str) -> Option<OsString>,
    stdin: impl FnOnce() -> io::Result<Vec<u8>> + Send + 'static,
    node: &'static dyn Node,
) -> Reply {
    let environment = match Environment::read(variable) {
        Ok(environment) => environment,
        Err(error) => return Reply::error(&error, Version::NEWEST),
    };
    match environment.verb {
        Verb::Version => Reply::versions(),
        Verb::Status => within(STATUS_DEADLINE, move || serve(environment, stdin, node)),
        Verb::Add | Verb::Del | Verb::Check | Verb::Gc => serve(environment, stdin, node),
    }
}

/// Gives up waiting, not working: a thread cannot be ended, but the process ends with the reply.
fn within(deadline: Duration, work: impl FnOnce() -> Reply + Send + 'static) -> Reply {
    let (done, outcome) = mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    outcome.recv_timeout(deadline).unwrap_or_else(|_| {
        let msg = format!(
            "no answer within {} ms: is the disk or another call of Egret stuck?",
            deadline.as_millis()
        );
        Reply::error(&CniError::new(Code::NotAvailable, msg), Version::NEWEST)
    })
}

fn serve(environment: Environment, stdin: impl FnOnce() -> io::Result<Vec<u8>>, node: &dyn Node) -> Reply {
    let (verb, container_id, ifname) =
        (environment.verb, environment.container_id.clone(), environment.ifname.clone());
    let stdin = match stdin() {
        Ok(stdin) => stdin,
        Err(error) => {
            let error = CniError::new(Code::Io, format!("cannot read standard input: {error}"));
            return Reply::error(&error, Version::NEWEST);
        }
    };
    if let Some(reply) = node.pass_on(&environment, &stdin) {
        return reply;
    }
    let request = match Request::read(environment, &stdin) {
        Ok(request) => request,
        Err(error) => {
            let error = if verb == Verb::Del { error.for_del() } else { error };
            if verb == Verb::Del {
                node.del_unread(&container_id, &ifname);
            }
            return Reply::error(&error, request::version_for_errors(&stdin));
        }
    };
    crate::log::to_stderr(&request.config.log);
    for problem in &request.misspelled {
        tracing::warn!("network configuration: {problem}");
    }
    let outcome = carry_out(node, &request).or_else(|error| match verb {
        Verb::Del => {
            tracing::warn!(network = %request.network, container = %request.container_id, ifname = %request.ifname,
                error = %error.for_del(), "clean-up is left to GC and reconcile");
            Ok(())
        }
        _ => Err(error),
    });
    match outcome {
        Err(error) => Reply::error(&error, request.cni_version),
        Ok(()) => success(&request),
    }
}

/// What is printed when all went well.
fn success(request: &Request) -> Reply {
    match (request.verb, &request.prev_result) {
        (Verb::Add, Some(prev)) => Reply::result(prev, request.cni_version),
        _ => Reply::nothing(),
    }
}

/// Has a node do what a request asks for.
///
/// # Errors
/// The verb's own; DEL's too, which a runtime never sees.
pub fn carry_out(node: &dyn Node, request: &Request) -> Result<(), CniError> {
    match request.verb {
        Verb::Add => node.add(request),
        Verb::Del => node.del(request),
        Verb::Check => node.check(request),
        Verb::Gc => node.gc(request),
        Verb::Status => node.status(request),
        Verb::Version => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Writes down what it is asked and fails where told.
    struct Witness {
        fails: bool,
        called: Mutex<Vec<String>>,
    }

    impl Witness {
        fn new(fails: bool) -> &'static Witness {
            Box::leak(Box::new(Witness { fails, called: Mutex::default() }))
        }

        fn note(&self, what: &str) -> Result<(), CniError> {
            self.called.lock().unwrap().push(what.to_owned());
            let error = CniError::new(Code::WiringFailed, "rule 700: no such file or directory");
            if self.fails { Err(error) } else { Ok(()) }
        }
    }

    impl Node for Witness {
        fn add(&self, _: &Request) -> Result<(), CniError> {
            self.note("add")
        }
        fn del(&self, _: &Request) -> Result<(), CniError> {
            self.note("del")
        }
        fn del_unread(&self, container_id: &str, ifname: &str) {
            let _ = self.note(&format!("del {container_id} {ifname}"));
        }
        fn check(&self, _: &Request) -> Result<(), CniError> {
            self.note("check")
        }
        fn gc(&self, _: &Request) -> Result<(), CniError> {
            self.note("gc")
        }
        fn status(&self, _: &Request) -> Result<(), CniError> {
            if self.fails {
                // For ever: what answers then is the deadline.
                loop {
                    std::thread::park();
                }
            }
            self.note("status")
        }
    }

    fn call(node: &'static Witness, verb: &str, stdin: &str) -> (u8, serde_json::Value) {
        let env =
            [("CNI_COMMAND", verb), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "/n")];
        let stdin = stdin.as_bytes().to_vec();
        let reply =
            run(|name| env.iter().find(|(k, _)| *k == name).map(|(_, v)| v.into()), || Ok(stdin), node);
        (reply.exit, serde_json::from_slice(&reply.stdout).unwrap_or_default())
    }

    const GOOD: &str = r#"{"cniVersion":"1.1.0","name":"net","prevResult":{"cniVersion":"1.1.0","x":1}}"#;

    #[test]
    fn only_add_answers_with_a_result() {
        let node = Witness::new(false);
        assert_eq!(call(node, "ADD", GOOD), (0, serde_json::json!({"cniVersion": "1.1.0", "x": 1})));
        for verb in ["DEL", "CHECK", "GC", "STATUS"] {
            assert_eq!(call(node, verb, GOOD), (0, serde_json::Value::Null));
        }
        assert_eq!(*node.called.lock().unwrap(), ["add", "del", "check", "gc", "status"]);
    }

    #[test]
    fn del_succeeds_whatever_fails_and_every_other_verb_says_it() {
        let node = Witness::new(true);
        assert_eq!(call(node, "DEL", GOOD).0, 0);
        for verb in ["ADD", "CHECK", "GC"] {
            let (exit, error) = call(node, verb, GOOD);
            assert_eq!((exit, &error["code"], &error["cniVersion"]), (1, &102.into(), &"1.1.0".into()));
        }
    }

    #[test]
    fn del_of_what_cannot_be_read_cleans_up_by_the_environment_and_still_complains() {
        let node = Witness::new(false);
        assert_eq!(call(node, "DEL", "{").1["code"], 6);
        assert_eq!(*node.called.lock().unwrap(), ["del c1 eth0"]);
    }

    #[test]
    fn status_gives_up_after_its_deadline() {
        let (exit, error) = call(Witness::new(true), "STATUS", GOOD);
        assert_eq!((exit, &error["code"]), (1, &50.into()));
        assert!(error["msg"].as_str().unwrap().starts_with("no answer within 1000 ms"), "{error}");
    }

    #[test]
    fn version_never_reads_standard_input() {
        let reply =
            run(|n| (n == "CNI_COMMAND").then(|| "VERSION".into()), || panic!("read"), Witness::new(false));
        assert_eq!(
            String::from_utf8(reply.stdout).unwrap(),
            "{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n"
        );
    }
}
