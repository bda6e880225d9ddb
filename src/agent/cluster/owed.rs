//! What is still to be given back, and what is being claimed.
//!
//! In: attachments that ended, claims that began. Out: leases given back in the API, tried until it is done. Never: in a call of the
//! plugin or under a lock, because the API server may let one wait.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::Cluster;
use super::copy::Copied;
use crate::ipam::{self, After, Holder, StoreError};
use crate::kube::{ApiError, ClusterStore, Watched};
use crate::node::embedded::{Embedded, now};

/// Leases that somebody has to look at.
#[derive(Debug)]
pub(super) struct Owed {
    /// Holders whose DEL was done.
    pub(super) ended: Vec<Holder>,
    /// Whether there may be holders that no record speaks of.
    pub(super) lost: bool,
    /// Some of those keep their lease while their pod lives or their endpoint stands: looked at again when pods or those endpoints are not as
    /// they were then.
    waits: Option<(u64, BTreeSet<String>)>,
    /// Pods that claim just now, and for which attachment.
    pub(super) claiming: BTreeMap<String, String>,
}

impl Owed {
    /// Nothing is known: an earlier agent may have owed anything.
    pub(super) fn unknown() -> Owed {
        Owed { ended: Vec::new(), lost: true, waits: None, claiming: BTreeMap::new() }
    }
}

impl Cluster {
    pub(super) fn owed(&self) -> MutexGuard<'_, Owed> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives back what is owed, but for attachments whose endpoints stand: clients send packets there. `None`: nobody knows which do.
    /// What fails is owed still.
    pub(super) fn give_back(self: &Arc<Cluster>, standing: Option<&BTreeSet<String>>) -> Result<(), String> {
        let Some(standing) = standing.filter(|_| self.is_synced()) else { return Ok(()) };
        // As they lie on disk, from where it is read who lives: what was heard and not copied yet would never be looked at again.
        let copied = |of: &Copied| of.kinds.get(&Watched::Pods).copied().unwrap_or_default();
        let pods = copied(&self.copied.lock().unwrap_or_else(PoisonError::into_inner));
        let (mut ended, lost) = {
            let mut owed = self.owed();
            if owed.waits.as_ref().is_some_and(|(seen, stood)| *seen != pods || stood != standing) {
                (owed.lost, owed.waits) = (true, None);
            }
            let lost = mem::take(&mut owed.lost);
            let stands = |holder: &Holder| standing.contains(&holder.attachment());
            let (later, ended): (Vec<_>, Vec<_>) = mem::take(&mut owed.ended).into_iter().partition(stands);
            owed.ended = later;
            (ended, lost)
        };
        let released = self.release_ended(&mut ended);
        self.owed().ended.append(&mut ended);
        if lost {
            match self.release_lost(standing) {
                Ok(waits) => self.owed().waits = waits.then(|| (pods, standing.clone())),
                Err(error) => {
                    self.owed().lost = true;
                    return released.and(Err(error));
                }
            }
        }
        released
    }

    /// As at DEL; who is done is taken out. Who cannot be given back hinders no other, unless the server is away; the first error is what
    /// comes out.
    fn release_ended(&self, ended: &mut Vec<Holder>) -> Result<(), String> {
        let store = ClusterStore::new(&self.client);
        let (mut released, mut is_away) = (Ok(()), false);
        ended.retain(|holder| {
            if is_away {
                return true;
            }
            let Err(error) = ipam::release(&store, holder, After::Owner, now()) else { return false };
            is_away = is_of_the_server(&error);
            if released.is_ok() {
                released = Err(format!("the leases of {holder} are not given back yet: {error}"));
            }
            true
        });
        released
    }

    fn release_lost(self: &Arc<Cluster>, standing: &BTreeSet<String>) -> Result<bool, String> {
        let config = self.config.now();
        let node = Embedded::at(&config).map_err(|e| e.to_string())?;
        let node = Embedded { books: Some(self.clone()), ..node };
        node.release_lost_leases(None, standing).map_err(|e| e.to_string())
    }
}

/// Nobody was there to write the books, whichever of them.
pub(super) fn is_of_the_server(error: &StoreError) -> bool {
    let StoreError::Remote(error) = error else { return false };
    error.downcast_ref().is_some_and(ApiError::is_of_the_server)
}
