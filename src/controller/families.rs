//! What the controller counts: what each family is called, and what it says. `docs/metrics.md` has the same lines; a test compares them.

use crate::probes::families::{
    BUILD, Family, KUBE_REQUESTS, WATCH_LISTS, WATCH_LOST, WATCH_OBJECTS, WATCH_RESTARTS, counter, gauge,
    histogram,
};

/// All of them, in the order in which they are said.
pub const FAMILIES: &[Family] = &[
    BUILD,
    gauge("egret_controller_start_time_seconds", &[], "When the controller was started, Unix time."),
    gauge("egret_controller_leads", &[], "1 for the one that works, 0 for one that stands by."),
    counter(
        "egret_controller_turns_total",
        &[],
        "Times that it looked at everything and did what was to be done.",
    ),
    counter(
        "egret_controller_turn_failures_total",
        &[],
        "Of these, those that left something undone; it is tried again.",
    ),
    gauge(
        "egret_controller_undone",
        &[],
        "Things that could not be read or written when they were last tried.",
    ),
    histogram("egret_controller_turn_duration_seconds", &[], "How long turns took."),
    gauge("egret_controller_last_turn_duration_seconds", &[], "How long the last one took."),
    gauge(
        "egret_controller_last_success_timestamp_seconds",
        &[],
        "When everything was last found or made as it should be, Unix time.",
    ),
    gauge(
        "egret_controller_agents",
        &["state"],
        "Nodes by their agents: heard, away, never (no agent was ever heard), unknown (not listened to for long enough).",
    ),
    gauge("egret_controller_clients", &[], "Pods of the cluster whose traffic Egret decides."),
    gauge(
        "egret_controller_held_clients",
        &[],
        "Of these, those with a destination that is held: no usable gateway, or a problem.",
    ),
    gauge(
        "egret_controller_unprotected_pods",
        &["reason"],
        "Selected pods that nobody serves: AgentAway, NoAgent, HostNetwork, Bypassed, NotWired; Unheard: nobody can say yet.",
    ),
    counter(
        "egret_controller_reclaimed_total",
        &["of"],
        "Times that something was given back of what is gone: node, outOfService, agent, owner; or a block that was empty for long.",
    ),
    counter(
        "egret_controller_reclaimed_leases_total",
        &[],
        "Leases and reservations that were freed with it.",
    ),
    WATCH_OBJECTS,
    WATCH_LOST,
    WATCH_LISTS,
    WATCH_RESTARTS,
    KUBE_REQUESTS,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probes::families::are_told;

    #[test]
    fn the_page_has_every_family_as_it_is_and_no_other() {
        are_told(FAMILIES, "What the controller counts");
    }
}
