//! What a program counts, in the text format of Prometheus.
//!
//! In: a family's name, labels, a number. Out: text. Pure but for a lock. Never: decides anything; holds a name of a pod, because a
//! series for each pod would outlive it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::families::{Family, Kind};

/// Upper bounds of a histogram's buckets, seconds: a call without the API server takes a few milliseconds, a gateway some tens.
const BOUNDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Everything that was counted.
#[derive(Debug)]
pub struct Metrics {
    families: &'static [Family],
    series: Mutex<BTreeMap<(&'static str, Vec<String>), Value>>,
}

#[derive(Debug, Clone)]
enum Value {
    Number(f64),
    Histogram { counts: [u64; BOUNDS.len()], count: u64, sum: f64 },
}

impl Metrics {
    /// Of these families, in the order in which they are said.
    pub fn of(families: &'static [Family]) -> Metrics {
        Metrics { families, series: Mutex::default() }
    }

    /// Counts.
    #[allow(clippy::cast_precision_loss, reason = "a count beyond 2^53 is none")]
    pub fn add(&self, name: &'static str, labels: &[&str], count: u64) {
        self.add_some(name, labels, count as f64);
    }

    /// Counts what is no whole number: seconds.
    fn add_some(&self, name: &'static str, labels: &[&str], amount: f64) {
        if let Value::Number(number) =
            self.series().entry(self.key(name, labels)).or_insert(Value::Number(0.0))
        {
            *number += amount;
        }
    }

    /// How it is now.
    pub fn set(&self, name: &'static str, labels: &[&str], now: f64) {
        self.series().insert(self.key(name, labels), Value::Number(now));
    }

    /// How all series of a family are now; others of it are gone.
    pub fn set_all(&self, name: &'static str, all: impl IntoIterator<Item = (Vec<String>, f64)>) {
        let mut series = self.series();
        series.retain(|(family, _), _| *family != name);
        series.extend(all.into_iter().map(|(labels, now)| ((name, labels), Value::Number(now))));
    }

    /// How long something took.
    pub fn took(&self, name: &'static str, labels: &[&str], seconds: f64) {
        let mut series = self.series();
        let none = Value::Histogram { counts: [0; BOUNDS.len()], count: 0, sum: 0.0 };
        let value = series.entry(self.key(name, labels)).or_insert(none);
        if let Value::Histogram { counts, count, sum } = value {
            for (counted, bound) in counts.iter_mut().zip(BOUNDS) {
                *counted += u64::from(seconds <= bound);
            }
            (*count, *sum) = (*count + 1, *sum + seconds);
        }
    }

    /// All of it. A family without labels that was never counted is 0.
    pub fn text(&self) -> String {
        let series = self.series().clone();
        let mut text = String::new();
        for family in self.families {
            let Family { name, kind, help, .. } = family;
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", kind.word());
            let rows = series.iter().filter(|((of, _), _)| of == name);
            let mut any = false;
            for ((_, values), value) in rows {
                any = true;
                family.print(&mut text, values, value);
            }
            if !any && family.labels.is_empty() && !matches!(kind, Kind::Histogram) {
                let _ = writeln!(text, "{name} 0");
            }
        }
        text
    }

    fn series(&self) -> MutexGuard<'_, BTreeMap<(&'static str, Vec<String>), Value>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, name: &'static str, labels: &[&str]) -> (&'static str, Vec<String>) {
        let family = self.families.iter().find(|family| family.name == name);
        debug_assert!(
            family.is_some_and(|f| f.labels.len() == labels.len()),
            "{name} {labels:?} is not in the list"
        );
        (name, labels.iter().map(|label| (*label).to_owned()).collect())
    }
}

impl Family {
    fn print(&self, text: &mut String, values: &[String], value: &Value) {
        let name = self.name;
        let plain: Vec<String> = self
            .labels
            .iter()
            .zip(values)
            .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
            .collect();
        let braced = |more: Option<String>| {
            let all: Vec<String> = plain.iter().cloned().chain(more).collect();
            if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
        };
        let _ = match value {
            Value::Number(number) => writeln!(text, "{name}{} {number}", braced(None)),
            Value::Histogram { counts, count, sum } => {
                for (bound, counted) in BOUNDS.iter().zip(counts) {
                    let _ =
                        writeln!(text, "{name}_bucket{} {counted}", braced(Some(format!("le=\"{bound}\""))));
                }
                let _ = writeln!(text, "{name}_bucket{} {count}", braced(Some("le=\"+Inf\"".to_owned())));
                writeln!(text, "{name}_sum{} {sum}\n{name}_count{} {count}", braced(None), braced(None))
            }
        };
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probes::families::{counter, gauge, histogram};

    const FAMILIES: &[Family] = &[
        gauge("egret_datapath_bindings", &[], "Sets."),
        counter("egret_cni_requests_total", &["verb", "result"], "Calls."),
        histogram("egret_cni_request_duration_seconds", &["verb"], "How long."),
        gauge("egret_ipam_leases", &["pool"], "Leases."),
    ];

    #[test]
    fn what_is_counted_is_said_and_what_never_happened_is_zero() {
        let metrics = Metrics::of(FAMILIES);
        metrics.add("egret_cni_requests_total", &["ADD", "ok"], 2);
        metrics.set("egret_ipam_leases", &["a \"b\""], 1.0);
        metrics.set_all("egret_ipam_leases", [(vec!["red".to_owned()], 3.0)]);
        metrics.took("egret_cni_request_duration_seconds", &["ADD"], 0.004);
        let text = metrics.text();
        for line in [
            "# TYPE egret_cni_requests_total counter",
            "egret_cni_requests_total{verb=\"ADD\",result=\"ok\"} 2",
            "egret_ipam_leases{pool=\"red\"} 3",
            "egret_cni_request_duration_seconds_bucket{verb=\"ADD\",le=\"0.0025\"} 0",
            "egret_cni_request_duration_seconds_bucket{verb=\"ADD\",le=\"0.005\"} 1",
            "egret_cni_request_duration_seconds_bucket{verb=\"ADD\",le=\"+Inf\"} 1",
            "egret_cni_request_duration_seconds_sum{verb=\"ADD\"} 0.004",
            "egret_datapath_bindings 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("a \\\"b"), "what is gone is said no more");
    }
}
