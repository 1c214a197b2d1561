//! Relative strength index.
use super::Wilder;

/// Relative strength index by Wilder (TA-Lib `RSI`), 0..=100; the first value comes with value
/// `period + 1`.
///
/// Where nothing has moved at all the index is 50, the neutral value; TA-Lib says 0 there.
#[derive(Clone, Debug)]
pub struct Rsi {
    previous: Option<f64>,
    gain: Wilder,
    loss: Wilder,
    balance: Option<f64>,
}

impl Rsi {
    #[must_use]
    pub fn new(period: u32) -> Self {
        Self {
            previous: None,
            gain: Wilder::new(period),
            loss: Wilder::new(period),
            balance: None,
        }
    }

    pub fn update(&mut self, value: f64) -> Option<f64> {
        let change = value - self.previous.replace(value)?;
        let gain = self.gain.update(change.max(0.0));
        let loss = self.loss.update((-change).max(0.0));
        let (gain, loss) = gain.zip(loss)?;
        let moved = gain + loss;
        if moved > 0.0 {
            self.balance = Some((gain - loss) / moved);
            Some(100.0 * (gain / moved))
        } else {
            self.balance = Some(0.0);
            Some(50.0)
        }
    }

    /// `RSI / 50 - 1`, computed as `(gain - loss) / (gain + loss)`: -1..=1 and, unlike the index
    /// itself, exactly negated when the prices are mirrored.
    #[must_use]
    pub fn balance(&self) -> Option<f64> {
        self.balance
    }
}
