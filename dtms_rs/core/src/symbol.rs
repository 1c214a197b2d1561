//! Trading rules of a symbol, and the exact way between its doubles and integers.
use std::ops::{Add, AddAssign, Mul, Neg, Sub, SubAssign};

use crate::error::{CoreError, Result};
use crate::event::SymbolSpec;
use crate::message::{Field, Malformed, Reader, Writer};

macro_rules! quantity {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub i64);

        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0 + other.0)
            }
        }
        impl Sub for $name {
            type Output = Self;
            fn sub(self, other: Self) -> Self {
                Self(self.0 - other.0)
            }
        }
        impl Neg for $name {
            type Output = Self;
            fn neg(self) -> Self {
                Self(-self.0)
            }
        }
        impl Mul<i64> for $name {
            type Output = Self;
            fn mul(self, factor: i64) -> Self {
                Self(self.0 * factor)
            }
        }
        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                self.0 += other.0;
            }
        }
        impl SubAssign for $name {
            fn sub_assign(&mut self, other: Self) {
                self.0 -= other.0;
            }
        }
        impl Field for $name {
            fn kind() -> String {
                stringify!($name).to_owned()
            }
            fn write(&self, name: &'static str, to: &mut impl Writer) {
                to.int(name, self.0);
            }
            fn read(name: &'static str, from: &mut impl Reader) -> std::result::Result<Self, Malformed> {
                from.int(name).map(Self)
            }
        }
    };
}

quantity! {
    /// A price or price distance in points of its symbol.
    Points
}
quantity! {
    /// A volume in volume steps of its symbol.
    Steps
}

/// Greatest price and volume in units: products of the two stay far inside of i128, sums of i64.
const MOST_UNITS: f64 = 1e12;
/// How far, in units, a client's number may lie off the grid: doubles carry 15 digits.
const OFF_GRID: f64 = 1e-6;
const MOST_DIGITS: u32 = 10;

/// One integer unit as a double: a decimal fraction where it is one, so that conversion back is
/// the correctly rounded decimal.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Unit {
    Fraction { per_one: f64 },
    Multiple { size: f64 },
}

impl Unit {
    fn of(size: f64) -> Self {
        let per_one = (1.0 / size).round();
        if per_one >= 1.0 && (per_one * size - 1.0).abs() < 1e-9 {
            Self::Fraction { per_one }
        } else {
            Self::Multiple { size }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "units stay below 2^53")]
    fn value(self, units: i64) -> f64 {
        match self {
            Self::Fraction { per_one } => units as f64 / per_one,
            Self::Multiple { size } => units as f64 * size,
        }
    }

    fn raw(self, value: f64) -> f64 {
        match self {
            Self::Fraction { per_one } => value * per_one,
            Self::Multiple { size } => value / size,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "bounded by MOST_UNITS")]
    fn nearest(self, value: f64) -> Option<i64> {
        let units = self.raw(value).round();
        (units.is_finite() && units.abs() <= MOST_UNITS).then_some(units as i64)
    }

    fn exact(self, value: f64) -> Option<i64> {
        let units = self.nearest(value)?;
        // Far from zero a double cannot be nearer to the grid than its own precision.
        let tolerance = OFF_GRID.max(self.raw(value).abs() * 4.0 * f64::EPSILON);
        ((self.raw(value) - self.raw(value).round()).abs() <= tolerance).then_some(units)
    }
}

/// A symbol's rules in integers.
#[derive(Clone, Debug, PartialEq)]
pub struct Symbol {
    spec: SymbolSpec,
    price_unit: Unit,
    volume_unit: Unit,
    /// Prices are multiples of it.
    pub tick: Points,
    pub volume_min: Steps,
    pub volume_max: Steps,
    /// Least distance of a level to the price.
    pub stops_level: Points,
    /// Inside of it nothing can be modified.
    pub freeze_level: Points,
}

