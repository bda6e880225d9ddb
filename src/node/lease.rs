//! A pod becomes a gateway: leases and an endpoint. And stops being one.
//!
//! In: a gateway's wish, its attachment. Out: an [`Endpoint`] with leased addresses, written only once the kernel serves it.
//! Never: touches the kernel.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::{Duration, Instant};

use crate::addr::{Cidr, Family};
use crate::cni::reply::{CniError, Code};
use crate::egress::gateway::GatewayWish;
use crate::egress::model::{EgressAddress, Endpoint, EndpointState, Node, Pool, View};
use crate::egress::numbers;
use crate::egress::own_address::OwnAddress;
use crate::egress::unservable::unservable;
use crate::fault;
use crate::ipam::{self, After, Claim, Claimed, Holder, IpamError, Owner, Store, Tenant};
use crate::kernel::devices;
use crate::node::ahead::Ahead;
use crate::node::attachment::{Attachment, AttachmentId};
use crate::node::embedded::{Embedded, NodeError, now};
use crate::node::facts::is_routable;
use crate::node::ground::Ground;
use crate::store::{Guard, advice, endpoints, nodes};

/// How long an earlier container's node has to give up what that one had, before the pod's start is put off.
const GIVING_UP: Duration = Duration::from_secs(5);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(200);

/// What a gateway got, to be written or given back.
pub struct Leased {
    /// The endpoint, not written yet.
    pub endpoint: Endpoint,
    claims: Vec<Claimed>,
    /// Attachments whose endpoints have an address that was leased here: an earlier sandbox of the same owner.
    superseded: Vec<String>,
}

impl Leased {
    /// Whether another endpoint has an address that was leased here: then it has lost it.
    pub fn supersedes(&self, other: &Endpoint) -> bool {
        let ours = |a: &EgressAddress| self.endpoint.addresses.iter().any(|own| own.ip == a.ip);
        other.attachment != self.endpoint.attachment && other.addresses.iter().any(ours)
    }
}

/// What a gateway gets, and what of that was leased.
#[derive(Debug)]
pub(super) struct Claims {
    pub(super) leases: Vec<Claimed>,
    pub(super) addresses: Vec<EgressAddress>,
}

impl Embedded {
    /// Leases what a gateway wishes, takes what was claimed ahead, or finds it among the pod's own addresses. All or nothing.
    ///
    /// # Errors
    /// 11 when the pools are full or the store is busy, naming how many of how many; 7 for what only the user can mend.
    pub fn lease(
        &self,
        view: &View,
        attachment: &Attachment,
        wish: &GatewayWish,
        ahead: Option<&Ahead>,
        ground: Option<&Ground>,
    ) -> Result<Leased, CniError> {
        let guard = self.lock_store(&format!("ADD {}", attachment.id()))?;
        guard.gather();
        let (known, _) = endpoints::list(&self.dir).map_err(NodeError::from)?;
        // What was claimed ahead is given back by whoever did that.
        let (addresses, undone) = match ahead {
            Some(ahead) => (ahead.claims(wish)?.addresses.clone(), Vec::new()),
            None => {
                let claims = self.claim(self.store(&guard)?.as_ref(), view, (attachment, &known), wish)?;
                fault::point("add.after-lease");
                if let Some(ground) = ground {
                    ground.ask(view, &claims.addresses);
                }
                (claims.addresses, claims.leases)
            }
        };
        let endpoint = self.endpoint(view, attachment, addresses, &known, &guard);
        // Before anybody is told of these addresses.
        match endpoint.and_then(|endpoint| settled(&guard).map(|()| endpoint)) {
            Ok(endpoint) => {
                let mut leased = Leased { endpoint, claims: undone, superseded: Vec::new() };
                let superseded = known.into_iter().filter(|other| leased.supersedes(other));
                leased.superseded = superseded.map(|other| other.attachment).collect();
                Ok(leased)
            }
            Err(error) => {
                cancel(self.store(&guard)?.as_ref(), &undone);
                Err(error.into())
            }
        }
    }

