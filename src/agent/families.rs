//! What the agent counts: what each family is called, and what it says. `docs/metrics.md` has the same lines; a test compares them.

use crate::probes::families::{
    BUILD, Family, KUBE_REQUESTS, WATCH_LISTS, WATCH_LOST, WATCH_OBJECTS, WATCH_RESTARTS, counter, gauge,
    histogram,
};

/// All of them, in the order in which they are said.
pub const FAMILIES: &[Family] = &[
    BUILD,
    gauge("egret_agent_start_time_seconds", &[], "When the agent was started, Unix time."),
    gauge(
        "egret_agent_health",
        &["health"],
        "1 for how the agent is: starting, well, degraded, failing, stopped.",
    ),
    gauge(
        "egret_agent_problems",
        &["reason"],
        "Things that are wrong now, in objects, records and around addresses.",
    ),
    gauge("egret_datapath_clients", &[], "Addresses of pods on this node whose traffic Egret decides."),
    gauge("egret_datapath_bindings", &[], "Distinct sets of rules that they share."),
    gauge(
        "egret_datapath_held_clients",
        &[],
        "Of these addresses, those with a destination that is held: no usable gateway, or a problem.",
    ),
    gauge(
        "egret_datapath_gateways",
        &["use"],
        "Gateways that this node's pods may use: usable take new flows, draining keep theirs.",
    ),
    gauge(
        "egret_datapath_local_gateways",
        &["state"],
        "Pod gateways on this node, by what it tells the others: starting, ready, draining, failed.",
    ),
    counter(
        "egret_datapath_repairs_total",
        &["kind"],
        "Objects of ours in the kernel that somebody else took away and the agent put back.",
    ),
    counter(
        "egret_datapath_ruleset_flushes_total",
        &[],
        "Times that our nftables rules were deleted by somebody else.",
    ),
    counter(
        "egret_datapath_brakes_total",
        &[],
        "Of these, times that clients were stopped until the rules were back.",
    ),
    counter(
        "egret_datapath_unguarded_seconds_total",
        &[],
        "Time in which packets of clients may have left as if nobody had selected them.",
    ),
    counter(
        "egret_datapath_unruled_seconds_total",
        &[],
        "Time without rules of ours, the unguarded part included.",
    ),
    counter(
        "egret_datapath_lost_flows_total",
        &[],
        "Flows that lost their gateway: told by a reset at their next packet, or pinned anew.",
    ),
    counter(
        "egret_cni_requests_total",
        &["verb", "result"],
        "Calls of the plugin that the agent answered: ok, or the CNI error code.",
    ),
    histogram(
        "egret_cni_request_duration_seconds",
        &["verb"],
        "How long they took, waiting for others included.",
    ),
    counter(
        "egret_cni_freshness_total",
        &["by"],
        "ADDs by how they knew enough: known (nobody was asked meanwhile), answer (they waited for one round of questions), memory (nobody answers, the pod is known for long), none (refused).",
    ),
    gauge("egret_ipam_leases", &["pool"], "Addresses that gateways of this node hold."),
    gauge("egret_ipam_blocks", &["pool"], "Blocks in which they lie."),
    counter(
        "egret_ipam_claims_total",
        &["result"],
        "Leases asked for by ADDs of gateways: ok, full, failed; and again: written once more, because they were deleted under a gateway.",
    ),
    counter(
        "egret_ipam_conflicts_total",
        &[],
        "Writes to the cluster for which somebody else was faster; they are tried again.",
    ),
    gauge("egret_ipam_owed_releases", &[], "Holders that ended and whose leases are not given back yet."),
    counter("egret_reconcile_runs_total", &["job"], "Jobs of the agent's loop."),
    counter("egret_reconcile_failures_total", &["job"], "Of these, those that failed; they are tried again."),
    counter("egret_reconcile_steps_total", &["job"], "Changes that they made to the kernel."),
    histogram("egret_reconcile_duration_seconds", &["job"], "How long they took."),
    gauge(
        "egret_reconcile_last_success_timestamp_seconds",
        &[],
        "When kernel and plan were last found or made equal, Unix time.",
    ),
    WATCH_OBJECTS,
    WATCH_LOST,
    WATCH_LISTS,
    WATCH_RESTARTS,
    KUBE_REQUESTS,
    counter(
        "egret_kube_fresh_reads_total",
        &["of"],
        "Of these, those that make an ADD certain: namespace, policies, pod.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probes::families::are_told;

    #[test]
    fn the_page_has_every_family_as_it_is_and_no_other() {
        are_told(FAMILIES, "What the agent counts");
    }
}
