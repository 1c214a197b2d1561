//! The regime of a market, and what it does to weights and thresholds.
use super::score::Parts;

const DAY_S: i64 = 86_400;
const HOUR_S: i64 = 3_600;
/// ATR relative to its own mean below which volatility is low, above which it is high.
const LOW_ATR: f64 = 0.7;
const HIGH_ATR: f64 = 1.3;
/// Relative width of Bollinger(20, 2) below which the market ranges.
const RANGE_WIDTH: f64 = 0.004;
const LEAST_MULTIPLIER: f64 = 0.5;
const GREATEST_MULTIPLIER: f64 = 1.8;

/// Trading session by the hour, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// 0 to 8.
    Asian,
    /// 8 to 13.
    London,
    /// 13 to 16, London and New York.
    Overlap,
    /// 16 to 21.
    NewYork,
    /// 21 to 24.
    Off,
}

/// ATR(14, slow) against its mean over the last 50 slow bars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volatility {
    Low,
    Normal,
    High,
}

/// Bollinger(20, 2, slow) width: narrow is a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegimeStructure {
    Range,
    Trend,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Regime {
    pub session: Session,
    pub volatility: Volatility,
    pub structure: RegimeStructure,
}

impl Session {
    #[must_use]
    pub fn at(time_s: i64) -> Self {
        match time_s.rem_euclid(DAY_S) / HOUR_S {
            0..8 => Self::Asian,
            8..13 => Self::London,
            13..16 => Self::Overlap,
            16..21 => Self::NewYork,
            _ => Self::Off,
        }
    }

    /// 1.. in the order written; 0 is the wire's UNSPECIFIED.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Asian => 1,
            Self::London => 2,
            Self::Overlap => 3,
            Self::NewYork => 4,
            Self::Off => 5,
        }
    }
}

impl Volatility {
    /// `mean` is the mean of the ATRs themselves. A market that does not move at all (`mean` 0) is
    /// normal.
    #[must_use]
    pub fn of(atr: f64, mean: f64) -> Self {
        if atr < LOW_ATR * mean {
            Self::Low
        } else if atr > HIGH_ATR * mean {
            Self::High
        } else {
            Self::Normal
        }
    }

    /// 1.. in the order written; 0 is the wire's UNSPECIFIED.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Low => 1,
            Self::Normal => 2,
            Self::High => 3,
        }
    }
}

impl RegimeStructure {
    /// `width`: distance of the bands relative to their mean.
    #[must_use]
    pub fn of(width: f64) -> Self {
        if width < RANGE_WIDTH {
            Self::Range
        } else {
            Self::Trend
        }
    }

    /// 1.. in the order written; 0 is the wire's UNSPECIFIED.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Range => 1,
            Self::Trend => 2,
        }
    }
}

impl Regime {
    /// What the score thresholds are multiplied with, 0.5..=1.8.
    #[must_use]
    pub fn multiplier(self) -> f64 {
        let session: f64 = match self.session {
            Session::Asian => 1.5,
            Session::London | Session::Off => 1.0,
            Session::NewYork => 0.8,
            Session::Overlap => 0.7,
        };
        let volatility = match self.volatility {
            Volatility::Low => 1.4,
            Volatility::Normal => 1.0,
            Volatility::High => 0.8,
        };
        let structure = match self.structure {
            RegimeStructure::Range => 1.3,
            RegimeStructure::Trend => 1.0,
        };
        (session * volatility * structure).clamp(LEAST_MULTIPLIER, GREATEST_MULTIPLIER)
    }

    /// Weight of each signal: the products of what session, volatility and structure say.
    #[must_use]
    pub fn weights(self) -> Parts {
        let session = match self.session {
            Session::Asian => Parts::all(0.8),
            Session::London | Session::Overlap | Session::NewYork | Session::Off => Parts::all(1.0),
        };
        let volatility = match self.volatility {
            Volatility::High => Parts {
                structure: 1.2,
                vwap_volume: 0.9,
                momentum: 0.8,
                ema_alignment: 1.0,
                delta_pressure: 1.1,
                candle_conviction: 0.9,
            },
            Volatility::Low | Volatility::Normal => Parts::all(1.0),
        };
        let structure = match self.structure {
            RegimeStructure::Range => Parts {
                structure: 0.7,
                vwap_volume: 1.3,
                momentum: 1.0,
                ema_alignment: 0.8,
                delta_pressure: 1.2,
                candle_conviction: 1.1,
            },
            RegimeStructure::Trend => Parts::all(1.0),
        };
        session.times(volatility).times(structure)
    }
}
