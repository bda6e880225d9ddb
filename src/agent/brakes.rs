//! A thread that stops clients the moment the rules that decide about them are deleted.
//!
//! In: who is a client, whenever that changes. Out: how long each window was in which clients' packets could leave as if nobody had
//! selected them. Never: repairs anything, or lets a client go again; the check that follows does both, rules first. A thread
//! of its own, because any job of the loop takes longer than what this is about.
//!
//! What leaves in such a window cannot be called back, but it is remembered: packets are tracked without our rules, too. So its flow is one
//! that the pod opened when the rules are back, and is decided about like any other.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::egress::numbers;
use crate::egress::plan::NodePlan;
use crate::egress::transition::bound;
use crate::kernel::brake::{Brake, Order};
use crate::kernel::netns::Netns;
use crate::kernel::nft::tracking::Tracking;
use crate::kernel::state::NftFamily;

/// What loop and thread share.
#[derive(Debug, Default)]
struct Shared {
    order: Mutex<Order>,
    windows: Mutex<Vec<Duration>>,
}

/// The loop's end of it. The thread lives as long as the process.
#[derive(Default)]
pub struct Brakes {
    shared: Arc<Shared>,
    tracking: Option<Tracking>,
}

impl Brakes {
    /// Starts the thread. Without it the window lasts until the rules are back, and nothing else changes.
    pub fn start(here: &Netns) -> Brakes {
        let shared = Arc::<Shared>::default();
        let brakes = Brakes { shared: shared.clone(), tracking: None };
        let brake = match Brake::open(here, NftFamily::Inet, numbers::NFT_TABLE) {
            Ok(brake) => brake,
            Err(error) => {
                tracing::warn!(%error, "clients will not be stopped while their rules are gone");
                return brakes;
            }
        };
        let spawned =
            std::thread::Builder::new().name("brakes".to_owned()).spawn(move || watch(brake, &shared));
        if let Err(error) = spawned {
            tracing::warn!(%error, "clients will not be stopped while their rules are gone");
        }
        brakes
    }

    /// These are the clients now, and the gateways. In the node's namespace.
    pub fn cover(&mut self, plan: &NodePlan) {
        let clients = plan.clients.keys().copied().filter(|ip| bound(plan, *ip).is_some());
        // And what other nodes' clients send by a gateway with its pod's own address: here, too, only our rules know of them.
        let gateways = plan.locals.values().filter_map(|gateway| gateway.own.as_ref());
        let stopped: BTreeSet<IpAddr> =
            clients.chain(gateways.flat_map(|own| own.addresses.iter().copied())).collect();
        *held(&self.shared.order) = Order::stop(stopped, numbers::PRIORITY_BRAKE, numbers::PROTOCOL);
        self.track(!plan.is_idle());
    }

    /// Not before there are rules of ours: a node that begins to track does so with care for flows that run (`node::first`).
    fn track(&mut self, wired: bool) {
        if !wired {
            self.tracking = None;
        } else if self.tracking.is_none() {
            let kept = Tracking::keep(numbers::TRACKING_TABLE);
            self.tracking = kept
                .inspect_err(|error| tracing::warn!(%error, "packets are tracked only while our rules stand"))
                .ok();
        }
    }

    /// Windows since one last asked: from the kernel's notice until clients were stopped.
    pub fn windows(&self) -> Vec<Duration> {
        std::mem::take(&mut *held(&self.shared.windows))
    }
}

fn watch(mut brake: Brake, shared: &Shared) {
    loop {
        match brake.wait(|| held(&shared.order).clone()) {
            Ok(window) => held(&shared.windows).push(window),
            Err(error) => {
                tracing::warn!(%error, "clients will not be stopped any more while their rules are gone");
                return;
            }
        }
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
