//! Bollinger bands.
use super::Window;

/// One value of the bands: the upper band is `mean * (1 + width / 2)`, the lower one `mean * (1 -
/// width / 2)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Band {
    /// Simple mean, in the unit of the input.
    pub mean: f64,
    /// Distance of the two bands relative to the mean, without unit.
    pub width: f64,
}

/// Bollinger bands with the population deviation (TA-Lib `BBANDS`). The deviation is taken around
/// the mean in a second pass: the usual `E[x^2] - E[x]^2` cancels to nothing at prices like 1.38
/// that move by 0.0001.
#[derive(Clone, Debug)]
pub struct Bollinger {
    window: Window,
    period: f64,
    deviations: f64,
}

impl Bollinger {
    /// `deviations`: standard deviations between the mean and each band.
    #[must_use]
    pub fn new(period: u32, deviations: f64) -> Self {
        let period = period.max(1);
        Self {
            window: Window::new(period as usize),
            period: f64::from(period),
            deviations,
        }
    }

    /// `None` for the first `period - 1` values.
    pub fn update(&mut self, value: f64) -> Option<Band> {
        self.window.push(value);
        if !self.window.is_full() {
            return None;
        }
        let mean = self.window.sum() / self.period;
        let variance = self
            .window
            .iter()
            .map(|value| (value - mean) * (value - mean))
            .sum::<f64>()
            / self.period;
        Some(Band {
            mean,
            width: 2.0 * self.deviations * variance.sqrt() / mean,
        })
    }
}
