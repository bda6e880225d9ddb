//! Conditions and status, written only when they say something new. Pure.
//!
//! In: what an object's status is, what it should say, the time. Out: the status to write, or nothing. Never: takes away a condition
//! that is not said: another program wrote it, or nobody can say it just now.

use serde_json::{Map, Value, json};

/// What is true of an object now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `Accepted`, `Ready`, `Protected` and the like.
    pub kind: &'static str,
    /// The answer.
    pub holds: bool,
    /// One word.
    pub reason: String,
    /// A sentence, with the next step where there is one.
    pub message: String,
}

impl Condition {
    /// True, because.
    pub fn yes(kind: &'static str, reason: &str, message: impl Into<String>) -> Condition {
        Condition { kind, holds: true, reason: word(reason), message: sentence(message.into()) }
    }

    /// False, because.
    pub fn no(kind: &'static str, reason: &str, message: impl Into<String>) -> Condition {
        Condition { kind, holds: false, reason: word(reason), message: sentence(message.into()) }
    }
}

/// The longest message that a definition takes.
const LONGEST: usize = 1024;

fn sentence(text: String) -> String {
    if text.chars().count() <= LONGEST {
        text
    } else {
        text.chars().take(LONGEST - 1).chain(['…']).collect()
    }
}

/// A reason is a word, never empty.
fn word(reason: &str) -> String {
    if reason.is_empty() { "Unknown".to_owned() } else { reason.to_owned() }
}

/// The status to write over `was`, if it says anything else: `fields`, and these conditions about this generation. A condition's
/// `lastTransitionTime` is `now` only if the answer is another one.
pub fn status(
    was: &Value,
    generation: u64,
    fields: Map<String, Value>,
    conditions: &[Condition],
    now: &str,
) -> Option<Value> {
    let before = was["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut next = json!({"observedGeneration": generation});
    if let Value::Object(next) = &mut next {
        next.extend(fields);
    }
    let own = |condition: &Condition| {
        let known = before.iter().find(|old| old["type"] == condition.kind);
        let answer = if condition.holds { "True" } else { "False" };
        let since = known
            .filter(|old| old["status"] == answer)
            .and_then(|old| old["lastTransitionTime"].as_str())
            .unwrap_or(now);
        json!({
            "type": condition.kind, "status": answer, "reason": condition.reason, "message": condition.message,
            "lastTransitionTime": since, "observedGeneration": generation,
        })
    };
    // Each in its place: one that is not said this time is no change.
    let is_new = |said: &&Condition| before.iter().all(|old| old["type"] != said.kind);
    let known = before.iter().map(|old| {
        let said = conditions.iter().find(|said| old["type"] == said.kind);
        said.map_or_else(|| old.clone(), own)
    });
    next["conditions"] = known.chain(conditions.iter().filter(is_new).map(own)).collect();
    (next != *was).then_some(next)
}

/// Whether a status answers otherwise than the one before, or about another generation. Why something is not as it should be is an answer;
/// why it is, and how much of it there is, is not: a policy whose only pod is a job's changes from `Unused` to `InUse` with each run.
pub fn is_news(was: &Value, next: &Value) -> bool {
    fn answers(status: &Value) -> Vec<[&Value; 3]> {
        let all = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let why = |yes: bool, reason| if yes { &Value::Null } else { reason };
        all.iter().map(|c| [&c["type"], &c["status"], why(c["status"] == "True", &c["reason"])]).collect()
    }
    was["observedGeneration"] != next["observedGeneration"] || answers(was) != answers(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(leased: u64) -> Map<String, Value> {
        json!({"leased": leased}).as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn a_status_that_says_it_already_is_not_written_and_time_moves_only_with_the_answer() {
        let ready = [Condition::yes("Ready", "InUse", "")];
        let first = status(&Value::Null, 1, fields(1), &ready, "t1").unwrap();
        assert_eq!(status(&first, 1, fields(1), &ready, "t2"), None);
        let second = status(&first, 2, fields(2), &[Condition::yes("Ready", "Full", "x")], "t2").unwrap();
        assert_eq!(second["conditions"][0]["lastTransitionTime"], "t1");
        assert_eq!(second["conditions"][0]["observedGeneration"], 2);
        let third = status(&second, 2, fields(2), &[Condition::no("Ready", "Disabled", "")], "t3").unwrap();
        assert_eq!(third["conditions"][0]["lastTransitionTime"], "t3");
    }

    #[test]
    fn an_answer_is_news_and_a_number_is_none() {
        let says = |generation, number, condition: Condition| {
            status(&Value::Null, generation, fields(number), &[condition], "t").unwrap()
        };
        let was = says(1, 1, Condition::yes("Ready", "InUse", "one"));
        assert!(is_news(&Value::Null, &was));
        assert!(is_news(&was, &says(2, 1, Condition::yes("Ready", "InUse", "one"))));
        assert!(!is_news(&was, &says(1, 2, Condition::yes("Ready", "Full", "two"))));
        let not = says(1, 1, Condition::no("Ready", "NoGateway", "pod a"));
        assert!(is_news(&was, &not));
        assert!(!is_news(&not, &says(1, 1, Condition::no("Ready", "NoGateway", "pod b"))));
        assert!(is_news(&not, &says(1, 1, Condition::no("Ready", "PoolOverlap", "pod a"))));
    }

    #[test]
    fn somebody_elses_condition_stays() {
        let was = json!({"conditions": [{"type": "Audited", "status": "True"}]});
        let next = status(&was, 1, fields(0), &[Condition::yes("Ready", "InUse", "")], "t").unwrap();
        assert_eq!(next["conditions"].as_array().unwrap().len(), 2);
        assert_eq!(next["conditions"][0]["type"], "Audited");
    }
}
