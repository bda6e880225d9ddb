//! Filters at a device's ingress (`tc filter show dev … ingress`): which of them take packets away.
//!
//! In: a device's index; the kernel's answer. Out: what a filter does, as far as it matters to who waits for the packets.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcHandle, TcMessage};

use super::attributes::{attributes, behind, u32_of};

/// `struct tcmsg`.
const HEADER: usize = 20;
/// `TCA_KIND`, `TCA_OPTIONS`.
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
/// `TCA_BPF_NAME`, `TCA_BPF_ID`: an eBPF program has an id, classic bytecode has none and can redirect nothing.
const BPF_NAME: u16 = 7;
const BPF_ID: u16 = 11;
/// `TCA_ACT_KIND`, `TCA_ACT_OPTIONS`, `TCA_MIRRED_PARMS`.
const ACTION_KIND: u16 = 1;
const ACTION_OPTIONS: u16 = 2;
const MIRRED: u16 = 2;
/// `TCA_EGRESS_REDIR`, `TCA_INGRESS_REDIR`. The other two send a copy and let the packet go on.
const REDIRECTS: [u32; 2] = [1, 3];

/// What a filter may do to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Takes {
    /// `mirred … redirect`: it goes to the device with this index.
    Redirect(u32),
    /// An eBPF program of this name decides.
    Program(String),
}

/// The filters at a device's ingress, of a `clsact` or an `ingress` qdisc. Without one the answer is empty.
pub fn at_ingress(index: u32) -> RouteNetlinkMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = TcHandle { major: u16::MAX, minor: TcHandle::MIN_INGRESS };
    RouteNetlinkMessage::GetTrafficFilter(message)
}

/// Reads `RTM_NEWTFILTER`. Empty for a filter that only counts, marks, polices or copies.
pub fn read(payload: &[u8]) -> Vec<Takes> {
    let mut kind: &[u8] = &[];
    let mut takes = Vec::new();
    for attribute in behind(payload, HEADER) {
        match attribute.kind {
            KIND => kind = attribute.value.strip_suffix(b"\0").unwrap_or(attribute.value),
            OPTIONS => {
                if kind == b"bpf" {
                    takes.extend(program(attribute.value));
                }
                // Each kind of filter numbers its list of actions in its own way, but an action looks the same in all.
                takes.extend(attributes(attribute.value).flat_map(|option| redirects(option.value)));
            }
            _ => {}
        }
    }
    takes
}

fn program(options: &[u8]) -> Option<Takes> {
    attributes(options).find(|option| option.kind == BPF_ID)?;
    let name = attributes(options).find(|option| option.kind == BPF_NAME);
    Some(Takes::Program(name.map(|name| super::attributes::text(name.value)).unwrap_or_default()))
}

fn redirects(list: &[u8]) -> Vec<Takes> {
    let redirect = |action: &[u8]| {
        let part = |kind| attributes(action).find(|part| part.kind == kind).map(|part| part.value);
        if part(ACTION_KIND)? != b"mirred\0" {
            return None;
        }
        // `struct tc_mirred`: 20 bytes that all actions have, then what it does and where to.
        let parameters = attributes(part(ACTION_OPTIONS)?).find(|part| part.kind == MIRRED)?.value;
        let does = u32_of(parameters.get(20..)?)?;
        let target = u32_of(parameters.get(24..)?)?;
        REDIRECTS.contains(&does).then_some(Takes::Redirect(target))
    };
    attributes(list).filter_map(|action| redirect(action.value)).collect()
}
