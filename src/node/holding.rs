//! This node's gateways and the books of leases: what a gateway has, the books shall have, and nobody else shall get.
//!
//! In: endpoints, records, the store. Out: leases written again that were deleted under their gateways; problems where another owner
//! has an address. Never: takes a lease from anybody, or gives one up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::egress::model::{EgressAddress, Endpoint, PodName};
use crate::ipam::{self, Block, Held, Running, Store, Tenant};
use crate::node::attachment::{Attachment, AttachmentId};
use crate::node::embedded::{Embedded, NodeError, now};
use crate::problem::Problem;
use crate::store::endpoints;

/// Reason of the problem that a gateway's address is leased to somebody else.
pub const LEASED_TO_ANOTHER: &str = "LeasedToAnother";

/// A gateway of this node that runs, and an address that was leased for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Having {
    /// What its ADD made.
    pub attachment: Attachment,
    /// The address.
    pub address: EgressAddress,
}

impl Embedded {
    /// Addresses that other gateways have by their endpoints, each with whose it is: whatever the books say, they are nobody's to
    /// take. An earlier sandbox of the same pod is no other gateway, and what this node has no record of does not run.
    pub(super) fn in_use(&self, known: &[Endpoint], claims: &Attachment) -> BTreeMap<IpAddr, String> {
        let id = claims.id().to_string();
        let runs = |e: &Endpoint| {
            let recorded = || e.attachment.parse().map(|id: AttachmentId| self.records.read(&id));
            e.node != self.name || !matches!(recorded(), Ok(Ok(None)))
        };
        let others = known
            .iter()
            .filter(|e| e.attachment != id && claims.pod.as_ref().is_none_or(|pod| e.pod != *pod) && runs(e));
        let named = |e: &Endpoint| format!("is the address of gateway {} on node {}", e.pod, e.node);
        others.flat_map(|e| e.addresses.iter().map(move |address| (address.ip, named(e)))).collect()
    }

    /// VNIs that no further gateway here may have: of two devices with one number and port the kernel refuses the second. Those of the plan
    /// last applied are among them, because a gateway runs on whose endpoint's file is damaged.
    pub(super) fn tunnels(&self, known: &[Endpoint]) -> BTreeSet<u32> {
        let applied = self.memory.applied_shared();
        let wired = applied.iter().flat_map(|applied| applied.plan.locals.values()).map(|local| local.vni);
        let known = known.iter().map(|endpoint| endpoint.vni);
        known.chain(wired).chain([self.config.underlay.vni]).collect()
    }

    /// Leased addresses of this node's gateways that run.
    ///
    /// # Errors
    /// Endpoints or records cannot be listed.
    pub fn having(&self) -> Result<Vec<Having>, NodeError> {
        let (known, _) = endpoints::list(&self.dir)?;
        let mut ours = known.into_iter().filter(|e| e.node == self.name).peekable();
        if ours.peek().is_none() {
            return Ok(Vec::new());
        }
        let records = self.listing(None)?.attachments;
        let records: BTreeMap<String, Attachment> =
            records.into_iter().map(|a| (a.id().to_string(), a)).collect();
        let mut having = Vec::new();
        for endpoint in ours {
            let Some(attachment) = records.get(&endpoint.attachment) else { continue };
            let leased = endpoint.addresses.into_iter().filter(|address| address.source.is_pool());
            having.extend(leased.map(|address| Having { attachment: attachment.clone(), address }));
        }
        Ok(having)
    }

