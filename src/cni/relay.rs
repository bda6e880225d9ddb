//! What the thin plugin and the agent say to each other: one question, one answer, each a JSON object. Pure.
//!
//! In: a call as the runtime made it. Out: the same call on the other side. A question carries the call's variables and standard input
//! as they came, not what this release made of them: so a plugin and an agent of adjacent releases understand each other as well as
//! either understands the runtime. Fields that are unknown are ignored; a number of [`PROTOCOL`] that is higher than one's own is refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::environment::Environment;
use super::reply::{CniError, Code};
use super::request::Request;

/// Raised when an old agent could misunderstand a question, never for an addition.
pub const PROTOCOL: u32 = 1;

/// Longest question or answer, in bytes. GC lists every attachment of a node: 500 pods are 100 KB.
pub const LONGEST: u64 = 8 << 20;

/// One call, as the runtime made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// [`PROTOCOL`] of who asks.
    pub protocol: u32,
    /// `CNI_COMMAND` and the others; those that are missing or empty are left out.
    pub variables: BTreeMap<String, String>,
    /// Standard input.
    pub stdin: String,
}

impl Question {
    /// The question that a call becomes. Standard input that is no UTF-8 is no JSON either, and was refused before.
    pub fn of(environment: &Environment, stdin: &[u8]) -> Question {
        let stdin = String::from_utf8_lossy(stdin).into_owned();
        Question { protocol: PROTOCOL, variables: environment.variables(), stdin }
    }

    /// A question as it lies on the wire.
    ///
    /// # Errors
    /// It is none.
    pub fn read(bytes: &[u8]) -> Result<Question, String> {
        serde_json::from_slice(bytes).map_err(|e| format!("this is no question of Egret's plugin: {e}"))
    }

    /// The call on the other side, to be carried out.
    ///
    /// # Errors
    /// 11 for a newer protocol; else as [`Request::read`].
    pub fn request(&self) -> Result<Request, CniError> {
        if self.protocol > PROTOCOL {
            let msg = format!(
                "the plugin speaks protocol {} and the agent on this node {PROTOCOL}; upgrade the agent, too",
                self.protocol
            );
            return Err(CniError::new(Code::TryAgainLater, msg));
        }
        let environment = Environment::read(|name| self.variables.get(name).map(Into::into))?;
        Request::read(environment, self.stdin.as_bytes())
    }
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// [`PROTOCOL`] of who answers.
    pub protocol: u32,
    /// Why not; absent: it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// A CNI error on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its number.
    pub code: u16,
    /// A sentence.
    pub msg: String,
    /// More of the same.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl Answer {
    /// The answer that an outcome becomes.
    pub fn of(outcome: Result<(), CniError>) -> Answer {
        let failure = |e: CniError| Failure { code: e.code as u16, msg: e.msg, details: e.details };
        Answer { protocol: PROTOCOL, error: outcome.err().map(failure) }
    }

    /// An answer as it lies on the wire, back to an outcome.
    ///
    /// # Errors
    /// Outer: it is none, with the reason. Inner: what the agent said. A number that this release does not know is taken for a
    /// failed wiring; the sentence says what it was.
    pub fn read(bytes: &[u8]) -> Result<Result<(), CniError>, String> {
        let answer: Answer = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        Ok(match answer.error {
            None => Ok(()),
            Some(Failure { code, msg, details }) => {
                Err(CniError { code: Code::of(code).unwrap_or(Code::WiringFailed), msg, details })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
        let heard = Question::read(&serde_json::to_vec(&asked).unwrap()).unwrap();
        assert_eq!(heard.request(), Request::read(call, STDIN.as_bytes()));
        assert_eq!(heard.request().unwrap().pod_uid.as_deref(), Some("u=1"));
    }

    #[test]
    fn what_a_later_release_adds_is_ignored_and_another_protocol_is_refused() {
        let status = environment(&[("CNI_COMMAND", "STATUS"), ("CNI_NETNS_OVERRIDE", "1")]);
        let mut asked = serde_json::to_value(Question::of(&status, STDIN.as_bytes())).unwrap();
        asked["trace"] = "x".into();
        let stdin = STDIN.replace("1.0.0", "1.1.0");
        asked["stdin"] = stdin.into();
        let heard = Question::read(asked.to_string().as_bytes()).unwrap();
        assert!(heard.request().unwrap().netns_override);
        asked["protocol"] = 2.into();
        let refused = Question::read(asked.to_string().as_bytes()).unwrap().request().unwrap_err();
        assert_eq!(refused.code, Code::TryAgainLater);
        assert!(refused.msg.contains("protocol 2") && refused.msg.contains("upgrade"), "{refused}");
    }

    #[test]
    fn a_number_that_is_not_known_keeps_its_sentence() {
        let said = br#"{"protocol":9,"error":{"code":177,"msg":"no"}}"#;
        assert_eq!(Answer::read(said).unwrap().unwrap_err(), CniError::new(Code::WiringFailed, "no"));
        assert!(Answer::read(b"{").is_err());
    }

    proptest! {
        #[test]
        fn every_error_arrives_as_it_was(code in 0u16..300, msg in ".*", details in ".*") {
            let outcome = Code::of(code).map_or(Ok(()), |code| Err(CniError { code, msg, details }));
            let bytes = serde_json::to_vec(&Answer::of(outcome.clone())).unwrap();
            prop_assert_eq!(Answer::read(&bytes).unwrap(), outcome);
        }
    }
}
