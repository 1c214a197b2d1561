//! The six signals and the swings they read.
#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test may panic, and its numbers are exact"
)]
use dtms_core::market::score::{self, EmaRise, Momentum};
use dtms_core::market::swings::{Break, Structure};
use dtms_core::market::vwap::{VolumeShare, VwapTrack};
use dtms_core::market::{Bar, Market, MarketConfig, Parts, delta::Delta};

#[path = "market_support/bars.rs"]
mod support;
use support::{MONDAY_S, bar, flat};

fn near(left: f64, right: f64) -> bool {
    (left - right).abs() < 1e-12
}

/// Closes with a range of one on either side, one bar each.
fn breaks(closes: &[f64]) -> (Structure, Vec<Break>) {
    let mut structure = Structure::new();
    let breaks = closes
        .iter()
        .map(|close| structure.update(close + 1.0, close - 1.0, *close))
        .collect();
    (structure, breaks)
}

const UP: Break = Break {
    bos: 1,
    choch: 0,
    choch_confirmed: 0,
};
const NONE: Break = Break {
    bos: 0,
    choch: 0,
    choch_confirmed: 0,
};

/// A close beyond a confirmed swing high is a BOS, once (D13).
#[test]
fn a_swing_breaks_once() {
    let (structure, breaks) = breaks(&[10.0, 11.0, 15.0, 12.0, 11.0, 17.0, 18.0]);
    assert_eq!(breaks, [NONE, NONE, NONE, NONE, NONE, UP, NONE]);
    assert_eq!(structure.swing_high(), Some(16.0));
    assert_eq!((structure.trend(), structure.bos_age()), (1, Some(1)));
}

/// A high that only one bar follows is no swing yet, so a close above it breaks nothing.
#[test]
fn an_unconfirmed_swing_cannot_break() {
    assert_eq!(breaks(&[10.0, 11.0, 15.0, 12.0, 17.0]).1, [NONE; 5]);
}

/// Of two equal highs the first is the swing: a double top is a level.
#[test]
fn a_double_top_is_a_swing() {
    assert_eq!(
        breaks(&[10.0, 11.0, 15.0, 15.0, 12.0]).0.swing_high(),
        Some(16.0)
    );
}

/// A break against the trend is a CHOCH that turns it; the next close beyond the level confirms it,
/// a later one does not.
#[test]
fn a_choch_turns_the_trend_and_is_confirmed_by_the_next_close() {
    let rise = [10.0, 11.0, 15.0, 12.0, 11.0, 17.0, 18.0, 16.0];
    let down = Break {
        bos: 0,
        choch: -1,
        choch_confirmed: 0,
    };
    let (structure, all) = breaks(&[&rise[..], &[8.0, 9.0, 7.0]].concat());
    assert_eq!(structure.swing_low(), Some(10.0));
    assert_eq!(
        all.get(8..),
        Some(
            &[
                down,
                Break {
                    choch_confirmed: -1,
                    ..NONE
                },
                NONE
            ][..]
        )
    );
    assert_eq!(structure.trend(), -1);
    assert_eq!(structure.bos_age(), None);

    let (_, refused) = breaks(&[&rise[..], &[8.0, 10.5, 8.0]].concat());
    assert_eq!(refused.get(8..), Some(&[down, NONE, NONE][..]));
}

/// CHOCH counts 3 and BOS 2 for three bars, then the trend counts 1; nothing counts before the
/// first break.
#[test]
fn structure_fades_to_the_trend() {
    let table = [
        (0, None, None, 0.0),
        (1, None, Some(0), 2.0),
        (1, None, Some(2), 2.0),
        (1, None, Some(3), 1.0),
        (-1, Some(0), None, -3.0),
        (-1, Some(2), Some(0), -3.0),
        (-1, Some(3), Some(1), -2.0),
        (-1, Some(3), None, -1.0),
    ];
    for (trend, choch_age, bos_age, expected) in table {
        assert_eq!(
            score::structure(trend, choch_age, bos_age),
            expected,
            "{trend} {choch_age:?} {bos_age:?}"
        );
    }
}

