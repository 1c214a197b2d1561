//! A market's reading equals one put together from scratch out of all closed bars.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test may panic, and both sides compute the same numbers"
)]
use dtms_core::indicator::{Atr, Bollinger, Ema, Macd, Rsi};
use dtms_core::market::score::{self, EmaRise, Momentum};
use dtms_core::market::swings::Structure;
use dtms_core::market::vwap::{VolumeShare, VwapTrack};
use dtms_core::market::{
    Bar, Market, MarketConfig, Parts, Regime, RegimeStructure, Session, Volatility,
};
use proptest::prelude::*;

#[path = "market_support/walk.rs"]
mod support;
use support::{Step, steps, walk};

const FAST_S: u32 = 60;
const SLOW_S: u32 = 180;
const THRESHOLD: f64 = 0.001;

fn slow_bars(fast: &[Bar]) -> Vec<Bar> {
    let join = |bars: &[Bar]| Bar {
        high: bars.iter().map(|bar| bar.high).fold(f64::MIN, f64::max),
        low: bars.iter().map(|bar| bar.low).fold(f64::MAX, f64::min),
        close: bars[bars.len() - 1].close,
        volume: bars.iter().map(|bar| bar.volume).sum(),
        ..bars[0]
    };
    fast.chunks_exact(3).map(join).collect()
}

fn atrs(bars: &[Bar]) -> Vec<f64> {
    let mut atr = Atr::new(14);
    bars.iter()
        .filter_map(|bar| atr.update(bar.high, bar.low, bar.close))
        .collect()
}

fn rise(bars: &[Bar], period: u32) -> Option<EmaRise> {
    let mut ema = Ema::new(period);
    let values: Vec<f64> = bars
        .iter()
        .filter_map(|bar| ema.update(bar.close))
        .collect();
    let from = values.len().checked_sub(6)?;
    Some(EmaRise {
        rise: values[values.len() - 1] - values[from],
        bars: 5,
        period,
    })
}

fn momentum(bars: &[Bar], atr: f64) -> f64 {
    let (mut rsi, mut macd) = (Rsi::new(14), Macd::new(12, 26, 9));
    let both = |bar: &Bar| {
        rsi.update(bar.close);
        let histogram = macd.update(bar.close)?.histogram;
        Some(Momentum {
            balance: rsi.balance()?,
            histogram,
        })
    };
    match bars.iter().filter_map(both).collect::<Vec<_>>()[..] {
        [.., before, now] => score::momentum(before, now, atr),
        _ => 0.0,
    }
}

fn volatility(atrs: &[f64]) -> Volatility {
    let Some(from) = atrs.len().checked_sub(50) else {
        return Volatility::Normal;
    };
    let last = atrs[atrs.len() - 1];
    let relative = last / (atrs[from..].iter().sum::<f64>() / 50.0);
    if relative < 0.7 {
        Volatility::Low
    } else if relative > 1.3 {
        Volatility::High
    } else {
        Volatility::Normal
    }
}

fn regime(slow: &[Bar], now_s: i64) -> Regime {
    let mut bands = Bollinger::new(20, 2.0);
    let width = slow
        .iter()
        .filter_map(|bar| bands.update(bar.close))
        .last()
        .map(|band| band.width);
    Regime {
        session: Session::at(now_s),
        volatility: volatility(&atrs(slow)),
        structure: if width.is_some_and(|width| width < 0.004) {
            RegimeStructure::Range
        } else {
            RegimeStructure::Trend
        },
    }
}

/// Parts, regime, volume flip.
fn from_scratch(fast: &[Bar], now_s: i64) -> (Parts, Regime, i8) {
    let slow = slow_bars(fast);
    let regime = regime(&slow, now_s);
    let (mut vwap, mut volume, mut swings) =
        (VwapTrack::new(), VolumeShare::new(), Structure::new());
    for bar in fast {
        vwap.update(bar);
        volume.update(bar);
    }
    for bar in &slow {
        swings.update(bar.high, bar.low, bar.close);
    }
    let lean = volume.lean(if regime.volatility == Volatility::Low {
        0.72
    } else {
        0.65
    });
    let atr_slow = atrs(&slow).last().copied();
    let parts = Parts {
        structure: score::structure(swings.trend(), swings.choch_age(), swings.bos_age()),
        vwap_volume: score::vwap_volume(vwap.standing(), vwap.slope(), THRESHOLD, lean),
        momentum: atr_slow.map_or(0.0, |atr| momentum(&slow, atr)),
        ema_alignment: atr_slow.zip(rise(&slow, 50)).map_or(0.0, |(atr, short)| {
            score::ema_alignment(short, rise(&slow, 200), atr)
        }),
        delta_pressure: 0.0,
        candle_conviction: atrs(fast).last().map_or(0.0, |atr| {
            score::candle_conviction(&fast[fast.len() - 1], *atr)
        }),
    };
    (parts, regime, lean)
}

/// A walk whose pace changes, so that every volatility occurs: calm, as it is, wild.
fn paced(steps: &[Step]) -> Vec<Step> {
    let pace = |(index, step): (usize, &Step)| {
        let divisor = [4, 1, 12][index / 120 % 3];
        Step {
            body: step.body / divisor,
            above: step.above / divisor,
            below: step.below / divisor,
            ..*step
        }
    };
    steps.iter().enumerate().map(pace).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Parts, regime, multiplier, flips and the weighted total agree with the reading from scratch
    /// (D16, D17).
    #[test]
    fn readings_agree_with_their_naive_twin(steps in steps(900, 1..760), every in 1_usize..40) {
        let config = MarketConfig { fast_s: FAST_S, slow_s: SLOW_S, vwap_slope_threshold: THRESHOLD };
        let mut market = Market::new(config);
        let bars = walk(1_000_000.0, 1.0, FAST_S, &paced(&steps));
        for (index, bar) in bars.iter().enumerate() {
            market.on_bar(FAST_S, *bar).unwrap();
            if index % every != 0 {
                continue;
            }
            let reading = market.reading();
            let now_s = bar.time_s + i64::from(FAST_S);
            let (parts, regime, lean) = from_scratch(&bars[..=index], now_s);
            prop_assert_eq!(reading.parts, parts);
            prop_assert_eq!(reading.regime, regime);
            prop_assert_eq!(reading.multiplier, regime.multiplier());
            prop_assert_eq!(reading.volume_flip, lean);
            let weighted: f64 = parts.values().into_iter().zip(regime.weights().values()).map(|(p, w)| p * w).sum();
            prop_assert!((reading.total - weighted.clamp(-10.5, 10.5)).abs() < 1e-12);
        }
    }
}
