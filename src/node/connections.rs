//! What running pods' sockets are connected to, at the moment in which a node begins to track.
//!
//! In: a change that is a node's first, and whose packets nobody tracked. Out: entries of conntrack, problems. Never: leaves anything
//! undone because of one pod; a flow that it does not find is as it would be without it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use crate::kernel::sockets::{self, Carrier, Opened};
use crate::kernel::{Netns, conntrack};
use crate::node::change::Change;
use crate::problem::Problem;

/// Reason of the problem that a pod's connections could not be remembered.
const CONNECTIONS_UNKNOWN: &str = "ConnectionsUnknown";

/// Has the kernel remember every flow that leads out of the node's inside and ends at a connected socket of these addresses, in the
/// direction in which it was opened: then it makes no difference who speaks first.
pub(super) fn remember(change: &Change<'_>, untracked: &BTreeSet<IpAddr>) -> Vec<Problem> {
    let awake = change.namespaces.iter().filter(|(attachment, _)| !change.asleep.contains(attachment));
    // Several interfaces of one pod are one namespace.
    let namespaces: BTreeMap<&Path, &String> =
        awake.map(|(attachment, path)| (path.as_path(), attachment)).collect();
    let (found, mut problems) = found(&namespaces);
    let meant = |(own, flow): &(IpAddr, Opened)| untracked.contains(own) && leads_out(change, *own, flow);
    let flows: BTreeSet<Opened> = found.into_iter().filter(meant).map(|(_, flow)| flow).collect();
    let flows: Vec<Opened> = flows.into_iter().collect();
    tracing::debug!(flows = flows.len(), "remembered what running pods' sockets are connected to");
    if let Err(why) = conntrack::remember(&flows) {
        problems.push(unknown(String::new(), &why.to_string()));
    }
    problems
}

/// What the sockets of these namespaces are connected to, each with its own address; and where they cannot be listed.
fn found(namespaces: &BTreeMap<&Path, &String>) -> (Vec<(IpAddr, Opened)>, Vec<Problem>) {
    let (mut flows, mut problems) = (Vec::new(), Vec::new());
    for (path, attachment) in namespaces {
        let mut failed = |why: String| {
            let sockets = format!("the sockets of its pod cannot be listed ({why})");
            problems.push(unknown(format!("Attachment {attachment}"), &sockets));
        };
        let netns = match Netns::open(path) {
            Ok(netns) => netns,
            Err(error) => {
                failed(error.to_string());
                continue;
            }
        };
        for carrier in Carrier::ALL {
            match sockets::flows(&netns, carrier) {
                Ok(found) => flows.extend(found),
                Err(refusal) => failed(format!("{carrier:?}: {refusal}")),
            }
        }
    }
    (flows, problems)
}

/// What goes to the inside is let through whichever way round it was opened.
fn leads_out(change: &Change<'_>, own: IpAddr, flow: &Opened) -> bool {
    let there = if flow.from.ip() == own { flow.to.ip() } else { flow.from.ip() };
    there != own && !there.is_multicast() && !change.next.inside.iter().any(|prefix| prefix.contains(there))
}

fn unknown(object: String, why: &str) -> Problem {
    let message = format!(
        "{why}; a connection on which the pod says nothing while this node begins to track may keep the pod's own address if the pod \
         is or becomes a client: start such a pod again, or end its connections by `conntrack -D -d ADDRESS`"
    );
    Problem::new(object, CONNECTIONS_UNKNOWN, message)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::kernel::sandbox::Namespace;

    #[test]
    fn a_pod_that_cannot_be_asked_is_named_and_the_others_are_asked() {
        let names = ["net/gone/eth0", "net/odd/eth0", "net/here/eth0"].map(str::to_owned);
        let paths = ["/run/netns/no-such-pod", "/etc/passwd", "/proc/thread-self/ns/net"].map(Path::new);
        let namespaces = paths.into_iter().zip(&names).collect();
        let socket = Namespace::new();
        let (socket, (flows, problems)) = socket.run(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect("127.0.0.1:9").unwrap();
            (socket, found(&namespaces))
        });
        let flow = Opened {
            carrier: Carrier::Udp,
            from: socket.local_addr().unwrap(),
            to: socket.peer_addr().unwrap(),
        };
        assert_eq!(flows, [(flow.from.ip(), flow)]);
        let mut named: Vec<&str> = problems.iter().map(|problem| problem.object.as_str()).collect();
        named.sort_unstable();
        assert_eq!(named, ["Attachment net/gone/eth0", "Attachment net/odd/eth0"]);
        assert!(problems.iter().all(|problem| problem.message.contains("/run/netns/no-such-pod")
            || problem.message.contains("/etc/passwd is not a network namespace")));
    }
}
