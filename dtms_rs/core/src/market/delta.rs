//! Pressure in the tick flow.

/// Span of the exponential weights: about the last hundred ticks, one to two minutes of a liquid
/// symbol.
const SPAN_TICKS: f64 = 100.0;
const DECAY: f64 = 1.0 - 2.0 / (SPAN_TICKS + 1.0);
/// Below this many price changes a z-score says nothing.
const LEAST_TICKS: u32 = 30;
/// z at which the pressure is full.
const FULL_Z: f64 = 3.0;

/// Signed tick volume (sign of the change of the mid price), exponentially weighted, as a z-score
/// against "both signs are equally likely".
///
/// With weights w and signed volumes x the z-score is `sum(w x) / sqrt(E[x^2] * sum(w^2))`, where
/// `E[x^2] = sum(w x^2) / sum(w)`. All four sums decay, so errors in them do too.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    previous: Option<(i64, f64)>,
    seen: u32,
    flow: f64,
    power: f64,
    weight: f64,
    weight_squared: f64,
}

impl Delta {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a tick; one older than the last is ignored, because a change backwards in time has no
    /// sign.
    pub fn update(&mut self, time_msc: i64, bid: f64, ask: f64, volume: f64) {
        let twice_mid = bid + ask;
        let Some((last_msc, last)) = self.previous else {
            self.previous = Some((time_msc, twice_mid));
            return;
        };
        if time_msc < last_msc {
            return;
        }
        self.previous = Some((time_msc, twice_mid));
        let signed = if twice_mid > last {
            volume
        } else if twice_mid < last {
            -volume
        } else {
            0.0
        };
        self.seen = self.seen.saturating_add(1);
        self.flow = self.flow * DECAY + signed;
        self.power = self.power * DECAY + signed * signed;
        self.weight = self.weight * DECAY + 1.0;
        self.weight_squared = self.weight_squared * DECAY * DECAY + 1.0;
    }

    /// `clamp(z / 3, -1, 1)`; 0 until 30 changes were seen.
    #[must_use]
    pub fn pressure(&self) -> f64 {
        let noise = (self.power / self.weight * self.weight_squared).sqrt();
        if self.seen < LEAST_TICKS || noise <= 0.0 {
            return 0.0;
        }
        (self.flow / noise / FULL_Z).clamp(-1.0, 1.0)
    }
}