    /// An address of each family that is wished for, or none at all. `known`: the endpoints there are.
    ///
    /// # Errors
    /// As [`Embedded::lease`].
    pub(super) fn claim(
        &self,
        store: &dyn Store,
        view: &View,
        (attachment, known): (&Attachment, &[Endpoint]),
        wish: &GatewayWish,
    ) -> Result<Claims, CniError> {
        let in_use = self.in_use(known, attachment);
        let unservable = self.unservable(&view.nodes)?;
        let mut claims: Vec<Claimed> = Vec::new();
        let mut addresses: Vec<EgressAddress> = Vec::new();
        for (family, pools) in &wish.pools {
            let own = wish.own_address(view, *family, &attachment.addresses);
            let in_need = match own {
                OwnAddress::First(own) => {
                    addresses.push(own);
                    continue;
                }
                OwnAddress::Nowhere(why) => {
                    cancel(store, &claims);
                    return Err(CniError::new(Code::InvalidConfig, why));
                }
                OwnAddress::InNeed(own) => Some(own),
                OwnAddress::No => None,
            };
            let leasing = |pool: &Pool| pool.source.is_pool();
            let pools: Vec<&Pool> = pools.iter().filter_map(|name| view.pools.get(name)).collect();
            let claim = Claim {
                tenant: self.tenant(view, attachment),
                pools: &pools.into_iter().filter(|pool| leasing(pool)).collect::<Vec<_>>(),
                known: &view.pools.values().filter(|pool| leasing(pool)).collect::<Vec<_>>(),
                address: wish.addresses.get(family).copied(),
                unservable: &unservable,
                in_use: &in_use,
                // Who shares a directory has no agent that could say so.
                nodes: self.books.is_some().then_some(&view.nodes),
                endpoints: known,
                now: now(),
            };
            let claimed = given_up(store, &claim);
            if let Some(books) = &self.books {
                books.claimed(match &claimed {
                    Ok(_) => "ok",
                    Err(IpamError::Full { .. }) => "full",
                    Err(_) => "failed",
                });
            }
            match (claimed, in_need) {
                (Ok(claimed), _) => {
                    addresses.push(EgressAddress::leased(claimed.lease.ip, claimed.lease.pool.as_str()));
                    claims.push(claimed);
                }
                (Err(_), Some(own)) => addresses.push(own),
                (Err(error), None) => {
                    cancel(store, &claims);
                    return Err(refused(&error));
                }
            }
        }
        Ok(Claims { leases: claims, addresses })
    }

    /// Whether a pod is a gateway already by another of its interfaces. Where the records cannot be listed none can be written
    /// either, and ADD says so there.
    pub fn serves_otherwise(&self, attachment: &Attachment) -> bool {
        let serves = |other: &Attachment| other.gateway && other.is_beside(attachment);
        self.listing(None).is_ok_and(|known| known.attachments.iter().any(serves))
    }

    /// Addresses that would serve nobody, as far as this node knows: of Node objects, and of its own devices' subnets.
    ///
    /// # Errors
    /// The devices cannot be read.
    pub fn unservable(&self, nodes: &BTreeMap<String, Node>) -> Result<BTreeMap<IpAddr, String>, NodeError> {
        let devices = devices::list(&self.netns()?)?;
        let of_hosts = devices.iter().filter(|device| device.group != numbers::LINK_GROUP);
        let addresses = of_hosts.flat_map(|device| &device.addresses).filter(|(ip, _)| is_routable(ip));
        let own: Vec<(IpAddr, Cidr)> =
            addresses.map(|(ip, prefix)| (*ip, Cidr::covering(*ip, *prefix))).collect();
        Ok(unservable(&self.name, &own, nodes).map(|(ip, why)| (ip, why.to_string())).collect())
    }

    /// Gives everything back, as before the lease: nobody ever used it.
    pub fn give_back(&self, leased: &Leased, id: &AttachmentId) {
        let undo = || -> Result<(), NodeError> {
            let guard = self.lock_store(&format!("undoing ADD {id}"))?;
            endpoints::remove(&self.dir, &guard, &leased.endpoint.attachment)?;
            cancel(self.store(&guard)?.as_ref(), &leased.claims);
            Ok(())
        };
        if let Err(error) = undo() {
            tracing::warn!(%error, "leases of a failed ADD are left to GC");
        }
    }

