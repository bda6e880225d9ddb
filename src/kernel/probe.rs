//! Whether this kernel has the nftables hook that writes a tunnel packet's MAC address (netdev egress, 5.16), and lets a rule ask for the way
//! back where packets come in (5.19; before, in prerouting alone).
//!
//! The feature is tried, not the version read: distributions switch it off or bring it back. A batch is sent that would make a
//! table with such a chain, but has no end mark, so the kernel checks every message of it and then takes all of it back.

use std::sync::atomic::{AtomicU32, Ordering};

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use super::Netns;
use super::netlink::attributes::put;
use super::nft::load::load;

const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFPROTO_NETDEV: u8 = 5;
const NF_NETDEV_EGRESS: u32 = 1;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
/// Sequence number of the message that makes the chain.
const CHAIN: u32 = 3;

/// Tries it in a namespace. `false` also where nftables itself is missing or may not be used.
pub fn has_netdev_egress(netns: &Netns) -> bool {
    netns.run(|| try_here(NF_NETDEV_EGRESS)).is_ok_and(|answer| answer.unwrap_or(false))
}

/// A table that goes with the process that made it, and whose name is its own: nobody else may touch it meanwhile, and others may ask at the
/// same time. What one transaction makes and deletes, the kernel does not look at.
fn asking(name: &str) -> String {
    format!(
        "table inet {name} {{
  flags owner
  chain input {{ type filter hook input priority 0; fib saddr . iif oif missing counter; }}
}}
"
    )
}

/// Tries it in a namespace.
///
/// # Errors
/// What `nft` says, or why it could not be asked.
pub fn way_back(netns: &Netns) -> Result<(), String> {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let number = ASKED.fetch_add(1, Ordering::Relaxed);
    let script = asking(&format!("egret-probe-{}-{number}", std::process::id()));
    match netns.run(|| load(&script)) {
        Ok(loaded) => loaded.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn try_here(hook: u32) -> std::io::Result<bool> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&batch(hook), 0)?;
    // One datagram per answer; all of them lie ready when `send` returns, because the kernel handles a batch at once.
    let mut made = false;
    let mut answer = Vec::with_capacity(4096);
    while socket.recv(&mut answer, libc::MSG_DONTWAIT).is_ok() {
        let word = |at: usize| answer.get(at..at + 4)?.try_into().ok().map(i32::from_ne_bytes);
        let kind = answer.get(4..6).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes);
        if kind == Some(NLMSG_ERROR) && word(8) == Some(CHAIN.cast_signed()) {
            made = word(16) == Some(0);
        }
        answer.clear();
    }
    Ok(made)
}

fn batch(number: u32) -> Vec<u8> {
    let name = b"egret-probe\0";
    let mut hook = Vec::new();
    put(&mut hook, 1, &number.to_be_bytes());
    put(&mut hook, 2, &0u32.to_be_bytes());
    put(&mut hook, 3, b"lo\0");
    let (mut table, mut chain) = (Vec::new(), Vec::new());
    put(&mut table, 1, name);
    put(&mut chain, 1, name);
    put(&mut chain, 3, name);
    put(&mut chain, 4 | 0x8000, &hook);
    put(&mut chain, 7, b"filter\0");

    let nftables = NFNL_SUBSYS_NFTABLES << 8;
    let mut bytes = Vec::new();
    message(&mut bytes, NFNL_MSG_BATCH_BEGIN, REQUEST, (1, 0, NFNL_SUBSYS_NFTABLES), &[]);
    let make = REQUEST | CREATE | ACK;
    message(&mut bytes, nftables | NFT_MSG_NEWTABLE, make, (2, NFPROTO_NETDEV, 0), &table);
    message(&mut bytes, nftables | NFT_MSG_NEWCHAIN, make, (CHAIN, NFPROTO_NETDEV, 0), &chain);
    bytes
}

/// A message: header, `struct nfgenmsg` (family, version 0, resource), attributes.
fn message(
    bytes: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    (sequence, family, resource): (u32, u8, u16),
    rest: &[u8],
) {
    let length = u32::try_from(16 + 4 + rest.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&[family, 0]);
    bytes.extend_from_slice(&resource.to_be_bytes());
    bytes.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_that_the_kernel_does_not_have_is_told_from_one_that_it_has() {
        let (egress, unknown) = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("run the tests as root");
            (try_here(NF_NETDEV_EGRESS).unwrap(), try_here(9).unwrap())
        })
        .join()
        .unwrap();
        assert!(
            egress,
            "this kernel has no netdev egress hook: Linux 5.19 with CONFIG_NETFILTER_EGRESS is needed"
        );
        assert!(!unknown);
    }

    #[test]
    fn a_rule_that_the_kernel_refuses_is_told_from_one_that_it_takes() {
        let refused = asking("egret-probe-refused").replace("hook input", "hook output");
        let (taken, refused, left) = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("run the tests as root");
            let taken = way_back(&Netns::current().unwrap());
            let left = std::process::Command::new("nft").args(["list", "tables"]).output().unwrap().stdout;
            (taken, load(&refused).is_ok(), String::from_utf8(left).unwrap())
        })
        .join()
        .unwrap();
        assert_eq!(taken, Ok(()), "Linux 5.19 with CONFIG_NFT_FIB_INET is needed");
        assert!(!refused, "the way back of what this node sends");
        assert_eq!(left, "");
    }

    /// Agent, plugin and command line may ask at one time.
    #[test]
    fn several_that_ask_at_once_are_all_answered() {
        let answers = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("run the tests as root");
            let here = Netns::current().unwrap();
            let begin = std::sync::Barrier::new(4);
            let ask = || {
                begin.wait();
                (0..8).map(|_| way_back(&here)).collect::<Vec<_>>()
            };
            std::thread::scope(|scope| {
                let asking: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
                asking.into_iter().flat_map(|asked| asked.join().unwrap()).collect::<Vec<_>>()
            })
        })
        .join()
        .unwrap();
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }
}
