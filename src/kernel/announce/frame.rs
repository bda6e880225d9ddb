//! ARP and neighbour discovery as bytes of an Ethernet frame.
//!
//! In: addresses. Out: frames to send, filters for what to receive, the MAC that an answer names. Never: sends.
//! RFC 826 (ARP), RFC 5227 §3 (announcements), RFC 4861 §4.3–4.4 and §7.2.6 (neighbour discovery).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addr::Mac;

pub(super) const ETHERTYPE_ARP: u16 = 0x0806;
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;

const BROADCAST: Mac = Mac([0xff; 6]);
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_ADDRESS: u8 = 1;
const TARGET_LINK_ADDRESS: u8 = 2;

/// Length of the Ethernet and the IPv6 header.
const ETHERNET: usize = 14;
const IPV6: usize = 40;

/// Every form of *this address is at this MAC now*, to be sent one after the other.
///
/// IPv4: gratuitous ARP as a request and as a reply, because stacks differ in which they follow. IPv6: an unsolicited neighbour
/// advertisement with the override flag, without which hosts keep a stale entry for half a minute.
pub(super) fn announcements(mac: Mac, ip: IpAddr) -> Vec<Vec<u8>> {
    match ip {
        IpAddr::V4(ip) => vec![
            arp(1, (mac, ip), (Mac([0; 6]), ip)),
            // Linux calls a reply gratuitous only if both MACs are the sender's.
            arp(2, (mac, ip), (mac, ip)),
        ],
        IpAddr::V6(ip) => {
            const ROUTER_AND_OVERRIDE: u32 = 0xa000_0000;
            let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            let option = (TARGET_LINK_ADDRESS, mac);
            vec![discovery(mac, (ip, all_nodes), ADVERTISEMENT, ROUTER_AND_OVERRIDE, ip, option)]
        }
    }
}

/// *Who has the target?*, asked with an ordinary address of our own; `None` if the families differ.
pub(super) fn question(mac: Mac, source: IpAddr, target: IpAddr) -> Option<Vec<u8>> {
    match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => Some(arp(1, (mac, source), (Mac([0; 6]), target))),
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            let [.., a, b, c] = target.octets();
            let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
            let option = (SOURCE_LINK_ADDRESS, mac);
            Some(discovery(mac, (source, group), SOLICITATION, 0, target, option))
        }
        _ => None,
    }
}

/// The MAC that a received frame gives for this address, if it is about it.
///
/// ARP: whoever speaks *as* the address, in a request or a reply. IPv6: any advertisement of it.
pub(super) fn answer(frame: &[u8], target: IpAddr) -> Option<Mac> {
    match target {
        IpAddr::V4(target) => {
            // Ethernet, IPv4, lengths 6 and 4; then the operation, the sender's MAC, the sender's address.
            let packet = frame.get(ETHERNET..)?.strip_prefix(&[0, 1, 8, 0, 6, 4])?;
            (packet.get(8..12)? == target.octets()).then(|| mac_at(packet, 2))?
        }
        IpAddr::V6(target) => {
            let header = frame.get(ETHERNET..ETHERNET + IPV6)?;
            let message = frame.get(ETHERNET + IPV6..)?;
            // A hop limit of 255 proves that the sender is on this link (RFC 4861 §7.1.2).
            if (header[6], header[7], *message.first()?) != (ICMPV6, 255, ADVERTISEMENT)
                || message.get(8..24)? != target.octets()
            {
                return None;
            }
            let mut options = message.get(24..)?;
            while let [kind, words, ..] = *options {
                if kind == TARGET_LINK_ADDRESS {
                    return mac_at(options, 2);
                }
                options = options.get(usize::from(words).max(1) * 8..).unwrap_or_default();
            }
            mac_at(frame, 6)
        }
    }
}

/// What the kernel should let through: at each offset this value. Loose; [`answer`] decides. Without it every IPv6 packet of the
/// uplink would have to be copied and the one that counts might find the buffer full.
pub(super) fn filter(target: IpAddr) -> Vec<libc::sock_filter> {
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let checks = match target {
        IpAddr::V4(target) => vec![(LOAD_WORD, 28, target.to_bits())],
        IpAddr::V6(target) => {
            let [.., a, b, c, d] = target.octets();
            vec![
                (LOAD_BYTE, 20, u32::from(ICMPV6)),
                (LOAD_BYTE, 54, u32::from(ADVERTISEMENT)),
                (LOAD_WORD, 74, u32::from_be_bytes([a, b, c, d])),
            ]
        }
    };
    let step = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    let mut program = Vec::new();
    for (index, (load, offset, value)) in checks.iter().enumerate() {
        // To the last instruction: over the checks behind this one and the acceptance.
        let over = u8::try_from(2 * (checks.len() - index - 1) + 1).unwrap_or(u8::MAX);
        program.extend([step(*load, 0, *offset), step(JUMP_IF_EQUAL, over, *value)]);
    }
    program.extend([step(RETURN, 0, u32::MAX), step(RETURN, 0, 0)]);
    program
}

