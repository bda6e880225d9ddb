//! One pod whose datagrams are looked at: by which gateway they leave, as the outside sees it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use egret::addr::Family;
use egret::testbed::{Outside, Pod, Trouble};

use crate::agent::PATIENCE;

/// Between two datagrams that ask whether a change is there.
const PROBING: Duration = Duration::from_millis(1);

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
}
