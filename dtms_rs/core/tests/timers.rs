//! Time: timers, arming, holds, leases; all of it state, driven by the time passed in.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic"
)]
mod engine_support;

use dtms_core::engine::Engine;
use dtms_core::enums::{
    ActionKind, ArmCause, DenialCode, GrantCause, RiskSource, Timer, TradeState, TransitionCause,
};
use dtms_core::event::Body;
use engine_support::{
    ACCOUNT, CONFIG, EXIT, MANAGED, PIVOT, Rig, S, Setup, TICKET, UNIVERSAL, managers, names,
};

fn at(setup: Setup, state: TradeState) -> Rig {
    let mut rig = setup.rig();
    rig.warm();
    rig.bring_to(state);
    rig
}

/// +0.2 R, -0.5 R and 15 minutes arm a trade; one point less does not; until then no score moves it.
#[test]
fn a_trade_is_armed_by_gain_loss_or_age() {
    for mirror in [false, true] {
        for (price, age_s, cause) in [
            (PIVOT + 200, 0, Some(ArmCause::Gain)),
            (PIVOT + 199, 0, None),
            (PIVOT - 500, 0, Some(ArmCause::Loss)),
            (PIVOT - 499, 0, None),
            (PIVOT, 900, Some(ArmCause::Time)),
        ] {
            let mut rig = Setup::mirrored(mirror).rig();
            rig.score(-3.0);
            // Opened so that its age is exactly age_s now.
            rig.try_register(TICKET, "", age_s, Some(109_000), None, 1.0)
                .unwrap();
            let events = rig.tick(price);
            let armed = bodies!(events, TradeArmed);
            assert_eq!(
                armed.first().map(|armed| armed.cause),
                cause,
                "{price} {age_s}"
            );
            let expected = if cause.is_some() {
                TradeState::WarningL1
            } else {
                TradeState::Healthy
            };
            assert_eq!(rig.state(), expected);
        }
    }
}

/// Age arms without any tick: the time is a deadline.
#[test]
fn age_is_a_deadline() {
    let mut rig = Setup::default().rig();
    rig.score(-1.0);
    rig.register_as("", 0, Some(109_000), None, 1.0);
    assert_eq!(rig.engine.next_deadline_ns(), Some(rig.now_ns() + 900 * S));
    rig.pass(899);
    assert!(!rig.trade().armed);
    rig.pass(1);
    assert!(rig.trade().armed);
    assert_eq!(rig.engine.next_deadline_ns(), None);
}

/// In `WARNING_L1` the flat timer ends as an event, once; where configured it closes the trade.
#[test]
fn the_flat_timer_of_warning_l1() {
    let mut rig = at(Setup::default(), TradeState::WarningL1);
    let events = rig.pass(300);
    assert_eq!(bodies!(events, TimerEnded)[0].timer, Timer::Flat);
    assert_eq!(
        (rig.state(), rig.trade().flat_timer_ends_ns),
        (TradeState::WarningL1, None)
    );
    assert!(bodies!(rig.pass(300), TimerEnded).is_empty());

    let mut rig = at(
        Setup::default().with("close_on_flat_timer_l1", 1.0),
        TradeState::WarningL1,
    );
    let events = rig.pass(300);
    assert_eq!(
        bodies!(events, StateChanged)[0].cause,
        TransitionCause::FlatTimer
    );
    assert_eq!(rig.state(), TradeState::Closed);
}

/// Timers and holds survive a restart: an engine restored from a snapshot, and one that folded the events,
/// end them at the same moment (D4, D9).
#[test]
fn timers_survive_apply_and_snapshot() {
    for state in [
        TradeState::Hedged,
        TradeState::Recovering,
        TradeState::WarningL1,
    ] {
        let mut rig = at(Setup::default(), state);
        if state == TradeState::WarningL1 {
            rig.score(3.0);
        }
        let mut restored = Engine::try_new(&CONFIG, &managers(), &[MANAGED]).unwrap();
        restored.restore(&rig.engine.snapshot()).unwrap();
        let mut folded = Engine::try_new(&CONFIG, &managers(), &[MANAGED]).unwrap();
        for event in &rig.log {
            folded.apply(event).unwrap();
        }
        let due = rig.engine.next_deadline_ns();
        assert!(due.is_some());
        for other in [&mut restored, &mut folded] {
            other.start(0).unwrap();
            assert!(
                other
                    .on_time(due.unwrap() - 1, 0)
                    .unwrap()
                    .events
                    .is_empty()
            );
            assert_eq!(other.next_deadline_ns(), due);
            let events = other.on_time(due.unwrap(), 0).unwrap().events;
            assert!(
                events
                    .iter()
                    .any(|event| matches!(event.body, Body::StateChanged(_))),
                "{state:?}"
            );
        }
    }
}