    /// Lets the cluster know of the gateway.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn publish(&self, leased: &Leased) -> Result<(), NodeError> {
        let guard = self.lock_store(&format!("ADD {}", leased.endpoint.attachment))?;
        endpoints::put(&self.dir, &guard, &leased.endpoint)?;
        // Were both known, clients might choose the one that is gone. None has come since the lease: nobody publishes an address
        // that is another's.
        for earlier in &leased.superseded {
            endpoints::remove(&self.dir, &guard, earlier)?;
        }
        Ok(())
    }

    /// The container of a gateway is gone: its endpoint goes first, so that clients elsewhere stop choosing it, and then what it leased.
    /// Both are on disk when this returns.
    ///
    /// # Errors
    /// The store cannot be locked or written.
    pub(super) fn end_gateway(&self, id: &AttachmentId) -> Result<(), NodeError> {
        let guard = self.lock_store(&format!("DEL {id}"))?;
        guard.gather();
        endpoints::remove(&self.dir, &guard, &id.to_string())?;
        fault::point("del.after-endpoint");
        match &self.books {
            // Nobody waits for the API server, and it is tried until it is done.
            Some(books) => books.release_later(Some(self.holder(id))),
            None => self.release_under(&guard, id)?,
        }
        settled(&guard)
    }

    /// An endpoint of this node that is not on disk, or damaged there, though a record speaks of its container: it is written again as the
    /// cluster has it. Not while its DEL is between the two, which removes the one and then the other under this node's lock. Whether it stays.
    ///
    /// # Errors
    /// A lock cannot be had, or the endpoint cannot be written.
    pub fn republish(&self, endpoint: &Endpoint) -> Result<bool, NodeError> {
        // What cannot be read may speak of it.
        let recorded =
            || self.records.list(None).map_or(true, |all| all.names().contains(&endpoint.attachment));
        if !recorded() {
            return Ok(false); // as after every DEL: nobody waits for a lock
        }
        let what = format!("republishing {}", endpoint.attachment);
        let _guard = self.lock(&what)?;
        let stays = recorded();
        if stays && !matches!(endpoints::get(&self.dir, &endpoint.attachment), Ok(Some(_))) {
            endpoints::hear(&self.dir, &self.lock_store(&what)?, endpoint)?;
        }
        Ok(stays)
    }

    fn release_under(&self, guard: &Guard, id: &AttachmentId) -> Result<(), NodeError> {
        let released = ipam::release(self.store(guard)?.as_ref(), &self.holder(id), After::Owner, now());
        released.map(drop).map_err(|error| NodeError::Ipam(error.to_string()))
    }

    /// The holder that an attachment is.
    pub fn holder(&self, id: &AttachmentId) -> Holder {
        Holder {
            network: id.network.clone(),
            container: id.container_id.clone(),
            ifname: id.ifname.clone(),
            node: self.name.clone(),
        }
    }

    /// The owner outlives its container where the workload has a name that does: a StatefulSet's pod by its ordinal, any pod
    /// by its UID, and only without Kubernetes the container itself.
    pub(super) fn tenant(&self, view: &View, attachment: &Attachment) -> Tenant {
        let holder = self.holder(&attachment.id());
        let pod = attachment.pod.as_ref().and_then(|name| view.pods.get(name).map(|pod| (name, pod)));
        let ordinal = pod.and_then(|(name, pod)| {
            let set = pod.stateful_set.as_ref()?;
            let ordinal = name.name.strip_prefix(set.as_str())?.strip_prefix('-')?.parse().ok()?;
            Some(Owner::Ordinal { namespace: name.namespace.clone(), stateful_set: set.clone(), ordinal })
        });
        let uid = attachment.uid.clone().or_else(|| pod.and_then(|(_, pod)| pod.uid.clone()));
        let owner = ordinal.or(uid.map(Owner::PodUid)).unwrap_or_else(|| Owner::container(&holder));
        Tenant { owner, holder, pod: attachment.pod.clone() }
    }

    /// The endpoint to be.
    fn endpoint(
        &self,
        view: &View,
        attachment: &Attachment,
        addresses: Vec<EgressAddress>,
        known: &[Endpoint],
        guard: &Guard,
    ) -> Result<Endpoint, NodeError> {
        let id = attachment.id().to_string();
        let vni = match known.iter().find(|e| e.attachment == id) {
            Some(again) => again.vni,
            None => nodes::take_vni(&self.dir, guard, &self.name, &self.tunnels(known))?,
        };
        let wire = match addresses.iter().map(|a| a.ip).find(IpAddr::is_ipv4) {
            Some(IpAddr::V4(ip)) => Some(ip),
            _ => self.wire(&id, &addresses, known)?,
        };
        let node = view.nodes.get(&self.name);
        // In a cluster its pod has yet to become ready, and the agent watches that.
        let first = if self.books.is_some() { EndpointState::Starting } else { EndpointState::Ready };
        let state = known.iter().find(|e| e.attachment == id).map_or(first, |again| again.state);
        Ok(Endpoint {
            pod: attachment.pod.clone().unwrap_or_default(),
            uid: attachment.uid.clone(),
            attachment: id,
            node: self.name.clone(),
            underlay: node.map(|n| n.internal_ips.clone()).unwrap_or_default(),
            vni,
            mac: numbers::gateway_mac(wire.unwrap_or(Ipv4Addr::UNSPECIFIED)),
            addresses,
            state,
            generation: 0,
            problems: Vec::new(),
        })
    }

    /// Wire bytes of a gateway without IPv4: those it had, else new ones. Not those of an IPv4 address that it had: somebody else gets that.
    fn wire(
        &self,
        id: &str,
        own: &[EgressAddress],
        known: &[Endpoint],
    ) -> Result<Option<Ipv4Addr>, NodeError> {
        let is_same =
            |e: &&Endpoint| e.attachment == id || own.iter().any(|a| e.address(Family::V6) == Some(a.ip));
        if let Some(again) = known.iter().find(|e| is_same(e) && e.address(Family::V4).is_none()) {
            let [_, _, bytes @ ..] = again.mac.0;
            return Ok(Some(bytes.into()));
        }
        let (records, _) = nodes::list(&self.dir)?;
        Ok(nodes::allocate_wire(id, &records, known))
    }
}

