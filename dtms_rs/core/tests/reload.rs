//! Other numbers while the engine runs, and after a restart: what holds at once, and what trades keep.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic"
)]
mod engine_support;

use dtms_core::enums::{DenialCode, Rail, StatePhase, TradeState};
use dtms_core::error::Reason;
use dtms_core::event::{Body, Event, RulesChanged};
use engine_support::rails::ready;
use engine_support::{ACCOUNT, EXIT, PIVOT, Rig, Setup, TICKET};

const SECOND: u64 = TICKET + 1;

fn state_of(rig: &Rig, ticket: u64) -> TradeState {
    rig.engine.trade(ACCOUNT, ticket).unwrap().unwrap().state
}

fn rules(events: &[Event]) -> &RulesChanged {
    match events {
        [
            Event {
                body: Body::RulesChanged(changed),
                ..
            },
        ] => changed,
        other => panic!("one record of numbers is expected: {other:?}"),
    }
}

fn second(rig: &mut Rig) {
    rig.try_register(SECOND, "", 1_000, Some(109_000), Some(113_000), 1.0)
        .unwrap();
    rig.tick(PIVOT);
}

/// A trade keeps the thresholds that it was registered with; one that is registered afterwards has the new ones.
/// This holds across restarts, from a snapshot and from the events alone.
#[test]
fn a_trade_keeps_the_numbers_that_it_was_registered_with() {
    for mirror in [false, true] {
        let mut rig = Setup::mirrored(mirror).rig();
        rig.warm();
        rig.bring_to(TradeState::Healthy);
        rig.reload(&[("warn1", -0.8), ("warn1_recovered", 0.5)])
            .unwrap();
        second(&mut rig);
        for round in 0..3 {
            rig.score(-1.0);
            rig.settle();
            assert_eq!(state_of(&rig, TICKET), TradeState::Healthy);
            assert_eq!(state_of(&rig, SECOND), TradeState::WarningL1);
            rig.check_fold();
            if round == 0 {
                rig.restart();
            } else {
                rig.refold();
            }
            rig.tick(PIVOT);
        }
        rig.score(-2.0);
        rig.settle();
        assert_eq!(state_of(&rig, TICKET), TradeState::WarningL1);
        rig.score(0.2);
        rig.pass(61);
        assert_eq!(state_of(&rig, TICKET), TradeState::Healthy);
        assert_eq!(state_of(&rig, SECOND), TradeState::WarningL1);
        rig.check_fold();
    }
}

/// A transition that is under way, one action at the broker and others waiting, ends by the numbers it began with.
#[test]
fn a_transition_under_way_ends_as_it_began() {
    let mut rig = Setup::default().rig();
    rig.warm();
    rig.bring_to(TradeState::Healthy);
    rig.score(-7.0);
    assert_eq!(rig.trade().phase, StatePhase::Pending);
    let mut twin = Setup::default().rig();
    twin.warm();
    twin.bring_to(TradeState::Healthy);
    twin.score(-7.0);
    rig.reload(&[
        ("tighten_r", 0.9),
        ("partial_fraction", 0.1),
        ("hedge_ratio", 0.9),
        ("hedge_stop_atr", 3.0),
        ("max_retries", 0.0),
    ])
    .unwrap();
    while !twin.intents().is_empty() {
        let (ours, theirs) = (rig.intent(), twin.intent());
        assert_eq!(
            (ours.kind, ours.volume, ours.sl),
            (theirs.kind, theirs.volume, theirs.sl)
        );
        rig.confirm();
        twin.confirm();
    }
    assert_eq!(rig.state(), TradeState::Hedged);
    assert_eq!(rig.trade().phase, StatePhase::Confirmed);
    rig.check_fold();
}

/// What holds for all trades alike holds at once, for those that are open too: loosening, cooldown, rails.
#[test]
fn what_holds_for_all_holds_at_once() {
    let mut rig = ready(Setup::default());
    let loosened = rig.stop(108_990, true);
    rig.reload(&[("allow_loosen", 0.0)]).unwrap();
    let denied = rig.propose(EXIT, &loosened).decision;
    assert_eq!(denied.denial.0, Some(DenialCode::Loosens));

    let tightened = rig.stop(109_100, false);
    assert!(rig.propose(EXIT, &tightened).decision.granted);
    rig.settle();
    rig.reload(&[("cooldown_ms", 60_000.0)]).unwrap();
    let again = rig.stop(109_200, false);
    let denied = rig.propose(EXIT, &again).decision;
    assert_eq!(denied.denial.0, Some(DenialCode::Cooldown));

    rig.reload(&[("hourly_loss_percent", 0.5)]).unwrap();
    rig.equity(10_000.0);
    rig.equity(9_940.0);
    let status = rig.engine.status();
    assert_eq!(status.rails[0].rail, Rail::HourlyLoss);
    rig.check_fold();
}

