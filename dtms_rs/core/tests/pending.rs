//! Pending and confirmed: a state shows as confirmed only when its actions are, and plans are legal.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::float_cmp,
    reason = "a test fails by panic; volumes are exact"
)]
mod engine_support;

use dtms_core::enums::{
    ActionKind, AlarmCode, CloseReason, LegKind, OutcomeStatus, Purpose, SkipReason, StatePhase,
    TradeState,
};
use dtms_core::event::Body;
use dtms_core::message::Maybe;
use engine_support::{EXIT, PIVOT, Rig, Setup, TICKET, kinds, names, outcome, spec};

fn at(setup: Setup, state: TradeState) -> Rig {
    let mut rig = setup.rig();
    rig.warm();
    rig.bring_to(state);
    rig
}

/// `WARNING_L2` is pending while its partial or its stop is at the broker, and confirmed after both (I14).
#[test]
fn a_state_is_pending_until_the_broker_has_done_all_of_it() {
    for mirror in [false, true] {
        let mut rig = at(Setup::mirrored(mirror), TradeState::WarningL1);
        rig.tick(PIVOT + 100);
        rig.score(-5.0);
        assert_eq!(rig.intent().kind, ActionKind::PartialClose);
        assert_eq!(rig.trade().phase, StatePhase::Pending);
        let events = rig.confirm();
        assert!(bodies!(events, StateConfirmed).is_empty());
        assert_eq!(
            (rig.intent().kind, rig.trade().phase),
            (ActionKind::Stop, StatePhase::Pending)
        );
        let events = rig.confirm();
        assert_eq!(bodies!(events, StateConfirmed).len(), 1);
        assert_eq!(rig.trade().phase, StatePhase::Confirmed);
        rig.check_fold();
    }
}

/// Entering defence takes the trade under a new token before any action; leaving it gives it back.
#[test]
fn ownership_follows_the_state_in_the_same_step() {
    let mut rig = Setup::default().rig();
    rig.warm();
    rig.score(-1.0);
    rig.register_as(engine_support::MANAGED, 1_000, Some(109_000), None, 1.0);
    rig.tick(PIVOT);
    let before = rig.trade().owner_epoch;
    let events = rig.score(-5.0);
    let grants = bodies!(events, OwnershipGranted);
    assert_eq!(
        (grants.len(), grants[0].displaced.as_str()),
        (1, engine_support::UNIVERSAL)
    );
    let order = names(&events);
    let granted = order
        .iter()
        .position(|name| name == "OwnershipGranted")
        .unwrap();
    let sent = order
        .iter()
        .position(|name| name == "IntentRecorded")
        .unwrap();
    assert!(granted < sent);
    assert_eq!(rig.intent().owner_epoch, grants[0].owner_epoch);
    assert!(grants[0].owner_epoch > before);
    rig.settle();
    rig.score(-1.0);
    let events = rig.pass(60);
    assert_eq!(names(&events), ["StateChanged", "OwnershipGranted"]);
    assert_eq!(rig.trade().managed_by.as_str(), engine_support::UNIVERSAL);
    assert_eq!(rig.trade().displaced_owner.as_str(), "");
    rig.check_fold();
}

/// Of the stops of one burst only the last is sent; the others are recorded as superseded.
#[test]
fn a_burst_sends_its_last_stop_only() {
    let mut rig = at(Setup::default(), TradeState::Healthy);
    let events = rig.score(-5.0);
    let skipped = bodies!(events, ActionSkipped);
    assert_eq!(skipped.len(), 1);
    assert_eq!(
        (skipped[0].action.purpose, skipped[0].reason),
        (Purpose::Tighten, SkipReason::Superseded)
    );
    assert_eq!(rig.intent().kind, ActionKind::PartialClose);
}

