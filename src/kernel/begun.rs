//! Steps whose last one takes long: tables, which `nft` loads while the caller does other things.
//!
//! In: steps in order. Out: what was done, and what is on its way. Never: begins with tables where they could decide before their paths stand.

use super::apply::apply;
use super::nft::load::{Ending, Loading};
use super::nft::{self, diff::Change};
use super::observe::KernelError;
use super::state::Scope;
use super::step::Step;
use super::{Place, Report};

/// Steps that were carried out, but for tables at their end, which `nft` is loading.
#[must_use]
#[derive(Default)]
pub struct Begun {
    pub(super) report: Report,
    loading: Option<(Step, Result<Loading, String>)>,
}

impl From<Report> for Begun {
    fn from(report: Report) -> Begun {
        Begun { report, loading: None }
    }
}

impl Begun {
    /// Waits for the tables.
    pub fn end(self) -> Report {
        self.over(Loading::end).0
    }

    /// Waits for the tables, and leaves it to the second value to wait for the program: [`Loading::settle`].
    pub fn settle(self) -> (Report, Option<Ending>) {
        self.over(Loading::settle)
    }

    fn over<T>(self, wait: impl FnOnce(Loading) -> Result<T, nft::Error>) -> (Report, Option<T>) {
        let Begun { mut report, loading } = self;
        let Some((step, loading)) = loading else { return (report, None) };
        match loading.and_then(|loading| wait(loading).map_err(|error| error.to_string())) {
            Ok(over) => {
                report.done.push(step);
                (report, Some(over))
            }
            Err(why) => {
                report.failed.push((step, why));
                (report, None)
            }
        }
    }
}

/// Carries out the steps, and does not wait for tables at their end.
///
/// # Errors
/// As [`apply`].
pub fn begin(place: &Place<'_>, scope: &Scope, steps: &[Step]) -> Result<Begun, KernelError> {
    let Some((change, before)) = tables_last(steps) else {
        return apply(place, scope, steps).map(Begun::from);
    };
    let report = apply(place, scope, before)?;
    Ok(Begun { report, loading: Some(load(place, change)) })
}

/// The same where nothing of ours stood, so that no table decides anything yet: they are loaded beside the other steps, as soon as there are
/// the devices that they hook.
///
/// # Errors
/// As [`apply`].
pub fn begin_from_nothing(place: &Place<'_>, scope: &Scope, steps: &[Step]) -> Result<Begun, KernelError> {
    let Some((change, before)) = tables_last(steps) else {
        return apply(place, scope, steps).map(Begun::from);
    };
    let devices = before.iter().take_while(|step| matches!(step, Step::AddLink { .. })).count();
    let (devices, others) = before.split_at(devices);
    let mut report = apply(place, scope, devices)?;
    let early = report.failed.is_empty().then(|| load(place, change));
    match apply(place, scope, others) {
        Ok(beside) => report.add(beside),
        Err(error) => {
            let _ = Begun { report, loading: early }.end();
            return Err(error);
        }
    }
    Ok(Begun { report, loading: Some(early.unwrap_or_else(|| load(place, change))) })
}

/// Tables that `nft` loads, and the steps before them.
fn tables_last(steps: &[Step]) -> Option<(&Change, &[Step])> {
    match steps.split_last()? {
        (step @ Step::Nft(change), before) if !step.is_elements_only() => Some((change, before)),
        _ => None,
    }
}

fn load(place: &Place<'_>, change: &Change) -> (Step, Result<Loading, String>) {
    let loading = match place.here.run(|| change.begin()) {
        Ok(begun) => begun.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    (Step::Nft(change.clone()), loading)
}
