//! The engine's numbers. All of them are given: there is no default below the service.
use crate::error::{CoreError, Result};

macro_rules! config {
    ($($(#[$meta:meta])* $field:ident: $type:ident),+ $(,)?) => {
        /// Every number of the engine section of the service's configuration.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config { $($(#[$meta])* pub $field: config!(@type $type)),+ }

        impl Config {
            pub const KEYS: &'static [&'static str] = &[$(stringify!($field)),+];

            /// Takes the configuration from (key, number) pairs; a bool is 0 or 1.
            ///
            /// # Errors
            /// `FIELD_INVALID` names an unknown, missing, repeated or unusable key.
            pub fn try_new(pairs: &[(&str, f64)]) -> Result<Self> {
                for (index, (key, _)) in pairs.iter().enumerate() {
                    if !Self::KEYS.contains(key) {
                        return Err(CoreError::field(key, "is no key of the engine"));
                    }
                    if pairs.iter().skip(index + 1).any(|(other, _)| other == key) {
                        return Err(CoreError::field(key, "is given twice"));
                    }
                }
                let config = Self { $($field: config!(@take $type, stringify!($field), pairs)),+ };
                config.check()?;
                Ok(config)
            }

            /// Every key with its number, in order of definition; a bool is 0 or 1.
            #[must_use]
            pub fn numbers(&self) -> Vec<(&'static str, f64)> {
                vec![$((stringify!($field), config!(@give $type, self.$field))),+]
            }

            /// This configuration with what the journal says in place of its own. The journal may be of another version:
            /// keys that there are no more are passed over, those that there were not yet stay.
            ///
            /// # Errors
            /// `CORE_PANIC` for a number that its key never can have had.
            pub fn recorded(&self, pairs: &[(&str, f64)]) -> Result<Self> {
                let mut all = self.numbers();
                for (key, number) in &mut all {
                    if let Some((_, said)) = pairs.iter().find(|(said, _)| said == key) {
                        *number = *said;
                    }
                }
                let taken = || Ok(Self { $($field: config!(@take $type, stringify!($field), &all)),+ });
                taken().map_err(|error: CoreError| CoreError::bug(error.to_string()))
            }
        }
    };
    (@type real) => { f64 };
    (@type whole) => { i64 };
    (@type flag) => { bool };
    (@take real, $key:expr, $pairs:expr) => { real($key, $pairs)? };
    (@take whole, $key:expr, $pairs:expr) => { whole($key, $pairs)? };
    (@take flag, $key:expr, $pairs:expr) => { flag($key, $pairs)? };
    (@give real, $value:expr) => { $value };
    (@give whole, $value:expr) => { given($value) };
    (@give flag, $value:expr) => { f64::from(u8::from($value)) };
}

config! {
    /// HEALTHY to `WARNING_L1` at or below; all thresholds are scaled by the regime.
    warn1: real,
    /// `WARNING_L1` to HEALTHY at or above.
    warn1_recovered: real,
    /// `WARNING_L1` and RECOVERING to `WARNING_L2` at or below.
    warn2: real,
    /// `WARNING_L2` to `WARNING_L1` at or above.
    warn2_eased: real,
    /// `WARNING_L2` to HEDGED at or below.
    critical: real,
    /// RECOVERING to HEALTHY at or above, at the end of the recovery timer.
    recovery_confirmed: real,
    /// Distance of a tightened stop to the price, in R.
    tighten_r: real,
    /// A trade is armed at this gain, in R.
    arm_gain_r: real,
    /// A trade is armed at this loss, in R (negative).
    arm_loss_r: real,
    /// A trade is armed at this age.
    arm_after_s: whole,
    /// A better score must hold this long.
    hold_s: whole,
    /// Part of the volume that `WARNING_L2` closes.
    partial_fraction: real,
    /// Hedge volume relative to what is left.
    hedge_ratio: real,
    /// Distance of the hedge's stop, in ATR(slow).
    hedge_stop_atr: real,
    /// No new hedge for so many slow bars after one has ended: a market that whips takes no series of them.
    hedge_pause_slow_bars: whole,
    /// Hedges in the life of a trade; beyond, its stop protects it in `WARNING_L2`.
    max_hedges: whole,
    /// Length of the flat timer, in slow bars.
    flat_timer_slow_bars: whole,
    /// Length of the recovery timer, in slow bars.
    recovery_timer_slow_bars: whole,
    /// Part of the closed volume that is re-added after recovery.
    readd_fraction: real,
    /// Fast timeframe.
    fast_s: whole,
    /// Slow timeframe.
    slow_s: whole,
    /// Distance of a trailed stop to the swing, in ATR(slow).
    trail_buffer_atr: real,
    /// Lease of an owner other than DTMS.
    lease_ttl_ms: whole,
    /// Least time between two changes by the same manager.
    cooldown_ms: whole,
    /// Read by the service (broker door).
    deviation_points: whole,
    /// Read by the service (broker door).
    magic: whole,
    /// How often a requoted action is tried again.
    max_retries: whole,
    /// A price older than this is stale; 0: never.
    stale_after_s: whole,
    /// Answers kept for repeated request ids; the oldest is forgotten first.
    request_ids_kept: whole,
    /// Daily loss that blocks new risk, in percent of the equity at the beginning of the UTC day; 0: never.
    daily_loss_percent: real,
    /// As before, of the UTC hour.
    hourly_loss_percent: real,
    /// Losing stop-outs in a row that block new risk; 0: never.
    consecutive_stops: whole,
    /// A spread above so many medians blocks new risk; 0: never.
    spread_factor: real,
    /// Read by the service (Explain).
    decisions_kept: whole,
    /// The end of the flat timer closes a trade in `WARNING_L1`.
    close_on_flat_timer_l1: flag,
    /// A proposal may loosen a stop when it says so.
    allow_loosen: flag,
}

fn real(key: &str, pairs: &[(&str, f64)]) -> Result<f64> {
    let value = pairs
        .iter()
        .find_map(|(name, value)| (*name == key).then_some(*value))
        .ok_or_else(|| CoreError::field(key, "is missing"))?;
    if value.is_finite() {
        Ok(value)
    } else {
        Err(CoreError::field(key, "is not finite"))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "checked to be whole and below 2^53"
)]
fn whole(key: &str, pairs: &[(&str, f64)]) -> Result<i64> {
    let value = real(key, pairs)?;
    if value.fract() == 0.0 && (0.0..9e15).contains(&value) {
        Ok(value as i64)
    } else {
        Err(CoreError::field(key, "is not a whole number of at least 0"))
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "taken from a double: below 2^53"
)]
const fn given(whole: i64) -> f64 {
    whole as f64
}

fn flag(key: &str, pairs: &[(&str, f64)]) -> Result<bool> {
    match whole(key, pairs)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(CoreError::field(key, "is not true or false")),
    }
}

