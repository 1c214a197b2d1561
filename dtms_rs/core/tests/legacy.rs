//! Defects of the system that DTMS replaces, in its scorer and its market data: each must be impossible here.
//!
//! The numbers are those of the list in docs/legacy-defects.md.
#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test may panic, and its numbers are exact"
)]
use dtms_core::market::bars::BarBuilder;
use dtms_core::market::regime::{Regime, RegimeStructure, Session, Volatility};
use dtms_core::market::score::{self, EmaRise, Momentum};
use dtms_core::market::swings::Structure;
use dtms_core::market::vwap::VwapTrack;
use dtms_core::market::{Bar, Market, MarketConfig, Parts};

#[path = "market_support/bars.rs"]
mod support;
use support::{MONDAY_S, bar, flat};

fn market() -> Market {
    Market::new(MarketConfig {
        fast_s: 300,
        slow_s: 900,
        vwap_slope_threshold: 0.001,
    })
}

/// The window of the swings included the current bar, so no close ever lay above its high: the heaviest signal was
/// always 0. Swings end before the current bar, and a close beyond one is a break, up and down.
#[test]
fn d13_a_break_of_structure_is_found() {
    for side in [1.0, -1.0] {
        let mut structure = Structure::new();
        let closes = [10.0, 11.0, 15.0, 12.0, 11.0, 17.0];
        let found: i32 = closes
            .iter()
            .map(|close| {
                let close = side * close;
                i32::from(structure.update(close + 1.0, close - 1.0, close).bos)
            })
            .sum();
        assert_eq!(f64::from(found), side);
        assert_eq!(
            score::structure(structure.trend(), None, Some(0)),
            2.0 * side
        );
    }
}

/// A strong candle counted -1 or -2 in either direction. It counts by its own direction.
#[test]
fn d14_a_candle_counts_by_its_own_direction() {
    let (bull, bear) = (bar(0, 6.5, 10.5, 6.0, 10.0), bar(0, 10.0, 10.5, 6.0, 6.5));
    assert_eq!(score::candle_conviction(&bull, 4.0), 1.0);
    assert_eq!(score::candle_conviction(&bear, 4.0), -1.0);
}

/// Opposite slopes of the averages gave -1.5 for both directions, enough for a warning with the weight applied again.
/// They cancel; the whole range is 1.5, weights included.
#[test]
fn d15_opposite_averages_say_nothing() {
    let rise = |rise: f64, period: u32| EmaRise {
        rise,
        bars: 5,
        period,
    };
    for side in [1.0, -1.0] {
        let (short, long) = (rise(side, 50), Some(rise(-side, 200)));
        assert_eq!(score::ema_alignment(short, long, 1.0), 0.0);
        let agreed = score::ema_alignment(short, Some(rise(side, 200)), 1.0);
        assert_eq!(agreed, 1.5 * side);
    }
}

/// Scores were scaled to +-3 and multiplied by 3 once more: one RSI reached from L1 to L2. Each part has its documented
/// range, the weights are applied once, and the total is their sum within +-10.5.
#[test]
fn d16_there_is_one_scale() {
    let at = |balance, histogram| Momentum { balance, histogram };
    let strongest = score::momentum(at(-0.3, 0.0), at(-0.9, -5.0), 1.0);
    assert_eq!(strongest, -2.0);
    let alone = Parts {
        momentum: strongest,
        ..Parts::default()
    };
    let plain = Regime {
        session: Session::London,
        volatility: Volatility::Normal,
        structure: RegimeStructure::Trend,
    };
    assert_eq!(score::total(alone, plain.weights()), -2.0);
    let all = Parts {
        structure: -3.0,
        vwap_volume: -2.0,
        momentum: -2.0,
        ema_alignment: -1.5,
        delta_pressure: -1.0,
        candle_conviction: -1.0,
    };
    assert_eq!(score::total(all, plain.weights()), -10.5);
}

/// The classifier said 'Range' where the configuration asked for 'RANGE', so structure, volatility and weights never
/// applied. They are enumerations: every regime has its multiplier and its weights.
#[test]
fn d17_every_regime_applies() {
    let regime = |session, volatility, structure| Regime {
        session,
        volatility,
        structure,
    };
    let plain = regime(Session::London, Volatility::Normal, RegimeStructure::Trend);
    let range = regime(Session::London, Volatility::Normal, RegimeStructure::Range);
    let high = regime(Session::London, Volatility::High, RegimeStructure::Trend);
    let asian = regime(Session::Asian, Volatility::Normal, RegimeStructure::Trend);
    for other in [range, high, asian] {
        assert_ne!(other.weights(), plain.weights());
        assert_ne!(other.multiplier(), plain.multiplier());
    }
}

/// VWAP counted bars again with every refresh, and a forming bar was frozen as first seen. A closed bar counts once,
/// and what forms is replaced.
#[test]
fn d18_no_bar_is_counted_twice() {
    let mut once = market();
    let mut refreshed = market();
    for index in 0..40 {
        let fed = Bar {
            volume: 10.0,
            ..bar(MONDAY_S + 300 * index, 100.0, 101.0, 99.0, 100.5)
        };
        assert!(once.on_bar(300, fed).is_ok());
        assert!(refreshed.on_bar(300, fed).is_ok());
        assert!(
            refreshed.on_bar(300, fed).is_err(),
            "the same bar again is refused"
        );
    }
    assert_eq!(once.reading(), refreshed.reading());

    let mut forming = BarBuilder::new(300);
    assert!(forming.tick(MONDAY_S, 100.0, 1.0).is_none());
    assert!(forming.tick(MONDAY_S + 1, 103.0, 1.0).is_none());
    let closed = forming.tick(MONDAY_S + 300, 101.0, 1.0).unwrap();
    assert_eq!(
        (closed.open, closed.high, closed.close, closed.volume),
        (100.0, 103.0, 103.0, 2.0)
    );
}

/// The "VWAP slope" was the change of the typical price over three bars. One expensive bar of little volume moves the
/// price a lot and VWAP hardly.
#[test]
fn d19_the_slope_is_of_vwap_itself() {
    let mut track = VwapTrack::new();
    for index in 0..20 {
        track.update(&Bar {
            volume: 1_000.0,
            ..flat(MONDAY_S + 300 * index, 100.0)
        });
    }
    track.update(&Bar {
        volume: 1.0,
        ..flat(MONDAY_S + 6_000, 200.0)
    });
    let slope = track.slope().unwrap();
    assert!(slope > 0.0 && slope < 0.001, "{slope}");
}