/// The hold is counted from the first better score; a worse one in between starts it anew.
#[test]
fn a_hold_is_recorded_when_it_begins_and_ceases() {
    let mut rig = at(Setup::default(), TradeState::WarningL1);
    let began = bodies!(rig.score(0.5), HoldChanged);
    assert_eq!(began[0].better_since_ns, Some(rig.now_ns()));
    assert!(bodies!(rig.score(0.7), HoldChanged).is_empty());
    let ceased = bodies!(rig.score(-0.5), HoldChanged);
    assert_eq!(ceased[0].better_since_ns, None);
}

/// A cold market neither worsens nor improves: the computed score counts only once ATR is known.
#[test]
fn a_cold_market_moves_nothing() {
    let mut rig = Setup::default().rig();
    rig.register();
    for close in [109_900, 109_700, 109_500, 109_300, 109_100] {
        rig.bar(close, 10.0);
    }
    rig.tick(109_200);
    assert_eq!(rig.state(), TradeState::Healthy);
    assert!(rig.trade().armed);
}

/// A trade without a stop waits for ATR, then its R is 2 ATR, frozen.
#[test]
fn r_without_a_stop_is_taken_from_atr_once() {
    let mut rig = Setup::default().rig();
    rig.register_as("", 1_000, None, None, 1.0);
    assert_eq!(rig.trade().risk_source, RiskSource::Pending);
    rig.tick(PIVOT);
    rig.warm();
    let defined = bodies!(rig.log, RiskDefined);
    assert_eq!(
        (defined.len(), defined[0].risk_source),
        (1, RiskSource::Atr)
    );
    let frozen = rig.trade().risk_distance.unwrap();
    rig.bar(111_500, 10.0);
    rig.tick(111_500);
    assert_eq!(rig.trade().risk_distance, Some(frozen));
    assert_eq!(rig.trade().confirmed.sl, None, "no stop is invented");
    rig.check_fold();
}

/// Silence is alarmed once, and again after a price came in between.
#[test]
fn a_stale_price_is_alarmed_once() {
    let mut rig = at(Setup::default(), TradeState::Healthy);
    assert_eq!(names(&rig.pass(301)), ["AlarmRaised", "RailChanged"]);
    assert!(rig.pass(301).is_empty());
    rig.tick(PIVOT);
    assert_eq!(names(&rig.pass(301)), ["AlarmRaised", "RailChanged"]);
}

fn acquire(rig: &mut Rig, manager: &str) -> (Option<DenialCode>, u64) {
    let step = rig
        .engine
        .acquire(ACCOUNT, TICKET, manager, rig.now_ns(), rig.mono_ns);
    let (_, claim) = rig.take(step).unwrap();
    (claim.denial, claim.ownership.owner_epoch)
}

/// A lease ends on the monotonic clock only: an hour's jump of the wall clock changes nothing (I6).
#[test]
fn leases_run_on_the_monotonic_clock() {
    let mut rig = at(Setup::default(), TradeState::Healthy);
    let (denial, epoch) = acquire(&mut rig, UNIVERSAL);
    assert_eq!(denial, None);
    let ownership = rig
        .engine
        .ownership(ACCOUNT, TICKET, rig.mono_ns)
        .unwrap()
        .unwrap();
    assert_eq!(ownership.lease_remaining_ms, Some(30_000));
    let mono_ns = rig.mono_ns;
    let step = rig
        .engine
        .on_time(rig.now_ns() + 3_600 * S, mono_ns + 30 * S - 1);
    let (events, ()) = rig.take(step).unwrap();
    assert!(bodies!(events, OwnershipGranted).is_empty());
    let step = rig
        .engine
        .on_time(rig.now_ns() - 3_600 * S, mono_ns + 30 * S);
    let (events, ()) = rig.take(step).unwrap();
    let grant = &bodies!(events, OwnershipGranted)[0];
    assert_eq!(
        (grant.cause, grant.managed_by.as_str()),
        (GrantCause::Expired, "dtms_manager")
    );
    assert!(grant.owner_epoch > epoch);
}

