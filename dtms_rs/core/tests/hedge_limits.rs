//! How often a trade may be hedged, and what hedges may cost.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic"
)]
mod engine_support;

use dtms_core::enums::{CloseReason, TradeState, TransitionCause};
use engine_support::{PIVOT, Rig, Setup};

/// The hedge is stopped out `points` beyond its entry, and the score turns critical again.
fn whip(rig: &mut Rig, points: i64) -> TradeState {
    let hedge = rig.hedge();
    rig.closed(hedge, CloseReason::StopLoss, PIVOT + points);
    rig.score(-7.0);
    rig.settle();
    rig.state()
}

fn hedged(setup: Setup) -> Rig {
    let mut rig = setup.rig();
    rig.warm();
    rig.bring_to(TradeState::Hedged);
    rig.settle();
    rig
}

/// A hedge that was stopped out is followed by another only after two slow bars, on the clock alone.
#[test]
fn a_market_that_whips_takes_no_series_of_hedges() {
    for mirror in [false, true] {
        let mut rig = hedged(Setup::mirrored(mirror));
        assert_eq!(whip(&mut rig, 120), TradeState::WarningL2);
        rig.pass(119);
        assert_eq!(rig.state(), TradeState::WarningL2);
        rig.pass(1);
        assert_eq!(rig.state(), TradeState::Hedged);
        rig.check_fold();
    }
}

/// After its third hedge a trade stays in `WARNING_L2`, where its stop protects it.
#[test]
fn a_trade_is_hedged_three_times_in_its_life() {
    let mut rig = hedged(Setup::default().with("hedge_pause_slow_bars", 0.0));
    assert_eq!(whip(&mut rig, 20), TradeState::Hedged);
    assert_eq!(whip(&mut rig, 20), TradeState::Hedged);
    assert_eq!(whip(&mut rig, 20), TradeState::WarningL2);
    rig.pass(3600);
    assert_eq!(rig.state(), TradeState::WarningL2);
    rig.check_fold();
}

/// What hedges have lost counts against the initial risk: when it is used up, the trade is closed instead.
#[test]
fn lost_hedges_use_up_the_risk_budget() {
    let setup = Setup::default()
        .with("hedge_pause_slow_bars", 0.0)
        .with("max_hedges", 1000.0);
    let mut rig = hedged(setup);
    let mut hedges = 1;
    while whip(&mut rig, 400) == TradeState::Hedged {
        hedges += 1;
        assert!(hedges < 100, "the budget never ends");
    }
    assert_eq!(rig.state(), TradeState::Closed);
    assert!(hedges > 1, "one hedge must fit");
    rig.check_fold();
}

/// The hedge that the budget forbids leaves by the table: HEDGED to CLOSED because it is impossible.
#[test]
fn a_forbidden_hedge_closes_by_its_own_edge() {
    let setup = Setup::default()
        .with("hedge_pause_slow_bars", 0.0)
        .with("max_hedges", 1000.0);
    let mut rig = hedged(setup);
    let hedge = rig.hedge();
    // Far enough to lose the whole budget at once.
    rig.closed(hedge, CloseReason::StopLoss, PIVOT + 20_000);
    let events = rig.score(-7.0);
    let causes: Vec<_> = bodies!(events, StateChanged)
        .iter()
        .map(|change| (change.to, change.cause))
        .collect();
    assert_eq!(
        causes.last(),
        Some(&(TradeState::Closed, TransitionCause::HedgeImpossible))
    );
}
