//! What an address is: families, prefixes, MAC addresses.
//!
//! In: text from users and bytes from the kernel. Out: values that are right from then on (a [`Cidr`] is masked).
//! Never: opinions about what an address is used for.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// IPv4 or IPv6. Everything that differs between them is a method here, so that code has one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address.
    pub fn of(ip: IpAddr) -> Family {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// Address length in bits: 32 or 128.
    pub fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    /// The prefix that holds every address of the family.
    pub fn everything(self) -> Cidr {
        Cidr::covering(address_from_bits(self, 0), 0)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// An address as a number, for arithmetic. The inverse of [`address_from_bits`].
pub fn address_bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// The address with this number. Bits above the family's length are cut off.
pub fn address_from_bits(family: Family, bits: u128) -> IpAddr {
    match family {
        #[allow(clippy::cast_possible_truncation, reason = "an IPv4 address is the low 32 bits")]
        Family::V4 => Ipv4Addr::from_bits(bits as u32).into(),
        Family::V6 => Ipv6Addr::from_bits(bits).into(),
    }
}

/// A masked prefix: `10.10.10.0/31`, never `10.10.10.1/31`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr(IpNetwork);

impl Cidr {
    /// The prefix of this length around an address; host bits are cleared.
    ///
    /// A length past the family's is taken as the family's.
    pub fn covering(ip: IpAddr, prefix: u8) -> Cidr {
        let family = Family::of(ip);
        let prefix = prefix.min(family.bits());
        let bits = address_bits(ip) & mask(family, prefix);
        match IpNetwork::new(address_from_bits(family, bits), prefix) {
            Ok(net) => Cidr(net),
            Err(_) => unreachable!("the prefix length was limited to the family's"),
        }
    }

    /// The prefix that holds one address alone.
    pub fn host(ip: IpAddr) -> Cidr {
        Cidr::covering(ip, Family::of(ip).bits())
    }

    /// Address family.
    pub fn family(self) -> Family {
        Family::of(self.0.ip())
    }

    /// Prefix length in bits.
    pub fn prefix(self) -> u8 {
        self.0.prefix()
    }

    /// Lowest address.
    pub fn first(self) -> IpAddr {
        self.0.ip()
    }

    /// Highest address.
    pub fn last(self) -> IpAddr {
        let host = !mask(self.family(), self.prefix());
        let host = if self.family() == Family::V4 { host & u128::from(u32::MAX) } else { host };
        address_from_bits(self.family(), address_bits(self.first()) | host)
    }

    /// How many addresses it holds; `u128::MAX` for `::/0`, which holds one more.
    pub fn size(self) -> u128 {
        1u128.checked_shl(u32::from(self.family().bits() - self.prefix())).unwrap_or(u128::MAX)
    }

    /// The address at this offset, if it lies inside.
    pub fn nth(self, offset: u128) -> Option<IpAddr> {
        (offset < self.size()).then(|| address_from_bits(self.family(), address_bits(self.first()) + offset))
    }

    /// Whether the address lies inside; an address of the other family never does.
    pub fn contains(self, ip: IpAddr) -> bool {
        self.family() == Family::of(ip)
            && address_bits(ip) & mask(self.family(), self.prefix()) == address_bits(self.first())
    }

    /// Whether the whole other prefix lies inside.
    pub fn covers(self, other: Cidr) -> bool {
        self.prefix() <= other.prefix() && self.contains(other.first())
    }

    /// Whether any address lies in both.
    pub fn overlaps(self, other: Cidr) -> bool {
        self.covers(other) || other.covers(self)
    }
}

fn mask(family: Family, prefix: u8) -> u128 {
    let all = match family {
        Family::V4 => u128::from(u32::MAX),
        Family::V6 => u128::MAX,
    };
    let host = u32::from(family.bits() - prefix);
    all & u128::MAX.checked_shl(host).unwrap_or(0)
}

/// Why a text is no prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Not an address with a prefix length.
    #[error("`{0}` is not an address prefix such as 10.10.10.0/31 or fd00:10::/127")]
    Syntax(String),
    /// Bits below the prefix length are set.
    #[error("`{0}` has bits set below its prefix length; did you mean {1}?")]
    HostBits(String, Cidr),
}

impl FromStr for Cidr {
    type Err = CidrError;

    /// Reads `ADDRESS/LENGTH`; a bare address is the prefix that holds it alone.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || CidrError::Syntax(text.to_owned());
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Cidr::host(ip));
        }
        let (ip, prefix) = text.split_once('/').ok_or_else(syntax)?;
        let ip: IpAddr = ip.parse().map_err(|_| syntax())?;
        let prefix: u8 = prefix.parse().map_err(|_| syntax())?;
        if prefix > Family::of(ip).bits() {
            return Err(syntax());
        }
        let masked = Cidr::covering(ip, prefix);
        if masked.first() != ip {
            return Err(CidrError::HostBits(text.to_owned(), masked));
        }
        Ok(masked)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first(), self.prefix())
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A link-layer address of six bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In one piece: six numbers through the formatter were a thirtieth of what a client's ADD computes, which writes a plan.
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b':'; 17];
        for (pair, byte) in text.chunks_mut(3).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes: Option<Vec<u8>> = text.split(':').map(|b| u8::from_str_radix(b, 16).ok()).collect();
        let bytes = bytes.and_then(|b| <[u8; 6]>::try_from(b).ok());
        bytes.map(Mac).ok_or_else(|| format!("`{text}` is not a MAC address such as 02:67:0a:0a:0a:00"))
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_with_host_bits_is_refused_and_the_right_one_named() {
        let error = "10.10.10.1/31".parse::<Cidr>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`10.10.10.1/31` has bits set below its prefix length; did you mean 10.10.10.0/31?"
        );
        assert!("10.10.10.0/33".parse::<Cidr>().is_err());
        assert!("ten/8".parse::<Cidr>().is_err());
    }

    #[test]
    fn ends_and_sizes_are_right_in_both_families() {
        let v4: Cidr = "10.10.10.0/31".parse().unwrap();
        assert_eq!((v4.last().to_string(), v4.size()), ("10.10.10.1".to_owned(), 2));
        let v6: Cidr = "fd00::/127".parse().unwrap();
        assert_eq!((v6.last().to_string(), v6.size()), ("fd00::1".to_owned(), 2));
        assert_eq!(Family::V4.everything().last().to_string(), "255.255.255.255");
        assert_eq!(Family::V6.everything().size(), u128::MAX);
        assert!(Family::V6.everything().contains("::1".parse().unwrap()));
        assert!(!Family::V4.everything().contains("::1".parse().unwrap()));
    }
}
