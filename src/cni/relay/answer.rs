//! The agent's side of the conversation: what became of a call, or the reply itself. Pure.
//!
//! In: an outcome, or bytes that came. Out: the other of both. Never: takes for a reply what is none; such an answer is read as an outcome,
//! and who called finds the words.

use serde::{Deserialize, Serialize};

use super::PROTOCOL;
use crate::cni::reply::{CniError, Code, Reply};

/// An answer with the reply behind it begins with this, the reply's length and [`END`]. Whoever did not ask for a reply never sees one.
const SUCCESS: &str = "{\"protocol\":1,\"reply\":";
const END: &str = "}\n";

/// An answer with this reply behind it, as it lies on the wire.
pub(super) fn with(reply: &[u8]) -> Vec<u8> {
    let mut told = format!("{SUCCESS}{}{END}", reply.len()).into_bytes();
    told.extend(reply);
    told
}

/// What is known of an answer by its bytes so far, to who wants the reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The reply, whole.
    Reply(Reply),
    /// Not to its end.
    Part,
    /// An [`Answer`], or nothing that can be read.
    Another,
}

impl Heard {
    /// Reads it.
    pub fn of(bytes: &[u8]) -> Heard {
        if bytes.len() < SUCCESS.len() {
            return if SUCCESS.as_bytes().starts_with(bytes) { Heard::Part } else { Heard::Another };
        }
        let Some(rest) = bytes.strip_prefix(SUCCESS.as_bytes()) else { return Heard::Another };
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (length, rest) = rest.split_at(digits);
        let end = END.as_bytes();
        if rest.len() < end.len() && end.starts_with(rest) {
            return Heard::Part;
        }
        let length = str::from_utf8(length).ok().and_then(|digits| digits.parse::<usize>().ok());
        match (rest.strip_prefix(end), length) {
            (Some(reply), Some(length)) if reply.len() == length => {
                Heard::Reply(Reply { stdout: reply.to_vec(), exit: 0 })
            }
            (Some(reply), Some(length)) if reply.len() < length => Heard::Part,
            _ => Heard::Another,
        }
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

    #[test]
    fn a_number_that_is_not_known_keeps_its_sentence() {
        let said = br#"{"protocol":9,"error":{"code":177,"msg":"no"}}"#;
        assert_eq!(Answer::read(said).unwrap().unwrap_err(), CniError::new(Code::WiringFailed, "no"));
        assert!(Answer::read(b"{").is_err());
    }

    proptest! {
        #[test]
        fn a_reply_arrives_as_it_is_and_until_then_it_is_a_part(reply in proptest::collection::vec(any::<u8>(), 0..300)) {
            let told = with(&reply);
            for end in 0..told.len() {
                prop_assert_eq!(Heard::of(&told[..end]), Heard::Part);
            }
            prop_assert_eq!(Heard::of(&told), Heard::Reply(Reply { stdout: reply, exit: 0 }));
        }

        #[test]
        fn every_error_arrives_as_it_was(code in 0u16..300, msg in ".*", details in ".*") {
            let outcome = Code::of(code).map_or(Ok(()), |code| Err(CniError { code, msg, details }));
            let bytes = serde_json::to_vec(&Answer::of(outcome.clone())).unwrap();
            prop_assert_eq!(Answer::read(&bytes).unwrap(), outcome);
        }
    }
}
