//! What the thin plugin and the agent say to each other: one question, one answer, each a line of JSON and what it announces. Pure.
//!
//! In: a call as the runtime made it. Out: the same call on the other side. A question carries the call's variables and standard input
//! as they came, not what this release made of them: so a plugin and an agent of adjacent releases understand each other as well as
//! either understands the runtime. Fields that are unknown are ignored; a number of [`PROTOCOL`] that is higher than one's own is refused.
//!
//! They follow the line byte for byte, and are no text in it: a configuration quoted for JSON is read and written twice on either side.

mod answer;

use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::document::Document;
use super::environment::Environment;
use super::reply::{CniError, Code};
use super::request::{Configurations, Request};
use super::success;
pub use answer::{Answer, Failure, Heard};

/// Raised when an old agent could misunderstand a question, never for an addition.
pub const PROTOCOL: u32 = 1;

/// Longest question or answer, in bytes. GC lists every attachment of a node: 500 pods are 100 KB.
pub const LONGEST: u64 = 8 << 20;

/// One call, as the runtime made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// [`PROTOCOL`] of who asks.
    pub protocol: u32,
    /// `CNI_COMMAND` and the others, as [`Environment::variables`].
    variables: Vec<u8>,
    /// Standard input.
    stdin: Vec<u8>,
    /// Who asks has understood nothing of it, and would print what the call comes to as it is told.
    pub wants_reply: bool,
}

/// The line before a question.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    protocol: u32,
    /// Bytes of the variables, which come next.
    #[serde(default)]
    variables: usize,
    /// Bytes of standard input, which comes then, and is the end.
    #[serde(default)]
    stdin: usize,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    wants_reply: bool,
}

/// Where the agent is that a call must be passed on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// `runDir`, if it is named.
    pub run_dir: Option<PathBuf>,
    /// `nodeName`, if it is named.
    pub node_name: Option<String>,
}

impl Destination {
    /// Where standard input says that its call goes, by the three keys that it takes to know. `None`: it is not passed on, or whoever
    /// understands all of it will find fault with them.
    pub fn of(stdin: &[u8]) -> Option<Destination> {
        let document = Document::read(stdin).ok()?;
        let text = |key: &str| -> Option<Option<String>> {
            let raw = document.present(key);
            raw.map(|raw| serde_json::from_str(raw.get())).transpose().ok()
        };
        let (mode, run_dir, node_name) = (text("mode")??, text("runDir")?, text("nodeName")?);
        let run_dir = run_dir.map(PathBuf::from);
        let known = mode == "cluster" && run_dir.as_ref().is_none_or(|dir| dir.is_absolute());
        known.then_some(Destination { run_dir, node_name })
    }
}

/// Of a line in another protocol.
#[derive(Debug, Deserialize)]
struct Spoken {
    protocol: u32,
}

impl Question {
    /// The question that a call becomes.
    pub fn of(environment: &Environment, stdin: &[u8]) -> Question {
        let variables = environment.variables();
        Question { protocol: PROTOCOL, variables, stdin: stdin.to_vec(), wants_reply: false }
    }

    /// The same from who would print what it comes to as it is told.
    #[must_use]
    pub fn wanting_reply(self) -> Question {
        Question { wants_reply: true, ..self }
    }

