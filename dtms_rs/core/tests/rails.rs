//! Safety rails: what trips and releases them, and that they never stop what reduces risk.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic"
)]
mod engine_support;

use std::collections::{BTreeMap, VecDeque};

use dtms_core::arbiter::{Brakes, Halt, own_halt};
use dtms_core::enums::{ActionKind, CloseReason, DenialCode, Rail, Span, TradingState};
use dtms_core::event::{Action, Event};
use dtms_core::message::Number;
use dtms_core::rails::{SPREADS_KEPT, SPREADS_NEEDED, Spreads};
use engine_support::rails::{calm, edges, holding, lose, ready};
use engine_support::{ACCOUNT, EXIT, PIVOT, Rig, S, START_S, SYMBOL, Setup, TICKET, action};
use proptest::prelude::*;

const DAY_S: i64 = 86_400;

/// (rail, engaged, detail) of each edge.
fn spoken_edges(events: &[Event]) -> Vec<(Rail, bool, String)> {
    edges(events)
        .into_iter()
        .map(|edge| (edge.rail, edge.engaged, edge.detail.as_str().to_owned()))
        .collect()
}

// ---- losses -------------------------------------------------------------------------------------------------------

/// The first figure of a day and of an hour is marked; at 1 % the hourly rail trips, at 2 % the daily
/// one, each once; the next hour and the next day release them.
#[test]
fn losses_trip_at_their_limits_and_the_next_span_releases_them() {
    let mut rig = ready(Setup::default().with("stale_after_s", 0.0));
    let marks = bodies!(rig.equity(10_000.0), AccountMarked);
    let day_s = START_S - START_S % DAY_S;
    let hour_s = START_S - START_S % 3_600;
    assert_eq!(
        marks
            .iter()
            .map(|it| (it.span, it.start_ns, it.equity))
            .collect::<Vec<_>>(),
        [
            (Span::Day, day_s * S, 10_000.0),
            (Span::Hour, hour_s * S, 10_000.0)
        ]
    );
    assert!(rig.equity(9_900.01).is_empty());
    let events = rig.equity(9_900.0);
    assert_eq!(
        spoken_edges(&events),
        [(Rail::HourlyLoss, true, "1 % of 1 %".to_owned())]
    );
    assert_eq!(
        (events[0].account_id.as_str(), events[0].ticket),
        (ACCOUNT, 0)
    );
    assert!(events[0].symbol.is_empty());
    assert!(rig.equity(9_850.0).is_empty(), "told once");
    let events = rig.equity(9_769.0);
    assert_eq!(
        spoken_edges(&events),
        [(Rail::DailyLoss, true, "2.31 % of 2 %".to_owned())]
    );
    assert!(
        rig.equity(10_000.0).is_empty(),
        "what was tripped stays for its span"
    );
    rig.check_fold();

    rig.pass(hour_s + 3_600 - 1 - rig.now_s);
    rig.tick(PIVOT);
    assert_eq!(holding(&rig), [Rail::DailyLoss, Rail::HourlyLoss]);
    let events = rig.pass(1);
    assert_eq!(
        spoken_edges(&events),
        [(Rail::HourlyLoss, false, "a new hour".to_owned())]
    );
    // Its mark is the last figure before the hour: the trade stood open over it.
    let marks = bodies!(rig.equity(9_990.0), AccountMarked);
    assert_eq!(marks.len(), 1);
    assert_eq!(
        (marks[0].span, marks[0].equity.to_bits()),
        (Span::Hour, 10_000.0_f64.to_bits())
    );

    rig.pass(day_s + DAY_S - rig.now_s);
    assert!(holding(&rig).is_empty());
    rig.check_fold();
}

/// Marks and rails survive a restart: the same loss is not told again, a further one is measured from
/// the same mark.
#[test]
fn marks_and_rails_survive_a_restart() {
    let mut rig = ready(Setup::default());
    rig.equity(10_000.0);
    rig.equity(9_900.0);
    rig.restart();
    assert_eq!(holding(&rig), [Rail::HourlyLoss]);
    assert!(rig.equity(9_890.0).is_empty());
    assert_eq!(edges(&rig.equity(9_800.0)).len(), 1);
    assert_eq!(holding(&rig), [Rail::DailyLoss, Rail::HourlyLoss]);
    rig.check_fold();
}