/// A strong bear candle is good for a SELL and bad for a BUY, a bull candle the other way round
/// (D14).
#[test]
fn a_candle_counts_by_its_own_direction() {
    let bear = bar(0, 10.0, 10.5, 6.0, 6.5);
    let bull = bar(0, 6.5, 10.5, 6.0, 10.0);
    let buy = Parts {
        candle_conviction: score::candle_conviction(&bear, 4.0),
        ..Parts::default()
    };
    assert_eq!(buy.candle_conviction, -1.0);
    assert_eq!((-buy).candle_conviction, 1.0);
    assert_eq!(score::candle_conviction(&bull, 4.0), 1.0);
    assert_eq!(
        score::candle_conviction(&bull, 6.0),
        0.0,
        "too small for the ATR"
    );
    assert_eq!(
        score::candle_conviction(&bar(0, 8.0, 10.5, 6.0, 10.0), 4.0),
        0.0,
        "too little body"
    );
    assert_eq!(
        score::candle_conviction(&flat(0, 8.0), 0.0),
        0.0,
        "no body at all"
    );
}

/// Averages that slope alike count fully, the short one alone a third, and opposite ones nothing
/// (D15).
#[test]
fn opposite_averages_cancel() {
    let short = |rise| EmaRise {
        rise,
        bars: 5,
        period: 50,
    };
    let long = |rise| {
        Some(EmaRise {
            rise,
            bars: 5,
            period: 200,
        })
    };
    for side in [1.0, -1.0] {
        assert_eq!(
            score::ema_alignment(short(side), long(side), 1.0),
            1.5 * side
        );
        assert_eq!(score::ema_alignment(short(side), None, 1.0), 0.5 * side);
        assert_eq!(
            score::ema_alignment(short(side), long(0.0), 1.0),
            0.5 * side
        );
        assert_eq!(score::ema_alignment(short(side), long(-side), 1.0), 0.0);
        assert_eq!(score::ema_alignment(short(0.0), long(side), 1.0), 0.0);
        assert_eq!(
            score::ema_alignment(short(side), long(side), 100.0),
            0.0,
            "inside the deadband"
        );
    }
}

/// Momentum adds RSI's level, its change and the change of the MACD histogram, and reaches exactly
/// +-2.
#[test]
fn momentum_adds_three_readings() {
    let at = |balance, histogram| Momentum { balance, histogram };
    assert_eq!(score::momentum(at(0.1, 0.0), at(0.2, 0.5), 1.0), 2.0);
    assert_eq!(score::momentum(at(-0.1, 0.0), at(-0.2, -0.5), 1.0), -2.0);
    assert_eq!(
        score::momentum(at(0.0, 0.0), at(0.1, 0.0), 1.0),
        0.5,
        "RSI 55 is not above 55"
    );
    assert_eq!(
        score::momentum(at(0.0, 0.0), at(0.0, 0.005), 1.0),
        0.0,
        "inside the deadband"
    );
}

/// Standing, slope and volume add to the signal's whole range; a slope within the threshold counts
/// nothing.
#[test]
fn vwap_volume_adds_three_readings() {
    assert_eq!(score::vwap_volume(1.0, Some(0.002), 0.001, 1), 2.0);
    assert_eq!(score::vwap_volume(-1.0, Some(-0.002), 0.001, -1), -2.0);
    assert_eq!(score::vwap_volume(0.5, Some(0.001), 0.001, -1), 0.0);
    assert_eq!(score::vwap_volume(0.5, None, 0.001, 0), 0.5);
}

/// The first close beyond VWAP counts half, the second confirms; a flip needs both confirmed sides
/// in one session.
#[test]
fn a_vwap_flip_needs_two_closes() {
    let mut track = VwapTrack::new();
    let mut seen = Vec::new();
    for (index, close) in (0..).zip([100.0, 90.0, 91.0, 99.0, 99.0, 80.0, 99.0, 99.0]) {
        track.update(&flat(MONDAY_S + 300 * index, close));
        seen.push((track.standing(), track.flip()));
    }
    let expected = [
        (0.0, 0),
        (-0.5, 0),
        (-1.0, 0),
        (0.5, 0),
        (1.0, 1),
        (-0.5, 0),
        (0.5, 0),
        (1.0, 1),
    ];
    assert_eq!(seen, expected);
    track.update(&flat(MONDAY_S + 86_400, 99.0));
    assert_eq!(
        (track.standing(), track.flip(), track.slope()),
        (0.0, 0, None),
        "a new session starts anew"
    );
}