/// A close drops every other action, and nothing but the close is sent.
#[test]
fn a_close_drops_all_other_actions() {
    let mut rig = at(Setup::default(), TradeState::WarningL1);
    rig.score(-9.0);
    let partial = rig.intent();
    rig.pass(300);
    assert_eq!(rig.state(), TradeState::Closed);
    let done = rig.done(&partial);
    let events = rig.answer(done).unwrap();
    assert_eq!(rig.intent().kind, ActionKind::Close);
    assert!(bodies!(events, IntentRecorded).len() == 1);
    let dropped: Vec<_> = bodies!(rig.log, ActionSkipped)
        .into_iter()
        .map(|skipped| skipped.reason)
        .collect();
    assert_eq!(dropped, [SkipReason::Superseded, SkipReason::Superseded]);
    rig.settle();
    assert_eq!(
        (rig.trade().phase, rig.trade().volume),
        (StatePhase::Confirmed, 0.0)
    );
}

/// HEDGED is confirmed exactly when the hedge exists; a hedge filled after the trade was closed is closed too (I13).
#[test]
fn a_hedge_that_comes_late_does_not_outlive_its_trade() {
    let mut rig = at(Setup::default(), TradeState::WarningL2);
    rig.score(-7.0);
    let hedge = rig.intent();
    assert_eq!(
        (hedge.kind, rig.trade().phase),
        (ActionKind::OpenHedge, StatePhase::Pending)
    );
    rig.closed(TICKET, CloseReason::StopLoss, 109_000);
    assert_eq!(
        (rig.state(), rig.trade().phase),
        (TradeState::Closed, StatePhase::Pending)
    );
    let done = rig.done(&hedge);
    rig.answer(done).unwrap();
    assert_eq!(
        (rig.intent().kind, rig.trade().phase),
        (ActionKind::CloseHedge, StatePhase::Pending)
    );
    let events = rig.settle();
    assert!(rig.trade().hedge.is_none());
    assert_eq!(
        names(&events),
        ["OutcomeRecorded", "LegClosed", "StateConfirmed"]
    );
}

/// Tighten: 0.3 R behind the price, rounded away from it, never looser than what stands.
#[test]
fn tighten_goes_behind_the_price() {
    for mirror in [false, true] {
        let mut rig = at(Setup::mirrored(mirror), TradeState::Healthy);
        rig.score(-3.0);
        let intent = rig.intent();
        assert_eq!(rig.points(intent.sl.unwrap()), PIVOT - 300);
        assert_eq!(
            rig.points(intent.tp.unwrap()),
            113_000,
            "the target goes along unchanged"
        );
        rig.confirm();
        assert_eq!(rig.trade().confirmed.sl, intent.sl);
        let mut rig = at(Setup::mirrored(mirror), TradeState::Healthy);
        rig.tick(109_200);
        let events = rig.score(-3.0);
        assert_eq!(
            bodies!(events, ActionSkipped)[0].reason,
            SkipReason::NoChange
        );
        assert_eq!(rig.trade().phase, StatePhase::Confirmed);
    }
}

/// The stop is kept out of the stops level and on the tick size.
#[test]
fn a_stop_respects_stops_level_and_tick_size() {
    for mirror in [false, true] {
        let mut coarse = spec();
        coarse.tick_size = 25.0 / engine_support::SCALE;
        coarse.stops_level = 400;
        let mut rig = at(
            Setup {
                spec: coarse,
                ..Setup::mirrored(mirror)
            },
            TradeState::Healthy,
        );
        rig.quote(PIVOT + 10, PIVOT + 40).unwrap();
        rig.score(-3.0);
        // 400 points below the closing price, then to a multiple of 25 further away.
        assert_eq!(rig.points(rig.intent().sl.unwrap()), 109_600);
    }
}

