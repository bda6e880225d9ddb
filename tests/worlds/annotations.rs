//! What users write on pods and namespaces, right and wrong.

use crate::dice::Dice;
use crate::written::Words;

const SELECTORS: [&str; 6] =
    ["code == 'red'", "code == 'red'", "code == 'blue'", "has(code)", "code in {'red', 'blue'}", "all()"];
const NAMESPACES: [&str; 5] = [
    "projectcalico.org/name == 'gw'",
    "projectcalico.org/name == 'gw'",
    "all()",
    "projectcalico.org/name == 'shop'",
    "kind == 'egress'",
];

/// Over gateway pods.
pub(crate) fn gateway_pods(dice: &mut Dice) -> &'static str {
    dice.pick(&SELECTORS)
}

/// Over their namespaces.
pub(crate) fn gateway_namespaces(dice: &mut Dice) -> &'static str {
    dice.pick(&NAMESPACES)
}

/// Annotations of a client or of a namespace; `policies` can be named.
pub(crate) fn annotations(dice: &mut Dice, policies: &[String]) -> Words {
    let prefix = dice.pick(&["egress.projectcalico.org/", "egret.dev/"]);
    let word = |name: &str, value: &str| (format!("{prefix}{name}"), value.to_owned());
    let mut words = Words::new();
    match dice.below(20) {
        // A selector, as most write it.
        0..8 => {
            words.extend([word("selector", gateway_pods(dice))]);
            if dice.percent(80) {
                words.extend([word("namespaceSelector", gateway_namespaces(dice))]);
            }
            if dice.percent(30) {
                words.extend([word("maxNextHops", dice.pick(&["0", "1", "2", "7"]))]);
            }
        }
        8..15 if !policies.is_empty() => {
            words.extend([word("egressGatewayPolicy", &named(dice, policies))]);
        }
        15 => words.extend([word("egressGatewayPolicy", "no-such-policy")]),
        16 => words.extend([word("selector", "code == 'red' &")]),
        17 => words.extend([word("selector", "all()"), word("egressGatewayPolicy", "p0")]),
        18 => words.extend([word("maxNextHops", "2")]),
        // A slip that nobody reads, which changes nothing.
        19 => words.extend([word("selectr", "all()")]),
        _ => words.extend([word("selector", "code == 'nowhere'")]),
    }
    words
}

fn named(dice: &mut Dice, policies: &[String]) -> String {
    let names = if dice.percent(50) { vec![dice.pick(policies)] } else { dice.some(policies, 50) };
    match dice.percent(30) {
        true => serde_json::json!(names).to_string(),
        false => names.join(", "),
    }
}
