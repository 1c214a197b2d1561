//! The six signals as pure functions, and their sum. + is bullish throughout.
use std::ops::Neg;

use super::bars::Bar;

/// Greatest absolute total: the sum of the six ranges.
pub const GREATEST_TOTAL: f64 = 10.5;

/// Slow bars that a break counts as fresh, its own included.
const FRESH_BARS: u32 = 3;
/// RSI 55 and 45, on the scale of [`crate::indicator::Rsi::balance`].
const RSI_BALANCE: f64 = 0.1;
/// Change of the MACD histogram from bar to bar, in ATR, below which it is flat.
const HISTOGRAM_DEADBAND_ATR: f64 = 0.01;
/// An average slopes when the price has kept at least this many ATR away from it over the bars of
/// the slope.
const EMA_DEADBAND_ATR: f64 = 0.5;
const CONVICTION_BODY: f64 = 0.65;
const CONVICTION_RANGE_ATR: f64 = 0.8;

/// One number per signal: the signals themselves, before weighting, or their weights.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Parts {
    /// +-3.
    pub structure: f64,
    /// +-2.
    pub vwap_volume: f64,
    /// +-2.
    pub momentum: f64,
    /// +-1.5.
    pub ema_alignment: f64,
    /// +-1.
    pub delta_pressure: f64,
    /// +-1.
    pub candle_conviction: f64,
}

impl Parts {
    #[must_use]
    pub const fn all(value: f64) -> Self {
        Self {
            structure: value,
            vwap_volume: value,
            momentum: value,
            ema_alignment: value,
            delta_pressure: value,
            candle_conviction: value,
        }
    }

    /// In the order of the table in domain.md.
    #[must_use]
    pub const fn values(self) -> [f64; 6] {
        [
            self.structure,
            self.vwap_volume,
            self.momentum,
            self.ema_alignment,
            self.delta_pressure,
            self.candle_conviction,
        ]
    }

    /// Signal by signal.
    #[must_use]
    pub fn times(self, other: Self) -> Self {
        Self {
            structure: self.structure * other.structure,
            vwap_volume: self.vwap_volume * other.vwap_volume,
            momentum: self.momentum * other.momentum,
            ema_alignment: self.ema_alignment * other.ema_alignment,
            delta_pressure: self.delta_pressure * other.delta_pressure,
            candle_conviction: self.candle_conviction * other.candle_conviction,
        }
    }
}

impl Neg for Parts {
    type Output = Self;

    /// The same signals as a SELL sees them.
    fn neg(self) -> Self {
        self.times(Self::all(-1.0))
    }
}

/// The weighted sum, -10.5..=10.5. The only place where weights are applied.
#[must_use]
pub fn total(parts: Parts, weights: Parts) -> f64 {
    let sum: f64 = parts.times(weights).values().iter().sum();
    sum.clamp(-GREATEST_TOTAL, GREATEST_TOTAL)
}

/// +-3 with the trend for three bars from a CHOCH, +-2 for three bars from a BOS, then +-1; the
/// greater one counts. Ages in closed slow bars since the break, 0 on the bar that made it. 0
/// before the first break.
#[must_use]
pub fn structure(trend: i8, choch_age: Option<u32>, bos_age: Option<u32>) -> f64 {
    let fresh = |age: Option<u32>| age.is_some_and(|age| age < FRESH_BARS);
    let strength = if fresh(choch_age) {
        3.0
    } else if fresh(bos_age) {
        2.0
    } else {
        1.0
    };
    f64::from(trend) * strength
}

/// Side of VWAP (`standing`, +-1), +-0.5 for VWAP's relative `slope` beyond `threshold`, +-0.5 for
/// the side that the volume leans to.
#[must_use]
pub fn vwap_volume(standing: f64, slope: Option<f64>, threshold: f64, lean: i8) -> f64 {
    standing + 0.5 * slope.map_or(0.0, |slope| beyond(slope, threshold)) + 0.5 * f64::from(lean)
}

/// What momentum reads from one slow close.
#[derive(Clone, Copy, Debug)]
pub struct Momentum {
    /// RSI as `RSI / 50 - 1`.
    pub balance: f64,
    /// MACD histogram, in price units.
    pub histogram: f64,
}

/// +-0.5 for RSI above 55 or below 45, +-0.5 for its change since the bar before, +-1 for the
/// change of the MACD histogram.
#[must_use]
pub fn momentum(before: Momentum, now: Momentum, atr: f64) -> f64 {
    0.5 * beyond(now.balance, RSI_BALANCE)
        + 0.5 * beyond(now.balance - before.balance, 0.0)
        + beyond(
            now.histogram - before.histogram,
            HISTOGRAM_DEADBAND_ATR * atr,
        )
}

/// Rise of an EMA over some bars.
#[derive(Clone, Copy, Debug)]
pub struct EmaRise {
    /// Price units.
    pub rise: f64,
    pub bars: u32,
    pub period: u32,
}

impl EmaRise {
    /// One bar moves an EMA by `2 / (period + 1)` of the price's distance to it: from that the
    /// deadband follows for every period.
    fn direction(self, atr: f64) -> f64 {
        let rise_per_distance = f64::from(self.bars) * 2.0 / (f64::from(self.period) + 1.0);
        beyond(self.rise, EMA_DEADBAND_ATR * atr * rise_per_distance)
    }
}

/// +-1.5 where the short and the long average slope alike, +-0.5 where only the short one slopes
/// (also while the long one is not warm), 0 where they contradict or the short one is flat.
#[must_use]
pub fn ema_alignment(short: EmaRise, long: Option<EmaRise>, atr: f64) -> f64 {
    let short = short.direction(atr);
    let long = long.map_or(0.0, |long| long.direction(atr));
    if short * long > 0.0 {
        1.5 * short
    } else if short * long < 0.0 {
        0.0
    } else {
        0.5 * short
    }
}

/// +-1 by the candle's own direction where its body is at least 0.65 of its range and its range at
/// least 0.8 ATR.
#[must_use]
pub fn candle_conviction(bar: &Bar, atr: f64) -> f64 {
    let convinced = bar.body().abs() >= CONVICTION_BODY * bar.range()
        && bar.range() >= CONVICTION_RANGE_ATR * atr;
    if convinced {
        beyond(bar.body(), 0.0)
    } else {
        0.0
    }
}

/// +1 above `deadband`, -1 below `-deadband`, else 0.
fn beyond(value: f64, deadband: f64) -> f64 {
    if value > deadband {
        1.0
    } else if value < -deadband {
        -1.0
    } else {
        0.0
    }
}
