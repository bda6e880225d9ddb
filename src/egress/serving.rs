//! Whether a pod gateway takes flows: `starting → ready → draining | failed`. Pure.
//!
//! In: what its endpoint says, how its pod is, whether its node has wired it. Out: what the endpoint shall say. Never: knows where that
//! was heard. Clients obey the endpoint alone: a ready gateway takes new flows, a draining one keeps those it has, a failed one
//! loses them and they are told.

use crate::egress::model::EndpointState;

/// How a gateway's pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It is not ready: it starts, or its probes fail.
    Unready,
    /// It is ready.
    Ready,
    /// It is being deleted, or its object is gone; it may run for a while.
    Leaving,
    /// It has ended, well or not.
    Ended,
}

/// What an endpoint shall say. `wired`: the kernel serves it, the way back included; asked only if that decides.
pub fn next(said: EndpointState, life: Life, wired: impl FnOnce() -> bool) -> EndpointState {
    use EndpointState::{Draining, Failed, Ready, Starting};
    match (life, said) {
        (Life::Ended, _) => Failed,
        // What failed takes its flows from nobody, so it has none to keep.
        (Life::Leaving | Life::Unready, Failed) => Failed,
        (Life::Unready, Starting) => Starting,
        (Life::Leaving | Life::Unready, _) => Draining,
        (Life::Ready, said) => match (wired(), said) {
            (true, _) => Ready,
            (false, Starting | Failed) => Starting,
            (false, _) => Draining,
        },
    }
}

#[cfg(test)]
mod tests {
    use EndpointState::{Draining, Failed, Ready, Starting};

    use super::*;

    #[test]
    fn a_gateway_serves_when_its_pod_is_ready_and_its_node_has_wired_it() {
        let mut said = Starting;
        let mut hear = |life, wired: bool, then: EndpointState| {
            said = next(said, life, || wired);
            assert_eq!(said, then, "{life:?}");
        };
        hear(Life::Unready, true, Starting);
        hear(Life::Ready, false, Starting);
        hear(Life::Ready, true, Ready);
        hear(Life::Unready, true, Draining);
        hear(Life::Ready, true, Ready);
        hear(Life::Ready, false, Draining);
        hear(Life::Ready, true, Ready);
        hear(Life::Leaving, true, Draining);
        hear(Life::Ended, true, Failed);
        hear(Life::Unready, true, Failed);
        hear(Life::Ready, false, Starting);
        hear(Life::Ready, true, Ready);
    }

    #[test]
    fn nothing_but_a_ready_and_wired_pod_ever_begins_to_take_flows_and_saying_it_again_changes_nothing() {
        let lives = [Life::Unready, Life::Ready, Life::Leaving, Life::Ended];
        for said in [Starting, Ready, Draining, Failed] {
            for (life, wired) in lives.into_iter().flat_map(|life| [(life, true), (life, false)]) {
                let then = next(said, life, || wired);
                assert_eq!(then == Ready, life == Life::Ready && wired, "{said:?} {life:?} {wired}");
                assert_eq!(next(then, life, || wired), then, "{said:?} {life:?} {wired}");
            }
        }
    }
}
