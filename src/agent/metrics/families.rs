//! The families: what each is called, and what it says. `docs/metrics.md` has the same lines; a test compares them.

/// One family of series.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// `egret_…`.
    pub name: &'static str,
    /// What may happen to its numbers.
    pub kind: Kind,
    /// Names of its labels, in order.
    pub labels: &'static [&'static str],
    /// A line for people.
    pub help: &'static str,
}

/// What may happen to a family's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// They grow until the agent is started anew.
    Counter,
    /// They are as it is now.
    Gauge,
    /// Durations, in buckets.
    Histogram,
}

impl Kind {
    /// As Prometheus says it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Histogram, labels, help }
}

/// All of them, in the order in which they are said.
pub const FAMILIES: &[Family] = &[
    gauge("egret_build_info", &["version"], "1, with the release that runs."),
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
    gauge("egret_watch_objects", &["kind"], "Objects of the cluster that are known."),
    gauge(
        "egret_watch_lost",
        &["kind"],
        "1 while a kind cannot be seen (forbidden, or its definition is deleted) and what was last heard stays in force.",
    ),
    counter(
        "egret_watch_lists_total",
        &["kind"],
        "Lists that were read whole: one, and one for each watch that could not go on.",
    ),
    counter("egret_watch_restarts_total", &["kind"], "Watches that were begun again."),
    counter(
        "egret_kube_requests_total",
        &["verb", "status"],
        "Requests to the API server by verb and status; 0: nobody answered. WATCH: one that was begun.",
    ),
    counter(
        "egret_kube_fresh_reads_total",
        &["of"],
        "Of these, those that make an ADD certain: namespace, policies, pod.",
    ),
];