impl Symbol {
    /// # Errors
    /// `FIELD_INVALID` names what is not finite, not positive or does not fit the others.
    pub fn try_new(spec: SymbolSpec) -> Result<Self> {
        if spec.symbol.is_empty() {
            return Err(CoreError::field("symbol", "is empty"));
        }
        if spec.digits > MOST_DIGITS {
            return Err(CoreError::field("digits", "is more than 10"));
        }
        for (field, value) in [
            ("point", spec.point),
            ("tick_size", spec.tick_size),
            ("contract_size", spec.contract_size),
            ("volume_min", spec.volume_min),
            ("volume_max", spec.volume_max),
            ("volume_step", spec.volume_step),
            ("vwap_slope_threshold", spec.vwap_slope_threshold),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(CoreError::field(field, "is not a positive number"));
            }
        }
        for (field, level) in [
            ("stops_level", spec.stops_level),
            ("freeze_level", spec.freeze_level),
        ] {
            if !(0..=1_000_000_000).contains(&level) {
                return Err(CoreError::field(field, "is negative or beyond 10^9 points"));
            }
        }
        let price_unit = Unit::of(spec.point);
        let volume_unit = Unit::of(spec.volume_step);
        let units = |unit: Unit, field: &str, value: f64| {
            unit.exact(value)
                .filter(|units| *units > 0)
                .ok_or_else(|| CoreError::field(field, "is no multiple of its unit"))
        };
        let tick = Points(units(price_unit, "tick_size", spec.tick_size)?);
        let volume_min = Steps(units(volume_unit, "volume_min", spec.volume_min)?);
        let volume_max = Steps(units(volume_unit, "volume_max", spec.volume_max)?);
        if volume_max < volume_min {
            return Err(CoreError::field("volume_max", "is below volume_min"));
        }
        let (stops_level, freeze_level) = (Points(spec.stops_level), Points(spec.freeze_level));
        Ok(Self {
            spec,
            price_unit,
            volume_unit,
            tick,
            volume_min,
            volume_max,
            stops_level,
            freeze_level,
        })
    }

    #[must_use]
    pub const fn spec(&self) -> &SymbolSpec {
        &self.spec
    }

    /// Whether integers of `self` mean the same under `other`.
    #[must_use]
    pub fn has_units_of(&self, other: &Self) -> bool {
        self.price_unit == other.price_unit && self.volume_unit == other.volume_unit
    }

    #[must_use]
    pub fn price(&self, points: Points) -> f64 {
        self.price_unit.value(points.0)
    }

    #[must_use]
    pub fn volume(&self, steps: Steps) -> f64 {
        self.volume_unit.value(steps.0)
    }

    /// A positive price of a client, on the grid of points.
    ///
    /// # Errors
    /// `FIELD_INVALID` names `field`.
    pub fn exact_price(&self, field: &str, price: f64) -> Result<Points> {
        if !(price.is_finite() && price > 0.0) {
            return Err(CoreError::field(field, "is not a positive price"));
        }
        self.price_unit
            .exact(price)
            .filter(|points| *points > 0)
            .map(Points)
            .ok_or_else(|| CoreError::field(field, "is not on the symbol's points"))
    }

    /// A positive price of the broker or the market, to the nearest point.
    ///
    /// # Errors
    /// `FIELD_INVALID` names `field`.
    pub fn nearest_price(&self, field: &str, price: f64) -> Result<Points> {
        if !(price.is_finite() && price > 0.0) {
            return Err(CoreError::field(field, "is not a positive price"));
        }
        self.price_unit
            .nearest(price)
            .filter(|points| *points > 0)
            .map(Points)
            .ok_or_else(|| CoreError::field(field, "is out of range"))
    }

    /// A price distance to the nearest point, at least one.
    #[must_use]
    pub fn distance(&self, distance: f64) -> Option<Points> {
        self.price_unit
            .nearest(distance)
            .map(|points| Points(points.max(1)))
    }

    /// A positive volume on the symbol's steps.
    ///
    /// # Errors
    /// `FIELD_INVALID` names `field`.
    pub fn exact_volume(&self, field: &str, volume: f64) -> Result<Steps> {
        if !(volume.is_finite() && volume > 0.0) {
            return Err(CoreError::field(field, "is not a positive volume"));
        }
        self.volume_unit
            .exact(volume)
            .filter(|steps| *steps > 0)
            .map(Steps)
            .ok_or_else(|| CoreError::field(field, "is not on the symbol's volume step"))
    }

    /// The greatest multiple of the tick size that is at most `level`. In the oriented prices of
    /// [`crate::plan`] this rounds a stop away from the price, for both sides.
    #[must_use]
    pub const fn tick_at_most(&self, level: Points) -> Points {
        Points(level.0.div_euclid(self.tick.0) * self.tick.0)
    }

    #[must_use]
    pub const fn tick_at_least(&self, level: Points) -> Points {
        Points(-((-level.0).div_euclid(self.tick.0) * self.tick.0))
    }

    #[must_use]
    pub const fn is_on_tick(&self, level: Points) -> bool {
        level.0.rem_euclid(self.tick.0) == 0
    }
}

/// `factor` times `units`, to the next integer above; how R and ATR multiples become distances.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "units are bounded by MOST_UNITS, factors by the configuration"
)]
pub fn scaled_up(factor: f64, units: i64) -> i64 {
    (factor * units as f64 - 1e-9).ceil() as i64
}

/// `factor` times `units`, to the next integer below; how volumes are split.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "units are bounded by MOST_UNITS, factors by the configuration"
)]
pub fn scaled_down(factor: f64, units: i64) -> i64 {
    (factor * units as f64 + 1e-9).floor() as i64
}
