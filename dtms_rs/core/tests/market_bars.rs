//! How ticks and outside bars become closed bars.
#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test may panic, and its prices are exact"
)]
use dtms_core::market::bars::BarBuilder;
use dtms_core::market::{Bar, BarIgnored, Closed, Market, MarketConfig};
use proptest::prelude::*;

#[path = "market_support/bars.rs"]
mod support;
use support::{MONDAY_S, bar, flat};

const M5: u32 = 300;
const M15: u32 = 900;
const NOTHING: Closed = Closed {
    fast: false,
    slow: false,
};
const FAST: Closed = Closed {
    fast: true,
    slow: false,
};

fn market() -> Market {
    Market::new(MarketConfig {
        fast_s: M5,
        slow_s: M15,
        vwap_slope_threshold: 0.001,
    })
}

fn tick(market: &mut Market, after_s: i64, price: f64) -> Closed {
    market.on_tick((MONDAY_S + after_s) * 1_000, price, price + 0.5, 1.0)
}

/// A bar closes with the first tick of a later window, and windows without a tick have no bar.
#[test]
fn a_gap_makes_no_bars() {
    let mut builder = BarBuilder::new(60);
    assert_eq!(builder.tick(MONDAY_S, 10.0, 1.0), None);
    assert_eq!(builder.tick(MONDAY_S + 59, 12.0, 2.0), None);
    let closed = Bar {
        volume: 3.0,
        ..bar(MONDAY_S, 10.0, 12.0, 10.0, 12.0)
    };
    assert_eq!(builder.tick(MONDAY_S + 3_600, 11.0, 1.0), Some(closed));
    assert_eq!(
        builder.tick(MONDAY_S + 3_660, 11.0, 1.0),
        Some(flat(MONDAY_S + 3_600, 11.0))
    );
}

/// Times before 1970 fall into the window that begins before them.
#[test]
fn windows_begin_at_or_before_their_ticks() {
    let mut builder = BarBuilder::new(60);
    builder.tick(-1, 10.0, 1.0);
    assert_eq!(builder.tick(0, 11.0, 1.0), Some(flat(-60, 10.0)));
}

/// Ticks older than the bar that forms change no bar.
#[test]
fn late_ticks_are_ignored() {
    let mut builder = BarBuilder::new(60);
    builder.tick(MONDAY_S, 10.0, 1.0);
    builder.tick(MONDAY_S + 60, 11.0, 1.0);
    assert_eq!(builder.tick(MONDAY_S + 30, 99.0, 1.0), None);
    assert_eq!(
        builder.tick(MONDAY_S + 120, 12.0, 1.0),
        Some(flat(MONDAY_S + 60, 11.0))
    );
}

/// A closed outside bar replaces the forming bar of its time (D18), and later ticks of its window
/// build nothing.
#[test]
fn an_outside_bar_replaces_the_forming_one() {
    let mut builder = BarBuilder::new(M5);
    builder.tick(MONDAY_S + 10, 99.0, 1.0);
    let outside = Bar {
        volume: 42.0,
        ..bar(MONDAY_S, 10.0, 12.0, 9.0, 11.0)
    };
    assert_eq!(
        builder.outside(M5, &outside),
        Ok(Some([None, Some(outside)]))
    );
    assert_eq!(builder.tick(MONDAY_S + 299, 50.0, 1.0), None);
    assert_eq!(builder.tick(MONDAY_S + 300, 11.0, 1.0), None);
    assert_eq!(
        builder.tick(MONDAY_S + 600, 11.0, 1.0),
        Some(flat(MONDAY_S + 300, 11.0))
    );
}

/// An outside bar of a later window first closes the bar that was forming: both come out, in order.
#[test]
fn an_outside_bar_closes_the_bar_before_it() {
    let mut builder = BarBuilder::new(M5);
    builder.tick(MONDAY_S, 10.0, 1.0);
    let outside = flat(MONDAY_S + 300, 11.0);
    let both = [Some(flat(MONDAY_S, 10.0)), Some(outside)];
    assert_eq!(builder.outside(M5, &outside), Ok(Some(both)));
}

/// History that arrives after the first live tick is taken, and the forming bar goes on.
#[test]
fn history_may_follow_the_first_tick() {
    let mut builder = BarBuilder::new(M5);
    builder.tick(MONDAY_S, 10.0, 1.0);
    let history = flat(MONDAY_S - 300, 9.0);
    assert_eq!(
        builder.outside(M5, &history),
        Ok(Some([None, Some(history)]))
    );
    assert_eq!(
        builder.tick(MONDAY_S + 300, 11.0, 1.0),
        Some(flat(MONDAY_S, 10.0))
    );
}

