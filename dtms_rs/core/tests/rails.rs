//! Safety rails: what trips and releases them, and the whole table of who may still do what.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic"
)]
mod engine_support;

use std::collections::{BTreeMap, VecDeque};

use dtms_core::arbiter::{Brakes, Halt, own_halt};
use dtms_core::enums::{
    ActionKind, CloseReason, DenialCode, KillScope, Rail, SkipReason, Span, TradeState,
    TradingState,
};
use dtms_core::event::{Action, Event, RailChanged};
use dtms_core::message::Number;
use dtms_core::rails::{SPREADS_KEPT, SPREADS_NEEDED, Spreads, spoken};
use engine_support::{
    ACCOUNT, EXIT, PIVOT, Rig, S, START_S, SYMBOL, Setup, TICKET, UNIVERSAL, action,
};
use proptest::prelude::*;

const DAY_S: i64 = 86_400;
/// Within the hour that the trades of the table begin in.
const RECOVERY_S: i64 = 480;

fn edges(events: &[Event]) -> Vec<RailChanged> {
    bodies!(events, RailChanged)
}

/// (rail, engaged, detail) of each edge.
fn spoken_edges(events: &[Event]) -> Vec<(Rail, bool, String)> {
    edges(events)
        .into_iter()
        .map(|edge| (edge.rail, edge.engaged, edge.detail.as_str().to_owned()))
        .collect()
}

fn ready(setup: Setup) -> Rig {
    let mut rig = setup.rig();
    rig.warm();
    rig.score(-1.0);
    rig.register();
    rig.tick(PIVOT);
    rig
}

