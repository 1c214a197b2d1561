//! The regime, what it does to weights and thresholds, and the weighted sum.
#![allow(clippy::float_cmp, reason = "the numbers of the tables are exact")]
use dtms_core::market::score;
use dtms_core::market::{
    Market, MarketConfig, Parts, Regime, RegimeStructure, Session, Volatility,
};

/// Monday, 5 May 2014, 00:00 UTC.
const MONDAY_S: i64 = 1_399_248_000;

const CALM: Regime = Regime {
    session: Session::London,
    volatility: Volatility::Normal,
    structure: RegimeStructure::Trend,
};

fn near(left: f64, right: f64) -> bool {
    (left - right).abs() < 1e-12
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