/// The slope is VWAP's own change over five bars, not the price's (D19).
#[test]
fn the_slope_is_of_vwap_itself() {
    let mut track = VwapTrack::new();
    for index in 0..5 {
        track.update(&flat(MONDAY_S + 300 * index, 100.0));
        assert_eq!(track.slope(), None);
    }
    track.update(&flat(MONDAY_S + 1_500, 160.0));
    assert!(near(track.slope().unwrap(), 0.1));
}

/// Volume leans at its share, doji count for neither side, and ten bars are needed.
#[test]
fn volume_leans_at_its_share() {
    let mut share = VolumeShare::new();
    let push = |share: &mut VolumeShare, open: f64, close: f64, volume| {
        share.update(&Bar {
            volume,
            ..bar(0, open, open.max(close), open.min(close), close)
        });
    };
    for _ in 0..7 {
        push(&mut share, 1.0, 2.0, 1.0);
        assert_eq!(share.lean(0.65), 0);
    }
    for _ in 0..3 {
        push(&mut share, 2.0, 2.0, 1.0);
    }
    assert_eq!((share.lean(0.65), share.lean(0.72)), (1, 0));
    push(&mut share, 2.0, 1.0, 91.0);
    assert_eq!(share.lean(0.72), -1);
}

/// One-sided ticks saturate the pressure, balanced ones leave it small, and fewer than 30 changes
/// say nothing.
#[test]
fn delta_is_a_z_score() {
    let mut delta = Delta::new();
    for tick in 0_i32..30 {
        delta.update(
            i64::from(tick),
            100.0 + f64::from(tick),
            101.0 + f64::from(tick),
            1.0,
        );
        assert_eq!(delta.pressure(), 0.0);
    }
    delta.update(30, 130.0, 131.0, 1.0);
    assert_eq!(delta.pressure(), 1.0);
    delta.update(29, 1.0, 2.0, 1_000.0);
    assert_eq!(delta.pressure(), 1.0, "a late tick has no direction");
    for tick in 0_i32..400 {
        delta.update(
            i64::from(31 + tick),
            100.0 + f64::from(tick % 2),
            101.0,
            1.0,
        );
    }
    assert!(delta.pressure().abs() < 0.1);
}

/// Before any price change there is no flow and no pressure.
#[test]
fn unchanged_prices_have_no_pressure() {
    let mut delta = Delta::new();
    for tick in 0..100 {
        delta.update(tick, 100.0, 101.0, 1.0);
    }
    assert_eq!(delta.pressure(), 0.0);
}

/// BOS and CHOCH stand only in the reading of the call that closed the slow bar.
#[test]
fn edges_last_one_reading() {
    let mut market = Market::new(MarketConfig {
        fast_s: 300,
        slow_s: 900,
        vwap_slope_threshold: 0.001,
    });
    let mut seen = Vec::new();
    for (index, close) in (0..).zip([10.0, 11.0, 15.0, 12.0, 11.0, 17.0]) {
        market
            .on_bar(
                900,
                bar(
                    MONDAY_S + 900 * index,
                    close,
                    close + 1.0,
                    close - 1.0,
                    close,
                ),
            )
            .unwrap();
        seen.push(market.reading().bos);
    }
    assert_eq!(seen, [0, 0, 0, 0, 0, 1]);
    assert_eq!(market.reading().parts.structure, 2.0);
    market.on_tick((MONDAY_S + 5_400) * 1_000, 17.0, 17.5, 1.0);
    assert_eq!(market.reading().bos, 0);
    assert_eq!(market.reading().parts.structure, 2.0);
}