fn holding(rig: &Rig) -> Vec<Rail> {
    rig.engine.status().rails.iter().map(|it| it.rail).collect()
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

fn lose(rig: &mut Rig, ticket: u64, reason: CloseReason, profit: f64) -> Vec<(Rail, bool)> {
    rig.try_register(ticket, "", 0, Some(109_000), None, 1.0)
        .unwrap();
    let events = rig.closed_with(ticket, reason, profit);
    edges(&events)
        .iter()
        .map(|edge| (edge.rail, edge.engaged))
        .collect()
}

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

/// As many ticks with a spread of 10 points as the median needs.
fn calm(rig: &mut Rig) {
    for _ in 0..SPREADS_NEEDED {
        rig.quote(PIVOT, PIVOT + 10).unwrap();
    }
}

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

// ---- the table ----------------------------------------------------------------------------------------------------

const COLUMNS: [&str; 12] = [
    "ACTIVE",
    "DAILY_LOSS",
    "HOURLY_LOSS",
    "CONSECUTIVE_STOPS",
    "NEWS",
    "SPREAD",
    "STALE_DATA",
    "REDUCING",
    "HALTED",
    "kill account",
    "kill symbol",
    "kill manager",
];

/// Action by column: + is granted, - is HALTED. The same stands in docs/domain.md.
const TABLE: &str = "
manager tightens the stop          | + | + + + + + + | + - | - - -
manager loosens the stop           | + | - - - - - - | - - | - - -
manager removes the stop           | + | - - - - - - | - - | - - -
manager moves the target           | + | + + + + + + | + - | - - -
manager closes a part              | + | + + + + + + | + + | - - -
manager closes                     | + | + + + + + + | + + | - - -
manager acquires                   | + | + + + + + + | + - | - - -
DTMS tightens, breakeven, trails   | + | + + + + + + | + + | + + +
DTMS closes a part                 | + | + + + + + + | + + | + + +
DTMS opens a hedge                 | + | + + + + + + | - - | + + +
DTMS reduces for a hedge (netting) | + | + + + + + + | + + | + + +
DTMS closes the hedge              | + | + + + + + + | + + | + + +
DTMS adds again                    | + | - - - - - - | - - | - - +
DTMS adds again (netting)          | + | - - - - - - | - - | - - +
DTMS closes                        | + | + + + + + + | + + | + + +
";

/// Brings about what the column says, on an account whose trade is open.
fn engage(rig: &mut Rig, column: &str) {
    match column {
        "ACTIVE" => {}
        "DAILY_LOSS" | "HOURLY_LOSS" => {
            rig.equity(10_000.0);
            rig.equity(9_750.0);
        }
        "CONSECUTIVE_STOPS" => {
            for ticket in 1..4 {
                lose(rig, ticket, CloseReason::StopLoss, -1.0);
            }
        }
        "NEWS" => {
            rig.news(&[(0, 1_000_000, "USD Payrolls")]);
        }
        "SPREAD" => {
            calm(rig);
            rig.quote(PIVOT, PIVOT + 30).unwrap();
        }
        "STALE_DATA" => {
            rig.pass(301);
        }
        "REDUCING" => {
            rig.trading(TradingState::Reducing);
        }
        "HALTED" => {
            rig.trading(TradingState::Halted);
        }
        "kill account" => {
            rig.kill(KillScope::Account, ACCOUNT, true);
        }
        "kill symbol" => {
            rig.kill(KillScope::Symbol, SYMBOL, true);
        }
        "kill manager" => {
            rig.kill(KillScope::Manager, EXIT, true);
        }
        other => panic!("no column {other}"),
    }
    let rails: Vec<String> = holding(rig).into_iter().map(spoken).collect();
    let is_rail = Rail::ALL.iter().any(|(_, rail)| spoken(*rail) == column);
    assert_eq!(
        rails.contains(&column.to_owned()),
        is_rail,
        "{rails:?} in {column}"
    );
    assert!(rails.len() <= 1, "one cause at a time: {rails:?}");
}

/// Each cause alone: silence takes its time, and a loss of the day is one of the hour too.
fn setup_for(column: &str) -> Setup {
    let only = |of: &str, value: f64| if column == of { value } else { 0.0 };
    Setup::default()
        .with("stale_after_s", only("STALE_DATA", 300.0))
        .with("daily_loss_percent", only("DAILY_LOSS", 2.0))
        .with("hourly_loss_percent", only("HOURLY_LOSS", 1.0))
}

/// What halted it, for HALTED; empty when it was granted. Any other denial fails.
fn proposal(column: &str, asked: impl FnOnce(&mut Rig) -> Action) -> Option<String> {
    let mut rig = ready(setup_for(column));
    engage(&mut rig, column);
    let asked = asked(&mut rig);
    let decision = rig.propose(EXIT, &asked).decision;
    let denial = decision.denial.0;
    assert!(
        matches!(denial, None | Some(DenialCode::Halted)),
        "{denial:?} in {column}"
    );
    assert_eq!(denial.is_none(), decision.halted_by.is_empty());
    denial.map(|_| decision.halted_by.as_str().to_owned())
}

/// The decision on the first own action of `kind` that `events` hold.
fn own(events: &[Event], kind: ActionKind) -> Option<String> {
    let made = bodies!(events, DecisionMade);
    let decision = made
        .iter()
        .map(|made| &made.decision)
        .find(|decision| decision.request_id.is_empty() && decision.action.kind == kind)
        .unwrap_or_else(|| panic!("no decision on {kind:?} in {events:#?}"));
    let denial = decision.denial.0;
    assert!(
        matches!(denial, None | Some(DenialCode::Halted)),
        "{denial:?}"
    );
    denial.map(|_| decision.halted_by.as_str().to_owned())
}

/// A trade of DTMS in `state`, under what the column says, and what the stimulus then brings.
fn course(
    column: &str,
    hedging: bool,
    state: TradeState,
    kind: ActionKind,
    stimulus: impl FnOnce(&mut Rig) -> Vec<Event>,
) -> Option<String> {
    let setup = Setup {
        hedging,
        ..setup_for(column)
    };
    // Long timers: a column may take its time to come about.
    let setup = setup
        .with("flat_timer_slow_bars", 1e5)
        .with("recovery_timer_slow_bars", 8.0);
    let mut rig = setup.rig();
    rig.warm();
    rig.bring_to(state);
    if state == TradeState::Recovering {
        rig.score(2.0);
    }
    engage(&mut rig, column);
    let events = stimulus(&mut rig);
    rig.check_fold();
    own(&events, kind)
}

fn netting_recovered(rig: &mut Rig) -> Vec<Event> {
    rig.bar(110_500, 10.0);
    rig.settle();
    rig.score(2.0);
    rig.pass(RECOVERY_S)
}

fn cell(row: &str, column: &str) -> Option<String> {
    use ActionKind::{Close, CloseHedge, OpenHedge, PartialClose, ReAdd, Stop};
    use TradeState::{Healthy, Hedged, Recovering, WarningL1, WarningL2};
    let worse = |total: f64| move |rig: &mut Rig| rig.score(total);
    match row {
        "manager tightens the stop" => proposal(column, |rig| rig.stop(109_200, false)),
        "manager loosens the stop" => proposal(column, |rig| {
            // Half of the trade is closed: the budget has room for it.
            let step = rig.engine.on_position(
                ACCOUNT,
                TICKET,
                0.5,
                Some(rig.price(109_000)),
                Some(rig.price(113_000)),
                rig.now_ns(),
            );
            rig.take(step).unwrap();
            rig.stop(108_900, true)
        }),
        "manager removes the stop" => proposal(column, |rig| Action {
            stop: Some(0.0),
            ..rig.stop(109_000, true)
        }),
        "manager moves the target" => proposal(column, |rig| Action {
            target: Some(rig.price(112_000)),
            ..action(ActionKind::Target)
        }),
        "manager closes a part" => proposal(column, |_| Action {
            volume: Some(0.5),
            ..action(PartialClose)
        }),
        "manager closes" => proposal(column, |_| action(Close)),
        "manager acquires" => {
            let mut rig = ready(setup_for(column));
            engage(&mut rig, column);
            let (now_ns, mono_ns) = (rig.now_ns(), rig.mono_ns);
            let manager = if column == "kill manager" {
                EXIT
            } else {
                UNIVERSAL
            };
            let step = rig
                .engine
                .acquire(ACCOUNT, TICKET, manager, now_ns, mono_ns);
            let denial = rig.take(step).unwrap().1.denial;
            assert!(
                matches!(denial, None | Some(DenialCode::Halted)),
                "{denial:?}"
            );
            denial.map(|_| String::new())
        }
        "DTMS tightens, breakeven, trails" => {
            let tightened = course(column, true, Healthy, Stop, worse(-3.0));
            let evened = course(column, true, WarningL1, Stop, |rig| {
                rig.score(-5.0);
                rig.settle()
            });
            assert_eq!(tightened, evened);
            tightened
        }
        "DTMS closes a part" => course(column, true, WarningL1, PartialClose, worse(-5.0)),
        "DTMS opens a hedge" => course(column, true, WarningL2, OpenHedge, worse(-7.0)),
        "DTMS reduces for a hedge (netting)" => {
            course(column, false, WarningL2, OpenHedge, worse(-7.0))
        }
        "DTMS closes the hedge" => course(column, true, Hedged, CloseHedge, |rig| {
            rig.bar(110_500, 10.0)
        }),
        "DTMS adds again" => course(column, true, Recovering, ReAdd, |rig| rig.pass(RECOVERY_S)),
        "DTMS adds again (netting)" => course(column, false, Hedged, ReAdd, netting_recovered),
        "DTMS closes" => course(column, true, Recovering, Close, |rig| {
            rig.score(-1.0);
            rig.pass(RECOVERY_S)
        }),
        other => panic!("no row {other}"),
    }
}

/// The whole table, action by what brakes it; each HALTED names what it is due to.
#[test]
fn the_table_of_brakes_holds_as_it_is_written() {
    for line in TABLE.trim().lines() {
        let (row, cells) = line.split_once('|').unwrap();
        let cells: Vec<&str> = cells
            .split_whitespace()
            .filter(|cell| *cell != "|")
            .collect();
        assert_eq!(cells.len(), COLUMNS.len(), "{row}");
        for (expected, column) in cells.into_iter().zip(COLUMNS) {
            let halted_by = cell(row.trim(), column);
            let actual = if halted_by.is_some() { "-" } else { "+" };
            assert_eq!(actual, expected, "{row} under {column}");
            let Some(words) = halted_by.filter(|words| !words.is_empty()) else {
                continue;
            };
            let begins = match column {
                "REDUCING" | "HALTED" => format!("trading state {column}"),
                "kill account" => format!("kill switch account {ACCOUNT}"),
                "kill symbol" => format!("kill switch symbol {SYMBOL}"),
                "kill manager" => format!("kill switch manager {EXIT}"),
                rail => format!("rail {rail} "),
            };
            assert!(words.starts_with(&begins), "{words} under {column}");
        }
    }
}

/// A re-add under a rail is dropped, with a record of why; it does not come when the rail is released.
#[test]
fn a_re_add_under_a_rail_is_dropped() {
    let mut rig = Setup::default().rig();
    rig.warm();
    rig.bring_to(TradeState::Recovering);
    rig.score(2.0);
    rig.news(&[(0, 1_000, "USD Payrolls")]);
    let events = rig.pass(120);
    assert_eq!(rig.state(), TradeState::Healthy);
    let skipped = bodies!(events, ActionSkipped);
    assert_eq!(skipped.len(), 1);
    assert_eq!(
        (skipped[0].action.kind, skipped[0].reason),
        (ActionKind::ReAdd, SkipReason::Denied)
    );
    rig.news(&[]);
    rig.pass(10_000);
    assert!(rig.intents().is_empty() && rig.trade().readd.is_none());
}

/// A trade in quarantine halts its managers, and the decision says so.
#[test]
fn quarantine_halts_and_is_named() {
    let mut rig = ready(Setup::default());
    let step = rig.engine.on_missing(ACCOUNT, TICKET, rig.now_ns());
    rig.take(step).unwrap();
    let tighter = rig.stop(109_200, false);
    let decision = rig.propose(EXIT, &tighter).decision;
    assert_eq!(decision.denial.0, Some(DenialCode::Halted));
    assert_eq!(
        decision.halted_by.as_str(),
        "quarantined: not found at the broker"
    );
}

// ---- the operator closes everything -------------------------------------------------------------------------------

/// `flatten` closes every trade that the switch covers, once, with who and why; it needs a thrown
/// switch of an account or symbol, and works where that stands already.
#[test]
fn flatten_closes_what_the_switch_covers() {
    for (scope, value) in [(KillScope::Account, ACCOUNT), (KillScope::Symbol, SYMBOL)] {
        let mut rig = ready(Setup::default());
        rig.kill(scope, value, true);
        let now_ns = rig.now_ns();
        let step = rig
            .engine
            .set_kill_switch(scope, value, true, true, "op", "flood", now_ns);
        let (events, ()) = rig.take(step).unwrap();
        let thrown = bodies!(events, KillSwitchChanged);
        assert!(thrown[0].flatten && thrown[0].by == *"op" && thrown[0].reason == *"flood");
        assert_eq!(rig.intent().kind, ActionKind::Close);
        rig.settle();
        assert_eq!(rig.state(), TradeState::Closed);
        let step = rig
            .engine
            .set_kill_switch(scope, value, true, true, "op", "again", now_ns);
        assert_eq!(rig.take(step).unwrap().0.len(), 1, "nothing left to close");
        rig.check_fold();
    }
    let mut rig = ready(Setup::default());
    let now_ns = rig.now_ns();
    for (scope, value, engaged) in [
        (KillScope::Manager, EXIT, true),
        (KillScope::Symbol, SYMBOL, false),
    ] {
        let step = rig
            .engine
            .set_kill_switch(scope, value, engaged, true, "op", "no", now_ns);
        assert_eq!(step.unwrap_err().field, "flatten");
    }
    assert_eq!(rig.state(), TradeState::Healthy);
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