pub const NS_PER_S: i64 = 1_000_000_000;
pub const NS_PER_MS: i64 = 1_000_000;
/// Longest span that a configured time may have (10 years): sums with now stay far from overflow.
const LONGEST_S: i64 = 315_360_000;

impl Config {
    fn check(&self) -> Result<()> {
        let ordered = self.critical < self.warn2
            && self.warn2 < self.warn1
            && self.warn2 < self.warn2_eased
            && self.warn1 < self.warn1_recovered;
        if !ordered {
            return Err(CoreError::field(
                "warn1",
                "thresholds must satisfy critical < warn2 < warn1, each below its recovery",
            ));
        }
        for (key, value) in [
            ("tighten_r", self.tighten_r),
            ("arm_gain_r", self.arm_gain_r),
            ("arm_loss_r", -self.arm_loss_r),
            ("hedge_stop_atr", self.hedge_stop_atr),
        ] {
            if !(value > 0.0 && value <= 1_000.0) {
                return Err(CoreError::field(
                    key,
                    "has the wrong sign or is out of range",
                ));
            }
        }
        for (key, value) in [
            ("partial_fraction", self.partial_fraction),
            ("hedge_ratio", self.hedge_ratio),
            ("readd_fraction", self.readd_fraction),
        ] {
            if !(value > 0.0 && value <= 1.0) {
                return Err(CoreError::field(key, "is not in (0, 1]"));
            }
        }
        if !(0.0..=1_000.0).contains(&self.trail_buffer_atr) {
            return Err(CoreError::field("trail_buffer_atr", "is out of range"));
        }
        for (key, percent) in [
            ("daily_loss_percent", self.daily_loss_percent),
            ("hourly_loss_percent", self.hourly_loss_percent),
        ] {
            if !(0.0..=100.0).contains(&percent) {
                return Err(CoreError::field(key, "is not a percentage"));
            }
        }
        let factor = self.spread_factor;
        if factor != 0.0 && !(1.0..=1_000.0).contains(&factor) {
            return Err(CoreError::field(
                "spread_factor",
                "is neither 0 nor from 1 to 1,000",
            ));
        }
        if self.fast_s == 0 || self.slow_s < self.fast_s || self.slow_s > 604_800 {
            return Err(CoreError::field(
                "slow_s",
                "needs 0 < fast_s <= slow_s <= one week",
            ));
        }
        if self.lease_ttl_ms == 0 || self.request_ids_kept == 0 {
            let key = if self.lease_ttl_ms == 0 {
                "lease_ttl_ms"
            } else {
                "request_ids_kept"
            };
            return Err(CoreError::field(key, "must be positive"));
        }
        for (key, seconds) in [
            ("arm_after_s", self.arm_after_s),
            ("hold_s", self.hold_s),
            ("stale_after_s", self.stale_after_s),
            (
                "flat_timer_slow_bars",
                self.flat_timer_slow_bars.saturating_mul(self.slow_s),
            ),
            (
                "recovery_timer_slow_bars",
                self.recovery_timer_slow_bars.saturating_mul(self.slow_s),
            ),
            ("lease_ttl_ms", self.lease_ttl_ms / 1_000),
            ("cooldown_ms", self.cooldown_ms / 1_000),
        ] {
            if seconds > LONGEST_S {
                return Err(CoreError::field(key, "is longer than ten years"));
            }
        }
        Ok(())
    }

    #[must_use]
    pub const fn flat_timer_ns(&self) -> i64 {
        self.flat_timer_slow_bars * self.slow_s * NS_PER_S
    }

    #[must_use]
    pub const fn recovery_timer_ns(&self) -> i64 {
        self.recovery_timer_slow_bars * self.slow_s * NS_PER_S
    }
}
