//! Every incremental indicator equals its naive twin, recomputed from the whole series.
#![allow(
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a test may panic, and its series are short"
)]
use dtms_core::indicator::{Atr, Bollinger, Ema, Macd, Rsi, SessionVwap};
use proptest::prelude::*;

#[path = "market_support/walk.rs"]
mod support;
use support::{steps, walk};

const PRICE: f64 = 1_000_000.0;

fn close_to(left: f64, right: f64, scale: f64) -> bool {
    (left - right).abs() <= 1e-9 * scale.max(right.abs())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Smoothing of weight `weight` over all of `values`, seeded by the mean of the first `period`.
fn smoothed(values: &[f64], period: usize, weight: f64) -> Option<f64> {
    let (seed, rest) = values.split_at_checked(period)?;
    Some(
        rest.iter()
            .fold(mean(seed), |old, new| weight * new + (1.0 - weight) * old),
    )
}

fn naive_ema(values: &[f64], period: usize) -> Option<f64> {
    smoothed(values, period, 2.0 / (period as f64 + 1.0))
}

fn naive_wilder(values: &[f64], period: usize) -> Option<f64> {
    smoothed(values, period, 1.0 / period as f64)
}

fn naive_rsi(values: &[f64], period: usize) -> Option<f64> {
    let changes: Vec<f64> = values.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let gains: Vec<f64> = changes.iter().map(|change| change.max(0.0)).collect();
    let losses: Vec<f64> = changes.iter().map(|change| (-change).max(0.0)).collect();
    let (gain, loss) = naive_wilder(&gains, period).zip(naive_wilder(&losses, period))?;
    Some(if gain + loss > 0.0 {
        100.0 - 100.0 * loss / (gain + loss)
    } else {
        50.0
    })
}

/// `(macd, signal)`.
fn naive_macd(values: &[f64], fast: usize, slow: usize, signal: usize) -> Option<(f64, f64)> {
    let line: Vec<f64> = (slow..=values.len())
        .filter_map(|end| {
            let fast = naive_ema(&values[slow - fast..end], fast)?;
            Some(fast - naive_ema(&values[..end], slow)?)
        })
        .collect();
    Some((*line.last()?, naive_ema(&line, signal)?))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// EMA, RSI, MACD and Bollinger give, bar by bar, what a computation from scratch gives.
    #[test]
    fn closes_agree_with_naive_twins(steps in steps(900, 1..130), period in 2_u32..30) {
        let closes: Vec<f64> = walk(PRICE, 1.0, 60, &steps).iter().map(|bar| bar.close).collect();
        let length = period as usize;
        let (mut ema, mut rsi) = (Ema::new(period), Rsi::new(period));
        let (mut macd, mut bands) = (Macd::new(12, 26, 9), Bollinger::new(period, 2.0));
        for (index, close) in closes.iter().enumerate() {
            let seen = &closes[..=index];
            let (value, naive) = (ema.update(*close), naive_ema(seen, length));
            prop_assert_eq!(value.is_some(), naive.is_some());
            prop_assert!(value.zip(naive).is_none_or(|(a, b)| close_to(a, b, 0.0)));

            let (value, naive) = (rsi.update(*close), naive_rsi(seen, length));
            prop_assert_eq!(value.is_some(), naive.is_some());
            prop_assert!(value.zip(naive).is_none_or(|(a, b)| close_to(a, b, 1.0)));
            let balance = rsi.balance().map(|balance| 50.0 + 50.0 * balance);
            prop_assert!(value.zip(balance).is_none_or(|(a, b)| close_to(a, b, 1.0)));

            let (value, naive) = (macd.update(*close), naive_macd(seen, 12, 26, 9));
            prop_assert_eq!(value.is_some(), naive.is_some());
            if let Some((value, (line, signal))) = value.zip(naive) {
                prop_assert!(close_to(value.macd, line, 1.0) && close_to(value.signal, signal, 1.0));
                prop_assert!(close_to(value.histogram, line - signal, 1.0));
            }

            let value = bands.update(*close);
            prop_assert_eq!(value.is_some(), index + 1 >= length);
            if let Some(band) = value {
                let last = &seen[index + 1 - length..];
                let squares: Vec<f64> = last.iter().map(|x| (x - mean(last)).powi(2)).collect();
                prop_assert!(close_to(band.mean, mean(last), 0.0));
                prop_assert!(close_to(band.width, 4.0 * mean(&squares).sqrt() / mean(last), 1e-6));
            }
        }
    }

    /// ATR gives, bar by bar, what a computation from scratch gives, and nothing before bar `period
    /// + 1`.
    #[test]
    fn atr_agrees_with_its_naive_twin(steps in steps(900, 1..80), period in 1_u32..20) {
        let bars = walk(PRICE, 1.0, 60, &steps);
        let ranges: Vec<f64> = bars
            .windows(2)
            .map(|pair| pair[1].high.max(pair[0].close) - pair[1].low.min(pair[0].close))
            .collect();
        let mut atr = Atr::new(period);
        for (index, bar) in bars.iter().enumerate() {
            let value = atr.update(bar.high, bar.low, bar.close);
            let naive = naive_wilder(&ranges[..index], period as usize);
            prop_assert_eq!(value.is_some(), naive.is_some());
            prop_assert!(value.zip(naive).is_none_or(|(a, b)| close_to(a, b, 1.0)));
        }
    }

    /// The session VWAP counts every bar of the UTC day once, and none of the day before.
    #[test]
    fn vwap_agrees_with_its_naive_twin(steps in steps(900, 1..120)) {
        let bars = walk(PRICE, 1.0, 3_600, &steps);
        let mut vwap = SessionVwap::new();
        for (index, bar) in bars.iter().enumerate() {
            let value = vwap.update(bar.time_s, bar.high, bar.low, bar.close, bar.volume);
            let today = &bars[index / 24 * 24..=index];
            let volume: f64 = today.iter().map(|bar| bar.volume).sum();
            let money: f64 = today.iter().map(|bar| (bar.high + bar.low + bar.close) / 3.0 * bar.volume).sum();
            prop_assert!(value.is_some_and(|value| close_to(value, money / volume, 0.0)));
        }
    }
}

/// A market that never moves has a neutral RSI, no range and no width.
#[test]
fn a_flat_market_is_neutral() {
    let (mut rsi, mut atr, mut bands) = (Rsi::new(14), Atr::new(14), Bollinger::new(20, 2.0));
    for _ in 0..20 {
        let last = (
            rsi.update(1.25),
            atr.update(1.25, 1.25, 1.25),
            bands.update(1.25),
        );
        if let (Some(rsi), Some(atr), Some(band)) = last {
            assert!((rsi - 50.0).abs() < f64::EPSILON);
            assert!(atr.abs() < f64::EPSILON && band.width.abs() < f64::EPSILON);
        }
    }
    assert_eq!(rsi.balance(), Some(0.0));
}

/// A session without volume has no VWAP; its first volume gives one.
#[test]
fn no_volume_no_vwap() {
    let mut vwap = SessionVwap::new();
    assert_eq!(vwap.update(0, 2.0, 1.0, 1.5, 0.0), None);
    assert_eq!(vwap.update(60, 2.0, 1.0, 1.5, 3.0), Some(1.5));
}