/// An account without an open trade is not marked; the loss that closes the last trade still counts.
#[test]
fn a_quiet_account_is_not_marked_and_the_last_loss_counts() {
    let mut rig = Setup::default().rig();
    assert!(rig.equity(10_000.0).is_empty());
    rig.warm();
    rig.register();
    assert_eq!(rig.equity(10_000.0).len(), 2);
    rig.closed_with(TICKET, CloseReason::Client, -500.0);
    assert_eq!(edges(&rig.equity(9_500.0)).len(), 2);
    assert!(rig.equity(9_400.0).is_empty());
    let mut rig = Setup::default().rig();
    assert!(rig.equity(0.0).is_empty());
    rig.register();
    assert!(rig.equity(-1.0).is_empty(), "of nothing there is no share");
}

/// A limit of 0 switches a loss rail off, and releases what holds at the next look.
#[test]
fn a_limit_of_nought_switches_a_rail_off() {
    let off = Setup::default()
        .with("daily_loss_percent", 0.0)
        .with("hourly_loss_percent", 0.0)
        .with("consecutive_stops", 0.0)
        .with("spread_factor", 0.0)
        .with("stale_after_s", 0.0);
    let mut rig = ready(off);
    rig.equity(10_000.0);
    rig.equity(1.0);
    calm(&mut rig);
    rig.quote(PIVOT, PIVOT + 5_000).unwrap();
    rig.pass(100_000);
    rig.closed_with(TICKET, CloseReason::StopLoss, -1.0);
    for ticket in 1..5 {
        rig.try_register(ticket, "", 0, Some(109_000), None, 1.0)
            .unwrap();
        rig.closed_with(ticket, CloseReason::StopLoss, -1.0);
    }
    assert!(bodies!(rig.log, RailChanged).is_empty());
}

// ---- stops in a row -----------------------------------------------------------------------------------------------

/// Three losing stops in a row trip the rail; a stop in profit, a target or a close by hand begins
/// anew, and so does the next UTC day.
#[test]
fn three_losing_stops_in_a_row_trip_and_any_other_close_releases() {
    use CloseReason::{Client, StopLoss, StopOut, TakeProfit};
    let mut rig = Setup::default().rig();
    let none: Vec<(Rail, bool)> = Vec::new();
    for (ticket, other) in [
        (10, (StopLoss, 0.0)),
        (20, (TakeProfit, 5.0)),
        (30, (Client, -5.0)),
    ] {
        assert_eq!(lose(&mut rig, ticket, StopLoss, -1.0), none);
        assert_eq!(lose(&mut rig, ticket + 1, StopOut, -1.0), none);
        assert_eq!(lose(&mut rig, ticket + 2, other.0, other.1), none);
    }
    assert_eq!(lose(&mut rig, 41, StopLoss, -1.0), none);
    assert_eq!(lose(&mut rig, 42, StopLoss, -1.0), none);
    assert_eq!(
        lose(&mut rig, 43, StopLoss, -1.0),
        [(Rail::ConsecutiveStops, true)]
    );
    assert_eq!(lose(&mut rig, 44, StopLoss, -1.0), none, "told once");
    rig.restart();
    assert_eq!(holding(&rig), [Rail::ConsecutiveStops]);
    assert_eq!(
        lose(&mut rig, 45, TakeProfit, 1.0),
        [(Rail::ConsecutiveStops, false)]
    );
    for ticket in 51..54 {
        lose(&mut rig, ticket, StopLoss, -1.0);
    }
    assert_eq!(holding(&rig), [Rail::ConsecutiveStops]);
    rig.check_fold();
    let events = rig.pass(DAY_S - START_S % DAY_S);
    assert_eq!(
        spoken_edges(&events),
        [(Rail::ConsecutiveStops, false, "a new day".to_owned())]
    );
    assert_eq!(
        lose(&mut rig, 61, StopLoss, -1.0),
        none,
        "the count begins anew"
    );
    rig.check_fold();
}