/// The record names all numbers and what those that are others were before; numbers that stay make none.
#[test]
fn other_numbers_are_a_fact_of_the_journal() {
    let mut rig = Setup::default().rig();
    rig.restart_with(&[]);
    rig.register();
    let events = rig.reload(&[("tighten_r", 0.4)]).unwrap();
    let changed = rules(&events);
    assert_eq!(changed.by.as_str(), "operator");
    assert_eq!(changed.numbers.len(), 36);
    let others: Vec<_> = changed
        .numbers
        .iter()
        .filter(|number| number.before.is_some())
        .map(|number| (number.key.as_str(), number.before, number.value))
        .collect();
    assert_eq!(others, [("tighten_r", Some(0.3), 0.4)]);
    assert!(rig.reload(&[]).unwrap().is_empty());
}

/// A number that cannot be used, or cannot change while the engine runs, is named, and nothing has changed.
#[test]
fn a_reload_is_whole_or_not_at_all() {
    let mut rig = Setup::default().rig();
    rig.register();
    let before = rig.engine.snapshot();
    for (numbers, named) in [
        (
            &[("cooldown_ms", 60_000.0), ("tighten_r", -1.0)],
            "tighten_r",
        ),
        (&[("cooldown_ms", 60_000.0), ("warn2", -9.0)], "warn1"),
        (&[("cooldown_ms", 60_000.0), ("slow_s", 120.0)], "slow_s"),
        (
            &[("cooldown_ms", 60_000.0), ("request_ids_kept", 7.0)],
            "request_ids_kept",
        ),
    ] {
        let error = rig.reload(numbers).unwrap_err();
        assert_eq!(
            (error.reason, error.field.as_str()),
            (Reason::FieldInvalid, named)
        );
    }
    assert_eq!(rig.engine.snapshot(), before);
    for stop in [109_100, 109_200] {
        let tightened = rig.stop(stop, false);
        rig.tick(PIVOT);
        assert!(rig.propose(EXIT, &tightened).decision.granted);
        rig.settle();
    }
}

/// A start with other numbers is as a reload: it is recorded, and open trades keep theirs. A start with the same
/// numbers records nothing.
#[test]
fn a_start_with_other_numbers_is_recorded() {
    let mut rig = Setup::default().rig();
    rig.warm();
    assert_eq!(rules(&rig.restart_with(&[])).by.as_str(), "");
    assert!(rig.restart_with(&[]).is_empty());
    rig.bring_to(TradeState::Healthy);
    let kept = rig.trade().rules_revision;
    rules(&rig.restart_with(&[("warn1", -0.8), ("warn1_recovered", 0.5)]));
    rig.warm();
    second(&mut rig);
    rig.score(-1.0);
    assert_eq!(rig.trade().rules_revision, kept);
    assert_eq!(state_of(&rig, TICKET), TradeState::Healthy);
    assert_eq!(state_of(&rig, SECOND), TradeState::WarningL1);
    rig.check_fold();
}

/// Trades of a journal that no numbers were recorded in keep those that the service is started with when it records them.
#[test]
fn trades_of_before_the_first_record_keep_that_one() {
    let mut rig = Setup::default().rig();
    rig.warm();
    rig.bring_to(TradeState::Healthy);
    assert_eq!(rig.trade().rules_revision, 0);
    rig.restart_with(&[]);
    let first = rig.trade().rules_revision;
    assert_eq!(first, rig.engine.revision());
    rig.reload(&[("warn1", -0.8), ("warn1_recovered", 0.5)])
        .unwrap();
    rig.refold();
    assert_eq!(rig.trade().rules_revision, first);
    rig.tick(PIVOT);
    rig.score(-1.0);
    assert_eq!(rig.state(), TradeState::Healthy);
    rig.check_fold();
}

/// Numbers that no trade keeps any more are forgotten: a snapshot does not grow with every reload.
#[test]
fn numbers_that_nobody_keeps_are_forgotten() {
    let mut rig = Setup::default().rig();
    rig.reload(&[("tighten_r", 0.4)]).unwrap();
    rig.reload(&[("tighten_r", 0.5)]).unwrap();
    let size = rig.engine.snapshot().len();
    for round in 0..10 {
        rig.reload(&[("tighten_r", 0.6 + f64::from(round) / 10.0)])
            .unwrap();
    }
    assert_eq!(rig.engine.snapshot().len(), size);
    rig.register();
}
