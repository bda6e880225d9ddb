//! Whether what a pod sends to the outside reaches this node's IP layer, shown by a packet that does.
//!
//! In: the node, the pod, one of its addresses, what could take its packets. Out: yes or no. The packet is counted and dropped first thing on the node; it goes to a
//! documentation address with a hop limit of 1, so that it leaves no node by another way either. Never: changes anything that stays.
//!
//! Who looks at one address of one pod at the same time shares a table, and what either sent counts for both. Where the other is done first,
//! the table goes: it is made again.
//!
//! Asked only where something could take packets away ([`crate::kernel::detour`]): it costs two starts of `nft`, and up to a
//! second where the answer is no.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::addr::Mac;
use crate::kernel::detour::Detour;
use crate::kernel::devices;
use crate::kernel::netns::Netns;
use crate::kernel::nft;
use crate::kernel::nft::counters::counters;
use crate::kernel::nft::load::load;
use crate::kernel::nft::table::Rule;
use crate::kernel::observe::KernelError;
use crate::kernel::state::NftFamily;

/// How long a packet may take: a neighbour must be found first, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two packets.
const PAUSE: Duration = Duration::from_millis(10);
/// How often the table may be gone: others look at the pod now and then, not all the time.
const LOSSES: u32 = 20;
/// Discard (RFC 863).
const PORT: u16 = 9;

/// Why nobody knows.
#[derive(Debug, thiserror::Error)]
pub enum PassageError {
    /// A namespace could not be worked in.
    #[error("cannot try whether packets of {pod} pass this node: {error}")]
    Io {
        /// The pod's address.
        pod: IpAddr,
        /// The system's answer.
        error: io::Error,
    },
    /// The node's devices could not be read.
    #[error("cannot try whether packets of {pod} pass this node: {error}")]
    Devices {
        /// The pod's address.
        pod: IpAddr,
        /// Why.
        error: KernelError,
    },
    /// nftables would not count.
    #[error("cannot count packets of {pod} on this node: {error}")]
    Nft {
        /// The pod's address.
        pod: IpAddr,
        /// Why.
        error: nft::Error,
    },
    /// Somebody takes the table away all the time.
    #[error(
        "cannot count packets of {pod} on this node: table inet {table} was deleted {LOSSES} times meanwhile; look again when nobody else \
         changes nftables here"
    )]
    Lost {
        /// The pod's address.
        pod: IpAddr,
        /// What is deleted.
        table: String,
    },
}

/// Whether a packet from `pod`'s address to the outside arrives on the node. A pod that has no way outside in this family sends
/// nothing that could pass by: `true`.
///
/// # Errors
/// It could not be tried.
pub fn passes(node: &Netns, pod_ns: &Netns, pod: IpAddr, found: &[Detour]) -> Result<bool, PassageError> {
    let io = |error| PassageError::Io { pod, error };
    let nft = |error| PassageError::Nft { pod, error };
    let table = format!("egret-passage-{:x}-{}", pod_ns.id().1, pod.to_string().replace(['.', ':'], "-"));
    // Emptied first, should somebody have been killed here.
    let clear = format!("add table inet {table}\ndelete table inet {table}\n");
    let own = match found.iter().any(|detour| matches!(detour, Detour::Bridge(_))) {
        true => macs(node).map_err(|error| PassageError::Devices { pod, error })?,
        false => Vec::new(),
    };
    let counts = format!("{clear}{}", counting(&table, pod, &own));
    node.run(|| load(&counts)).map_err(io)?.map_err(nft)?;
    let seen = arrives((node, pod_ns), pod, (&table, &counts));
    let cleared = node.run(|| load(&clear)).map_err(io)?.map_err(nft);
    let seen = seen?;
    cleared.map(|()| seen)
}

