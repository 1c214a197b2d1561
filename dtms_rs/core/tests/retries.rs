//! What a broker's refusal leads to: the retcode table, and its use.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic"
)]
mod engine_support;

use dtms_core::enums::{
    ActionKind, AlarmCode, CloseReason, OutcomeStatus, SkipReason, StatePhase, TradeState,
    TransitionCause,
};
use dtms_core::retcode::{Meaning, meaning, pause_ns};
use engine_support::{EXIT, PIVOT, Rig, S, Setup, TICKET, outcome};

fn at(state: TradeState) -> Rig {
    let mut rig = Setup::default().rig();
    rig.warm();
    rig.bring_to(state);
    rig
}

/// retcode -> what it means; the pause before the first retry in ms and how often.
const TABLE: &str = "
0 retry 250 3
10004 retry 0 3
10006 retry 250 1
10007 final
10008 unknown
10009 success
10010 success
10011 retry 250 1
10012 retry 250 1
10013 final
10014 retry 250 1
10015 retry 250 1
10016 retry 250 1
10017 disabled
10018 retry 60000 ever
10019 no_hedge
10020 retry 0 3
10021 retry 500 5
10022 final
10023 retry 250 1
10024 retry 1000 5
10025 success
10026 disabled
10027 disabled
10028 retry 500 5
10029 retry 1000 ever
10030 retry 250 1
10031 retry 1000 ever
10032 final
10033 no_hedge
10034 no_hedge
10035 final
10036 gone
10038 retry 250 1
10039 retry 500 5
10040 no_hedge
10041 final
10042 no_hedge
10043 no_hedge
10044 no_hedge
10045 final
10046 no_hedge
99999 final
";

/// Every retcode of the table in mt5.md has one meaning; an unknown one is final.
#[test]
fn the_retcode_table() {
    for line in TABLE.trim().lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let expected = match words[1] {
            "retry" => Meaning::Retry {
                delay_ms: words[2].parse().unwrap(),
                most: if words[3] == "ever" {
                    u32::MAX
                } else {
                    words[3].parse().unwrap()
                },
            },
            "final" => Meaning::Final,
            "unknown" => Meaning::Unknown,
            "success" => Meaning::Success,
            "disabled" => Meaning::TradingDisabled,
            "no_hedge" => Meaning::HedgeImpossible,
            "gone" => Meaning::PositionGone,
            other => panic!("no meaning {other}"),
        };
        assert_eq!(meaning(words[0].parse().unwrap(), 3), expected, "{line}");
    }
}

/// The pause doubles, ends after the last try, and never exceeds a minute; a close is tried for ever.
#[test]
fn pauses_double_and_closes_never_give_up() {
    let retry = Meaning::Retry {
        delay_ms: 500,
        most: 5,
    };
    let pauses: Vec<Option<i64>> = (0..6)
        .map(|attempt| pause_ns(retry, attempt, false))
        .collect();
    let ms = |ms: i64| Some(ms * 1_000_000);
    assert_eq!(
        pauses,
        [ms(500), ms(1_000), ms(2_000), ms(4_000), ms(8_000), None]
    );
    for refusal in [
        Meaning::Final,
        Meaning::TradingDisabled,
        Meaning::HedgeImpossible,
        retry,
    ] {
        assert!((0..100).all(|attempt| pause_ns(refusal, attempt, true).is_some()));
        assert_eq!(pause_ns(refusal, 60, true), ms(60_000));
    }
    assert_eq!(pause_ns(Meaning::Final, 0, false), None);
}

/// A requote is followed three times, each time from the price of then; after that it is given up with an alarm.
#[test]
fn a_requoted_action_is_recomputed_and_then_given_up() {
    let mut rig = at(TradeState::Healthy);
    rig.score(-3.0);
    rig.tick(PIVOT + 50);
    for attempt in 0..3 {
        let events = rig.refuse(10_004);
        assert!(bodies!(events, OutcomeRecorded)[0].retry_at_ns.is_some());
        if attempt > 0 {
            let due = rig.engine.next_deadline_ns().unwrap();
            assert!(due >= rig.now_ns());
        }
        rig.pass(1);
        let intent = rig.intent();
        assert_eq!(intent.attempt, attempt + 1);
        assert_eq!(rig.points(intent.sl.unwrap()), PIVOT + 50 - 300);
    }
    let events = rig.refuse(10_004);
    assert_eq!(
        bodies!(events, ActionSkipped)[0].reason,
        SkipReason::Rejected
    );
    assert_eq!(
        bodies!(events, AlarmRaised)[0].code,
        AlarmCode::ActionFailed
    );
    assert_eq!(
        rig.trade().phase,
        StatePhase::Confirmed,
        "recorded as impossible"
    );
    rig.check_fold();
}

