//! A small seeded generator (SplitMix64): the same seed gives the same test, on every platform.
//!
//! Invariant: nothing random is used that is not drawn from here.

/// The seeds of a test: those given, or the one in `HOLDFAST_SEED`, to play a failure again.
pub fn seeds(usual: &[u64]) -> Vec<u64> {
    match std::env::var("HOLDFAST_SEED") {
        Ok(text) => vec![text.parse().expect("HOLDFAST_SEED is a number")],
        Err(_) => usual.to_vec(),
    }
}

#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Between `from` and `to`, both included.
    pub fn between(&mut self, from: i64, to: i64) -> i64 {
        assert!(from <= to);
        let width = to.abs_diff(from) + 1;
        from + (self.next() % width) as i64
    }

    pub fn index(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    pub fn pick<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        &values[self.index(values.len())]
    }

    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            values.swap(last, self.index(last + 1));
        }
    }
}
