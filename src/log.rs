//! Log lines on standard error; standard output belongs to replies.
//!
//! In: the configuration's filter. Out: `tracing` events as lines. Never: fails; a filter that cannot be read is `warn`.

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Sends events that pass the filter (`warn`, `info`, `egret=debug,warn`) to standard error. The first call counts.
///
/// `Targets` and not `EnvFilter`: the plugin starts for every pod, and the latter's regular expressions are a
/// noticeable part of such a start.
pub fn to_stderr(filter: &str) {
    let targets: Targets =
        filter.parse().unwrap_or_else(|_| Targets::new().with_default(tracing::Level::WARN));
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_target(false);
    let _ = tracing_subscriber::registry().with(lines).with(targets).try_init(); // Err: the second call
}