// ---- spread -------------------------------------------------------------------------------------------------------

/// A spread above twice its median trips at once; it is released when it was normal for ten seconds,
/// by the next tick or by time; in between nothing is told.
#[test]
fn a_wide_spread_trips_at_once_and_is_released_when_it_was_calm() {
    let mut rig = ready(Setup::default());
    for _ in 0..SPREADS_NEEDED - 2 {
        rig.quote(PIVOT, PIVOT + 10).unwrap();
    }
    assert!(
        rig.quote(PIVOT, PIVOT + 500).unwrap().is_empty(),
        "no median yet"
    );
    calm(&mut rig);
    assert!(
        rig.quote(PIVOT, PIVOT + 20).unwrap().is_empty(),
        "twice is not above"
    );
    let events = rig.quote(PIVOT, PIVOT + 21).unwrap();
    assert_eq!(
        spoken_edges(&events),
        [(Rail::Spread, true, "21 points of 20 points".to_owned())]
    );
    assert_eq!((events[0].symbol.as_str(), events[0].ticket), (SYMBOL, 0));
    for (seconds, spread) in [(3, 10), (5, 12), (1, 30), (9, 10), (9, 10)] {
        rig.pass(seconds);
        assert!(rig.quote(PIVOT, PIVOT + spread).unwrap().is_empty());
    }
    rig.check_fold();
    let events = rig.pass(1);
    assert_eq!(
        spoken_edges(&events),
        [(Rail::Spread, false, "the spread is normal".to_owned())]
    );
}

/// Without an open trade a wide spread is not recorded; with the first trade it is.
#[test]
fn a_spread_without_a_trade_is_not_recorded() {
    let mut rig = Setup::default().rig();
    calm(&mut rig);
    assert!(rig.quote(PIVOT, PIVOT + 100).unwrap().is_empty());
    assert!(rig.pass(1).is_empty());
    rig.register_as("", 0, Some(109_000), None, 1.0);
    assert_eq!(
        spoken_edges(&rig.pass(0)),
        [(Rail::Spread, true, "100 points of 20 points".to_owned())]
    );
    rig.closed_with(TICKET, CloseReason::Client, 0.0);
    rig.quote(PIVOT, PIVOT + 10).unwrap();
    assert_eq!(
        edges(&rig.pass(10)).len(),
        1,
        "an engaged rail ends without a trade too"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]

    /// The rolling median is the lower median of the last spreads, whatever they were.
    #[test]
    fn the_rolling_median_is_that_of_the_window(
        spreads in prop::collection::vec(prop_oneof![0..40_i64, 0..5_000_i64], 1..2_500),
    ) {
        let mut rolling = Spreads::default();
        let mut window = VecDeque::new();
        for (taken, spread) in spreads.into_iter().enumerate() {
            rolling.take(spread, 2.0, 0);
            window.push_back(spread);
            if window.len() > SPREADS_KEPT {
                window.pop_front();
            }
            if taken % 17 != 0 {
                continue;
            }
            let mut sorted: Vec<i64> = window.iter().copied().collect();
            sorted.sort_unstable();
            let median = sorted[(sorted.len() - 1) / 2];
            let expected = (sorted.len() >= SPREADS_NEEDED).then_some(median);
            prop_assert_eq!(rolling.median(), expected);
        }
    }
}

// ---- news and silence ---------------------------------------------------------------------------------------------

/// News engage from their beginning until before their end, with their label; overlapping ones make
/// one edge; a calendar that no longer has them releases.
#[test]
fn news_hold_for_their_time() {
    let mut rig = ready(Setup::default());
    assert!(
        rig.news(&[(100, 200, "USD Payrolls"), (150, 250, "USD Rates")])
            .is_empty()
    );
    assert!(rig.pass(99).is_empty());
    let events = rig.pass(1);
    assert_eq!(
        spoken_edges(&events),
        [(Rail::News, true, "USD Payrolls".to_owned())]
    );
    assert!(rig.pass(149).is_empty());
    rig.restart();
    assert_eq!(holding(&rig), [Rail::News]);
    assert!(rig.news(&[(-50, 1, "USD Rates")]).is_empty());
    let released = [(Rail::News, false, "the blackout is over".to_owned())];
    assert_eq!(
        spoken_edges(&rig.tick(PIVOT + 1)),
        [],
        "the last second of it"
    );
    assert_eq!(spoken_edges(&rig.pass(1)), released);
    assert_eq!(edges(&rig.news(&[(-1, 100, "USD Speech")])).len(), 1);
    assert_eq!(spoken_edges(&rig.news(&[])), released);
    rig.check_fold();
}

