//! Every IP packet that leaves the nodes for the outside, counted where it arrives.
//!
//! In: packet sockets (packet(7)) at the router's inside, at `outside` and at `far`. Out: packets, sources, a verdict.
//! The router is watched too because a leak may carry a source that the router itself drops.
//! Never: believes a window in which the kernel dropped captures (`PACKET_STATISTICS`).

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use super::Trouble;
use super::packet::{Fragments, Packet, Spot, read};
use super::pod::Pod;
use super::verdict::{Clean, Leak, judge};
use crate::addr::Cidr;
use crate::kernel::netns::Netns;

/// Enough of a packet for its headers and those it quotes, bytes.
const SNAP: usize = 256;
/// Receive buffer of each tap, bytes: a burst must fit until the next look.
pub(super) const BUFFER: usize = 64 << 20;
/// Pause between looks; the kernel's buffer holds what comes in between.
const PAUSE: Duration = Duration::from_millis(5);

/// A running capture. It starts when made and ends when dropped.
#[derive(Debug)]
pub struct Capture {
    shared: Arc<Shared>,
    forbidden: Vec<Cidr>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    taps: Vec<(Spot, OwnedFd)>,
    inside: Vec<Cidr>,
    seen: Mutex<Seen>,
    stop: AtomicBool,
}

#[derive(Debug, Default)]
struct Seen {
    packets: Vec<Packet>,
    fragments: Fragments,
    dropped: u64,
}

impl Capture {
    /// Starts at these namespaces' `eth0`. Packets to `inside` are not on their way out and are left aside.
    pub(super) fn start(
        spots: Vec<(Spot, Netns)>,
        inside: Vec<Cidr>,
        forbidden: Vec<Cidr>,
        buffer: usize,
    ) -> Result<Capture, Trouble> {
        let mut taps = Vec::new();
        for (spot, netns) in spots {
            let tap = netns.run(|| tap(buffer)).and_then(|r| r);
            taps.push((spot, tap.map_err(|e| Trouble::new(format!("cannot capture at {spot:?}: {e}")))?));
        }
        let shared = Arc::new(Shared { taps, inside, seen: Mutex::default(), stop: AtomicBool::new(false) });
        let looking = shared.clone();
        let watch = move || {
            while !looking.stop.load(Ordering::Relaxed) {
                drop(looking.look());
                std::thread::sleep(PAUSE);
            }
        };
        let thread = std::thread::Builder::new().name("capture".to_owned()).spawn(watch);
        let thread = Some(thread.map_err(|e| Trouble::new(format!("cannot start a thread: {e}")))?);
        Ok(Capture { shared, forbidden, thread })
    }

    /// Every packet so far, in the order seen at each spot.
    pub fn packets(&self) -> Vec<Packet> {
        self.shared.look().packets.clone()
    }

    /// Captures that the kernel dropped so far.
    pub fn dropped(&self) -> u64 {
        self.shared.look().dropped
    }

    /// Forgets what was seen: a new window.
    pub fn restart(&self) {
        let mut seen = self.shared.look();
        seen.packets.clear();
        seen.dropped = 0;
    }

    /// Sources that reached the outside, with counts.
    pub fn sources(&self) -> BTreeMap<IpAddr, usize> {
        count(self.packets().iter().filter(|p| p.spot != Spot::Router))
    }

    /// Sources that reached the outside on one pod's ports, with counts.
    pub fn sources_of(&self, pod: &Pod) -> BTreeMap<IpAddr, usize> {
        let ports = pod.suspect().ports;
        let is_its = |p: &&Packet| p.spot != Spot::Router && p.service.is_some_and(|s| ports.contains(&s));
        count(self.packets().iter().filter(is_its))
    }

