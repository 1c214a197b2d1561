//! Commands that were settled as not executed, because the broker showed no trace, and were executed late.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic"
)]
mod engine_support;

use dtms_core::enums::{
    ActionKind, AlarmCode, CloseReason, LegKind, OutcomeStatus, Side, StatePhase, TradeState,
};
use dtms_core::event::{Event, IntentRecorded, LegFound};
use engine_support::{ACCOUNT, MANAGED, PIVOT, Rig, S, Setup, TICKET, outcome};

/// HEDGED is entered and its order left no trace: the intent, settled as not executed.
fn abandoned_hedge(strategy: &str) -> (Rig, IntentRecorded) {
    let mut rig = Setup::default().rig();
    rig.warm();
    rig.register_as(strategy, 1_000, Some(109_000), Some(113_000), 1.0);
    rig.tick(PIVOT);
    rig.score(-9.0);
    while rig.intent().kind != ActionKind::OpenHedge {
        rig.confirm();
    }
    let hedge = abandon(&mut rig);
    (rig, hedge)
}

/// The command at the broker is UNKNOWN, then settled as not executed.
fn abandon(rig: &mut Rig) -> IntentRecorded {
    let intent = rig.intent();
    rig.answer(outcome(intent.intent_id, OutcomeStatus::Unknown, 0))
        .unwrap();
    let mut settled = outcome(intent.intent_id, OutcomeStatus::Rejected, 0);
    settled.settled = true;
    rig.answer(settled).unwrap();
    intent
}

/// The broker shows that `intent` was executed after all.
fn execute_late(rig: &mut Rig, intent: &IntentRecorded) -> Vec<Event> {
    let late = rig.done(intent);
    rig.answer(late).unwrap()
}

fn alarms(events: &[Event]) -> Vec<AlarmCode> {
    bodies!(events, AlarmRaised)
        .iter()
        .map(|alarm| alarm.code)
        .collect()
}

/// A hedge that comes late, while the trade still waits for one, is its hedge; none is opened beside it.
#[test]
fn a_late_hedge_that_is_still_wanted_is_the_hedge() {
    let (mut rig, hedge) = abandoned_hedge("");
    assert_eq!(
        (rig.state(), rig.leg(LegKind::Hedge)),
        (TradeState::Hedged, None)
    );
    let events = execute_late(&mut rig, &hedge);
    assert_eq!(alarms(&events), [AlarmCode::LateExecution]);
    assert!(rig.leg(LegKind::Hedge).is_some());
    rig.pass(10);
    assert!(rig.intents().is_empty(), "no second hedge");
    assert_eq!(rig.trade().phase, StatePhase::Confirmed);
    assert!(rig.trade().strays.is_empty());
}

/// A hedge that comes after its retry was confirmed is one too many: it is closed, the other one stays.
#[test]
fn a_late_hedge_beside_another_is_closed() {
    let (mut rig, first) = abandoned_hedge("");
    rig.pass(10);
    rig.confirm();
    let second = rig.leg(LegKind::Hedge);
    execute_late(&mut rig, &first);
    let close = rig.intent();
    assert_eq!(
        (close.kind, close.leg),
        (ActionKind::CloseStray, LegKind::Stray)
    );
    assert_eq!(
        (Some(close.position), close.side),
        (rig.leg(LegKind::Stray), first.side)
    );
    assert_eq!(rig.trade().phase, StatePhase::Pending);
    rig.restart();
    rig.confirm();
    assert_eq!(
        (rig.leg(LegKind::Hedge), rig.leg(LegKind::Stray)),
        (second, None)
    );
    assert_eq!(
        (rig.state(), rig.trade().phase),
        (TradeState::Hedged, StatePhase::Confirmed)
    );
}

/// A retry that is confirmed after the late one was found makes one too many as well.
#[test]
fn a_retry_beside_a_late_hedge_is_closed() {
    let (mut rig, first) = abandoned_hedge("");
    rig.pass(10);
    let retry = rig.intent();
    execute_late(&mut rig, &first);
    let found = rig.leg(LegKind::Hedge);
    let done = rig.done(&retry);
    rig.answer(done).unwrap();
    assert_eq!(rig.intent().kind, ActionKind::CloseStray);
    rig.confirm();
    assert_eq!(
        (rig.leg(LegKind::Hedge), rig.leg(LegKind::Stray)),
        (found, None)
    );
}

