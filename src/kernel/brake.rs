//! A brake: sources are stopped by policy rules the moment a table of ours is deleted, long before anybody can load it again.
//!
//! In: the table whose loss counts, the sources. Out: how soon they were stopped. Never: releases them; the rules stand at a
//! priority of ours, so whoever brings the namespace to its plan removes them, and he loads tables first.
//!
//! Loading rules takes `nft` some 20 ms; this takes a notice and one message (kernel 6.18: some 100 µs for 250 sources), and costs
//! nothing as long as nothing happens.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage};
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};

use super::netlink::attributes::{behind, text};
use super::netlink::rule;
use super::netns::Netns;
use super::observe::KernelError;
use super::state::{Action, Match, NftFamily, Rule};
use super::watch::{NFTABLES, next};
use crate::addr::Family;

/// Most bytes of one message to the kernel, below every default of a socket's send buffer.
const PIECE: usize = 64 * 1024;
const DATAGRAM: usize = 32 * 1024;

/// Rules that stop sources, as the kernel reads them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order(Vec<Vec<u8>>);

impl Order {
    /// `ip rule add pref PRIORITY from SOURCE unreachable` for each.
    pub fn stop(sources: impl IntoIterator<Item = IpAddr>, priority: u32, protocol: u8) -> Order {
        let mut pieces: Vec<Vec<u8>> = Vec::new();
        for ip in sources {
            let (family, action) = (Family::of(ip), Action::Unreachable);
            let rule = Rule { family, priority, matches: Match::From(ip), action };
            let mut header = NetlinkHeader::default();
            // No acknowledgement: nobody waits for it, and only a refusal is answered.
            header.flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL;
            let mut message = NetlinkMessage::new(header, rule::add(&rule, protocol).into());
            message.finalize();
            let mut bytes = vec![0; message.buffer_len().next_multiple_of(4)];
            message.serialize(&mut bytes);
            match pieces.last_mut() {
                Some(piece) if piece.len() + bytes.len() <= PIECE => piece.extend(bytes),
                _ => pieces.push(bytes),
            }
        }
        Order(pieces)
    }
}

/// Waits for the loss of one table.
pub struct Brake {
    family: NftFamily,
    table: String,
    notices: Socket,
    routing: Socket,
    buffer: Vec<u8>,
    /// What the transaction that is being told has done to the table so far.
    gone: bool,
}

impl Brake {
    /// Listens from now on.
    ///
    /// # Errors
    /// The namespace cannot be entered, or the kernel refuses the sockets.
    pub fn open(netns: &Netns, family: NftFamily, table: &str) -> Result<Brake, KernelError> {
        let failed = |error| KernelError::Enter { netns: netns.path().to_owned(), error };
        let sockets = || -> io::Result<(Socket, Socket)> {
            let mut notices = Socket::new(NETLINK_NETFILTER)?;
            notices.bind(&SocketAddr::new(0, 0))?;
            notices.add_membership(NFTABLES)?;
            let mut routing = Socket::new(NETLINK_ROUTE)?;
            routing.bind_auto()?;
            routing.connect(&SocketAddr::new(0, 0))?;
            // Refusals (a rule that stands already) are read by nobody and must not fill the socket for ever.
            routing.set_non_blocking(true)?;
            Ok((notices, routing))
        };
        let (notices, routing) = netns.run(sockets).map_err(failed)?.map_err(failed)?;
        let table = table.to_owned();
        Ok(Brake { family, table, notices, routing, buffer: vec![0; DATAGRAM], gone: false })
    }

    /// Waits until the table is gone, and stops the sources that the order then says. Returns how long that took from the kernel's
    /// notice on. A transaction that deletes the table and makes it again is none of our business.
    ///
    /// # Errors
    /// The kernel gives no notices any more.
    pub fn wait(&mut self, order: impl FnOnce() -> Order) -> io::Result<Duration> {
        loop {
            let length = match self.notices.recv(&mut &mut self.buffer[..], 0) {
                Ok(length) => length,
                // Too many notices at once: the table may be gone, and nobody knows. The regular look finds out.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => continue,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let heard = Instant::now();
            if self.is_gone_after(length) {
                for piece in order().0 {
                    self.routing.send(&piece, 0)?;
                }
                let took = heard.elapsed();
                while self.routing.recv(&mut &mut self.buffer[..], 0).is_ok() {}
                return Ok(took);
            }
        }
    }

    fn is_gone_after(&mut self, length: usize) -> bool {
        /// Messages of nftables (linux/netfilter/nf_tables.h): a table comes, a table goes, a transaction is over.
        const NEWTABLE: u16 = 0;
        const DELTABLE: u16 = 2;
        const NEWGEN: u16 = 15;
        const NFNL_SUBSYS_NFTABLES: u16 = 10;
        let mut rest = self.buffer.get(..length).unwrap_or(&[]);
        let mut lost = false;
        while let Some((message, behind_it)) = next(rest) {
            rest = behind_it;
            if message.kind >> 8 != NFNL_SUBSYS_NFTABLES {
                continue;
            }
            let ours = || {
                let name = behind(message.payload, 4).find(|a| a.kind == 1).map(|a| text(a.value));
                message.payload.first() == Some(&self.family.number())
                    && name == Some(self.table.as_str().into())
            };
            match message.kind & 0xff {
                NEWTABLE if ours() => self.gone = false,
                DELTABLE if ours() => self.gone = true,
                NEWGEN => lost |= std::mem::take(&mut self.gone),
                _ => {}
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::sandbox::Namespace;

    const SOURCES: u8 = 250;

    #[test]
    fn the_loss_of_the_table_stops_every_source_and_a_table_made_again_at_once_none() {
        let here = Namespace::new();
        here.sh("nft add table inet own; nft add table ip own; nft add table inet other");
        let brake = here.run(|| Brake::open(&Netns::current().unwrap(), NftFamily::Inet, "own").unwrap());
        let sources = (0..SOURCES).flat_map(|n| {
            [IpAddr::from([10, 0, 0, n]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)])]
        });
        let order = Order::stop(sources, 790, 65);
        let waiting = std::thread::spawn(move || {
            let mut brake = brake;
            brake.wait(move || order).unwrap()
        });
        let rules = || here.sh("ip rule; ip -6 rule").lines().filter(|l| l.starts_with("790:")).count();
        // Others' tables, another family's of that name, and a transaction that puts a new one in its place.
        here.sh("nft delete table inet other; nft delete table ip own; nft 'delete table inet own; add table inet own'");
        std::thread::sleep(Duration::from_millis(100));
        assert!(!waiting.is_finished() && rules() == 0);
        here.sh("nft flush ruleset");
        let took = waiting.join().unwrap();
        println!("{SOURCES} sources of each family stopped after {took:?}");
        assert_eq!(rules(), 2 * usize::from(SOURCES));
        let shown = here.sh("ip -d rule; ip -d -6 rule");
        assert!(shown.contains("790:\tfrom 10.0.0.7 unreachable proto 65"), "{shown}");
        assert!(shown.contains("790:\tfrom fd00::7 unreachable proto 65"), "{shown}");
    }
}