/// Breakeven where it is legal; else 0.3 R behind the price if that is tighter; else nothing, and said so.
#[test]
fn breakeven_or_the_next_best() {
    for mirror in [false, true] {
        for (price, expected) in [
            (PIVOT + 100, Some((PIVOT, Purpose::Breakeven))),
            (PIVOT + 10, Some((PIVOT, Purpose::Breakeven))),
            (PIVOT + 9, Some((PIVOT - 291, Purpose::Tighten))),
            (109_650, Some((109_350, Purpose::Tighten))),
            (109_300, None),
        ] {
            let mut rig = Setup::mirrored(mirror).rig();
            rig.warm();
            rig.score(-1.0);
            rig.register();
            rig.tick(price);
            rig.score(-5.0);
            assert_eq!(rig.intent().kind, ActionKind::PartialClose);
            let events = rig.confirm();
            match expected {
                Some((level, purpose)) => {
                    let intent = rig.intent();
                    assert_eq!(
                        (rig.points(intent.sl.unwrap()), intent.purpose),
                        (level, Maybe(Some(purpose)))
                    );
                    let events = rig.confirm();
                    let is_breakeven = purpose == Purpose::Breakeven;
                    assert_eq!(
                        bodies!(events, BreakevenTriggered).len(),
                        usize::from(is_breakeven)
                    );
                }
                None => {
                    assert_eq!(
                        bodies!(events, ActionSkipped)[0].reason,
                        SkipReason::NotLegal
                    );
                }
            }
            assert_eq!(rig.trade().phase, StatePhase::Confirmed);
        }
    }
}

/// The partial is taken once in a life; below the minimum volume it is skipped, not done.
#[test]
fn the_partial_is_taken_once_or_recorded_as_impossible() {
    let mut rig = at(Setup::default(), TradeState::WarningL2);
    assert!(rig.trade().partial_taken);
    rig.score(-1.0);
    rig.pass(60);
    let events = rig.score(-5.0);
    assert_eq!(
        bodies!(events, ActionSkipped)[0].reason,
        SkipReason::AlreadyDone
    );

    let mut rig = Setup::default().rig();
    rig.warm();
    rig.score(-1.0);
    rig.register_as("", 1_000, Some(109_000), None, 0.01);
    rig.tick(PIVOT);
    let events = rig.score(-5.0);
    assert_eq!(
        bodies!(events, ActionSkipped)[1].reason,
        SkipReason::MinVolume
    );
    assert!(!rig.trade().partial_taken);
}

/// The hedge: half of the rest, opposite, its stop half an ATR from its fill; then HEDGED is confirmed.
#[test]
fn the_hedge_is_half_of_the_rest_with_its_own_stop() {
    for mirror in [false, true] {
        let mut rig = at(Setup::mirrored(mirror), TradeState::WarningL2);
        rig.score(-7.0);
        let hedge = rig.intent();
        assert_eq!(
            (hedge.volume, hedge.leg, hedge.position),
            (0.25, LegKind::Hedge, 0)
        );
        assert_eq!(hedge.side, rig.side(dtms_core::enums::Side::Sell));
        let distance = rig.points(hedge.sl.unwrap()) - PIVOT;
        assert!(
            (100..=140).contains(&distance),
            "half of about 240 points: {distance}"
        );
        assert_eq!(hedge.tp, None);
        rig.confirm();
        assert_eq!(
            (rig.trade().phase, rig.trade().hedge.unwrap().volume),
            (StatePhase::Confirmed, 0.25)
        );
    }
}

/// Without ATR there is no hedge: it is skipped with an alarm, and HEDGED stays pending (D34).
#[test]
fn no_atr_no_hedge() {
    let mut rig = Setup::default().rig();
    rig.bring_to(TradeState::WarningL2);
    let events = rig.score(-7.0);
    assert_eq!(bodies!(events, ActionSkipped)[0].reason, SkipReason::NoAtr);
    assert_eq!(bodies!(events, AlarmRaised)[0].code, AlarmCode::HedgeFailed);
    assert_eq!(
        (rig.state(), rig.trade().phase),
        (TradeState::Hedged, StatePhase::Pending)
    );
}

/// A hedge beyond the risk budget closes the trade instead.
#[test]
fn a_hedge_beyond_the_budget_closes_the_trade() {
    let mut rig = Setup::default().rig();
    rig.warm();
    rig.score(-1.0);
    // R is 30 points: half an ATR of hedge is worth more than the half that the partial freed.
    rig.register_as("", 1_000, Some(PIVOT - 30), None, 1.0);
    rig.tick(PIVOT);
    rig.score(-9.0);
    rig.settle();
    let trade = rig.trade();
    assert_eq!(trade.state, TradeState::Closed);
    assert_eq!(
        bodies!(rig.log, StateChanged).last().unwrap().cause,
        dtms_core::enums::TransitionCause::HedgeImpossible
    );
    assert_eq!((trade.phase, trade.volume), (StatePhase::Confirmed, 0.0));
}

