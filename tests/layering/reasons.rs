//! `docs/reasons.md` has every word that the program gives as a `reason`, and no other.
//!
//! A reason is a literal wherever it is given: as an argument, in a tuple, a constant or a table. So every word in CamelCase that stands
//! alone in quotes is a reason, which has a row, or something else, which is named below. A new one is one or the other.

use std::collections::BTreeSet;
use std::fs;

use crate::source::{root, sources};

/// Words in CamelCase that are no reasons.
const OTHERS: [&[&str]; 6] = [
    // Kinds, of ours and of others, and what holds them. `EgressGateway` is a reason of events, too.
    &[
        "CalicoEgressGatewayPolicy",
        "CiliumEgressGatewayPolicy",
        "CiliumEgressNATPolicy",
        "CronJob",
        "CustomResourceDefinition",
        "DaemonSet",
        "DeleteOptions",
        "Deployment",
        "EgressBlock",
        "EgressEndpoint",
        "EgressGatewayPolicy",
        "EgressNode",
        "EgressPool",
        "EgressRange",
        "EndpointSlice",
        "Event",
        "ExecCredential",
        "ExternalNetwork",
        "FelixConfiguration",
        "GatewayPod",
        "IPPool",
        "IPReservation",
        "IsovalentEgressGatewayPolicy",
        "Job",
        "Lease",
        "List",
        "Namespace",
        "Node",
        "NodeRecord",
        "Pod",
        "ReplicaSet",
        "ServiceCIDR",
        "StatefulSet",
    ],
    // Documents that commands print.
    &[
        "AgentState",
        "ClusterStatus",
        "ConvertReport",
        "Explanation",
        "InstallReport",
        "IpamRelease",
        "IpamReport",
        "LintReport",
        "NodeStatus",
        "ReconcileReport",
        "SchemaList",
    ],
    // Types of conditions and events, and their answers.
    &[
        "Accepted",
        "AddressesInside",
        "AgentReady",
        "False",
        "Normal",
        "Protected",
        "Ready",
        "True",
        "Warning",
    ],
    // Columns of `kubectl get`, names of programs.
    &[
        "Address",
        "Age",
        "Agent",
        "Calico",
        "Cilium",
        "Clients",
        "Cluster",
        "Complete",
        "Egret",
        "Free",
        "Held",
        "Leased",
        "Number",
        "Other",
        "Pods",
        "Range",
        "Ranges",
        "Reason",
        "Sequence",
        "State",
        "Unprotected",
        "Wire",
    ],
    // Values of fields, in manifests, answers and the configuration.
    &[
        "Allow",
        "Always",
        "Auto",
        "Automatic",
        "Config",
        "Deny",
        "DoesNotExist",
        "EnabledPerNamespace",
        "EnabledPerNamespaceOrPerPod",
        "Exists",
        "Hold",
        "Ignore",
        "In",
        "InternalIP",
        "Manual",
        "Never",
        "NoSchedule",
        "None",
        "NotFound",
        "NotIn",
        "Pending",
        "PodAddress",
        "Pool",
        "PreferNodeLocal",
        "Succeeded",
        "Unheard",
    ],
    // Of the configuration's reader, whose findings become errors with a number before anybody sees them.
    &["Syntax"],
];

/// A word in CamelCase: letters that begin with a capital and are not all capitals.
fn is_camel(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_uppercase())
        && word.chars().all(|c| c.is_ascii_alphabetic())
        && word.contains(|c: char| c.is_ascii_lowercase())
}

/// Such words that stand alone in quotes.
fn literals() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for source in sources().iter().filter(|source| source.module() != "testbed") {
        for (_, line) in &source.lines {
            let between: Vec<&str> = line.split('"').collect();
            let quoted =
                between.len().checked_sub(1).and_then(|last| between.get(1..last)).unwrap_or_default();
            found.extend(quoted.iter().filter(|word| is_camel(word)).map(|word| (*word).to_owned()));
        }
    }
    assert!(found.len() > 150, "only {} words found", found.len());
    // The only reasons that are put together: `Not` and the format of a file.
    let put_together = "\"Not{format:?}\"";
    let all = sources();
    let mut lines = all.iter().flat_map(|source| &source.lines);
    assert!(lines.any(|(_, line)| line.contains(put_together)), "{put_together} is gone: so are these words");
    found.extend(["NotJson", "NotYaml"].map(str::to_owned));
    found
}

/// First cells of the page's rows.
fn rows() -> Vec<String> {
    let page = fs::read_to_string(root().join("docs/reasons.md")).unwrap();
    let cell = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    page.lines().filter_map(cell).collect()
}

#[test]
fn every_reason_has_a_row_and_every_row_is_a_reason() {
    let (said, rows) = (literals(), rows());
    let others: BTreeSet<String> = OTHERS.concat().into_iter().map(str::to_owned).collect();
    let listed: BTreeSet<String> = rows.iter().cloned().collect();
    let missing: Vec<&String> =
        said.iter().filter(|word| !listed.contains(*word) && !others.contains(*word)).collect();
    assert!(
        missing.is_empty(),
        "docs/reasons.md lacks {missing:?}: give each a row, or say in tests/layering/reasons.rs that it is no reason"
    );
    let gone: Vec<&String> = listed.iter().chain(&others).filter(|word| !said.contains(*word)).collect();
    assert!(gone.is_empty(), "nobody says {gone:?} any more");
    let both: Vec<&String> = listed.intersection(&others).collect();
    assert!(both.is_empty(), "{both:?} are reasons, or they are not");
}

#[test]
fn words_that_other_pages_call_reasons_are_reasons() {
    let listed: BTreeSet<String> = rows().into_iter().collect();
    let page = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let first_cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let words =
        first_cells.flat_map(|cell| cell.split('`')).filter(|word| is_camel(word) && *word != "Linux");
    let unknown: Vec<&str> = words.filter(|word| !listed.contains(*word)).collect();
    assert!(unknown.is_empty(), "docs/troubleshooting.md: {unknown:?}");
}