/// A tick inside of a blackout is decided under the rail: it trips before the trades are looked at.
#[test]
fn news_trip_before_the_tick_is_decided() {
    let mut rig = ready(Setup::default());
    rig.news(&[(5, 50, "USD Payrolls")]);
    rig.now_s += 5;
    let events = rig.tick(PIVOT - 800);
    assert_eq!(edges(&events[..1]).len(), 1);
}

/// A window that ends before it begins and an endless label are refused.
#[test]
fn a_senseless_blackout_is_refused() {
    let mut rig = ready(Setup::default());
    let long = "x".repeat(201);
    for (end_s, label) in [(-1, "back"), (10, long.as_str())] {
        let blackout = dtms_core::rails::Blackout {
            start_ns: rig.now_ns(),
            end_ns: rig.now_ns() + end_s * S,
            label: dtms_core::message::Text::from(label),
        };
        let now_ns = rig.now_ns();
        assert!(
            rig.engine
                .set_news(ACCOUNT, SYMBOL, vec![blackout], now_ns)
                .is_err()
        );
    }
}

/// Silence trips with its alarm, and the next price releases it.
#[test]
fn silence_trips_with_its_alarm_and_a_price_releases_it() {
    let mut rig = ready(Setup::default());
    assert!(rig.pass(300).is_empty());
    let events = rig.pass(1);
    assert_eq!(bodies!(events, AlarmRaised).len(), 1);
    assert_eq!(
        spoken_edges(&events),
        [(
            Rail::StaleData,
            true,
            "no price for more than 300 s".to_owned()
        )]
    );
    assert!(rig.pass(1_000).is_empty());
    rig.check_fold();
    assert_eq!(
        spoken_edges(&rig.tick(PIVOT)),
        [(Rail::StaleData, false, "a price came".to_owned())]
    );
}

// ---- rails never stop what reduces risk ---------------------------------------------------------------------------

fn own_kinds() -> impl Strategy<Value = ActionKind> {
    prop::sample::select(
        ActionKind::ALL
            .iter()
            .map(|(_, kind)| *kind)
            .collect::<Vec<_>>(),
    )
}

proptest! {
    /// Of what DTMS does by itself a rail stops the re-add and nothing else, whatever else holds.
    #[test]
    fn a_rail_stops_no_own_action_but_the_re_add(
        kind in own_kinds(),
        trading in prop::sample::select(vec![TradingState::Active, TradingState::Reducing, TradingState::Halted]),
        killed in any::<bool>(),
    ) {
        let halt = |railed| own_halt(kind, Brakes { trading, killed, railed });
        if kind == ActionKind::ReAdd {
            prop_assert!(halt(true).is_some());
        } else {
            prop_assert_eq!(halt(true), halt(false));
            prop_assert_ne!(halt(true), Some(Halt::Railed));
        }
    }
}

/// One proposal, in points of the rig.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Stop(i64, bool),
    Remove,
    Target(i64),
    Part(u8),
    Close,
}

fn asked() -> impl Strategy<Value = Asked> {
    prop_oneof![
        (108_000..110_500_i64, any::<bool>())
            .prop_map(|(level, loosen)| Asked::Stop(level, loosen)),
        Just(Asked::Remove),
        (109_000..114_000_i64).prop_map(Asked::Target),
        (1..100_u8).prop_map(Asked::Part),
        Just(Asked::Close),
    ]
}

