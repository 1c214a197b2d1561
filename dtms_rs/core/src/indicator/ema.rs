//! Exponential moving average.

/// Exponential moving average of weight `2 / (period + 1)`, seeded by the mean of the first
/// `period` values (TA-Lib `EMA`). Same unit as its input.
#[derive(Clone, Debug)]
pub struct Ema {
    period: u32,
    weight: f64,
    seen: u32,
    value: f64,
}

impl Ema {
    #[must_use]
    pub fn new(period: u32) -> Self {
        let period = period.max(1);
        Self {
            period,
            weight: 2.0 / (f64::from(period) + 1.0),
            seen: 0,
            value: 0.0,
        }
    }

    /// `None` for the first `period - 1` values.
    pub fn update(&mut self, value: f64) -> Option<f64> {
        if self.seen == self.period {
            self.value += (value - self.value) * self.weight;
            return Some(self.value);
        }
        self.seen += 1;
        self.value += value;
        if self.seen < self.period {
            return None;
        }
        self.value /= f64::from(self.period);
        Some(self.value)
    }
}
