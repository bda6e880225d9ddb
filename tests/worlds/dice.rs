//! Chance that a number repeats: the same seed gives the same throws on every machine.

/// A stream of throws.
pub(crate) struct Dice(u64);

impl Dice {
    /// Seeds that lie side by side give streams that do not (SplitMix64's finalizer).
    pub(crate) fn of(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `n - 1`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    /// Whether it happens, in so many of a hundred cases.
    pub(crate) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of several.
    pub(crate) fn pick<T: Clone>(&mut self, these: &[T]) -> T {
        these[self.below(these.len())].clone()
    }

    /// Each of several with this chance, in their order; at least one.
    pub(crate) fn some<T: Clone>(&mut self, these: &[T], percent: usize) -> Vec<T> {
        let mut some: Vec<T> = these.iter().filter(|_| self.percent(percent)).cloned().collect();
        if some.is_empty() {
            some.push(self.pick(these));
        }
        some
    }
}