/// A netting account holds the rest by reducing it, and the re-add brings hedge and half of the partial back.
#[test]
fn netting_hedges_by_reduction() {
    for mirror in [false, true] {
        let mut rig = at(
            Setup {
                hedging: false,
                ..Setup::mirrored(mirror)
            },
            TradeState::WarningL2,
        );
        rig.score(-7.0);
        let hedge = rig.intent();
        assert_eq!(
            (hedge.kind, hedge.leg, hedge.position),
            (ActionKind::Close, LegKind::Hedge, TICKET)
        );
        assert_eq!(hedge.volume, 0.25);
        rig.confirm();
        assert_eq!(
            (rig.trade().volume, rig.trade().phase),
            (0.25, StatePhase::Confirmed)
        );
        rig.bar(110_500, 10.0);
        assert_eq!(
            (rig.state(), rig.trade().phase),
            (TradeState::Recovering, StatePhase::Confirmed)
        );
        rig.score(5.0);
        rig.pass(120);
        rig.tick(PIVOT);
        let readd = rig.intent();
        assert_eq!(
            (readd.kind, readd.position, readd.volume),
            (ActionKind::ReAdd, TICKET, 0.5)
        );
        rig.confirm();
        assert_eq!(
            (rig.trade().volume, rig.state()),
            (0.75, TradeState::Healthy)
        );
        rig.check_fold();
    }
}

/// The re-add is half of what DTMS closed, as a position of its own with the trade's stop and target.
#[test]
fn the_re_add_is_half_of_the_closed_volume() {
    let mut rig = at(Setup::default(), TradeState::Recovering);
    rig.score(5.0);
    rig.pass(120);
    let readd = rig.intent();
    assert_eq!(
        (readd.kind, readd.volume, readd.position),
        (ActionKind::ReAdd, 0.25, 0)
    );
    assert_eq!(
        (readd.sl, readd.tp),
        (rig.trade().confirmed.sl, rig.trade().confirmed.tp)
    );
    rig.confirm();
    assert_eq!(
        (rig.trade().readd.unwrap().volume, rig.trade().closed_volume),
        (0.25, 0.0)
    );
    let events = rig.closed(TICKET, CloseReason::TakeProfit, 113_000);
    assert_eq!(
        kinds(&bodies!(events, StateChanged)[0].actions),
        [(ActionKind::CloseReAdd, Purpose::Flatten)]
    );
    rig.settle();
    assert!(rig.trade().readd.is_none());
}

/// A BOS trails the stop behind the swing that the market confirmed, only tighter.
#[test]
fn a_break_of_structure_trails_behind_the_swing() {
    for mirror in [false, true] {
        let mut rig = at(Setup::mirrored(mirror), TradeState::Healthy);
        rig.tick(PIVOT);
        rig.bar(110_500, 10.0);
        let intent = rig.intent();
        let swing = 109_680;
        let level = rig.points(intent.sl.unwrap());
        assert!(
            (swing - 30..swing).contains(&level),
            "a tenth of ATR behind {swing}: {level}"
        );
        assert_eq!(intent.purpose, Maybe(Some(Purpose::Trail)));
    }
}

/// Without a price nothing is sent; the first tick sends it.
#[test]
fn an_action_waits_for_a_price() {
    let mut rig = Setup::default().rig();
    rig.warm();
    rig.register();
    rig.score(-3.0);
    assert_eq!(
        (rig.state(), rig.intents().len()),
        (TradeState::WarningL1, 0)
    );
    rig.tick(PIVOT);
    assert_eq!(rig.intent().kind, ActionKind::Stop);
}