/// M1 bars are fragments of M5: the last one of a window closes it at once.
#[test]
fn smaller_bars_are_merged() {
    let mut builder = BarBuilder::new(M5);
    for minute in 0_i32..4 {
        let price = 10.0 + f64::from(minute);
        let fragment = bar(
            MONDAY_S + 60 * i64::from(minute),
            price,
            price + 2.0,
            price - 1.0,
            price,
        );
        assert_eq!(builder.outside(60, &fragment), Ok(Some([None, None])));
    }
    let closed = Bar {
        volume: 5.0,
        ..bar(MONDAY_S, 10.0, 15.0, 9.0, 10.5)
    };
    assert_eq!(
        builder.outside(60, &flat(MONDAY_S + 240, 10.5)),
        Ok(Some([None, Some(closed)]))
    );
}

/// Ticks whose minute an M1 bar has already brought change nothing.
#[test]
fn ticks_inside_a_fragment_are_ignored() {
    let mut builder = BarBuilder::new(M5);
    assert_eq!(
        builder.outside(60, &flat(MONDAY_S, 10.0)),
        Ok(Some([None, None]))
    );
    assert_eq!(builder.tick(MONDAY_S + 59, 99.0, 1.0), None);
    assert_eq!(builder.tick(MONDAY_S + 60, 11.0, 1.0), None);
    let closed = Bar {
        volume: 2.0,
        ..bar(MONDAY_S, 10.0, 11.0, 10.0, 11.0)
    };
    assert_eq!(builder.tick(MONDAY_S + 300, 11.0, 1.0), Some(closed));
}

/// A fragment that ticks already cover widens the prices but does not count its volume twice.
#[test]
fn a_covered_fragment_counts_no_volume() {
    let mut builder = BarBuilder::new(M5);
    builder.tick(MONDAY_S + 5, 10.0, 1.0);
    builder.tick(MONDAY_S + 65, 11.0, 1.0);
    let minute = Bar {
        volume: 7.0,
        ..bar(MONDAY_S, 9.5, 12.0, 9.0, 10.5)
    };
    assert_eq!(builder.outside(60, &minute), Ok(Some([None, None])));
    let closed = Bar {
        volume: 2.0,
        ..bar(MONDAY_S, 9.5, 12.0, 9.0, 11.0)
    };
    assert_eq!(builder.tick(MONDAY_S + 300, 11.0, 1.0), Some(closed));
}

/// Late and repeated bars, and bars that are none, are refused with their reason and change
/// nothing.
#[test]
fn refused_bars_have_a_reason() {
    let mut market = market();
    let good = bar(MONDAY_S + 300, 10.0, 12.0, 9.0, 11.0);
    assert_eq!(market.on_bar(M5, good), Ok(FAST));
    let before = *market.reading();
    assert_eq!(market.on_bar(M5, good), Err(BarIgnored::Duplicate));
    assert_eq!(
        market.on_bar(
            60,
            Bar {
                time_s: MONDAY_S + 360,
                ..good
            }
        ),
        Err(BarIgnored::Duplicate)
    );
    assert_eq!(
        market.on_bar(
            M5,
            Bar {
                time_s: MONDAY_S,
                ..good
            }
        ),
        Err(BarIgnored::Late)
    );
    let next = Bar {
        time_s: MONDAY_S + 600,
        ..good
    };
    let invalid = [
        Bar { high: 10.5, ..next },
        Bar { low: 10.5, ..next },
        Bar {
            close: f64::NAN,
            ..next
        },
        Bar {
            high: f64::INFINITY,
            ..next
        },
        Bar { low: 0.0, ..next },
        Bar { low: -1.0, ..next },
        Bar {
            volume: -1.0,
            ..next
        },
        Bar {
            volume: f64::NAN,
            ..next
        },
        Bar {
            time_s: MONDAY_S + 601,
            ..next
        },
    ];
    for bar in invalid {
        assert_eq!(market.on_bar(M5, bar), Err(BarIgnored::Invalid), "{bar:?}");
    }
    for timeframe_s in [0, 7, 600, 3_600] {
        let bar = Bar {
            time_s: MONDAY_S + 7_200,
            ..good
        };
        assert_eq!(
            market.on_bar(timeframe_s, bar),
            Err(BarIgnored::Invalid),
            "{timeframe_s}"
        );
    }
    assert_eq!(*market.reading(), before);
    assert_eq!(
        market.on_bar(M5, next),
        Ok(Closed {
            fast: true,
            slow: true
        })
    );
}

