//! The transition table: as data, and through the engine with real prices, both sides.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic"
)]
mod engine_support;

use std::collections::BTreeSet;

use dtms_core::enums::{
    ActionKind, CloseReason, KillScope, Purpose, Timer, TradeState, TransitionCause,
};
use dtms_core::event::{Event, StateChanged};
use dtms_core::message::Number;
use dtms_core::table::{Guard, next};
use engine_support::{PIVOT, Rig, SYMBOL, Setup, TICKET, action};

/// Every edge there is; a pair that is not here has none.
const EDGES: &str = "
Healthy ScoreWorse -> WarningL1 tighten flat_timer
Healthy Bos -> Healthy trail
Healthy BrokerClosed -> Closed close_hedge close_re_add
Healthy ClosedByManager -> Closed close_hedge close_re_add
Healthy ClosedByOperator -> Closed close_hedge close_re_add close
WarningL1 ScoreWorse -> WarningL2 partial breakeven
WarningL1 BetterHeld -> Healthy
WarningL1 FlatTimerEnded -> Closed close_hedge close_re_add close
WarningL1 BrokerClosed -> Closed close_hedge close_re_add
WarningL1 ClosedByManager -> Closed close_hedge close_re_add
WarningL1 ClosedByOperator -> Closed close_hedge close_re_add close
WarningL2 ScoreWorse -> Hedged hedge flat_timer
WarningL2 Flip -> Hedged hedge flat_timer
WarningL2 BetterHeld -> WarningL1
WarningL2 BrokerClosed -> Closed close_hedge close_re_add
WarningL2 ClosedByManager -> Closed close_hedge close_re_add
WarningL2 ClosedByOperator -> Closed close_hedge close_re_add close
Hedged Bos -> Recovering close_hedge recovery_timer
Hedged HedgeStopped -> Recovering recovery_timer
Hedged HedgeClosedByHand -> WarningL2
Hedged FlatTimerEnded -> Closed close_hedge close_re_add close
Hedged ChochConfirmed -> Closed close_hedge close_re_add close
Hedged HedgeImpossible -> Closed close_hedge close_re_add close
Hedged BrokerClosed -> Closed close_hedge close_re_add
Hedged ClosedByManager -> Closed close_hedge close_re_add
Hedged ClosedByOperator -> Closed close_hedge close_re_add close
Recovering ScoreWorse -> WarningL2 breakeven
Recovering RecoveryConfirmed -> Healthy re_add
Recovering RecoveryFailed -> Closed close_hedge close_re_add close
Recovering Choch -> Closed close_hedge close_re_add close
Recovering BrokerClosed -> Closed close_hedge close_re_add
Recovering ClosedByManager -> Closed close_hedge close_re_add
Recovering ClosedByOperator -> Closed close_hedge close_re_add close
";

