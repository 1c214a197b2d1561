//! Moving average convergence/divergence.
use super::Ema;

/// All three in the unit of the input; `histogram = macd - signal`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MacdValue {
    pub macd: f64,
    pub signal: f64,
    pub histogram: f64,
}

/// MACD as TA-Lib's `MACD`: the fast average starts late, so that both averages have their seed on
/// the same value, and the first value comes with value `slow + signal - 1`. `fast <= slow`.
#[derive(Clone, Debug)]
pub struct Macd {
    fast: Ema,
    slow: Ema,
    signal: Ema,
    head_start: u32,
}

impl Macd {
    #[must_use]
    pub fn new(fast: u32, slow: u32, signal: u32) -> Self {
        Self {
            fast: Ema::new(fast),
            slow: Ema::new(slow),
            signal: Ema::new(signal),
            head_start: slow.saturating_sub(fast),
        }
    }

    pub fn update(&mut self, value: f64) -> Option<MacdValue> {
        let slow = self.slow.update(value);
        if self.head_start > 0 {
            self.head_start -= 1;
            return None;
        }
        let macd = self.fast.update(value)? - slow?;
        let signal = self.signal.update(macd)?;
        Some(MacdValue {
            macd,
            signal,
            histogram: macd - signal,
        })
    }
}