    /// Sees to it that the books have what a gateway has; `seen`: its block as it was last seen. A problem: somebody else has it.
    ///
    /// # Errors
    /// Objects cannot be read, or the store does not answer.
    pub fn hold(
        &self,
        store: &dyn Store,
        having: &Having,
        seen: Option<&Block>,
    ) -> Result<Option<Problem>, NodeError> {
        let Having { attachment, address } = having;
        let pods: Vec<PodName> = attachment.pod.iter().cloned().collect();
        let view = self.view_for(&self.objects()?, &pods, Vec::new());
        let holder = self.holder(&attachment.id());
        let before = seen
            .and_then(|block| block.allocations.get(&address.ip))
            .filter(|allocation| allocation.holder.as_ref() == Some(&holder));
        let tenant = match before {
            Some(before) => Tenant { owner: before.owner.clone(), holder, pod: attachment.pod.clone() },
            // Whether it was an ordinal's is known by the pod alone, and that is gone: so its containers soon are.
            None if self.books.is_some() && !pods.iter().all(|pod| view.pods.contains_key(pod)) => {
                return Ok(None);
            }
            None => self.tenant(&view, attachment),
        };
        let usual = if address.ip.is_ipv4() { 31 } else { 127 };
        let running = Running {
            tenant: &tenant,
            ip: address.ip,
            pool: &address.pool,
            block_size: view.pools.get(&address.pool).map_or(usual, |pool| pool.block_size),
            seen,
            now: now(),
        };
        let held = ipam::hold(store, &running).map_err(|error| NodeError::Unheld {
            ip: address.ip,
            tenant: tenant.to_string(),
            source: Box::new(error),
        })?;
        match held {
            Held::There => Ok(None),
            Held::Again => {
                tracing::warn!(address = %address.ip, pool = address.pool, pod = %tenant, "a running gateway's lease was deleted; written again");
                if let Some(books) = &self.books {
                    books.claimed("again");
                }
                Ok(None)
            }
            Held::Other(owner, by) => {
                let by = by.map(|holder| format!(", held by {holder}")).unwrap_or_default();
                let message = format!(
                    "its egress address {} is leased to {owner}{by}, while this gateway uses it: two gateways may answer for it. \
                     Delete one of the two pods",
                    address.ip
                );
                let object = attachment
                    .pod
                    .as_ref()
                    .map_or_else(|| format!("Attachment {}", attachment.id()), |pod| format!("Pod {pod}"));
                Ok(Some(Problem::new(object, LEASED_TO_ANOTHER, message)))
            }
        }
    }

    /// The same for all gateways of this node, where leases are kept in the directory.
    ///
    /// # Errors
    /// As [`Embedded::hold`]; or the store cannot be locked.
    pub fn hold_all(&self) -> Result<Vec<Problem>, NodeError> {
        if !self.keeps_leases() || self.having()?.is_empty() {
            return Ok(Vec::new());
        }
        let guard = self.lock_store("looking for leases that were deleted")?;
        let store = self.store(&guard)?;
        let mut problems = Vec::new();
        // Under the lock: who ends takes its endpoint out before its lease.
        for having in self.having()? {
            let summary = store.summary(&having.address.pool).map_err(|e| NodeError::Ipam(e.to_string()))?;
            let holder = self.holder(&having.attachment.id());
            if !summary.of_holder(&holder).iter().any(|(_, ip)| *ip == having.address.ip) {
                problems.extend(self.hold(store.as_ref(), &having, None)?);
            }
        }
        Ok(problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::egress::tests::worlds::World;
    use crate::store::nodes;

    #[test]
    fn the_number_of_a_tunnel_is_not_given_again_while_its_gateways_endpoint_is_damaged() {
        let root = std::env::temp_dir().join(format!("egret-tunnels-{}", std::process::id()));
        let config = Config {
            run_dir: root.join("run"),
            state_dir: root.join("state"),
            node_name: Some("node1".to_owned()),
            ..Config::default()
        };
        let node = Embedded::open(&config).unwrap();
        let plan = World::new().gateway(1, 1).plan();
        let own = plan.locals["net/gw1/eth0"].vni;
        node.memory.intend(1, &plan).unwrap();
        node.memory.applied_as_intended(1, false).unwrap();
        std::fs::write(node.dir.endpoints().join("net+gw1+eth0.json"), "{").unwrap();
        let (known, damaged) = endpoints::list(&node.dir).unwrap();
        assert_eq!((known.len(), damaged.len(), own), (0, 1, nodes::FIRST_VNI + 1));
        let guard = node.lock_store("test").unwrap();
        let take = || nodes::take_vni(&node.dir, &guard, "node1", &node.tunnels(&known)).unwrap();
        assert_eq!([take(), take()], [nodes::FIRST_VNI, own + 1]);
        drop(guard);
        std::fs::remove_dir_all(root).unwrap();
    }
}