/// I13: a hedge that comes when its trade is CLOSED is closed, and until then CLOSED is not confirmed.
#[test]
fn a_late_hedge_does_not_outlive_its_trade() {
    let (mut rig, hedge) = abandoned_hedge("");
    rig.closed(TICKET, CloseReason::StopLoss, 109_000);
    assert_eq!(rig.trade().phase, StatePhase::Confirmed);
    execute_late(&mut rig, &hedge);
    assert_eq!(rig.trade().phase, StatePhase::Pending);
    rig.refuse(10_006);
    rig.pass(10);
    rig.confirm();
    assert_eq!(
        (rig.leg(LegKind::Stray), rig.trade().phase),
        (None, StatePhase::Confirmed)
    );
}

/// A stray is closed whoever owns the trade: nobody else can.
#[test]
fn a_stray_is_closed_on_a_trade_of_another_owner() {
    let (mut rig, hedge) = abandoned_hedge(MANAGED);
    rig.pass(10);
    rig.settle();
    let second = rig.hedge();
    rig.closed(second, CloseReason::StopLoss, PIVOT);
    assert_eq!(rig.state(), TradeState::Recovering);
    assert!(!rig.trade().managed_by.as_str().starts_with("dtms"));
    execute_late(&mut rig, &hedge);
    assert_eq!(rig.intent().kind, ActionKind::CloseStray);
}

/// A stray that the broker closes by itself, by its own stop, is gone with its deal.
#[test]
fn a_stray_that_is_stopped_out_is_gone() {
    let (mut rig, hedge) = abandoned_hedge("");
    rig.closed(TICKET, CloseReason::StopLoss, 109_000);
    execute_late(&mut rig, &hedge);
    rig.refuse(10_018);
    let stray = rig.leg(LegKind::Stray).unwrap();
    rig.closed(stray, CloseReason::StopLoss, 110_500);
    rig.pass(120);
    assert!(rig.intents().is_empty());
    assert_eq!(
        (rig.leg(LegKind::Stray), rig.trade().phase),
        (None, StatePhase::Confirmed)
    );
}

/// A part that was closed late is the part: it is not taken a second time.
#[test]
fn a_late_partial_is_the_partial() {
    let mut rig = Setup::default().rig();
    rig.warm();
    rig.register();
    rig.tick(PIVOT);
    rig.score(-5.0);
    while rig.intent().kind != ActionKind::PartialClose {
        rig.confirm();
    }
    let part = abandon(&mut rig);
    assert_eq!(rig.trade().volume.to_bits(), 1.0_f64.to_bits());
    execute_late(&mut rig, &part);
    assert_eq!((rig.trade().volume, rig.trade().partial_taken), (0.5, true));
    rig.pass(10);
    assert!(
        rig.intents()
            .iter()
            .all(|intent| intent.kind != ActionKind::PartialClose)
    );
}

/// A proposal that was executed late after a restart takes effect; a second time it is nobody's.
#[test]
fn a_late_close_of_a_manager_closes_the_trade() {
    let mut rig = Setup::default().rig();
    rig.warm();
    rig.register();
    rig.propose(
        engine_support::EXIT,
        &engine_support::action(ActionKind::Close),
    );
    let close = abandon(&mut rig);
    assert_eq!(rig.state(), TradeState::Healthy);
    rig.restart();
    assert_eq!(rig.engine.abandoned().count(), 1);
    execute_late(&mut rig, &close);
    assert_eq!(rig.state(), TradeState::Closed);
    assert!(execute_late(&mut rig, &close).is_empty());
    assert_eq!(rig.engine.abandoned().count(), 0);
}

/// What an unregistered trade has lost sight of is nobody's.
#[test]
fn a_forgotten_trade_has_no_late_commands() {
    let mut rig = Setup::default().rig();
    rig.warm();
    rig.register();
    rig.propose(
        engine_support::EXIT,
        &engine_support::action(ActionKind::Close),
    );
    let close = abandon(&mut rig);
    let step = rig.engine.unregister(ACCOUNT, TICKET, "test", 5 * S);
    rig.take(step).unwrap();
    assert!(execute_late(&mut rig, &close).is_empty());
}

/// A stop change of the exit manager that left no trace, to 109.300.
fn abandoned_stop() -> (Rig, IntentRecorded) {
    let mut rig = Setup::default().rig();
    rig.warm();
    rig.score(-1.0);
    rig.register();
    rig.tick(PIVOT);
    let stop = rig.stop(109_300, false);
    rig.propose(engine_support::EXIT, &stop);
    let intent = abandon(&mut rig);
    (rig, intent)
}