/// The link-layer addresses that this node answers to.
fn macs(node: &Netns) -> Result<Vec<Mac>, KernelError> {
    let mut own: Vec<Mac> = devices::list(node)?.into_iter().filter_map(|device| device.mac).collect();
    own.sort_unstable();
    own.dedup();
    Ok(own)
}

/// Before every other chain, connection tracking included. Of a bridged pod only frames for `own` count: where `br_netfilter` calls these chains
/// (`bridge-nf-call-iptables`, which kubeadm wants), they see frames as well that the bridge is about to send out by another port.
fn counting(table: &str, pod: IpAddr, own: &[Mac]) -> String {
    let outside = outside(pod);
    let word = match pod {
        IpAddr::V4(_) => "ip",
        IpAddr::V6(_) => "ip6",
    };
    let frames: Vec<String> = own.iter().map(ToString::to_string).collect();
    let frames = match frames.is_empty() {
        true => String::new(),
        false => format!("ether daddr {{ {} }} ", frames.join(", ")),
    };
    let packet = format!("{word} saddr {pod} {word} daddr {outside} udp dport {PORT}");
    let text = format!("{frames}{packet} counter drop");
    let rule = Rule::new("passage", &text);
    format!(
        "table inet {table} {{\n chain first {{ type filter hook prerouting priority -450;\n  {text} comment \"{}\"\n  {packet} drop\n }}\n}}\n",
        rule.comment()
    )
}

/// Nobody's (RFC 5737, RFC 3849), and not inside any cluster.
pub(super) fn outside(pod: IpAddr) -> IpAddr {
    match pod {
        IpAddr::V4(_) => IpAddr::from([192, 0, 2, 1]),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    }
}

fn arrives(
    (node, pod_ns): (&Netns, &Netns),
    pod: IpAddr,
    (table, counts): (&str, &str),
) -> Result<bool, PassageError> {
    let io = |error| PassageError::Io { pod, error };
    let nft = |error| PassageError::Nft { pod, error };
    let tables = [(NftFamily::Inet, table.to_owned())];
    let (mut began, mut losses, mut socket) = (Instant::now(), 0, None);
    loop {
        match pod_ns.run(|| send(&mut socket, pod)).map_err(io)? {
            Ok(()) => {}
            Err(error) if is_without_way(&error) => return Ok(true),
            // An IPv6 address that is still tentative, a queue that is full for a moment.
            Err(error) if began.elapsed() > PATIENCE => return Err(io(error)),
            Err(_) => {}
        }
        let counted = node.run(|| counters(&tables)).map_err(io)?.map_err(nft)?;
        if counted.iter().any(|rule| rule.packets > 0) {
            return Ok(true);
        }
        if counted.is_empty() {
            // Another look is over and took the table with it: what was sent meanwhile proves nothing.
            losses += 1;
            if losses == LOSSES {
                return Err(PassageError::Lost { pod, table: table.to_owned() });
            }
            node.run(|| load(counts)).map_err(io)?.map_err(nft)?;
            began = Instant::now();
        } else if began.elapsed() > PATIENCE {
            return Ok(false);
        }
        std::thread::sleep(PAUSE);
    }
}

/// One packet, from this thread's namespace.
fn send(socket: &mut Option<UdpSocket>, pod: IpAddr) -> io::Result<()> {
    if socket.is_none() {
        let made = UdpSocket::bind(SocketAddr::new(pod, 0))?;
        match pod {
            IpAddr::V4(_) => setsockopt(&made, sockopt::Ipv4Ttl, &1)?,
            IpAddr::V6(_) => setsockopt(&made, sockopt::Ipv6Ttl, &1)?,
        }
        *socket = Some(made);
    }
    let Some(socket) = socket else { return Ok(()) };
    socket.send_to(&[0], SocketAddr::new(outside(pod), PORT)).map(drop)
}

fn is_without_way(error: &io::Error) -> bool {
    [libc::ENETUNREACH, libc::EHOSTUNREACH].contains(&error.raw_os_error().unwrap_or_default())
}