fn mac_at(bytes: &[u8], at: usize) -> Option<Mac> {
    Some(Mac(bytes.get(at..at + 6)?.try_into().ok()?))
}

fn ethernet(to: Mac, from: Mac, ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(90);
    frame.extend_from_slice(&to.0);
    frame.extend_from_slice(&from.0);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame
}

fn arp(operation: u8, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, sender.0, ETHERTYPE_ARP);
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, operation]);
    for (mac, ip) in [sender, target] {
        frame.extend_from_slice(&mac.0);
        frame.extend_from_slice(&ip.octets());
    }
    frame
}

/// A neighbour solicitation or advertisement to a multicast group.
fn discovery(
    mac: Mac,
    (source, group): (Ipv6Addr, Ipv6Addr),
    kind: u8,
    flags: u32,
    target: Ipv6Addr,
    (option, option_mac): (u8, Mac),
) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend_from_slice(&flags.to_be_bytes());
    message.extend_from_slice(&target.octets());
    message.extend_from_slice(&[option, 1]);
    message.extend_from_slice(&option_mac.0);
    let sum = checksum(source, group, &message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);

    let [.., a, b, c, d] = group.octets();
    let mut frame = ethernet(Mac([0x33, 0x33, a, b, c, d]), mac, ETHERTYPE_IPV6);
    let [high, low] = u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes();
    frame.extend_from_slice(&[0x60, 0, 0, 0, high, low, ICMPV6, 255]);
    frame.extend_from_slice(&source.octets());
    frame.extend_from_slice(&group.octets());
    frame.extend_from_slice(&message);
    frame
}

/// The Internet checksum over the message and the pseudo-header (RFC 8200 §8.1). The message's own field is 0 before.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    let parts: [&[u8]; 5] = [&source.octets(), &destination.octets(), &length, &[0, 0, 0, ICMPV6], message];
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 =
        words.map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    #[allow(clippy::cast_possible_truncation, reason = "the carry was folded in above")]
    let sum = !(sum as u16);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_announcement_is_an_answer_to_its_own_question_and_to_no_other() {
        for (address, other) in [("10.0.0.9", "10.0.0.8"), ("fd00::9", "fd00:1::9")] {
            for frame in announcements(MAC, ip(address)) {
                assert_eq!(answer(&frame, ip(address)), Some(MAC));
                assert_eq!(answer(&frame, ip(other)), None);
                for end in 0..frame.len() {
                    let _ = answer(&frame[..end], ip(address));
                }
            }
        }
    }

    #[test]
    fn a_question_speaks_as_the_asker_and_not_as_the_target() {
        let asked = question(MAC, ip("10.0.0.1"), ip("10.0.0.9")).unwrap();
        assert_eq!(answer(&asked, ip("10.0.0.1")), Some(MAC));
        assert_eq!(answer(&asked, ip("10.0.0.9")), None);
        assert_eq!(answer(&question(MAC, ip("fd00::1"), ip("fd00::9")).unwrap(), ip("fd00::9")), None);
        assert_eq!(question(MAC, ip("10.0.0.1"), ip("fd00::9")), None);
    }

    #[test]
    fn a_message_with_its_checksum_sums_up_to_nothing() {
        let frame = &announcements(MAC, ip("fd00::9"))[0];
        let (source, group) = ("fd00::9".parse().unwrap(), "ff02::1".parse().unwrap());
        assert_eq!(checksum(source, group, &frame[ETHERNET + IPV6..]), 0);
    }

    #[test]
    fn an_advertisement_without_the_option_or_from_elsewhere_is_read_with_care() {
        let mut frame = announcements(MAC, ip("fd00::9")).remove(0);
        frame.truncate(ETHERNET + IPV6 + 24);
        assert_eq!(answer(&frame, ip("fd00::9")), Some(MAC), "the frame's own source counts");
        frame[ETHERNET + 7] = 64;
        assert_eq!(answer(&frame, ip("fd00::9")), None, "it came through a router");
    }
}
