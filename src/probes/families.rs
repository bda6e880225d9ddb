//! What a family of series is, and those that every program counts alike. What each counts beside them stands with it.
//!
//! `docs/metrics.md` has the same lines; tests compare them.

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
    /// They grow until the process is started anew.
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

/// One that grows.
pub const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, labels, help }
}

/// One that is as it is now.
pub const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, labels, help }
}

/// One of durations.
pub const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Histogram, labels, help }
}

/// Every program says it.
pub const BUILD: Family = gauge("egret_build_info", &["version"], "1, with the release that runs.");
/// Every program says it.
pub const WATCH_OBJECTS: Family =
    gauge("egret_watch_objects", &["kind"], "Objects of the cluster that are known.");
/// Every program says it.
pub const WATCH_LOST: Family = gauge(
    "egret_watch_lost",
    &["kind"],
    "1 while a kind cannot be seen (forbidden, or its definition is deleted) and what was last heard stays in force.",
);
/// Every program says it.
pub const WATCH_LISTS: Family = counter(
    "egret_watch_lists_total",
    &["kind"],
    "Lists that were read whole: one, and one for each watch that could not go on.",
);
/// Every program says it.
pub const WATCH_RESTARTS: Family =
    counter("egret_watch_restarts_total", &["kind"], "Watches that were begun again.");
/// Every program says it.
pub const KUBE_REQUESTS: Family = counter(
    "egret_kube_requests_total",
    &["verb", "status"],
    "Requests to the API server by verb and status; 0: nobody answered. WATCH: one that was begun.",
);

/// Whether families are called as Prometheus has it, each once, and stand under a heading of `docs/metrics.md` as they are, in their order,
/// and no others.
#[cfg(test)]
pub(crate) fn are_told(families: &[Family], heading: &str) {
    for Family { name, kind, help, labels } in families {
        let is_plain = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        assert!(name.starts_with("egret_") && is_plain, "{name}");
        assert_eq!(name.ends_with("_total"), matches!(kind, Kind::Counter), "{name}");
        assert!(!help.is_empty() && !help.contains('\n'), "{name}");
        assert!(labels.iter().all(|label| label.bytes().all(|b| b.is_ascii_lowercase())), "{name}");
        assert_eq!(families.iter().filter(|other| other.name == *name).count(), 1, "{name}");
    }
    let page = include_str!("../../docs/metrics.md");
    let (_, section) =
        page.split_once(&format!("\n## {heading}\n")).expect("docs/metrics.md has the heading");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| `egret_")).collect();
    let said = families.iter().map(|Family { name, kind, help, labels }| {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{name}` | {} | {} | {help} |", kind.word(), labels.join(", "))
    });
    let said: Vec<String> = said.collect();
    assert_eq!(rows, said, "docs/metrics.md, {heading}");
}
