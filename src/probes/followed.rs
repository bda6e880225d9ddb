//! What is counted of a cluster that is followed, whoever follows it.
//!
//! In: a mirror, a client. Out: series. Never: asks the API.

use super::metrics::Metrics;
use crate::kube::{Client, Mirror};

/// Brings the numbers of what is followed up to date.
#[allow(clippy::cast_precision_loss, reason = "nobody has 2^53 objects")]
pub fn count_objects(metrics: &Metrics, mirror: &Mirror) {
    let lost = mirror.lost();
    for kind in mirror.reach().kinds() {
        let name = format!("{kind:?}");
        let name = name.as_str();
        let (lists, watches) = mirror.begun(kind);
        metrics.set("egret_watch_objects", &[name], mirror.objects(kind).count() as f64);
        metrics.set("egret_watch_lists_total", &[name], lists as f64);
        metrics.set("egret_watch_restarts_total", &[name], watches.saturating_sub(1) as f64);
        let is_lost = lost.iter().any(|(of, _)| *of == kind);
        metrics.set("egret_watch_lost", &[name], f64::from(u8::from(is_lost)));
    }
}

/// The same of what was asked. Says how many writes somebody else was faster with.
#[allow(clippy::cast_precision_loss, reason = "nobody makes 2^53 requests")]
pub fn count_requests(metrics: &Metrics, client: &Client) -> u64 {
    let mut conflicts = 0;
    for ((verb, status), count) in client.requests() {
        metrics.set("egret_kube_requests_total", &[verb, &status.to_string()], count as f64);
        conflicts += if verb == "PUT" && status == 409 { count } else { 0 };
    }
    conflicts
}
