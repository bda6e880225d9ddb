//! One network namespace: what it holds of ours, what it should hold, and the steps between.
//!
//! Knows links, routes and nftables; nothing of egress. One verb programs the kernel everywhere: [`reconcile`]. Uninstalling is
//! reconciling to `State::default()`.

pub mod announce;
pub mod apply;
mod begun;
mod behind;
pub mod brake;
pub mod conflicts;
pub mod conntrack;
pub mod cut;
pub mod detour;
pub mod devices;
mod effect;
pub mod home;
pub mod netlink;
pub mod netns;
pub(crate) mod nfnetlink;
pub mod nft;
pub mod observe;
mod part;
pub mod passage;
pub mod probe;
#[cfg(test)]
pub(crate) mod sandbox;
pub mod sockets;
pub mod state;
pub mod step;
pub mod steps;
pub mod sysctl;
pub mod unannounced;
pub mod watch;

pub use apply::apply;
pub use begun::{Begun, begin, begin_from_nothing};
pub use conflicts::{conflicts, lacks};
pub use netns::{Netns, NetnsError};
pub use observe::{KernelError, observe};
pub use step::Step;
pub use steps::{steps, steps_believing};
pub use sysctl::Saved;

use serde::Serialize;

use state::{Scope, State};

/// Where a state is kept: a namespace, and the node's namespace that its tunnels' sockets and its veths' other ends live in.
/// For a node both are the same.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The namespace that is read and written.
    pub here: &'a Netns,
    /// The node's namespace.
    pub home: &'a Netns,
}

impl<'a> Place<'a> {
    /// A node's own namespace.
    pub fn node(netns: &'a Netns) -> Place<'a> {
        Place { here: netns, home: netns }
    }
}

/// What a reconcile found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Report {
    /// Entries that were as they shall be.
    pub unchanged: usize,
    /// Steps not carried out because this was a dry run. Empty in a dry run: kernel and plan agree.
    pub pending: Vec<Step>,
    /// Steps carried out.
    pub done: Vec<Step>,
    /// Steps that failed, with the reason as a sentence.
    pub failed: Vec<(Step, String)>,
}

impl Report {
    /// With what was done after it.
    fn add(&mut self, after: Report) {
        self.unchanged += after.unchanged;
        self.pending.extend(after.pending);
        self.done.extend(after.done);
        self.failed.extend(after.failed);
    }
}

/// Makes a namespace hold what is desired and nothing else of ours.
///
/// `saved` gains the original of each of the host's settings that is changed, and loses it when that is restored. The error is
/// about reading; what could not be written is in the report, and the rest was done.
pub fn reconcile(
    place: &Place<'_>,
    scope: &Scope,
    desired: &State,
    saved: &mut Saved,
    dry_run: bool,
) -> Result<Report, KernelError> {
    reconcile_after(place, scope, desired, saved, dry_run, &mut |_| Ok(()))
}

/// The same, where `saved` as it will be is handed over before anything is changed: who is killed half-way must not have
/// changed a setting of the host whose original nobody knows.
///
/// # Errors
/// As [`reconcile`]; or what `before` could not do, and then nothing was changed.
pub fn reconcile_after<E: From<KernelError>>(
    place: &Place<'_>,
    scope: &Scope,
    desired: &State,
    saved: &mut Saved,
    dry_run: bool,
    before: &mut dyn FnMut(&Saved) -> Result<(), E>,
) -> Result<Report, E> {
    let observed = look(place, scope, desired, saved)?;
    reconcile_from(place, scope, (&observed, desired), saved, dry_run, before)
}

/// What must be known of a namespace before it is brought to a state.
///
/// # Errors
/// It cannot be read.
pub fn look(place: &Place<'_>, scope: &Scope, desired: &State, saved: &Saved) -> Result<State, KernelError> {
    let settings = desired.sysctls.keys().chain(saved.keys()).map(String::as_str);
    observe(place, scope, settings)
}

/// [`reconcile`] where nothing was done yet, nothing is given back, and nobody waits for tables that come last.
///
/// # Errors
/// As [`reconcile`].
pub fn begin_reconcile(place: &Place<'_>, scope: &Scope, desired: &State) -> Result<Begun, KernelError> {
    let observed = look(place, scope, desired, &Saved::default())?;
    let steps = steps(&observed, desired, &Saved::default());
    // Nor anything in the way, which goes first.
    let from_nothing = observed.links.is_empty() && observed.tables.is_empty() && observed.faults.is_empty();
    let mut begun =
        if from_nothing { begin_from_nothing(place, scope, &steps) } else { begin(place, scope, &steps) }?;
    begun.report.unchanged = steps::unchanged(&observed, desired);
    Ok(begun)
}

/// [`reconcile_after`] from what [`look`] saw.
///
/// # Errors
/// As [`reconcile_after`].
pub fn reconcile_from<E: From<KernelError>>(
    place: &Place<'_>,
    scope: &Scope,
    (observed, desired): (&State, &State),
    saved: &mut Saved,
    dry_run: bool,
    before: &mut dyn FnMut(&Saved) -> Result<(), E>,
) -> Result<Report, E> {
    let steps = steps(observed, desired, saved);
    let unchanged = steps::unchanged(observed, desired);
    if dry_run {
        return Ok(Report { unchanged, pending: steps, ..Report::default() });
    }
    let mut changing = saved.clone();
    keep_originals(&steps, observed, desired, &mut changing);
    before(&changing)?;
    let mut report = Report { unchanged, ..apply(place, scope, &steps)? };
    report.failed.retain(|(step, _)| !is_of_a_lost_device(place.here, step, observed, desired));
    keep_originals(&report.done, observed, desired, saved);
    for step in &report.done {
        if let Step::RestoreSysctl { path, .. } = step {
            saved.remove(path);
        }
    }
    Ok(report)
}

/// Whether a step is about a device of the host's that is not there: whoever works from a plan of before, without a look at the machine, asks
/// for what nobody can do. Nothing leaves by such a device, and a plan made anew does not name it. One of ours that is missing is a failure.
fn is_of_a_lost_device(here: &Netns, step: &Step, observed: &State, desired: &State) -> bool {
    let device = match step {
        Step::SetSysctl { path, .. } => sysctl::device_of(path),
        Step::AddRoute(route) | Step::ReplaceRoute(route) => effect::device_of(route),
        Step::AddProxy { dev, .. } => Some(dev.as_str()),
        _ => None,
    };
    let is_the_hosts =
        |device: &&str| !observed.links.contains_key(*device) && !desired.links.contains_key(*device);
    device.filter(is_the_hosts).is_some_and(|device| !sysctl::has_device(here, device))
}

/// Keeps the original of a setting from the first change of it; until it is restored.
fn keep_originals(steps: &[Step], observed: &State, desired: &State, saved: &mut Saved) {
    for step in steps {
        if let Step::SetSysctl { path, .. } = step
            && steps::is_the_hosts(path, observed, desired)
            && let Some(original) = observed.sysctls.get(path)
        {
            saved.entry(path.clone()).or_insert_with(|| original.clone());
        }
    }
}