/// The retry waits for its time, which is recorded, and shows as the next deadline.
#[test]
fn a_retry_waits_for_its_time() {
    let mut rig = at(TradeState::Healthy);
    rig.score(-3.0);
    let events = rig.refuse(10_024);
    let due = bodies!(events, OutcomeRecorded)[0].retry_at_ns.unwrap();
    assert_eq!(due, rig.now_ns() + S);
    assert_eq!(rig.engine.next_deadline_ns(), Some(due));
    rig.tick(PIVOT);
    assert!(rig.intents().is_empty());
    rig.pass(1);
    assert_eq!(rig.intent().attempt, 1);
}

/// `NO_CHANGES` on a stop is a success; `POSITION_CLOSED` on a close is one too, but the deals tell the rest.
#[test]
fn some_refusals_are_successes() {
    let mut rig = at(TradeState::Healthy);
    rig.score(-3.0);
    let events = rig.refuse(10_025);
    assert_eq!(
        bodies!(events, OutcomeRecorded)[0].outcome.status,
        OutcomeStatus::Confirmed
    );
    assert_eq!(rig.trade().phase, StatePhase::Confirmed);

    let mut rig = at(TradeState::Hedged);
    rig.pass(300);
    rig.confirm();
    assert_eq!(rig.intent().kind, ActionKind::Close);
    rig.refuse(10_036);
    assert_eq!(
        (rig.trade().phase, rig.intents().len()),
        (StatePhase::Pending, 0)
    );
    let events = rig.closed(TICKET, CloseReason::StopLoss, 109_700);
    assert_eq!(bodies!(events, LegClosed)[0].reason, CloseReason::StopLoss);
    assert_eq!(rig.trade().phase, StatePhase::Confirmed);
}

/// `NO_MONEY`, `HEDGE_PROHIBITED` and the limits close the trade that cannot be hedged.
#[test]
fn a_hedge_that_cannot_be_had_closes_the_trade() {
    for retcode in [10_019, 10_034, 10_040, 10_044, 10_046] {
        let mut rig = at(TradeState::WarningL2);
        rig.score(-7.0);
        let events = rig.refuse(retcode);
        assert_eq!(bodies!(events, AlarmRaised)[0].code, AlarmCode::HedgeFailed);
        assert_eq!(
            bodies!(events, StateChanged)[0].cause,
            TransitionCause::HedgeImpossible
        );
        assert_eq!(rig.intent().kind, ActionKind::Close);
        rig.settle();
        assert_eq!(
            (rig.state(), rig.trade().phase),
            (TradeState::Closed, StatePhase::Confirmed)
        );
        rig.check_fold();
    }
}

/// A close is tried for ever, whatever the refusal; CLOSED stays pending until nothing remains (I13).
#[test]
fn a_close_is_retried_until_it_is_done() {
    let mut rig = at(TradeState::Hedged);
    rig.pass(300);
    for retcode in [10_013, 10_017, 10_018, 10_004, 10_006, 10_027, 0, 10_019] {
        assert_eq!(rig.trade().phase, StatePhase::Pending);
        rig.refuse(retcode);
        rig.pass(61);
    }
    rig.settle();
    assert_eq!(
        (rig.trade().phase, rig.trade().hedge.is_none()),
        (StatePhase::Confirmed, true)
    );
}

/// UNKNOWN keeps the command in flight: nothing else is sent, nobody is granted, until the broker was read (I9).
#[test]
fn unknown_is_settled_before_anything_else() {
    let mut rig = at(TradeState::Healthy);
    rig.score(-5.0);
    let partial = rig.intent();
    rig.answer(outcome(partial.intent_id, OutcomeStatus::Unknown, 10_012))
        .unwrap();
    assert!(
        rig.answer(outcome(partial.intent_id, OutcomeStatus::Unknown, 10_012))
            .unwrap()
            .is_empty()
    );
    rig.pass(30);
    assert_eq!(rig.intent(), partial);
    let stop = rig.stop(109_900, false);
    assert!(!rig.propose(EXIT, &stop).decision.granted);
    let mut settled = rig.done(&partial);
    settled.settled = true;
    rig.answer(settled).unwrap();
    assert_eq!((rig.trade().volume, rig.trade().partial_taken), (0.5, true));
    let mut rig = at(TradeState::Healthy);
    rig.score(-5.0);
    let partial = rig.intent();
    rig.answer(outcome(partial.intent_id, OutcomeStatus::Unknown, 0))
        .unwrap();
    let mut not_done = outcome(partial.intent_id, OutcomeStatus::Rejected, 10_008);
    not_done.settled = true;
    rig.answer(not_done).unwrap();
    rig.pass(1);
    assert_eq!(
        (rig.intent().kind, rig.intent().attempt),
        (ActionKind::PartialClose, 1)
    );
}

