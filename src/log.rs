//! Log lines on standard error; standard output belongs to replies.
//!
//! In: the configuration's filter. Out: `tracing` events as lines. Never: fails; a filter that cannot be read is `warn`.

use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;

/// Sends events that pass the filter (`warn`, `info`, `egret=debug,warn`) to standard error. The first call counts.
///
/// `Targets` and not `EnvFilter`: the plugin starts for every pod, and the latter's regular expressions are a
/// noticeable part of such a start.
pub fn to_stderr(filter: &str) {
    let targets = filter.parse().unwrap_or_else(|_| Targets::new().with_default(Level::WARN));
    let _ = tracing::subscriber::set_global_default(Late { targets, lines: OnceLock::new() }); // Err: the second call
}

/// Makes what writes lines when there is one to write: it begins with a table of eight pages, and most calls say nothing.
struct Late {
    targets: Targets,
    lines: OnceLock<Dispatch>,
}

impl Late {
    fn lines(&self) -> &Dispatch {
        let lines = || {
            tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_target(false)
        };
        self.lines.get_or_init(|| Dispatch::new(tracing_subscriber::registry().with(lines())))
    }
}

impl Subscriber for Late {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.targets.would_enable(metadata.target(), metadata.level())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.targets.iter().map(|(_, level)| level).chain(self.targets.default_level()).max()
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.lines().new_span(span)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.lines().record(span, values);
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        self.lines().record_follows_from(span, follows);
    }

    fn event(&self, event: &Event<'_>) {
        self.lines().event(event);
    }

    fn enter(&self, span: &Id) {
        self.lines().enter(span);
    }

    fn exit(&self, span: &Id) {
        self.lines().exit(span);
    }
}