/// Renewing needs the current token and prolongs the lease; a stale one is refused.
#[test]
fn a_lease_is_renewed_by_its_holder() {
    let mut rig = at(Setup::default(), TradeState::Healthy);
    let (_, epoch) = acquire(&mut rig, UNIVERSAL);
    rig.pass(20);
    let renewed = rig
        .engine
        .renew(ACCOUNT, TICKET, UNIVERSAL, epoch, rig.mono_ns)
        .unwrap();
    assert_eq!(renewed.lease_remaining_ms, Some(30_000));
    rig.pass(20);
    assert_eq!(rig.trade().managed_by.as_str(), UNIVERSAL);
    for (manager, token) in [(UNIVERSAL, epoch - 1), (EXIT, epoch)] {
        let error = rig
            .engine
            .renew(ACCOUNT, TICKET, manager, token, rig.mono_ns)
            .unwrap_err();
        assert_eq!(error.reason.as_str(), "STALE_EPOCH");
    }
}

/// An expired holder with a write in flight is settled before the next grant (I6).
#[test]
fn an_expired_lease_waits_for_the_write_in_flight() {
    let mut rig = at(Setup::default(), TradeState::Healthy);
    acquire(&mut rig, UNIVERSAL);
    let stop = rig.stop(109_500, false);
    assert!(rig.propose(UNIVERSAL, &stop).decision.granted);
    assert!(bodies!(rig.pass(60), OwnershipGranted).is_empty());
    assert_eq!(rig.trade().managed_by.as_str(), UNIVERSAL);
    rig.confirm();
    let events = rig.pass(1);
    assert_eq!(
        bodies!(events, OwnershipGranted)[0].cause,
        GrantCause::Expired
    );
}

/// A holder whose lease is over writes nothing, even before anybody noticed (I7).
#[test]
fn an_expired_holder_is_refused_at_once() {
    let mut rig = at(Setup::default(), TradeState::Healthy);
    let (_, epoch) = acquire(&mut rig, UNIVERSAL);
    rig.mono_ns += 30 * S;
    let stop = rig.stop(109_500, false);
    let (events, reply) = rig.try_propose(UNIVERSAL, "late", epoch, &stop).unwrap();
    assert_eq!(reply.decision.denial.0, Some(DenialCode::StaleEpoch));
    assert_eq!(
        bodies!(events, OwnershipGranted)[0].cause,
        GrantCause::Expired
    );
}

/// A denied claim is recorded with its inputs under a number of its own; a granted one is not, for the
/// grant is its record.
#[test]
fn a_denied_claim_is_recorded_as_a_decision() {
    let mut rig = at(Setup::default(), TradeState::Healthy);
    let (now_ns, mono_ns) = (rig.now_ns(), rig.mono_ns);
    let step = rig.engine.acquire(ACCOUNT, TICKET, EXIT, now_ns, mono_ns);
    let (events, claim) = rig.take(step).unwrap();
    let made = bodies!(events, DecisionMade);
    let decision = &made[0].decision;
    assert_eq!(
        (
            decision.decision_id,
            decision.action.kind,
            decision.denial.0
        ),
        (
            claim.decision_id,
            ActionKind::Acquire,
            Some(DenialCode::OwnedByOther)
        )
    );
    assert!(claim.decision_id > 0 && !decision.granted && decision.request_id.is_empty());
    let step = rig
        .engine
        .acquire(ACCOUNT, TICKET, UNIVERSAL, now_ns, mono_ns);
    let (events, claim) = rig.take(step).unwrap();
    assert_eq!(
        (names(&events), claim.decision_id),
        (vec!["OwnershipGranted".to_owned()], 0)
    );
    rig.check_fold();
}

