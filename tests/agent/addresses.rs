//! Addresses that a node answers for: said again after a takeover, asked for every five seconds.

use std::mem::size_of;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use egret::addr::Family;
use egret::agent::state::Health;
use egret::node::announce::ANOTHER_OWNER;
use egret::store::{Dir, endpoints};
use egret::testbed::{Place, STATE_DIR};

use crate::lab::{Lab, eventually};

/// An ear on a link: ARP and neighbour discovery.
struct Ear {
    socket: OwnedFd,
    began: Instant,
}

/// Somebody says that he has an address, or asks for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Announced(IpAddr),
    Asked(IpAddr),
}

impl Ear {
    fn at(place: &Place) -> Ear {
        let open = || {
            // SAFETY: plain system calls; the descriptor is checked before it is owned, the structure lives across the call.
            unsafe {
                let all = (libc::ETH_P_ALL as u16).to_be();
                let fd =
                    libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK, i32::from(all));
                assert!(fd >= 0, "no packet socket: run as root");
                let mut at: libc::sockaddr_ll = std::mem::zeroed();
                at.sll_family = libc::AF_PACKET as u16;
                at.sll_protocol = all;
                at.sll_ifindex = libc::if_nametoindex(c"eth0".as_ptr()) as i32;
                let bound = libc::bind(fd, (&raw const at).cast(), size_of::<libc::sockaddr_ll>() as u32);
                assert_eq!(bound, 0);
                OwnedFd::from_raw_fd(fd)
            }
        };
        Ear { socket: place.netns().unwrap().run(open).unwrap(), began: Instant::now() }
    }

    /// What comes within a time: when, since this ear was opened.
    fn listen(&self, time: Duration) -> Vec<(Duration, Heard)> {
        let (end, mut all) = (Instant::now() + time, Vec::new());
        let mut frame = [0u8; 256];
        while Instant::now() < end {
            // SAFETY: the buffer lives across the call and its size is given.
            let length =
                unsafe { libc::recv(self.socket.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len(), 0) };
            match usize::try_from(length) {
                Ok(length) => all.extend(heard(&frame[..length]).map(|what| (self.began.elapsed(), what))),
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        all
    }
}

/// RFC 826 (sender and target at bytes 14 and 24), RFC 4861 (target at byte 8 of the message).
fn heard(packet: &[u8]) -> Option<Heard> {
    let four = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
    if packet.starts_with(&[0, 1, 8, 0, 6, 4]) {
        let (sender, target) = (four(14)?, four(24)?);
        return Some(if sender == target { Heard::Announced(sender) } else { Heard::Asked(target) });
    }
    let icmp = packet.get(40..).filter(|_| packet[0] >> 4 == 6 && packet[6] == 58)?;
    let target = IpAddr::from(<[u8; 16]>::try_from(icmp.get(8..24)?).ok()?);
    match icmp[0] {
        136 => Some(Heard::Announced(target)),
        135 => Some(Heard::Asked(target)),
        _ => None,
    }
}

/// Seconds at which something was said, several frames of one moment as one.
fn moments(all: &[(Duration, Heard)], what: Heard) -> Vec<f64> {
    let mut times: Vec<f64> = Vec::new();
    for (at, _) in all.iter().filter(|(_, said)| *said == what) {
        if times.last().is_none_or(|last| at.as_secs_f64() - last > 0.4) {
            times.push(at.as_secs_f64());
        }
    }
    times
}

/// Whether a lease was announced five times and asked for in this rhythm. The takeover is remembered in whole seconds, so a repetition may
/// come up to one early.
fn in_rhythm(said: &[f64], asked: &[f64]) -> bool {
    let comes = |(at, after): (&f64, f64)| (after - 1.1..after + 0.9).contains(&(at - said[0]));
    said.len() == 5
        && said[1..].iter().zip([1.0, 2.0, 4.0, 8.0]).all(comes)
        // The plugin asks before it takes it; then the agent does.
        && asked.windows(2).any(|pair| (4.5..6.0).contains(&(pair[1] - pair[0])))
}

/// A busy machine makes one of them late, so there are several takeovers; whoever does not keep the time is late in all of them.
#[test]
fn a_lease_taken_over_is_announced_at_once_and_after_1_2_4_and_8_seconds_and_asked_for_every_5() {
    const TAKEOVERS: u8 = 6;
    let lab = Lab::raise(1);
    let _agents = lab.agents();
    let mut heard = Vec::new();
    for n in 0..TAKEOVERS {
        let ear = Ear::at(&lab.router());
        let gateway = lab.gateway(1, &format!("red{n}"));
        let all = ear.listen(Duration::from_millis(11_500));
        let of_families = Family::BOTH.map(|family| {
            let lease = lab.lease(&gateway, family);
            let said = moments(&all, Heard::Announced(lease));
            let asked = moments(&all, Heard::Asked(lease));
            println!("{lease}: announced at {said:.1?}, asked for at {asked:.1?}");
            assert!(said.len() <= 5, "{lease} is announced more often: {said:?}");
            (said, asked)
        });
        if of_families.iter().all(|(said, asked)| in_rhythm(said, asked)) {
            return;
        }
        heard.push(of_families);
        lab.del_pod(&gateway).unwrap();
    }
    panic!("none of {TAKEOVERS} in this rhythm: {heard:.1?}");
}

#[test]
fn another_owner_of_a_lease_is_a_problem_until_he_is_gone() {
    let lab = Lab::raise(1);
    let agents = lab.agents();
    let gateway = lab.gateway(1, "red");
    let lease = lab.lease(&gateway, Family::V4);
    let of_endpoint = || -> Vec<String> {
        let (all, _) = endpoints::list(&Dir::at(std::path::Path::new(STATE_DIR)).unwrap()).unwrap();
        all.into_iter().flat_map(|e| e.problems).map(|problem| problem.reason).collect()
    };
    let known = |is: bool| {
        let agent = agents[0].reasons().iter().any(|r| r == ANOTHER_OWNER);
        agent == is && of_endpoint().iter().any(|r| r == ANOTHER_OWNER) == is
    };
    let router = lab.router();
    router.sh(&format!("ip address add {lease}/32 dev eth0")).unwrap();
    eventually("both say so", || known(true));
    eventually("and the agent is not well", || agents[0].state().unwrap().health == Health::Degraded);
    router.sh(&format!("ip address del {lease}/32 dev eth0")).unwrap();
    eventually("nobody says so any more", || known(false));
    eventually("and the agent is well", || agents[0].state().unwrap().health == Health::Well);
}