fn action_of(rig: &Rig, asked: Asked) -> Action {
    match asked {
        Asked::Stop(level, loosen) => rig.stop(level, loosen),
        Asked::Remove => Action {
            stop: Some(0.0),
            ..rig.stop(109_000, true)
        },
        Asked::Target(level) => Action {
            target: Some(rig.price(level)),
            ..action(ActionKind::Target)
        },
        Asked::Part(steps) => Action {
            volume: Some(f64::from(steps) / 100.0),
            ..action(ActionKind::PartialClose)
        },
        Asked::Close => action(ActionKind::Close),
    }
}

fn trip(rig: &mut Rig, rails: &[Rail]) {
    for rail in rails {
        match rail {
            Rail::DailyLoss | Rail::HourlyLoss => {
                rig.equity(10_000.0);
                rig.equity(9_500.0);
            }
            Rail::ConsecutiveStops => {
                for ticket in 1..4 {
                    if rig.engine.trade(ACCOUNT, ticket).unwrap().is_none() {
                        lose(rig, ticket, CloseReason::StopLoss, -1.0);
                    }
                }
            }
            Rail::News => {
                rig.news(&[(0, 1_000, "USD Payrolls")]);
            }
            Rail::Spread | Rail::StaleData => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Two equal trades in any state, one under rails: each proposal is decided alike on both, save one
    /// that loosens the stop, which the rails deny; and DTMS does the same on both, save a re-add.
    #[test]
    fn rails_never_stop_what_reduces_risk(
        course in prop::collection::vec((-90..30_i32, any::<bool>(), 0..90_i64), 0..8),
        rails in prop::collection::vec(prop::sample::select(vec![
            Rail::DailyLoss, Rail::HourlyLoss, Rail::ConsecutiveStops, Rail::News,
        ]), 1..4),
        trading in prop::sample::select(vec![TradingState::Active, TradingState::Reducing, TradingState::Halted]),
        proposals in prop::collection::vec(asked(), 1..8),
        hedging in any::<bool>(),
    ) {
        let rig = || ready(Setup { hedging, ..Setup::default() });
        let (mut free, mut railed) = (rig(), rig());
        trip(&mut railed, &rails);
        for rig in [&mut free, &mut railed] {
            rig.trading(trading);
        }
        let mut decided: BTreeMap<bool, Vec<(ActionKind, Option<DenialCode>)>> = BTreeMap::new();
        for (tenths, is_bar, seconds) in course {
            for (is_railed, rig) in [(false, &mut free), (true, &mut railed)] {
                let mut events = rig.score(f64::from(tenths) / 10.0);
                events.extend(rig.settle());
                if is_bar {
                    events.extend(rig.bar(110_500, 10.0));
                    events.extend(rig.settle());
                }
                events.extend(rig.pass(seconds));
                events.extend(rig.settle());
                let own = bodies!(events, DecisionMade).into_iter().map(|made| made.decision);
                decided.entry(is_railed).or_default().extend(
                    own.filter(|of| of.action.kind != ActionKind::ReAdd).map(|of| (of.action.kind, of.denial.0)),
                );
            }
        }
        // What was added again on the one is not there to be closed on the other.
        let has_re_add = free.log.iter().any(|event| format!("{:?}", event.body).contains("ReAdd"));
        prop_assume!(!has_re_add);
        prop_assert_eq!(decided.get(&false), decided.get(&true));
        for one in proposals {
            let before = free.trade().confirmed.sl;
            prop_assert_eq!(before, railed.trade().confirmed.sl);
            let reply = |rig: &mut Rig| {
                let asked = action_of(rig, one);
                let decision = rig.propose(EXIT, &asked).decision;
                rig.settle();
                (decision.denial.0, decision.halted_by.as_str().to_owned())
            };
            let (of_free, of_railed) = (reply(&mut free), reply(&mut railed));
            let loosens = match (one, before) {
                (Asked::Remove, Some(_)) => true,
                (Asked::Stop(level, _), Some(sl)) => level < free.points(sl),
                (Asked::Remove | Asked::Stop(..) | Asked::Target(_) | Asked::Part(_) | Asked::Close, _) => false,
            };
            if of_railed.1.starts_with("rail ") {
                prop_assert!(loosens, "{:?} was stopped by a rail", one);
                // The two part here.
                break;
            }
            prop_assert_eq!(of_free, of_railed);
        }
    }
}
