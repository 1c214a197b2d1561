//! Wilder's smoothing, shared by ATR and RSI.

/// Wilder's moving average: `(previous * (period - 1) + value) / period`, seeded by the mean of the
/// first `period` values.
#[derive(Clone, Debug)]
pub struct Wilder {
    period: u32,
    seen: u32,
    value: f64,
}

impl Wilder {
    #[must_use]
    pub fn new(period: u32) -> Self {
        Self {
            period: period.max(1),
            seen: 0,
            value: 0.0,
        }
    }

    /// `None` for the first `period - 1` values.
    pub fn update(&mut self, value: f64) -> Option<f64> {
        let period = f64::from(self.period);
        if self.seen == self.period {
            self.value = (self.value * (period - 1.0) + value) / period;
            return Some(self.value);
        }
        self.seen += 1;
        self.value += value;
        if self.seen < self.period {
            return None;
        }
        self.value /= period;
        Some(self.value)
    }
}