/// An M15 bar is no fragment of M5, and an M5 bar that ends an M15 window closes both.
#[test]
fn a_larger_bar_closes_only_its_own_timeframe() {
    let mut market = market();
    assert_eq!(
        market.on_bar(M15, flat(MONDAY_S, 10.0)),
        Ok(Closed {
            fast: false,
            slow: true
        })
    );
    assert_eq!(tick(&mut market, 900, 10.0), NOTHING);
    assert_eq!(tick(&mut market, 1_200, 10.0), FAST);
}

/// Feeding every bar a second time leaves the session VWAP and all else as it was (D18).
#[test]
fn no_bar_counts_twice() {
    let (mut once, mut twice) = (market(), market());
    for index in 0_i32..40 {
        let price = 100.0 + f64::from(index % 7);
        let bar = bar(
            MONDAY_S + 300 * i64::from(index),
            price,
            price + 1.0,
            price - 1.0,
            price + 0.5,
        );
        once.on_bar(M5, bar).unwrap();
        tick(&mut twice, 300 * i64::from(index) + 7, 1.0);
        twice.on_bar(M5, bar).unwrap();
        assert_eq!(twice.on_bar(M5, bar), Err(BarIgnored::Duplicate));
    }
    let delta_pressure = once.reading().parts.delta_pressure;
    let mut parts = twice.reading().parts;
    parts.delta_pressure = delta_pressure;
    assert_eq!(parts.vwap_volume, once.reading().parts.vwap_volume);
    assert_eq!(twice.reading().atr_fast, once.reading().atr_fast);
    assert_eq!(twice.reading().volume_flip, once.reading().volume_flip);
}

/// A tick that is no price closes and changes nothing.
#[test]
fn a_tick_without_a_price_changes_nothing() {
    let mut market = market();
    tick(&mut market, 0, 10.0);
    let before = *market.reading();
    let later = (MONDAY_S + 900) * 1_000;
    for (bid, ask, volume) in [
        (f64::NAN, 10.0, 1.0),
        (10.0, -1.0, 1.0),
        (0.0, 10.0, 1.0),
        (10.0, 10.0, f64::INFINITY),
        (10.0, 10.0, -1.0),
    ] {
        assert_eq!(market.on_tick(later, bid, ask, volume), NOTHING);
    }
    assert_eq!(*market.reading(), before);
}

/// `(seconds since the tick before, price)`.
fn ticks() -> impl Strategy<Value = Vec<(i64, f64)>> {
    let pause = prop_oneof![8 => 0_i64..40, 1 => 40_i64..2_000];
    prop::collection::vec((pause, 1_i32..1_000), 1..200).prop_map(|pauses| {
        let mut time_s = MONDAY_S;
        let step = |(pause, price): (i64, i32)| {
            time_s += pause;
            (time_s, f64::from(price))
        };
        pauses.into_iter().map(step).collect()
    })
}

/// Bars by grouping the whole list, the naive twin of the builder.
fn grouped(ticks: &[(i64, f64)], timeframe_s: i64) -> Vec<Bar> {
    ticks
        .chunk_by(|left, right| left.0.div_euclid(timeframe_s) == right.0.div_euclid(timeframe_s))
        .map(|group| {
            let prices = || group.iter().map(|tick| tick.1);
            Bar {
                time_s: group.first().unwrap().0.div_euclid(timeframe_s) * timeframe_s,
                open: prices().next().unwrap(),
                high: prices().fold(f64::MIN, f64::max),
                low: prices().fold(f64::MAX, f64::min),
                close: prices().next_back().unwrap(),
                volume: prices().map(|_| 1.0).sum(),
            }
        })
        .collect()
}

proptest! {
    /// Ticks, M1 bars made of them, and grouping the whole list give the same M5 bars.
    #[test]
    fn ticks_and_smaller_bars_build_the_same(mut ticks in ticks()) {
        let expected = grouped(&ticks, i64::from(M5));
        // The last tick opens a window, so that nothing but the windows before it can be closed.
        let last_s = ticks.last().unwrap().0;
        let end = (last_s - last_s.rem_euclid(i64::from(M5)) + 86_400, 1.0);
        ticks.push(end);
        let mut from_ticks = BarBuilder::new(M5);
        let mut from_bars = BarBuilder::new(M5);
        let mut built: Vec<Bar> = ticks.iter().filter_map(|(time_s, price)| from_ticks.tick(*time_s, *price, 1.0)).collect();
        prop_assert_eq!(&built, &expected);
        built.clear();
        for minute in grouped(&ticks, 60) {
            built.extend(from_bars.outside(60, &minute).unwrap().unwrap().into_iter().flatten());
        }
        prop_assert_eq!(&built, &expected);
    }
}
