//! Average true range.
use super::Wilder;

/// Average true range by Wilder (TA-Lib `ATR`), in price units. The first bar only gives the
/// previous close, so the first value comes with bar `period + 1`.
#[derive(Clone, Debug)]
pub struct Atr {
    previous_close: Option<f64>,
    mean: Wilder,
}

impl Atr {
    #[must_use]
    pub fn new(period: u32) -> Self {
        Self {
            previous_close: None,
            mean: Wilder::new(period),
        }
    }

    pub fn update(&mut self, high: f64, low: f64, close: f64) -> Option<f64> {
        let previous = self.previous_close.replace(close)?;
        let true_range = (high - low)
            .max((high - previous).abs())
            .max((low - previous).abs());
        self.mean.update(true_range)
    }
}
