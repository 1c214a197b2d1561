//! Properties of whole random walks: mirror symmetry and ranges.
#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test may panic, and mirrored integers are exact"
)]
use dtms_core::market::{Bar, BarIgnored, Closed, Market, MarketConfig, Reading};
use proptest::prelude::*;

#[path = "market_support/walk.rs"]
mod support;
use support::{Step, steps, walk};

const LEVEL: f64 = 1_048_576.0;
const M1: u32 = 60;
/// Small timeframes keep the walks short: 250 slow bars are 750 bars of a minute.
const FAST_S: u32 = 60;
const SLOW_S: u32 = 180;

/// What a BUY's reading is to a SELL in the mirrored market.
fn mirrored(reading: &Reading) -> Reading {
    Reading {
        parts: -reading.parts,
        total: -reading.total,
        vwap_flip: -reading.vwap_flip,
        volume_flip: -reading.volume_flip,
        bos: -reading.bos,
        choch: -reading.choch,
        choch_confirmed: -reading.choch_confirmed,
        swing_low: reading.swing_high.map(|level| 2.0 * LEVEL - level),
        swing_high: reading.swing_low.map(|level| 2.0 * LEVEL - level),
        ..*reading
    }
}

fn market(vwap_slope_threshold: f64) -> Market {
    Market::new(MarketConfig {
        fast_s: FAST_S,
        slow_s: SLOW_S,
        vwap_slope_threshold,
    })
}

/// Ticks through the open, the extremes and the close of a bar, or the bar itself.
fn feed(market: &mut Market, bar: &Bar, as_ticks: bool) -> Result<Closed, BarIgnored> {
    if !as_ticks {
        return market.on_bar(M1, *bar);
    }
    let rising = bar.close >= bar.open;
    let (first, second) = if rising {
        (bar.low, bar.high)
    } else {
        (bar.high, bar.low)
    };
    let mut closed = Closed::default();
    for (second_s, bid) in (0..).step_by(15).zip([bar.open, first, second, bar.close]) {
        let now = market.on_tick((bar.time_s + second_s) * 1_000, bid, bid + 2.0, bar.volume);
        closed.fast |= now.fast;
        closed.slow |= now.slow;
    }
    Ok(closed)
}

/// The relative bounds (Bollinger width, VWAP slope) see another price level in the mirror, so the
/// walks stay clear of them: with small steps every width is a range, with large ones a trend, and
/// the slope's threshold is 0 or out of reach.
fn symmetric(steps: &[Step], as_ticks: bool, threshold: f64) -> Result<(), TestCaseError> {
    let (mut up, mut down) = (market(threshold), market(threshold));
    let bars = walk(LEVEL, 1.0, M1, steps);
    for (bar, image) in bars.iter().zip(walk(LEVEL, -1.0, M1, steps)) {
        // A doji has no direction: its tick path would not be mirrored.
        let as_ticks = as_ticks && bar.body() != 0.0;
        prop_assert_eq!(
            feed(&mut up, bar, as_ticks),
            feed(&mut down, &image, as_ticks)
        );
        prop_assert_eq!(mirrored(up.reading()), *down.reading());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Mirror the prices and every reading of a ranging market is negated, exactly.
    #[test]
    fn a_range_is_mirror_symmetric(steps in steps(10, 1..760), as_ticks: bool, flat_slope: bool) {
        symmetric(&steps, as_ticks, if flat_slope { 1e9 } else { 0.0 })?;
    }

    /// Mirror the prices and every reading of a trending market is negated, exactly.
    #[test]
    fn a_trend_is_mirror_symmetric(steps in steps(20_000, 1..760), as_ticks: bool, flat_slope: bool) {
        symmetric(&steps, as_ticks, if flat_slope { 1e9 } else { 0.0 })?;
    }

    /// Every part, the total and the multiplier stay within their ranges, and the swings within the
    /// prices seen.
    #[test]
    fn readings_stay_in_range(steps in steps(3_000, 1..760), as_ticks: bool) {
        let mut market = market(0.001);
        for bar in walk(LEVEL, 1.0, M1, &steps) {
            feed(&mut market, &bar, as_ticks).unwrap();
            let reading = market.reading();
            let ranges = [3.0, 2.0, 2.0, 1.5, 1.0, 1.0];
            for (value, range) in reading.parts.values().into_iter().zip(ranges) {
                prop_assert!(value.abs() <= range, "{:?}", reading.parts);
            }
            prop_assert!(reading.total.abs() <= 10.5);
            prop_assert!((0.5..=1.8).contains(&reading.multiplier));
            prop_assert!(reading.bos == 0 || reading.choch == 0);
        }
    }
}