/// A retry whose state has passed is dropped, not sent.
#[test]
fn a_retry_that_lost_its_meaning_is_dropped() {
    let mut rig = at(TradeState::WarningL2);
    rig.score(-7.0);
    rig.bar(110_500, 10.0);
    assert_eq!(rig.state(), TradeState::Recovering);
    let events = rig.refuse(10_004);
    assert_eq!(bodies!(events, OutcomeRecorded)[0].retry_at_ns, None);
    let reasons: Vec<_> = bodies!(events, ActionSkipped)
        .into_iter()
        .map(|skipped| skipped.reason)
        .collect();
    assert_eq!(reasons, [SkipReason::Superseded, SkipReason::NothingToDo]);
    assert_eq!(rig.trade().phase, StatePhase::Confirmed);
}

/// A partly filled close is followed by a close of the rest; a partly filled partial counts as it was filled.
#[test]
fn a_partial_fill_is_taken_as_it_is() {
    let mut rig = at(TradeState::Recovering);
    rig.score(-1.0);
    rig.pass(120);
    let close = rig.intent();
    let mut part = rig.done(&close);
    (part.retcode, part.volume) = (10_010, Some(0.2));
    rig.answer(part).unwrap();
    assert_eq!((rig.intent().volume, rig.trade().volume), (0.3, 0.3));
    rig.settle();
    assert_eq!(rig.trade().phase, StatePhase::Confirmed);

    let mut rig = at(TradeState::WarningL1);
    rig.score(-5.0);
    let partial = rig.intent();
    let mut part = rig.done(&partial);
    part.volume = Some(0.1);
    rig.answer(part).unwrap();
    assert_eq!(
        (
            rig.trade().volume,
            rig.trade().closed_volume,
            rig.trade().partial_taken
        ),
        (0.9, 0.1, true)
    );
}

/// An outcome of an intent that never was is refused; a second final one changes nothing.
#[test]
fn outcomes_are_taken_once() {
    let mut rig = at(TradeState::Healthy);
    let error = engine_support::refused(rig.answer(outcome(9, OutcomeStatus::Confirmed, 10_009)));
    assert_eq!(error.field, "outcome.intent_id");
    rig.score(-3.0);
    let intent = rig.intent();
    let done = rig.done(&intent);
    rig.answer(done.clone()).unwrap();
    assert!(rig.answer(done).unwrap().is_empty());
}

/// An opening without ticket or price is no outcome: the field is named and nothing changes.
#[test]
fn an_opening_needs_its_ticket_and_price() {
    let mut rig = at(TradeState::WarningL2);
    rig.score(-7.0);
    let id = rig.intent().intent_id;
    let bare = outcome(id, OutcomeStatus::Confirmed, 10_009);
    let error = engine_support::refused(rig.answer(bare.clone()));
    assert_eq!(error.field, "outcome.opened_ticket");
    let error = engine_support::refused(rig.answer(dtms_core::event::Outcome {
        opened_ticket: 5,
        ..bare
    }));
    assert_eq!(error.field, "outcome.price");
    rig.settle();
    rig.check_fold();
}

/// A close by hand while our own close is at the broker is settled by its own outcome.
#[test]
fn our_own_close_is_settled_by_its_outcome() {
    let mut rig = at(TradeState::Recovering);
    rig.score(-1.0);
    rig.pass(120);
    assert!(rig.closed(TICKET, CloseReason::Dtms, PIVOT).is_empty());
    let events = rig.confirm();
    assert_eq!(bodies!(events, LegClosed)[0].reason, CloseReason::Dtms);
    assert!(rig.closed(TICKET, CloseReason::Dtms, PIVOT).is_empty());
}
