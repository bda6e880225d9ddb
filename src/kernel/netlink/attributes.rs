//! Netlink attributes (type, length, value) read from bytes, and written where no typed message exists.
//!
//! In and out: bytes. A value of the wrong length reads as absent; nothing here panics or allocates for what is skipped.

use std::net::IpAddr;

use crate::addr::{Family, Mac};

/// Flag bits in the type: nested, network byte order.
const TYPE_MASK: u16 = 0x3fff;

/// One attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Type without its flag bits.
    pub kind: u16,
    /// Value without padding.
    pub value: &'a [u8],
}

/// The attributes in order; ends at the first one that does not fit.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Attribute { kind, value })
    })
}

/// The attributes behind a fixed header of this many bytes.
pub fn behind(payload: &[u8], header: usize) -> impl Iterator<Item = Attribute<'_>> {
    attributes(payload.get(header..).unwrap_or(&[]))
}

/// A number in the machine's byte order.
pub fn u32_of(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.get(..4)?.try_into().ok()?))
}

/// A number in the machine's byte order.
pub fn u16_of(value: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(value.get(..2)?.try_into().ok()?))
}

/// A zero-terminated string; what is no UTF-8 is replaced.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// An address of either family, by its length.
pub fn ip_of(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
        _ => None,
    }
}

/// A link-layer address of six bytes.
pub fn mac_of(value: &[u8]) -> Option<Mac> {
    Some(Mac(value.try_into().ok()?))
}

/// The family behind an `AF_` number.
pub fn family_of(number: u8) -> Option<Family> {
    match i32::from(number) {
        libc::AF_INET => Some(Family::V4),
        libc::AF_INET6 => Some(Family::V6),
        _ => None,
    }
}

/// The `AF_` number of a family.
pub fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// Writes one attribute with its padding.
pub fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// An address as bytes in network order.
pub fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_read_back() {
        let mut bytes = Vec::new();
        put(&mut bytes, 3, b"eth0\0");
        put(&mut bytes, 5, &7u32.to_ne_bytes());
        let read: Vec<_> = attributes(&bytes).collect();
        assert_eq!((read[0].kind, text(read[0].value)), (3, "eth0".to_owned()));
        assert_eq!((read[1].kind, u32_of(read[1].value)), (5, Some(7)));
    }

    #[test]
    fn a_length_past_the_end_and_one_below_four_end_the_list() {
        assert_eq!(attributes(&[99, 0, 1, 0, 1]).count(), 0);
        assert_eq!(attributes(&[2, 0, 1, 0, 1, 1, 1, 1]).count(), 0);
        assert_eq!(attributes(&[]).count(), 0);
    }
}