/// Only a strictly higher rank preempts (I4); the owner himself renews under his token; a release falls to DTMS.
#[test]
fn claims_follow_rank() {
    let mut rig = at(Setup::default(), TradeState::Healthy);
    assert_eq!(acquire(&mut rig, EXIT).0, Some(DenialCode::OwnedByOther));
    let (denial, epoch) = acquire(&mut rig, UNIVERSAL);
    assert_eq!(denial, None);
    assert_eq!(
        acquire(&mut rig, UNIVERSAL),
        (None, epoch),
        "the owner himself keeps his token"
    );
    assert_eq!(acquire(&mut rig, EXIT).0, Some(DenialCode::OwnedByOther));
    let step = rig
        .engine
        .release(ACCOUNT, TICKET, UNIVERSAL, epoch, rig.now_ns(), rig.mono_ns);
    let (events, _) = rig.take(step).unwrap();
    assert_eq!(
        bodies!(events, OwnershipGranted)[0].cause,
        GrantCause::Released
    );
    let step = rig
        .engine
        .release(ACCOUNT, TICKET, UNIVERSAL, epoch, rig.now_ns(), rig.mono_ns);
    assert_eq!(
        engine_support::refused(rig.take(step)).reason.as_str(),
        "STALE_EPOCH"
    );
    rig.score(-5.0);
    rig.settle();
    assert_eq!(
        acquire(&mut rig, UNIVERSAL).0,
        Some(DenialCode::DtmsDefensive)
    );
}

/// A release with a write in flight is carried out when the write is settled.
#[test]
fn a_release_waits_for_the_write_in_flight() {
    let mut rig = at(Setup::default(), TradeState::Healthy);
    let (_, epoch) = acquire(&mut rig, UNIVERSAL);
    let tighter = rig.stop(109_500, false);
    rig.propose(UNIVERSAL, &tighter);
    let step = rig
        .engine
        .release(ACCOUNT, TICKET, UNIVERSAL, epoch, rig.now_ns(), rig.mono_ns);
    assert!(rig.take(step).unwrap().0.is_empty());
    rig.confirm();
    let events = rig.pass(0);
    assert_eq!(
        bodies!(events, OwnershipGranted)[0].cause,
        GrantCause::Released
    );
}

/// After a restart every lease has its full length again.
#[test]
fn a_start_gives_full_leases() {
    let mut rig = at(Setup::default(), TradeState::Healthy);
    acquire(&mut rig, UNIVERSAL);
    let mut restarted = Engine::try_new(&CONFIG, &managers(), &[MANAGED]).unwrap();
    restarted.restore(&rig.engine.snapshot()).unwrap();
    restarted.start(500 * S).unwrap();
    let ownership = restarted
        .ownership(ACCOUNT, TICKET, 500 * S)
        .unwrap()
        .unwrap();
    assert_eq!(ownership.lease_remaining_ms, Some(30_000));
}

/// RECOVERING could not be reached, for the structure that leads there was a constant: thousands of random scores stayed
/// HEDGED. Every state is reached from HEALTHY over edges of the table, and a hedged trade gets there.
#[test]
fn d03_every_state_is_reached() {
    use dtms_core::table::{self, Guard};
    let mut reached = vec![TradeState::Healthy];
    let mut next = 0;
    while let Some(from) = reached.get(next).copied() {
        for guard in Guard::ALL {
            if let Some(edge) = table::next(from, guard)
                && !reached.contains(&edge.to)
            {
                reached.push(edge.to);
            }
        }
        next += 1;
    }
    assert_eq!(reached.len(), 6);
    assert_eq!(
        table::next(TradeState::Hedged, Guard::Bos).unwrap().to,
        TradeState::Recovering
    );
    let rig = at(Setup::default(), TradeState::Recovering);
    let last = bodies!(rig.log, StateChanged).pop().unwrap();
    assert_eq!(
        (last.from, last.to),
        (TradeState::Hedged, TradeState::Recovering)
    );
}

/// No timer was ever started, so a hedge was for ever. Entering a state starts its timer, and its end is acted upon.
#[test]
fn d04_timers_run_and_end() {
    let mut rig = at(Setup::default(), TradeState::Hedged);
    assert!(rig.trade().flat_timer_ends_ns.is_some());
    rig.restart();
    rig.pass(100_000);
    assert_eq!(rig.state(), TradeState::Closed);
    let mut rig = at(Setup::default(), TradeState::Recovering);
    assert!(rig.trade().recovery_timer_ends_ns.is_some());
    rig.restart();
    rig.pass(100_000);
    assert_eq!(rig.state(), TradeState::Closed);
}