    /// As it lies on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let Question { protocol, variables, stdin, wants_reply } = self;
        let (protocol, wants_reply) = (*protocol, *wants_reply);
        let line = Line { protocol, variables: variables.len(), stdin: stdin.len(), wants_reply };
        let mut bytes = serde_json::to_vec(&line).unwrap_or_default(); // numbers
        bytes.reserve_exact(1 + variables.len() + stdin.len());
        bytes.push(b'\n');
        bytes.extend_from_slice(variables);
        bytes.extend_from_slice(stdin);
        bytes
    }

    /// Reads it as it lies on the wire; `None`: this is not all of it yet.
    ///
    /// # Errors
    /// It is none.
    pub fn read(bytes: &[u8]) -> Result<Option<Question>, String> {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let (line, rest) = bytes.split_at(end);
        let line = match serde_json::from_slice(line) {
            Ok(Line { protocol, .. }) if protocol > PROTOCOL => {
                return Ok(Some(Question::in_another(protocol)));
            }
            Ok(line) => line,
            Err(error) => match serde_json::from_slice(line) {
                Ok(Spoken { protocol }) if protocol > PROTOCOL => {
                    return Ok(Some(Question::in_another(protocol)));
                }
                _ => return Err(format!("this is no question of Egret's plugin: {error}")),
            },
        };
        let told = rest.get(1..).unwrap_or_default();
        let length = line.variables.checked_add(line.stdin).filter(|length| *length as u64 <= LONGEST);
        let length =
            length.ok_or_else(|| format!("a question of Egret's plugin is longer than {LONGEST} bytes"))?;
        let Some(told) = told.get(..length) else { return Ok(None) };
        let (variables, stdin) = told.split_at(line.variables);
        let (variables, stdin) = (variables.to_vec(), stdin.to_vec());
        Ok(Some(Question { protocol: line.protocol, variables, stdin, wants_reply: line.wants_reply }))
    }

    /// One that nobody here understands, to be refused.
    fn in_another(protocol: u32) -> Question {
        Question { protocol, variables: Vec::new(), stdin: Vec::new(), wants_reply: false }
    }

    /// What a variable says.
    fn variable(&self, name: &str) -> Option<OsString> {
        let mut pairs = self.variables.split(|byte| *byte == 0);
        let value = pairs.find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
        value.map(|value| String::from_utf8_lossy(value).into_owned().into())
    }

    /// The call on the other side, to be carried out. `last`: what the calls before it had in common.
    ///
    /// # Errors
    /// 11 for a newer protocol; else as [`Request::read`].
    pub fn request(&self, last: &Configurations) -> Result<Request, CniError> {
        if self.protocol > PROTOCOL {
            let msg = format!(
                "the plugin speaks protocol {} and the agent on this node {PROTOCOL}; upgrade the agent, too",
                self.protocol
            );
            return Err(CniError::new(Code::TryAgainLater, msg));
        }
        let environment = Environment::read(|name| self.variable(name))?;
        Request::read_again(environment, &self.stdin, last)
    }

    /// An answer as it lies on the wire, to this question. Who wants the reply is told it where all went well and nothing else is to be
    /// said; else it reads the call itself, and finds the words.
    pub fn answered(&self, request: Option<&Request>, outcome: Result<(), CniError>) -> Vec<u8> {
        let silent = request.filter(|request| self.wants_reply && request.misspelled.is_empty());
        match (&outcome, silent) {
            (Ok(()), Some(request)) => answer::with(&success(request).stdout),
            _ => serde_json::to_vec(&Answer::of(outcome)).unwrap_or_default(), // texts and numbers
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cni::reply::Reply;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::read(|name| pairs.iter().find(|(k, _)| *k == name).map(|(_, v)| v.into())).unwrap()
    }

    const STDIN: &str = r#"{"cniVersion":"1.0.0","name":"net","type":"egret","mode":"cluster","prevResult":{"cniVersion":"1.0.0"}}"#;

    #[test]
    fn a_call_is_the_same_on_the_other_side() {
        let call = environment(&[
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", "/run/netns/p"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart;K8S_POD_UID=u=1"),
        ]);
        let asked = Question::of(&call, STDIN.as_bytes());
        let heard = Question::read(&asked.bytes()).unwrap().unwrap();
        let last = Configurations::default();
        let here = Request { as_it_came: None, ..Request::read(call, STDIN.as_bytes()).unwrap() };
        assert_eq!(heard.request(&last), Ok(here));
        assert_eq!(heard.request(&last).unwrap().pod_uid.as_deref(), Some("u=1"));
    }

    #[test]
    fn what_a_later_release_adds_is_ignored_and_another_protocol_is_refused() {
        let status = environment(&[("CNI_COMMAND", "STATUS"), ("CNI_NETNS_OVERRIDE", "1")]);
        let asked = Question::of(&status, STDIN.replace("1.0.0", "1.1.0").as_bytes()).bytes();
        let later = |line: &str| [line.as_bytes(), &asked[1..]].concat();
        let last = Configurations::default();
        let heard = Question::read(&later(r#"{"trace":"x","#)).unwrap().unwrap();
        assert!(heard.request(&last).unwrap().netns_override);
        let other = b"{\"protocol\":2,\"variables\":{}}\n";
        let refused = Question::read(other).unwrap().unwrap().request(&last).unwrap_err();
        assert_eq!(refused.code, Code::TryAgainLater);
        assert!(refused.msg.contains("protocol 2") && refused.msg.contains("upgrade"), "{refused}");
    }

    #[test]
    fn who_is_told_the_reply_is_told_it_only_where_nothing_else_is_to_be_said() {
        let call = environment(&[
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", "/run/netns/p"),
            ("CNI_IFNAME", "eth0"),
        ]);
        let told = |stdin: &str, wants_reply, outcome| {
            let question = Question { wants_reply, ..Question::of(&call, stdin.as_bytes()) };
            let request = question.request(&Configurations::default()).unwrap();
            Heard::of(&question.answered(Some(&request), outcome))
        };
        let reply = Reply { stdout: b"{\"cniVersion\":\"1.0.0\"}\n".to_vec(), exit: 0 };
        assert_eq!(told(STDIN, true, Ok(())), Heard::Reply(reply));
        assert_eq!(told(STDIN, false, Ok(())), Heard::Another, "an earlier plugin prints its own");
        assert_eq!(told(STDIN, true, Err(CniError::new(Code::Io, "no"))), Heard::Another);
        let misspelled = STDIN.replace("\"mode\"", "\"runDIR\":\"/x\",\"mode\"");
        assert_eq!(told(&misspelled, true, Ok(())), Heard::Another, "it warns of that");
    }

    #[test]
    fn three_keys_say_where_a_call_goes_and_whoever_has_them_wrong_is_told_so_by_others() {
        let of = |keys: &str| Destination::of(format!("{{\"name\":\"net\"{keys}}}").as_bytes());
        let (run_dir, node_name) = (Some("/run/x".into()), Some("n1".to_owned()));
        assert_eq!(of(r#","mode":"cluster""#), Some(Destination { run_dir: None, node_name: None }));
        let all = r#","mode":"cluster","runDir":"/run/x","nodeName":"n1","log":7"#;
        assert_eq!(of(all), Some(Destination { run_dir, node_name }));
        for keys in [
            "",
            r#","mode":"embedded""#,
            r#","mode":"cluster","runDir":"x""#,
            r#","mode":"cluster","nodeName":1"#,
            r#","mode":"cluster""#.trim_end_matches('"'),
        ] {
            assert_eq!(of(keys), None, "{keys}");
        }
    }

    #[test]
    fn what_is_no_question_or_too_long_is_said_to_be_so() {
        for (told, why) in [
            ("hello\n", "no question"),
            ("{\"variables\":1}\n", "protocol"),
            ("{\"protocol\":1,\"stdin\":-1}\n", "no question"),
            ("{\"protocol\":1,\"stdin\":8388609}\n", "longer than 8388608 bytes"),
            ("{\"protocol\":1,\"variables\":9,\"stdin\":18446744073709551615}\n", "longer"),
        ] {
            let error = Question::read(told.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{told}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_question_arrives_as_it_is_and_until_then_it_is_a_part(
            stdin in proptest::collection::vec(any::<u8>(), 0..300), container in "[a-z0-9]{1,9}", args in "([A-Z]=[ -:<-~]{0,9};){0,3}",
        ) {
            let call = environment(&[("CNI_COMMAND", "DEL"), ("CNI_IFNAME", "eth0"), ("CNI_CONTAINERID", &container), ("CNI_ARGS", &args)]);
            let asked = Question::of(&call, &stdin);
            let told = asked.bytes();
            for end in 0..told.len() {
                prop_assert_eq!(Question::read(&told[..end]), Ok(None));
            }
            prop_assert_eq!(Question::read(&told), Ok(Some(asked.clone())));
            prop_assert_eq!(Environment::read(|name| asked.variable(name)), Ok(call));
        }
    }
}