/// What happens to a trade that was brought to a state with every action done, and which edges
/// follow. Legs are closed only where there are any.
const COURSES: &str = "
HEALTHY score=-1.99 ->
HEALTHY score=-2 -> WARNING_L1 tighten flat_timer
HEALTHY score=-4 -> WARNING_L1 tighten flat_timer; WARNING_L2 partial breakeven
HEALTHY score=-9 -> WARNING_L1 tighten flat_timer; WARNING_L2 partial breakeven; HEDGED hedge flat_timer
HEALTHY score=9 ->
HEALTHY bos -> HEALTHY trail
HEALTHY trend choch ->
HEALTHY flip ->
HEALTHY broker_closes -> CLOSED
HEALTHY manager_closes -> CLOSED
HEALTHY flatten -> CLOSED close
WARNING_L1 score=-3.99 ->
WARNING_L1 score=-4 -> WARNING_L2 partial breakeven
WARNING_L1 score=-0.01 pass=100 ->
WARNING_L1 score=0 pass=59 ->
WARNING_L1 score=0 pass=60 -> HEALTHY
WARNING_L1 score=0 pass=59 score=-1 pass=1 score=0 pass=59 ->
WARNING_L1 score=0 pass=59 score=-1 pass=1 score=0 pass=60 -> HEALTHY
WARNING_L1 bos ->
WARNING_L1 pass=300 ->
WARNING_L1 broker_closes -> CLOSED
WARNING_L1 manager_closes -> CLOSED
WARNING_L1 flatten -> CLOSED close
WARNING_L2 score=-5.99 ->
WARNING_L2 score=-6 -> HEDGED hedge flat_timer
WARNING_L2 flip -> HEDGED hedge flat_timer
WARNING_L2 score=-2.01 pass=100 ->
WARNING_L2 score=-2 pass=60 -> WARNING_L1
WARNING_L2 score=5 pass=60 -> WARNING_L1
WARNING_L2 score=5 pass=60 pass=60 -> WARNING_L1; HEALTHY
WARNING_L2 trend choch ->
WARNING_L2 broker_closes -> CLOSED
WARNING_L2 flatten -> CLOSED close
HEDGED score=-9 ->
HEDGED score=9 pass=100 ->
HEDGED bos -> RECOVERING close_hedge recovery_timer
HEDGED hedge_stopped -> RECOVERING recovery_timer
HEDGED hedge_closed_by_hand -> WARNING_L2
HEDGED pass=299 ->
HEDGED pass=300 -> CLOSED close_hedge close
HEDGED trend choch ->
HEDGED trend choch lower -> CLOSED close_hedge close
HEDGED broker_closes -> CLOSED close_hedge
HEDGED flatten -> CLOSED close_hedge close
RECOVERING score=-3.99 ->
RECOVERING score=-4 -> WARNING_L2 breakeven
RECOVERING score=-6 -> WARNING_L2 breakeven
RECOVERING score=-6 pass=120 -> WARNING_L2 breakeven; HEDGED hedge flat_timer
RECOVERING score=1 pass=119 ->
RECOVERING score=1 pass=120 -> HEALTHY re_add
RECOVERING score=0.99 pass=120 -> CLOSED close
RECOVERING trend choch -> CLOSED close
RECOVERING broker_closes -> CLOSED
RECOVERING manager_closes -> CLOSED
RECOVERING flatten -> CLOSED close
CLOSED score=-9 pass=1000 bos ->
CLOSED broker_closes ->
CLOSED flatten ->
";

fn word(action: (ActionKind, Purpose)) -> &'static str {
    match action {
        (ActionKind::Stop, Purpose::Tighten) => "tighten",
        (ActionKind::Stop, Purpose::Breakeven) => "breakeven",
        (ActionKind::Stop, Purpose::Trail) => "trail",
        (ActionKind::PartialClose, Purpose::Partial) => "partial",
        (ActionKind::OpenHedge, Purpose::Hedge) => "hedge",
        (ActionKind::CloseHedge, _) => "close_hedge",
        (ActionKind::ReAdd, Purpose::Recover) => "re_add",
        (ActionKind::CloseReAdd, _) => "close_re_add",
        (ActionKind::Close, Purpose::Flatten) => "close",
        other => panic!("no entry has {other:?}"),
    }
}

fn edge_line(state: TradeState, guard: Guard) -> Option<String> {
    let edge = next(state, guard)?;
    let mut words = vec![format!("{state:?} {guard:?} -> {:?}", edge.to)];
    words.extend(edge.entry.iter().map(|entry| word(*entry).to_owned()));
    words.extend(edge.timer.map(|timer| {
        match timer {
            Timer::Flat => "flat_timer",
            Timer::Recovery => "recovery_timer",
        }
        .to_owned()
    }));
    Some(words.join(" "))
}

/// All pairs of state and guard have the edge that is written down, and no other has one (I12).
#[test]
fn the_table_has_these_edges_and_no_other() {
    let written: BTreeSet<&str> = EDGES.trim().lines().collect();
    let pairs = TradeState::ALL
        .iter()
        .flat_map(|(_, state)| Guard::ALL.map(|guard| (*state, guard)));
    let actual: BTreeSet<String> = pairs
        .filter_map(|(state, guard)| edge_line(state, guard))
        .collect();
    assert_eq!(
        actual.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        written
    );
}

/// CLOSED is final: no guard leads out of it.
#[test]
fn closed_has_no_edge() {
    assert!(
        Guard::ALL
            .iter()
            .all(|guard| next(TradeState::Closed, *guard).is_none())
    );
}

fn state_of(name: &str) -> TradeState {
    match name {
        "HEALTHY" => TradeState::Healthy,
        "WARNING_L1" => TradeState::WarningL1,
        "WARNING_L2" => TradeState::WarningL2,
        "HEDGED" => TradeState::Hedged,
        "RECOVERING" => TradeState::Recovering,
        "CLOSED" => TradeState::Closed,
        other => panic!("no state {other}"),
    }
}

fn name_of(state: TradeState) -> &'static str {
    match state {
        TradeState::Healthy => "HEALTHY",
        TradeState::WarningL1 => "WARNING_L1",
        TradeState::WarningL2 => "WARNING_L2",
        TradeState::Hedged => "HEDGED",
        TradeState::Recovering => "RECOVERING",
        TradeState::Closed => "CLOSED",
    }
}

