//! The taint that keeps new pods from nodes whose agent is away. Pure.
//!
//! In: a node's taints, whether its agent is at work. Out: the taints that it should have, if others. Never: touches a taint that is
//! not exactly ours, or taints a node that is not meant to have an agent: one that the DaemonSet leaves out is no business of ours.

use serde_json::{Value, json};

use super::agents::Agent;

/// Its key.
pub const KEY: &str = "egret.dev/agent-away";
/// Its effect: nothing that runs is driven away.
pub const EFFECT: &str = "NoSchedule";

/// A node's `spec.taints` as they should be; `None`: they are. `on`: whether nodes are to be tainted at all; ours are taken away
/// where an agent is, or was.
///
/// A node may register with the taint (`--register-with-taints`), so that no pod comes before the agent: it stays until one is heard.
/// It stays as it is, too, while nobody can say whether there is one.
pub fn wanted(taints: &Value, agent: Agent, on: bool) -> Option<Value> {
    let now = taints.as_array().map(Vec::as_slice).unwrap_or_default();
    let is_ours = |taint: &Value| taint["key"] == KEY && taint["effect"] == EFFECT;
    let tainted = now.iter().any(is_ours);
    match agent {
        Agent::Away if on && !tainted => {
            let ours = json!({"key": KEY, "effect": EFFECT});
            Some(now.iter().cloned().chain([ours]).collect())
        }
        Agent::Here if tainted => Some(now.iter().filter(|taint| !is_ours(taint)).cloned().collect()),
        Agent::Away if !on && tainted => Some(now.iter().filter(|taint| !is_ours(taint)).cloned().collect()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_tainted_while_its_agent_is_away_and_only_our_taint_comes_and_goes() {
        let other = json!({"key": "spot", "value": "yes", "effect": "NoExecute"});
        let alike = json!({"key": KEY, "effect": "NoExecute"});
        let others = json!([other, alike]);
        let tainted = wanted(&others, Agent::Away, true).unwrap();
        assert_eq!(tainted, json!([other, alike, {"key": KEY, "effect": EFFECT}]));
        assert_eq!(wanted(&tainted, Agent::Away, true), None);
        assert_eq!(wanted(&tainted, Agent::Here, true), Some(others.clone()));
        assert_eq!(wanted(&others, Agent::Here, true), None);
        assert_eq!(wanted(&Value::Null, Agent::Away, true), Some(json!([{"key": KEY, "effect": EFFECT}])));
    }

    #[test]
    fn a_node_that_never_had_an_agent_keeps_what_it_registered_with_and_gets_nothing() {
        let tainted = json!([{"key": KEY, "effect": EFFECT}]);
        assert_eq!(wanted(&tainted, Agent::Never, true), None);
        assert_eq!(wanted(&json!([]), Agent::Never, true), None);
    }

    #[test]
    fn while_nobody_knows_whether_an_agent_is_there_nothing_changes() {
        let tainted = json!([{"key": KEY, "effect": EFFECT}]);
        for on in [true, false] {
            assert_eq!(wanted(&tainted, Agent::Unknown, on), None);
            assert_eq!(wanted(&json!([]), Agent::Unknown, on), None);
        }
    }

    #[test]
    fn switched_off_it_takes_its_taints_away() {
        let tainted = json!([{"key": KEY, "effect": EFFECT}]);
        assert_eq!(wanted(&tainted, Agent::Away, false), Some(json!([])));
        assert_eq!(wanted(&json!([]), Agent::Away, false), None);
    }
}