/// A lease; while an earlier container's node still has it, for a moment: it is told of an end by a call of its own, and gives up
/// what that one had when the runtime has gone on. Never waits in a directory, where nobody else gives anything up.
fn given_up(store: &dyn Store, claim: &Claim<'_>) -> Result<Claimed, IpamError> {
    let began = Instant::now();
    loop {
        match ipam::claim(store, claim) {
            Err(IpamError::Elsewhere { .. }) if began.elapsed() < GIVING_UP => thread::sleep(LOOK),
            outcome => return outcome,
        }
    }
}

/// What was written under this guard is on disk.
fn settled(guard: &Guard) -> Result<(), NodeError> {
    guard
        .settle()
        .map_err(|e| NodeError::Ipam(format!("leases cannot be written to disk: {e}{}", advice(&e))))
}

/// Leases that nobody used, as before they were claimed. Says whether all are.
pub(super) fn cancel(store: &dyn Store, claims: &[Claimed]) -> bool {
    let mut all = true;
    for claimed in claims {
        if let Err(error) = ipam::cancel(store, claimed, now()) {
            tracing::warn!(%error, address = %claimed.lease.ip, "a lease of a failed ADD is left to GC");
            all = false;
        }
    }
    all
}

fn refused(error: &IpamError) -> CniError {
    let code = match error {
        later if later.try_again() => Code::TryAgainLater,
        IpamError::Store(_) => Code::Io,
        _ => Code::InvalidConfig,
    };
    CniError::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipam::StoreError;

    #[test]
    fn books_that_cannot_be_written_are_no_fault_of_the_configuration() {
        let source = std::io::Error::from_raw_os_error(libc::ENOSPC);
        let full = StoreError::Io { verb: "write", what: "a block".to_owned(), source };
        assert_eq!(refused(&IpamError::Store(full)).code, Code::Io);
        let away = StoreError::Remote("no answer from 10.96.0.1".into());
        assert_eq!(refused(&IpamError::Store(away)).code, Code::TryAgainLater, "as docs/agent.md says");
        assert_eq!(refused(&IpamError::Contended("a pod".to_owned())).code, Code::TryAgainLater);
    }
}