/// Inside the freeze level nothing is sent; once the price has left it, it is (I11).
#[test]
fn a_frozen_position_is_left_alone_until_the_price_moves() {
    let mut frozen = spec();
    frozen.freeze_level = 100;
    let mut rig = Setup {
        spec: frozen,
        ..Setup::default()
    }
    .rig();
    rig.warm();
    rig.score(-1.0);
    rig.register_as("", 1_000, Some(109_000), Some(PIVOT + 150), 1.0);
    rig.tick(PIVOT + 60);
    rig.score(-3.0);
    assert_eq!(
        (rig.trade().phase, rig.intents().len()),
        (StatePhase::Pending, 0)
    );
    assert!(
        rig.engine.next_deadline_ns().unwrap() > rig.now_ns(),
        "no busy waiting"
    );
    rig.tick(PIVOT);
    assert_eq!(rig.intent().kind, ActionKind::Stop);
}

/// The confirmed stop is what the broker echoed, not what was asked.
#[test]
fn the_confirmed_stop_is_the_echo() {
    let mut rig = at(Setup::default(), TradeState::Healthy);
    let stop = rig.stop(109_500, false);
    rig.propose(EXIT, &stop);
    let intent = rig.intent();
    let mut echo = rig.done(&intent);
    echo.sl = Some(rig.price(109_499));
    rig.answer(echo).unwrap();
    assert_eq!(rig.trade().confirmed.sl, Some(rig.price(109_499)));
    let mut mute = rig.stop(109_600, false);
    mute.purpose = Maybe(Some(Purpose::Trail));
    rig.propose(EXIT, &mute);
    let id = rig.intent().intent_id;
    rig.answer(outcome(id, OutcomeStatus::Confirmed, 10_009))
        .unwrap();
    assert_eq!(
        rig.trade().confirmed.sl,
        Some(rig.price(109_499)),
        "no echo, no new truth"
    );
}

/// What somebody else changed is taken over from the report, unless a command of ours is in flight (I8).
#[test]
fn a_change_by_somebody_else_is_recorded_as_external() {
    let mut rig = at(Setup::default(), TradeState::Healthy);
    let (sl, tp) = (Some(rig.price(109_100)), Some(rig.price(113_000)));
    let step = rig
        .engine
        .on_position(engine_support::ACCOUNT, TICKET, 0.8, sl, tp, rig.now_ns());
    let (events, ()) = rig.take(step).unwrap();
    assert!(bodies!(events, PositionChanged)[0].external);
    assert_eq!((rig.trade().volume, rig.trade().confirmed.sl), (0.8, sl));
    let step = rig
        .engine
        .on_position(engine_support::ACCOUNT, TICKET, 0.8, sl, tp, rig.now_ns());
    assert!(rig.take(step).unwrap().0.is_empty());
    rig.score(-3.0);
    let step = rig
        .engine
        .on_position(engine_support::ACCOUNT, TICKET, 0.7, None, tp, rig.now_ns());
    assert!(rig.take(step).unwrap().0.is_empty());
}

/// A trade that is missing is quarantined: nothing is sent or evaluated until it is found or proven closed (I21).
#[test]
fn a_missing_trade_is_quarantined_until_found() {
    let mut rig = at(Setup::default(), TradeState::Healthy);
    let step = rig
        .engine
        .on_missing(engine_support::ACCOUNT, TICKET, rig.now_ns());
    let (events, ()) = rig.take(step).unwrap();
    assert_eq!(names(&events), ["QuarantineChanged", "AlarmRaised"]);
    assert_eq!(names(&rig.score(-9.0)), ["ScoreReported"]);
    let (sl, tp) = (Some(rig.price(109_000)), Some(rig.price(113_000)));
    let step = rig
        .engine
        .on_position(engine_support::ACCOUNT, TICKET, 1.0, sl, tp, rig.now_ns());
    let (events, ()) = rig.take(step).unwrap();
    assert_eq!(names(&events), ["QuarantineChanged"]);
    rig.tick(PIVOT);
    assert_eq!(rig.state(), TradeState::Hedged);
    assert!(
        rig.log
            .iter()
            .any(|event| matches!(event.body, Body::IntentRecorded(_)))
    );
}
