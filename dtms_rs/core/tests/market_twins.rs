//! Structure and delta equal their naive twins, recomputed from the whole history.
#![allow(clippy::indexing_slicing, reason = "a test may panic")]
use dtms_core::market::Bar;
use dtms_core::market::delta::Delta;
use dtms_core::market::swings::Structure;
use proptest::prelude::*;

#[path = "market_support/walk.rs"]
mod support;
use support::{steps, walk};

/// Level of the last swing high that the bars `..end` confirm, and the first bar that may break it.
fn last_high(bars: &[Bar], end: usize) -> Option<(f64, usize)> {
    let is_swing = |center: &usize| {
        let level = bars[*center].high;
        bars[center - 2..*center].iter().all(|bar| bar.high < level)
            && bars[center + 1..center + 3]
                .iter()
                .all(|bar| bar.high <= level)
    };
    let center = (2..end.saturating_sub(2)).rev().find(is_swing)?;
    Some((bars[center].high, center + 3))
}

/// Whether the close of bar `end` is the first beyond the last confirmed swing high.
fn breaks_high(bars: &[Bar], end: usize) -> bool {
    last_high(bars, end).is_some_and(|(level, from)| {
        bars[end].close > level && bars[from..end].iter().all(|bar| bar.close <= level)
    })
}

/// Upside down, so that lows are highs.
fn negated(bars: &[Bar]) -> Vec<Bar> {
    let negate = |bar: &Bar| Bar {
        high: -bar.low,
        low: -bar.high,
        close: -bar.close,
        ..*bar
    };
    bars.iter().map(negate).collect()
}

/// The pressure with every weight written out.
fn naive_pressure(mids: &[f64]) -> f64 {
    let signs: Vec<f64> = mids
        .windows(2)
        .map(|pair| {
            if pair[1] > pair[0] {
                1.0
            } else if pair[1] < pair[0] {
                -1.0
            } else {
                0.0
            }
        })
        .collect();
    let weights = || {
        (0..signs.len()).rev().map(|age| {
            (1.0_f64 - 2.0 / 101.0).powf(f64::from(u32::try_from(age).unwrap_or(u32::MAX)))
        })
    };
    let total: f64 = weights().sum();
    let mean = signs
        .iter()
        .zip(weights())
        .map(|(sign, weight)| sign * weight)
        .sum::<f64>()
        / total;
    let power = signs
        .iter()
        .zip(weights())
        .map(|(sign, weight)| sign * sign * weight)
        .sum::<f64>()
        / total;
    let noise = (power * weights().map(|weight| weight * weight).sum::<f64>()).sqrt() / total;
    if signs.len() < 30 || power <= 0.0 {
        0.0
    } else {
        (mean / noise / 3.0).clamp(-1.0, 1.0)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Breaks, trend and swings are those of a search through the whole history; never both sides
    /// at once.
    #[test]
    fn structure_agrees_with_its_naive_twin(steps in steps(6, 1..160)) {
        let bars = walk(100_000.0, 1.0, 60, &steps);
        let inverted = negated(&bars);
        let mut structure = Structure::new();
        let mut trend = 0;
        let mut turned = None;
        for (end, bar) in bars.iter().enumerate() {
            let (up, down) = (breaks_high(&bars, end), breaks_high(&inverted, end));
            prop_assert!(!(up && down));
            let side = i8::from(up) - i8::from(down);
            let found = structure.update(bar.high, bar.low, bar.close);
            prop_assert_eq!(found.choch, if trend == -side { side } else { 0 });
            prop_assert_eq!(found.bos, if trend == -side { 0 } else { side });
            let confirmed = turned.take().is_some_and(|level| f64::from(trend) * (bar.close - level) > 0.0);
            prop_assert_eq!(found.choch_confirmed, if confirmed { trend } else { 0 });
            if found.choch != 0 {
                let broken = if up { last_high(&bars, end) } else { last_high(&inverted, end) };
                turned = broken.map(|(level, _)| f64::from(side) * level);
            }
            trend = if side == 0 { trend } else { side };
            prop_assert_eq!(structure.trend(), trend);
            prop_assert_eq!(structure.swing_high(), last_high(&bars, end + 1).map(|swing| swing.0));
            prop_assert_eq!(structure.swing_low(), last_high(&inverted, end + 1).map(|swing| -swing.0));
        }
    }

    /// The incremental pressure is the z-score with every weight written out.
    #[test]
    fn delta_agrees_with_its_naive_twin(changes in prop::collection::vec(-2_i32..=2, 1..300)) {
        let mut delta = Delta::new();
        let mut mids = vec![1_000.0];
        delta.update(0, 1_000.0, 1_000.0, 1.0);
        for change in changes {
            let mid = mids[mids.len() - 1] + f64::from(change);
            mids.push(mid);
            delta.update(0, mid, mid, 1.0);
        }
        prop_assert!((delta.pressure() - naive_pressure(&mids)).abs() < 1e-9);
    }
}
