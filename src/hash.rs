//! A hash that never changes between releases, machines or processes.
//!
//! In: bytes. Out: a number that may be written down. Never: security; anyone can make two texts collide.

/// FNV-1a, 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>).
pub fn stable(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

/// The same folded to 32 bits, and never 0, so that 0 can mean "none".
pub fn stable32(bytes: &[u8]) -> u32 {
    let hash = stable(bytes);
    #[allow(clippy::cast_possible_truncation, reason = "folding is the point")]
    let folded = (hash ^ (hash >> 32)) as u32;
    folded.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vectors_hold() {
        assert_eq!(stable(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(stable(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