    /// Judges the window so far for these selected pods; see [`Leak`] for what makes it fail.
    pub fn verdict(&self, selected: &[&Pod]) -> Result<Clean, Leak> {
        let suspects: Vec<_> = selected.iter().map(|pod| pod.suspect()).collect();
        let seen = self.shared.look();
        judge(&seen.packets, seen.dropped, &suspects, &self.forbidden)
    }

    /// The same, as an assertion.
    ///
    /// # Panics
    /// When the window is not clean or proves nothing; the message lists the packets.
    #[track_caller]
    pub fn assert_clean(&self, selected: &[&Pod]) -> Clean {
        match self.verdict(selected) {
            Ok(clean) => clean,
            Err(leak) => panic!("{leak}"),
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Reads all that has arrived. Whoever asks reads for himself, so an answer never lags behind the network.
    fn look(&self) -> std::sync::MutexGuard<'_, Seen> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (spot, tap) in &self.taps {
            while let Some(bytes) = receive(tap) {
                let Some(bytes) = bytes else { continue };
                let Some(packet) = read(*spot, &bytes, &mut seen.fragments) else { continue };
                if !self.stays_inside(packet.destination) {
                    seen.packets.push(packet);
                }
            }
            seen.dropped += u64::from(dropped(tap));
        }
        seen
    }

    fn stays_inside(&self, ip: IpAddr) -> bool {
        let link_local = match ip {
            IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        link_local || ip.is_multicast() || self.inside.iter().any(|c| c.contains(ip))
    }
}

fn count<'a>(packets: impl Iterator<Item = &'a Packet>) -> BTreeMap<IpAddr, usize> {
    let mut sources = BTreeMap::new();
    packets.for_each(|p| *sources.entry(p.source).or_default() += 1);
    sources
}

/// A packet socket on this namespace's `eth0`, without link-layer headers.
fn tap(buffer: usize) -> io::Result<OwnedFd> {
    let every = (libc::ETH_P_ALL as u16).to_be();
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: plain system calls; the descriptor is checked before it is owned, structures live across the calls.
    unsafe {
        // Protocol 0 hears nothing until it is bound to its device.
        let fd = libc::socket(libc::AF_PACKET, kind, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let tap = OwnedFd::from_raw_fd(fd);
        setsockopt(&tap, sockopt::RcvBufForce, &buffer)?;
        let mut place: libc::sockaddr_ll = std::mem::zeroed();
        place.sll_family = libc::AF_PACKET as u16;
        place.sll_protocol = every;
        place.sll_ifindex = libc::if_nametoindex(c"eth0".as_ptr()) as i32;
        let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        if place.sll_ifindex == 0 || libc::bind(fd, (&raw const place).cast(), size) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(tap)
    }
}

/// The next packet: `None` when there is none, `Some(None)` for one that is going out here.
fn receive(tap: &OwnedFd) -> Option<Option<Vec<u8>>> {
    let mut bytes = vec![0; SNAP];
    // SAFETY: the buffer and the address structure live across the call and their sizes are given.
    let (length, kind) = unsafe {
        let mut from: libc::sockaddr_ll = std::mem::zeroed();
        let mut size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        let (at, to) = (bytes.as_mut_ptr().cast(), (&raw mut from).cast());
        (libc::recvfrom(tap.as_raw_fd(), at, SNAP, 0, to, &raw mut size), from.sll_pkttype)
    };
    bytes.truncate(usize::try_from(length).ok()?);
    Some((kind != libc::PACKET_OUTGOING).then_some(bytes))
}

/// Captures dropped since the last time: reading the counter clears it.
fn dropped(tap: &OwnedFd) -> u32 {
    // SAFETY: `tpacket_stats` is two integers; its size is given.
    unsafe {
        let mut stats: libc::tpacket_stats = std::mem::zeroed();
        let mut size = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        let (fd, to) = (tap.as_raw_fd(), (&raw mut stats).cast());
        match libc::getsockopt(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS, to, &raw mut size) {
            0 => stats.tp_drops,
            _ => 0,
        }
    }
}
