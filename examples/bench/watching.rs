//! One pod whose datagrams are looked at: by which gateway they leave, as the outside sees it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use egret::addr::Family;
use egret::testbed::{Outside, Pod, Trouble};

use crate::agent::PATIENCE;
use crate::rows::Series;

/// Between two datagrams that ask whether a change is there.
const PROBING: Duration = Duration::from_millis(1);

/// Writes a change.
pub(crate) type Change<'a> = &'a dyn Fn() -> Result<(), Trouble>;

/// A kind of change, where the pod's datagrams come from once it is true, and how it is written.
pub(crate) type Kind<'a> = (&'static str, By, Change<'a>);

/// How long changes took until they were seen outside, in milliseconds.
pub(crate) struct Changes {
    /// By what was changed.
    pub(crate) kinds: Vec<(&'static str, Series)>,
    /// The part of it until the change was written.
    pub(crate) writing: Series,
}

impl Changes {
    /// All of them.
    pub(crate) fn all(&self) -> Series {
        Series(self.kinds.iter().flat_map(|(_, series)| &series.0).copied().collect())
    }
}

/// Where the pod's datagrams come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum By {
    Near,
    Far,
    Nobody,
}

/// The pod, and the addresses of two gateways.
pub(crate) struct Watching {
    pub(crate) pod: Pod,
    pub(crate) near: IpAddr,
    pub(crate) far: IpAddr,
}

impl Watching {
    /// Waits until the outside sees it so.
    pub(crate) fn until(&self, by: By) -> Result<(), Trouble> {
        let mut pod = self.pod.clone();
        pod.patience = Duration::from_millis(4);
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            // Each is a flow of its own, which the node remembers and the agent must look at: not thousands a second.
            std::thread::sleep(PROBING);
            if let Ok(seen) = pod.udp(Outside::Near.address(Family::V4)) {
                let is = match seen {
                    seen if seen == self.near => By::Near,
                    seen if seen == self.far => By::Far,
                    _ => By::Nobody,
                };
                if is == by {
                    return Ok(());
                }
            }
        }
        Err(Trouble::new(format!("the pod never left by {by:?}")))
    }

    /// Rounds of changes, one after the other; `back` is the way to the next round's beginning.
    pub(crate) fn changes(
        &self,
        writes: &[Kind<'_>],
        back: Change<'_>,
        rounds: usize,
    ) -> Result<Changes, Trouble> {
        let kinds = writes.iter().map(|(what, ..)| (*what, Series::default())).collect();
        let mut changes = Changes { kinds, writing: Series::default() };
        for _ in 0..rounds {
            for ((_, by, write), (_, series)) in writes.iter().zip(&mut changes.kinds) {
                let began = Instant::now();
                write()?;
                changes.writing.0.push(began.elapsed().as_secs_f64() * 1e3);
                self.until(*by)?;
                series.0.push(began.elapsed().as_secs_f64() * 1e3);
                // What the change set in motion (records heard, own notices) is over, as between two changes by people.
                std::thread::sleep(Duration::from_millis(60));
            }
            back()?;
            std::thread::sleep(Duration::from_millis(120));
        }
        Ok(changes)
    }
}
