//! This node's gateways follow their pods: what `egress::serving` says is written to their endpoints.
//!
//! In: the mirror's pods and pools, the plan last applied. Out: states of this node's endpoints on disk, from where the loop and everybody
//! else take them. Never: changes an endpoint of another node; reads a file again that is as it was.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::Value;

use super::{Cluster, PATIENCE};
use crate::egress::model::{Endpoint, EndpointState};
use crate::egress::plan::LocalGateway;
use crate::egress::serving::{Life, next};
use crate::kube::Watched;
use crate::node::memory::{self, Memory};
use crate::store::{Since, endpoints};

/// Gateways of the plan last applied, by attachment.
type Wired = Arc<BTreeMap<String, LocalGateway>>;

/// What was read of this node's gateways, for as long as their files are as they were: this is asked several times a second.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    endpoints: Since<Arc<Vec<Endpoint>>>,
    wired: Since<Wired>,
}

impl Cluster {
    /// Brings the states of this node's endpoints to how their pods are.
    pub(super) fn see_gateways(&self, gateways: &mut Gateways) -> Result<(), String> {
        if self.mirror().generation(Watched::Pods) == 0 {
            return Ok(());
        }
        let own = || -> Result<Arc<Vec<Endpoint>>, String> {
            let (mut known, _) = endpoints::list(&self.dir).map_err(|e| e.to_string())?;
            known.retain(|endpoint| endpoint.node == self.node);
            Ok(Arc::new(known))
        };
        let addresses = self.own_addresses();
        for endpoint in gateways.endpoints.get(&self.dir.endpoints(), own)?.iter() {
            let life = self.life(endpoint);
            let state = next(endpoint.state, life, || self.is_wired(endpoint, &mut gateways.wired));
            let known = addresses.is_empty() || endpoint.underlay == addresses;
            if state != endpoint.state || !known {
                let underlay = if known { endpoint.underlay.clone() } else { addresses.clone() };
                self.say_state(&Endpoint { state, underlay, ..endpoint.clone() }, life)?;
            }
        }
        self.seen_gateways.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether the states on disk are what this agent found.
    pub(super) fn has_seen_gateways(&self) -> bool {
        self.seen_gateways.load(Ordering::Acquire)
    }

    /// Nobody is called ready of whom this agent has not found that the node serves it: the file may be of a life before the machine's last
    /// start.
    pub(super) fn may_say(&self, endpoint: &Endpoint) -> bool {
        endpoint.state != EndpointState::Ready || self.has_seen_gateways()
    }

    /// Where this node is reached, as its object says now.
    pub(super) fn own_addresses(&self) -> Vec<IpAddr> {
        let mirror = self.mirror();
        let node = mirror.object(Watched::Nodes, &self.node).map(|node| &node["status"]["addresses"]);
        let said = node.and_then(Value::as_array).into_iter().flatten();
        let internal = said.filter(|address| address["type"] == "InternalIP");
        internal.filter_map(|address| address["address"].as_str()?.parse().ok()).collect()
    }

    fn life(&self, endpoint: &Endpoint) -> Life {
        let mirror = self.mirror();
        let found = mirror.life(&endpoint.pod.to_string());
        let is_it = |ids: &[String]| endpoint.uid.as_ref().is_none_or(|uid| ids.contains(uid));
        // Another pod of its name is there, or none: its own is gone.
        found.filter(|(ids, _)| is_it(ids)).map_or(Life::Leaving, |(_, life)| life)
    }

    /// Whether the kernel serves it, and the outside finds its addresses.
    fn is_wired(&self, endpoint: &Endpoint, wired: &mut Since<Wired>) -> bool {
        let run_dir = self.config.now().run_dir.clone();
        let memory = Memory::new(&run_dir, &self.node);
        let read = || -> Result<Wired, Infallible> { Ok(Arc::new(memory.gateways().unwrap_or_default())) };
        let Ok(wired) = wired.get(&memory.dir().join(memory::PLAN), read);
        let mirror = self.mirror();
        let is_announced_by_us = |pool: &str| {
            mirror.object(Watched::Pools, pool).is_some_and(|pool| pool["spec"]["announce"] != "None")
        };
        is_wired(&wired, endpoint, is_announced_by_us)
    }

    fn say_state(&self, now: &Endpoint, life: Life) -> Result<(), String> {
        let guard = self.dir.lock("the state of an endpoint", PATIENCE).map_err(|e| e.to_string())?;
        // Whoever wrote anything else meanwhile is left in peace.
        let Some((mut endpoint, _)) =
            endpoints::get(&self.dir, &now.attachment).map_err(|e| e.to_string())?
        else {
            return Ok(());
        };
        tracing::info!(pod = %endpoint.pod, from = endpoint.state.word(), to = now.state.word(), underlay = ?now.underlay, ?life, "a gateway");
        (endpoint.state, endpoint.underlay) = (now.state, now.underlay.clone());
        endpoints::put(&self.dir, &guard, &endpoint).map(drop).map_err(|e| e.to_string())
    }
}

fn is_wired(
    wired: &BTreeMap<String, LocalGateway>,
    endpoint: &Endpoint,
    is_announced_by_us: impl Fn(&str) -> bool,
) -> bool {
    wired.get(&endpoint.attachment).is_some_and(|local| {
        endpoint.addresses.iter().all(|address| {
            let announced = local.announced.iter().any(|(_, ip)| *ip == address.ip);
            local.addresses.contains(&address.ip)
                && (announced
                    || local.hidden.contains_key(&address.ip)
                    || !address.source.is_pool() // the primary sees to its own addresses
                    || !is_announced_by_us(&address.pool))
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_gateway_is_wired_when_its_node_has_all_its_addresses_and_shows_each_of_them_the_way_back() {
        let endpoint = |source: &str| -> Endpoint {
            let address = json!({"ip": "10.0.0.1", "pool": "red", "source": source});
            let endpoint = json!({"pod": "gw/one", "attachment": "net/c/eth0", "node": "n1", "underlay": ["192.0.2.1"], "vni": 5000,
                "mac": "02:67:0a:00:00:01", "addresses": [address], "state": "starting", "generation": 1});
            serde_json::from_value(endpoint).unwrap()
        };
        let leased = endpoint("Pool");
        let local = |addresses: &[&str], announced: &[&str]| -> BTreeMap<String, LocalGateway> {
            let announced: Vec<_> = announced.iter().map(|ip| ("eth0", ip)).collect();
            let local = json!({"veth": "eg1", "vni": 5000, "mac": "02:67:0a:00:00:01", "addresses": addresses, "announced": announced});
            BTreeMap::from([("net/c/eth0".to_owned(), serde_json::from_value(local).unwrap())])
        };
        let ours = |_: &str| true;
        assert!(!is_wired(&BTreeMap::new(), &leased, ours), "no plan speaks of it");
        assert!(!is_wired(&local(&[], &["10.0.0.1"]), &leased, ours), "it was wired for another address");
        assert!(!is_wired(&local(&["10.0.0.1"], &[]), &leased, ours), "nobody outside would find it");
        assert!(!is_wired(&local(&["10.0.0.1"], &["10.0.0.2"]), &leased, ours));
        assert!(is_wired(&local(&["10.0.0.1"], &["10.0.0.1"]), &leased, ours));
        let seen_to_by_others = local(&["10.0.0.1"], &[]);
        assert!(is_wired(&seen_to_by_others, &leased, |_| false), "of a pool with `announce: None`");
        assert!(is_wired(&seen_to_by_others, &endpoint("PodAddress"), ours), "the primary's own address");
        let mut hidden = seen_to_by_others;
        hidden.get_mut("net/c/eth0").unwrap().hidden.insert("10.0.0.1".parse().unwrap(), None);
        assert!(is_wired(&hidden, &leased, ours), "of a pool with `natOutgoing`");
    }
}
