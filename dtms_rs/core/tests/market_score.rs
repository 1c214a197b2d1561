//! The six signals, the regime and their sum.
#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test may panic, and its numbers are exact"
)]
use dtms_core::market::score::{self, EmaRise, Momentum};
use dtms_core::market::swings::{Break, Structure};
use dtms_core::market::vwap::{VolumeShare, VwapTrack};
use dtms_core::market::{
    Bar, Market, MarketConfig, Parts, Regime, RegimeStructure, Session, Volatility, delta::Delta,
};

#[path = "market_support/bars.rs"]
mod support;
use support::{MONDAY_S, bar, flat};

const CALM: Regime = Regime {
    session: Session::London,
    volatility: Volatility::Normal,
    structure: RegimeStructure::Trend,
};

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

/// The sessions begin and end on their hours, UTC.
#[test]
fn sessions_follow_the_clock() {
    let expected = [
        (0, Session::Asian),
        (8, Session::London),
        (13, Session::Overlap),
        (16, Session::NewYork),
        (21, Session::Off),
        (24, Session::Asian),
    ];
    for ((hour, session), (_, before)) in expected.into_iter().skip(1).zip(expected) {
        assert_eq!(Session::at(MONDAY_S + hour * 3_600), session);
        assert_eq!(Session::at(MONDAY_S + hour * 3_600 - 1), before);
    }
}

/// The bounds of volatility and structure are those of domain.md.
#[test]
fn regimes_follow_their_bounds() {
    assert_eq!(Volatility::of(0.69, 1.0), Volatility::Low);
    assert_eq!(Volatility::of(0.7, 1.0), Volatility::Normal);
    assert_eq!(Volatility::of(1.3, 1.0), Volatility::Normal);
    assert_eq!(Volatility::of(1.31, 1.0), Volatility::High);
    assert_eq!(Volatility::of(0.0, 0.0), Volatility::Normal);
    assert_eq!(RegimeStructure::of(0.0039), RegimeStructure::Range);
    assert_eq!(RegimeStructure::of(0.004), RegimeStructure::Trend);
}

/// Threshold multipliers multiply and are clamped to 0.5..=1.8.
#[test]
fn multipliers_multiply() {
    let table = [
        (CALM, 1.0),
        (
            Regime {
                session: Session::Off,
                ..CALM
            },
            1.0,
        ),
        (
            Regime {
                session: Session::Asian,
                ..CALM
            },
            1.5,
        ),
        (
            Regime {
                session: Session::NewYork,
                volatility: Volatility::High,
                ..CALM
            },
            0.64,
        ),
        (
            Regime {
                session: Session::Overlap,
                structure: RegimeStructure::Range,
                ..CALM
            },
            0.91,
        ),
        (
            Regime {
                session: Session::Asian,
                volatility: Volatility::Low,
                ..CALM
            },
            1.8,
        ),
        (
            Regime {
                session: Session::Overlap,
                volatility: Volatility::High,
                ..CALM
            },
            0.56,
        ),
    ];
    for (regime, expected) in table {
        assert!(
            near(regime.multiplier(), expected),
            "{regime:?} {}",
            regime.multiplier()
        );
    }
}

/// Every regime key changes the weights it names, and the changes multiply (D17).
#[test]
fn regime_weights_apply() {
    let range = Regime {
        structure: RegimeStructure::Range,
        ..CALM
    };
    let high = Regime {
        volatility: Volatility::High,
        ..CALM
    };
    let asian = Regime {
        session: Session::Asian,
        ..CALM
    };
    assert_eq!(CALM.weights().values(), [1.0; 6]);
    assert_eq!(range.weights().values(), [0.7, 1.3, 1.0, 0.8, 1.2, 1.1]);
    assert_eq!(high.weights().values(), [1.2, 0.9, 0.8, 1.0, 1.1, 0.9]);
    assert_eq!(asian.weights().values(), [0.8; 6]);
    let all = Regime {
        session: Session::Asian,
        volatility: Volatility::High,
        structure: RegimeStructure::Range,
    };
    let product = [0.672, 0.936, 0.64, 0.64, 1.056, 0.792];
    assert!(
        all.weights()
            .values()
            .iter()
            .zip(product)
            .all(|(weight, expected)| near(*weight, expected))
    );
}

/// Weights are applied once: the full parts in high volatility sum to the whole range and no
/// further (D16).
#[test]
fn the_total_is_bounded() {
    let full = Parts {
        structure: 3.0,
        vwap_volume: 2.0,
        momentum: 2.0,
        ema_alignment: 1.5,
        delta_pressure: 1.0,
        candle_conviction: 1.0,
    };
    assert_eq!(score::total(full, CALM.weights()), 10.5);
    assert_eq!(score::total(full, Parts::all(9.0)), 10.5);
    assert_eq!(score::total(-full, Parts::all(9.0)), -10.5);
}

/// Enum numbers count from 1 in the order written.
#[test]
fn numbers_count_from_one() {
    let sessions = [
        Session::Asian,
        Session::London,
        Session::Overlap,
        Session::NewYork,
        Session::Off,
    ];
    assert_eq!(sessions.map(Session::number), [1, 2, 3, 4, 5]);
    assert_eq!(
        [Volatility::Low, Volatility::Normal, Volatility::High].map(Volatility::number),
        [1, 2, 3]
    );
    assert_eq!(
        [RegimeStructure::Range, RegimeStructure::Trend].map(RegimeStructure::number),
        [1, 2]
    );
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

/// The session follows the ticks between bars.
#[test]
fn the_session_moves_with_the_ticks() {
    let mut market = Market::new(MarketConfig {
        fast_s: 300,
        slow_s: 900,
        vwap_slope_threshold: 0.001,
    });
    market.on_tick((MONDAY_S + 8 * 3_600) * 1_000 - 1, 17.0, 17.5, 1.0);
    assert_eq!(
        (market.reading().regime.session, market.reading().multiplier),
        (Session::Asian, 1.5)
    );
    market.on_tick((MONDAY_S + 8 * 3_600) * 1_000, 17.0, 17.5, 1.0);
    assert_eq!(
        (market.reading().regime.session, market.reading().multiplier),
        (Session::London, 1.0)
    );
}