/// A stop that a later command has set is no trace of the command that was given up before: nothing was late.
#[test]
fn a_level_that_a_later_command_has_set_is_no_late_execution() {
    let (mut rig, first) = abandoned_stop();
    let stop = rig.stop(109_300, false);
    rig.pass(10);
    rig.propose(engine_support::EXIT, &stop);
    assert_eq!(rig.engine.abandoned().count(), 1);
    rig.confirm();
    assert_eq!(rig.engine.abandoned().count(), 0);
    rig.restart();
    rig.refold();
    assert_eq!(rig.engine.abandoned().count(), 0);
    assert!(execute_late(&mut rig, &first).is_empty());
}

/// A later command to another price explains nothing: the first may still come, and is told then.
#[test]
fn a_level_that_was_set_to_another_price_explains_nothing() {
    let (mut rig, first) = abandoned_stop();
    let stop = rig.stop(109_400, false);
    rig.pass(10);
    rig.propose(engine_support::EXIT, &stop);
    rig.confirm();
    assert_eq!(rig.engine.abandoned().count(), 1);
    let events = execute_late(&mut rig, &first);
    assert_eq!(alarms(&events), [AlarmCode::LateExecution]);
    assert_eq!(rig.trade().confirmed.sl, first.sl);
}

/// A target that somebody has moved before a stop change came is told as his, and the stop as the command's.
#[test]
fn a_target_that_was_moved_before_a_stop_change_is_external() {
    let mut rig = Setup::default().rig();
    rig.warm();
    rig.score(-1.0);
    rig.register();
    rig.tick(PIVOT);
    let stop = rig.stop(109_300, false);
    rig.propose(engine_support::EXIT, &stop);
    let intent = rig.intent();
    let mut outcome = rig.done(&intent);
    outcome.tp = Some(rig.price(114_000));
    let events = rig.answer(outcome).unwrap();
    let moved = bodies!(events, PositionChanged);
    assert_eq!(moved.len(), 1);
    assert!(moved[0].external);
    assert_ne!(moved[0].sl, intent.sl);
    assert_eq!(moved[0].tp, Some(rig.price(114_000)));
    let confirmed = rig.trade().confirmed;
    assert_eq!(
        (confirmed.sl, confirmed.tp),
        (intent.sl, Some(rig.price(114_000)))
    );
}

/// A position as the broker shows it, opened by intent `intent_id`.
fn leg(rig: &Rig, intent_id: u64, side: Side) -> LegFound {
    LegFound {
        leg: LegKind::Stray,
        position: 9_001,
        side,
        volume: 0.25,
        entry_price: rig.price(PIVOT),
        sl: None,
        intent_id,
    }
}

/// A hedge of a time that the journal has lost is the hedge where the trade waits for one; else it is closed.
#[test]
fn a_leg_of_a_lost_time_is_taken_or_closed() {
    let (mut rig, _) = abandoned_hedge("");
    let step = rig.engine.restored(1, rig.now_ns());
    let events = rig.take(step).unwrap().0;
    let lost = bodies!(events, BackupRestored)[0].last_intent;
    let found = leg(&rig, lost, rig.side(Side::Sell));
    let step = rig
        .engine
        .on_lost_leg(ACCOUNT, TICKET, &found, rig.now_ns());
    let events = rig.take(step).unwrap().0;
    assert_eq!(alarms(&events), [AlarmCode::LostLeg]);
    assert_eq!(rig.leg(LegKind::Hedge), Some(9_001));
    assert!(rig.intents().is_empty(), "no second hedge is opened");
    let step = rig
        .engine
        .on_lost_leg(ACCOUNT, TICKET, &found, rig.now_ns());
    assert!(rig.take(step).unwrap().0.is_empty(), "once is enough");

    let second = LegFound {
        position: 9_002,
        ..found
    };
    let step = rig
        .engine
        .on_lost_leg(ACCOUNT, TICKET, &second, rig.now_ns());
    rig.take(step).unwrap();
    let close = rig.intent();
    assert_eq!(
        (close.kind, close.position),
        (ActionKind::CloseStray, 9_002)
    );
    rig.confirm();
    rig.restart();
    assert!(rig.engine.is_lost(lost));
    assert_eq!(rig.leg(LegKind::Stray), None);
}

/// A position of an intent that the journal has is no leg of a lost time.
#[test]
fn the_mark_of_a_known_intent_is_refused() {
    let (mut rig, hedge) = abandoned_hedge("");
    let found = leg(&rig, hedge.intent_id, rig.side(Side::Sell));
    let now_ns = rig.now_ns();
    let refused = engine_support::refused(rig.engine.on_lost_leg(ACCOUNT, TICKET, &found, now_ns));
    assert_eq!(refused.reason, dtms_core::error::Reason::FieldInvalid);
}