fn stimulus(rig: &mut Rig, word: &str) -> Vec<Event> {
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    match name {
        "score" => rig.score(value.parse().unwrap()),
        "pass" => rig.pass(value.parse().unwrap()),
        // Closes above the last confirmed swing high, below the last confirmed swing low.
        "bos" => rig.bar(110_500, 10.0),
        "choch" => rig.bar(109_500, 10.0),
        "lower" => rig.bar(109_400, 10.0),
        "flip" => {
            let mut events = Vec::new();
            for close in [
                110_200, 110_250, 110_200, 110_150, 110_100, 110_050, 110_000, 109_900, 109_850,
                109_800,
            ] {
                events.extend(rig.bar(close, if close < 110_200 { 100.0 } else { 1.0 }));
            }
            events
        }
        "hedge_stopped" => {
            let hedge = rig.hedge();
            rig.closed(hedge, CloseReason::StopLoss, PIVOT + 120)
        }
        "hedge_closed_by_hand" => {
            let hedge = rig.hedge();
            rig.closed(hedge, CloseReason::Client, PIVOT)
        }
        "broker_closes" => rig.closed(TICKET, CloseReason::TakeProfit, 113_000),
        "manager_closes" => {
            assert!(
                rig.propose(engine_support::EXIT, &action(ActionKind::Close))
                    .decision
                    .granted
            );
            rig.confirm()
        }
        "flatten" => {
            let scope = KillScope::Symbol;
            let step =
                rig.engine
                    .set_kill_switch(scope, SYMBOL, true, true, "op", "test", rig.now_ns());
            rig.take(step).unwrap().0
        }
        other => panic!("no stimulus {other}"),
    }
}

fn shown(change: &StateChanged) -> String {
    let mut words = vec![name_of(change.to)];
    words.extend(
        change
            .actions
            .iter()
            .map(|action| word((action.kind, action.purpose))),
    );
    words.extend(change.flat_timer_ends_ns.map(|_| "flat_timer"));
    words.extend(change.recovery_timer_ends_ns.map(|_| "recovery_timer"));
    words.join(" ")
}

fn course(line: &str, mirror: bool) -> (String, Vec<(TradeState, TransitionCause)>) {
    let (before, _) = line.split_once("->").unwrap();
    let mut words = before.split_whitespace();
    let state = state_of(words.next().unwrap());
    let mut rig = Setup::mirrored(mirror).rig();
    rig.warm();
    let mut words = words.peekable();
    if words.next_if_eq(&"trend").is_some() {
        // The first break founds the trend, before the trade exists.
        rig.bar(110_500, 10.0);
        rig.bar(110_000, 10.0);
    }
    rig.bring_to(state);
    let mut changes = Vec::new();
    for word in words {
        let events = stimulus(&mut rig, word);
        changes.extend(bodies!(events, StateChanged));
    }
    rig.check_fold();
    let after = changes.iter().map(shown).collect::<Vec<_>>().join("; ");
    let edges = changes
        .iter()
        .map(|change| (change.from, change.cause))
        .collect();
    (format!("{before}-> {after}").trim_end().to_owned(), edges)
}

/// Each line holds through the engine, for a BUY and for the mirrored SELL (I12), and every edge of
/// the table that the market, time or broker can cause is taken by some line.
#[test]
fn every_course_leads_where_it_is_written() {
    let mut taken = BTreeSet::new();
    for line in COURSES.trim().lines() {
        for mirror in [false, true] {
            let (actual, edges) = course(line, mirror);
            assert_eq!(actual, line.trim_end(), "mirror: {mirror}");
            taken.extend(edges);
        }
    }
    // Configured off here, and refused by a broker: see timers.rs and retries.rs.
    taken.insert((TradeState::WarningL1, TransitionCause::FlatTimer));
    taken.insert((TradeState::Hedged, TransitionCause::HedgeImpossible));
    // In defence no manager is granted a close.
    for state in [TradeState::WarningL2, TradeState::Hedged] {
        taken.insert((state, TransitionCause::ClosedByManager));
    }
    for (_, state) in TradeState::ALL {
        for guard in Guard::ALL
            .into_iter()
            .filter(|guard| next(*state, *guard).is_some())
        {
            assert!(
                taken.contains(&(*state, guard.cause())),
                "no course takes {state:?} {guard:?}"
            );
        }
    }
}
