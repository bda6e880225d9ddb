//! Annotations that nobody reads: slips, names from wrong guides, and what of Calico's has no equal here.
//!
//! In: an object's annotations. Out: a problem for each. Never: holds a pod; what is wrong of those that are read is said where they are read.

use std::ops::Bound::{Included, Unbounded};

use super::{ALL, EGRESS_ADDRESSES, field};
use crate::egress::model::Pairs;
use crate::problem::Problem;
use crate::spelling::nearest;

/// What Calico itself writes under the prefix that we watch for slips.
const CALICOS_OWN: [&str; 3] = [
    "egress.projectcalico.org/gatewayMaintenanceGatewayIP",
    "egress.projectcalico.org/gatewayMaintenanceStartedTimestamp",
    "egress.projectcalico.org/gatewayMaintenanceFinishedTimestamp",
];

/// Annotations of Calico's gateway pods that would change where or as whom they send, with what holds instead.
const NO_EQUAL: [(&str, &str); 2] = [
    (
        "egress.projectcalico.org/externalNetworkNames",
        "what clients send takes the routes of the gateway's node",
    ),
    ("cni.projectcalico.org/awsElasticIPs", "give the elastic address to the leased one by other means"),
];

/// Names that guides on the web show and that never existed, with the right ones.
const NEVER_EXISTED: [(&str, &str); 2] = [
    ("cni.projectcalico.org/egress-gateway.selector", "egress.projectcalico.org/selector"),
    ("cni.projectcalico.org/egress-gateway.namespaceSelector", "egress.projectcalico.org/namespaceSelector"),
];

/// Annotations under our prefixes that nobody reads: a slip, or a name from a wrong guide. Nothing is held for them.
pub fn unread(annotations: &Pairs) -> Vec<Problem> {
    let mut problems = Vec::new();
    let problem = |name: &str, value: &str, meant: Option<&str>| {
        let message = match meant {
            Some(meant) => format!("nobody reads this annotation; did you mean `{meant}`?"),
            None => "nobody reads this annotation: remove it".to_owned(),
        };
        Problem::new("", "UnknownAnnotation", message).at(field(name)).value(value)
    };
    let known: Vec<&str> = ALL.iter().flat_map(|annotation| annotation.0.iter().copied()).collect();
    for prefix in ["egret.dev/", "egress.projectcalico.org/"] {
        let ours = annotations
            .range::<str, _>((Included(prefix), Unbounded))
            .take_while(|(name, _)| name.starts_with(prefix));
        for (name, value) in ours {
            let written = CALICOS_OWN.contains(&name.as_str()) || name == EGRESS_ADDRESSES;
            let told = NO_EQUAL.iter().any(|(other, _)| other == name);
            if !known.contains(&name.as_str()) && !written && !told {
                problems.push(problem(name, value, nearest(name, &known)));
            }
        }
    }
    for (name, instead) in NO_EQUAL {
        if let Some(value) = annotations.get(name) {
            let message = format!("this annotation of Calico's has no effect: {instead}");
            problems.push(Problem::new("", "UnknownAnnotation", message).at(field(name)).value(value));
        }
    }
    for (name, meant) in NEVER_EXISTED {
        if let Some(value) = annotations.get(name) {
            problems.push(problem(name, value, Some(meant)));
        }
    }
    problems
}
