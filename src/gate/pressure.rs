//! How long a gate pauses while the partition's owner takes no pushes.
//!
//! Invariant: pauses double from the first to the longest and end with the first push that is taken; what was not
//! pushed is in kv, so pausing keeps the owner near and loses nothing.

/// The state of one partition's push route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pressure {
    first_ms: u64,
    most_ms: u64,
    pause_ms: u64,
    /// Pushes that were not taken, for the report.
    dropped: u64,
}

impl Pressure {
    pub fn new(first_ms: u64, most_ms: u64) -> Self {
        Self { first_ms, most_ms, pause_ms: 0, dropped: 0 }
    }

    pub fn taken(&mut self) {
        self.pause_ms = 0;
    }

    pub fn refused(&mut self) {
        self.dropped += 1;
        self.pause_ms = (self.pause_ms * 2).clamp(self.first_ms, self.most_ms);
    }

    /// How long to wait before more is read from mq.
    pub fn pause_ms(&self) -> u64 {
        self.pause_ms
    }

    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_pushes_are_refused_and_end_with_the_first_taken() {
        let mut pressure = Pressure::new(5, 18);
        let pauses = [(); 4].map(|()| {
            pressure.refused();
            pressure.pause_ms()
        });
        assert_eq!((pauses, pressure.dropped()), ([5, 10, 18, 18], 4));
        pressure.taken();
        assert_eq!(pressure.pause_ms(), 0);
    }
}
