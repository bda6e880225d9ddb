//! Policy rules.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use super::attributes::{behind, family_number, family_of, ip_of, text, u32_of};
use crate::addr::Family;
use crate::kernel::state::{Action, Match, Rule};

/// `struct fib_rule_hdr`.
const HEADER: usize = 12;
const FR_ACT_TO_TBL: u8 = 1;
const FR_ACT_GOTO: u8 = 2;
const FR_ACT_NOP: u8 = 3;
const FR_ACT_UNREACHABLE: u8 = 7;
const INVERT: u32 = 2;

/// A rule as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Family.
    pub family: Family,
    /// Priority.
    pub priority: u32,
    /// Who made it; 0 where nobody said.
    pub protocol: u8,
    /// Mark and mask it looks at, if it looks at the mark.
    pub mark: Option<(u32, u32)>,
    /// The rule in our words, if it is of a shape that we make.
    pub rule: Option<Rule>,
}

/// Reads `RTM_NEWRULE`; `None` for families other than IPv4 and IPv6.
pub fn read(payload: &[u8]) -> Option<Known> {
    let family = family_of(*payload.first()?)?;
    let (to, from, tos) = (*payload.get(1)?, *payload.get(2)?, *payload.get(3)?);
    let (action, flags) = (*payload.get(7)?, u32_of(payload.get(8..)?)?);
    let mut table = u32::from(*payload.get(4)?);
    let (mut priority, mut protocol, mut target) = (0, 0, None);
    let (mut mark, mut mask, mut input, mut source) = (None, None, None, None);
    let mut other = to != 0 || tos != 0;
    for attribute in behind(payload, HEADER) {
        match attribute.kind {
            2 => source = ip_of(attribute.value),
            3 => input = Some(text(attribute.value)),
            4 => target = u32_of(attribute.value),
            6 => priority = u32_of(attribute.value)?,
            10 => mark = u32_of(attribute.value),
            14 => other |= u32_of(attribute.value)? != u32::MAX, // suppress_prefixlength; all ones is "not"
            15 => table = u32_of(attribute.value)?,
            16 => mask = u32_of(attribute.value),
            21 => protocol = attribute.value.first().copied().unwrap_or(0),
            // realm, tunnel id, suppress_ifgroup, oif, l3mdev, uids, protocol, ports, dscp, flow label, and their masks
            11..=13 | 17 | 19 | 20 | 22..=30 => other = true,
            _ => {}
        }
    }
    let mark = (mark.is_some() || mask.is_some()).then(|| (mark.unwrap_or(0), mask.unwrap_or(0)));
    let inverted = flags & INVERT != 0;
    let matches = match (mark, input, source) {
        _ if other => None,
        (Some((value, mask)), None, None) if inverted => Some(Match::NotMark { value, mask }),
        _ if inverted => None,
        (Some((value, mask)), None, None) => Some(Match::Mark { value, mask }),
        (None, Some(device), None) => Some(Match::Input(device)),
        (None, None, Some(ip)) if from == family.bits() => Some(Match::From(ip)),
        _ => None,
    };
    let action = match action {
        FR_ACT_TO_TBL => Some(Action::Lookup(table)),
        FR_ACT_UNREACHABLE => Some(Action::Unreachable),
        FR_ACT_GOTO => target.map(Action::Goto),
        FR_ACT_NOP => Some(Action::Nop),
        _ => None,
    };
    let rule = matches.zip(action).map(|(matches, action)| Rule { family, priority, matches, action });
    Some(Known { family, priority, protocol, mark, rule })
}

/// All rules of all families.
pub fn list() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetRule(RuleMessage::default())
}

/// Adds a rule behind those of the same priority.
pub fn add(rule: &Rule, protocol: u8) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewRule(base(rule, protocol))
}

/// Deletes the first rule that this one's fields fit: see `steps` for where that is not the one meant.
pub fn delete(rule: &Rule, protocol: u8) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelRule(base(rule, protocol))
}

fn base(rule: &Rule, protocol: u8) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family_number(rule.family).into();
    message.attributes.push(RuleAttribute::Priority(rule.priority));
    message.attributes.push(RuleAttribute::Protocol(protocol.into()));
    message.header.action = match rule.action {
        Action::Lookup(table) => {
            message.attributes.push(RuleAttribute::Table(table));
            RuleAction::ToTable
        }
        Action::Unreachable => RuleAction::Unreachable,
        Action::Goto(priority) => {
            message.attributes.push(RuleAttribute::Goto(priority));
            RuleAction::Goto
        }
        Action::Nop => RuleAction::Nop,
    };
    match &rule.matches {
        Match::Mark { value, mask } | Match::NotMark { value, mask } => {
            message.attributes.push(RuleAttribute::FwMark(*value));
            message.attributes.push(RuleAttribute::FwMask(*mask));
        }
        Match::Input(device) => message.attributes.push(RuleAttribute::Iifname(device.clone())),
        Match::From(ip) => {
            message.header.src_len = Family::of(*ip).bits();
            message.attributes.push(RuleAttribute::Source(*ip));
        }
    }
    if matches!(rule.matches, Match::NotMark { .. }) {
        message.header.flags = RuleFlags::Invert;
    }
    message
}
