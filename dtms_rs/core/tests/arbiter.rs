//! Who may act: the arbitration table, the order of denials, and what each denial needs.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::similar_names,
    reason = "a test fails by panic; a step and a stop"
)]
mod engine_support;

use dtms_core::arbiter::{Asker, authority};
use dtms_core::enums::{
    ActionKind, DenialCode, KillScope, OutcomeStatus, Purpose, Rank, TradeState, TradingState,
};
use dtms_core::event::{Action, Body};
use dtms_core::message::Maybe;
use engine_support::{
    ACCOUNT, EXIT, MANAGED, PIVOT, Rig, SYMBOL, Setup, TICKET, UNIVERSAL, action, outcome, spec,
};

/// asker: DTMS defensive | owned by Universal, before and after breakeven | owned by DTMS | by nobody | by the exit manager
const AUTHORITY: &str = "
DTMS: yes | no no | yes | yes | yes
Universal: DtmsDefensive | yes yes | no | no | no
Exit: DtmsDefensive | yes no | yes | yes | yes
Custom: DtmsDefensive | yes no | yes | yes | no
";

/// The arbitration table of the domain, all askers against all situations.
#[test]
fn authority_is_that_of_the_table() {
    for line in AUTHORITY.trim().lines() {
        let (asker, cells) = line.split_once(": ").unwrap();
        let cells: Vec<&str> = cells.split(" | ").flat_map(str::split_whitespace).collect();
        let situations = [
            (Some(Rank::DtmsDefensive), "DTMS", true, false),
            (Some(Rank::Strategy), "Universal", false, false),
            (Some(Rank::Strategy), "Universal", false, true),
            (Some(Rank::DtmsNormal), "DTMS", false, false),
            (None, "", false, false),
            (Some(Rank::ProfitProtection), "Exit", false, false),
        ];
        assert_eq!(cells.len(), situations.len());
        for (cell, (owner_rank, owner, is_defensive, breakeven)) in cells.iter().zip(situations) {
            let rank = match asker {
                "DTMS" if is_defensive => Rank::DtmsDefensive,
                "DTMS" => Rank::DtmsNormal,
                "Universal" => Rank::Strategy,
                _ => Rank::ProfitProtection,
            };
            let who = Asker {
                rank,
                is_dtms: asker == "DTMS",
                is_owner: asker == owner,
                owner_rank,
            };
            let expected = match *cell {
                "yes" => None,
                "no" => Some(DenialCode::OwnedByOther),
                "DtmsDefensive" => Some(DenialCode::DtmsDefensive),
                other => panic!("no verdict {other}"),
            };
            assert_eq!(
                authority(who, is_defensive, breakeven),
                expected,
                "{asker} in {owner_rank:?} {breakeven}"
            );
        }
    }
}

fn partial(volume: f64) -> Action {
    Action {
        volume: Some(volume),
        ..action(ActionKind::PartialClose)
    }
}

fn denial(rig: &mut Rig, manager: &str, action: &Action) -> Option<DenialCode> {
    let reply = rig.propose(manager, action);
    assert_eq!(reply.decision.granted, reply.decision.denial.0.is_none());
    assert_eq!(reply.intent_id.is_some(), reply.decision.granted);
    reply.decision.denial.0
}

fn ready(setup: Setup) -> Rig {
    let mut rig = setup.rig();
    rig.warm();
    rig.score(-1.0);
    rig.register();
    rig.tick(PIVOT);
    rig
}

/// Each code, brought about alone; then every pair of causes at once gives the earlier code.
#[test]
fn the_first_denial_in_order_wins() {
    type Cause = (DenialCode, fn(&mut Rig, &mut Action));
    let causes: [Cause; 8] = [
        (DenialCode::Halted, |rig, _| {
            let step =
                rig.engine
                    .set_trading_state(TradingState::Halted, "op", "test", rig.now_ns());
            rig.take(step).unwrap();
        }),
        (DenialCode::DtmsDefensive, |rig, _| {
            rig.score(-5.0);
            rig.settle();
        }),
        (DenialCode::InFlight, |rig, _| {
            // Taken back where the defence took the trade: any command in flight will do.
            if rig.intents().is_empty() && rig.state() != TradeState::WarningL2 {
                let stop = rig.stop(109_100, false);
                assert!(rig.propose(EXIT, &stop).decision.granted);
            }
        }),
        (DenialCode::Loosens, |rig, action| {
            *action = rig.stop(108_000, false);
        }),
        (DenialCode::RiskBudget, |rig, action| {
            action.allow_loosen = true;
            action.stop = rig.stop(108_000, true).stop;
        }),
        (DenialCode::InvalidStop, |rig, action| {
            action.stop = rig.stop(PIVOT - 9, false).stop;
        }),
        (DenialCode::MinVolume, |_, action| *action = partial(0.995)),
        (DenialCode::NoChange, |rig, action| {
            action.stop = rig.stop(109_000, false).stop;
        }),
    ];
    for (code, cause) in &causes {
        let mut rig = ready(Setup::default());
        let mut asked = rig.stop(109_200, false);
        cause(&mut rig, &mut asked);
        assert_eq!(denial(&mut rig, EXIT, &asked), Some(*code));
    }
    // What is about the trade (the first three) can be combined with what is about the action.
    for (early, first) in &causes[..3] {
        for (late, second) in &causes[3..] {
            if (*early, *late) == (DenialCode::Halted, DenialCode::MinVolume) {
                // A halt lets closes through, so the volume decides.
                continue;
            }
            let mut rig = ready(Setup::default());
            let mut asked = rig.stop(109_200, false);
            first(&mut rig, &mut asked);
            second(&mut rig, &mut asked);
            assert_eq!(denial(&mut rig, EXIT, &asked), Some(*early));
        }
    }
}

/// The codes that need a setting of their own: unknown, closed, stale, owned, too soon, frozen.
#[test]
fn the_other_denials_have_their_causes() {
    let mut rig = Setup::default().rig();
    let stop = rig.stop(109_200, false);
    assert_eq!(
        denial(&mut rig, EXIT, &stop),
        Some(DenialCode::TradeUnknown)
    );
    assert!(
        matches!(rig.log.last().unwrap().body, Body::DecisionMade(_)),
        "an unknown trade is recorded too"
    );

    let mut rig = ready(Setup::default());
    let reply = rig.try_propose(EXIT, "stale", 0, &stop).unwrap().1;
    assert_eq!(reply.decision.denial.0, Some(DenialCode::StaleEpoch));
    rig.closed(TICKET, dtms_core::enums::CloseReason::StopLoss, 109_000);
    assert_eq!(denial(&mut rig, EXIT, &stop), Some(DenialCode::TradeClosed));

    let mut rig = Setup::default().rig();
    rig.warm();
    rig.register_as(MANAGED, 0, Some(109_000), None, 1.0);
    rig.tick(PIVOT);
    assert_eq!(denial(&mut rig, "own_bot", &stop), None, "before breakeven");
    rig.settle();

    let mut rig = ready(Setup::default().with("cooldown_ms", 5_000.0));
    assert_eq!(denial(&mut rig, EXIT, &stop), None);
    rig.settle();
    let next = rig.stop(109_300, false);
    assert_eq!(denial(&mut rig, EXIT, &next), Some(DenialCode::Cooldown));
    rig.pass(5);
    assert_eq!(denial(&mut rig, EXIT, &next), None);

    let mut frozen = spec();
    frozen.freeze_level = 100;
    let mut rig = ready(Setup {
        spec: frozen,
        ..Setup::default()
    });
    rig.tick(109_090);
    let wide = rig.stop(108_990, true);
    assert_eq!(denial(&mut rig, EXIT, &wide), Some(DenialCode::RiskBudget));
    let target = Action {
        target: Some(rig.price(114_000)),
        ..action(ActionKind::Target)
    };
    assert_eq!(denial(&mut rig, EXIT, &target), Some(DenialCode::Frozen));
}

/// After a confirmed breakeven the exit manager leaves Universal's trade alone.
#[test]
fn breakeven_ends_the_exit_managers_say_on_a_strategy_trade() {
    let mut rig = Setup::default().rig();
    rig.warm();
    rig.register_as(MANAGED, 0, Some(109_000), None, 1.0);
    rig.tick(PIVOT + 300);
    let breakeven = Action {
        purpose: Maybe(Some(Purpose::Breakeven)),
        ..rig.stop(PIVOT + 5, false)
    };
    assert_eq!(denial(&mut rig, EXIT, &breakeven), None);
    let events = rig.confirm();
    assert_eq!(bodies!(events, BreakevenTriggered).len(), 1);
    let higher = rig.stop(PIVOT + 50, false);
    assert_eq!(
        denial(&mut rig, EXIT, &higher),
        Some(DenialCode::OwnedByOther)
    );
    assert_eq!(denial(&mut rig, UNIVERSAL, &higher), None);
}

/// A stop that a higher rank set is not loosened by a lower one, whatever it says.
#[test]
fn a_lower_rank_never_loosens_what_a_higher_one_set() {
    let mut rig = Setup::default().rig();
    rig.warm();
    rig.register_as(MANAGED, 0, Some(109_000), None, 1.0);
    rig.tick(PIVOT);
    let tighter = rig.stop(109_500, false);
    assert_eq!(denial(&mut rig, UNIVERSAL, &tighter), None);
    rig.confirm();
    let back = rig.stop(109_200, true);
    assert_eq!(denial(&mut rig, EXIT, &back), Some(DenialCode::Loosens));
    assert_eq!(denial(&mut rig, UNIVERSAL, &back), None);
}

/// Loosening needs the word, the policy, the budget, and a service that takes new risk.
#[test]
fn loosening_needs_word_policy_budget_and_an_active_service() {
    let mut rig = ready(Setup::default().with("allow_loosen", 0.0));
    let tighter = rig.stop(109_500, false);
    assert_eq!(denial(&mut rig, EXIT, &tighter), None);
    rig.confirm();
    let back = rig.stop(109_200, true);
    assert_eq!(denial(&mut rig, EXIT, &back), Some(DenialCode::Loosens));

    let mut rig = ready(Setup::default());
    assert_eq!(denial(&mut rig, EXIT, &tighter), None);
    rig.confirm();
    let removed = Action {
        stop: Some(0.0),
        ..rig.stop(109_200, true)
    };
    let step = rig
        .engine
        .set_trading_state(TradingState::Reducing, "op", "test", rig.now_ns());
    rig.take(step).unwrap();
    assert_eq!(denial(&mut rig, EXIT, &back), Some(DenialCode::Halted));
    let higher = rig.stop(109_600, false);
    assert_eq!(denial(&mut rig, EXIT, &higher), None);
    rig.confirm();
    let step = rig
        .engine
        .set_trading_state(TradingState::Active, "op", "test", rig.now_ns());
    rig.take(step).unwrap();
    assert_eq!(denial(&mut rig, EXIT, &back), None);
    rig.confirm();
    // Without a stop the trade counts with R, and this one has all of its volume: it fits.
    assert_eq!(denial(&mut rig, EXIT, &removed), None);
    rig.confirm();
    assert_eq!(rig.trade().confirmed.sl, None);
}

/// Kill switches of account, symbol and manager stop managers, and only them; trades fall back to DTMS.
#[test]
fn kill_switches_stop_managers_and_take_their_trades() {
    for (scope, value) in [
        (KillScope::Account, ACCOUNT),
        (KillScope::Symbol, SYMBOL),
        (KillScope::Manager, UNIVERSAL),
    ] {
        let mut rig = Setup::default().rig();
        rig.warm();
        rig.score(-1.0);
        rig.register_as(MANAGED, 1_000, Some(109_000), None, 1.0);
        rig.tick(PIVOT);
        let before = rig.trade().owner_epoch;
        let step =
            rig.engine
                .set_kill_switch(scope, value, true, false, "op", "test", rig.now_ns());
        let (events, ()) = rig.take(step).unwrap();
        assert_eq!(bodies!(events, OwnershipGranted).len(), 1);
        assert_eq!(rig.trade().managed_by.as_str(), "dtms_manager");
        assert!(rig.trade().owner_epoch > before);
        let stop = rig.stop(109_200, false);
        assert_eq!(denial(&mut rig, UNIVERSAL, &stop), Some(DenialCode::Halted));
        rig.score(-3.0);
        assert_eq!(
            rig.intent().kind,
            ActionKind::Stop,
            "DTMS acts all the same"
        );
        rig.settle();
        let step =
            rig.engine
                .set_kill_switch(scope, value, false, false, "op", "test", rig.now_ns());
        rig.take(step).unwrap();
        assert_eq!(
            denial(&mut rig, UNIVERSAL, &stop),
            Some(DenialCode::OwnedByOther)
        );
        rig.check_fold();
    }
}

/// After a restore every open trade has a new token, its owner and the one it was taken from stay, and no number that
/// the lost events can have given is given again: not to a trade that comes later either, nor to a decision or command.
#[test]
fn a_restored_journal_gives_no_number_twice() {
    let mut rig = Setup::default().rig();
    rig.warm();
    rig.score(-1.0);
    rig.register_as(MANAGED, 1_000, Some(109_000), None, 1.0);
    rig.tick(PIVOT);
    rig.score(-5.0);
    rig.settle();
    let before = rig.trade();
    assert_eq!(before.displaced_owner.as_str(), UNIVERSAL);
    let now_ns = rig.now_ns();
    let step = rig.engine.restored(now_ns - 1, now_ns);
    let (events, ()) = rig.take(step).unwrap();
    let numbers = &bodies!(events, BackupRestored)[0];
    assert!(numbers.last_epoch > before.owner_epoch + 1_000_000_000);
    let after = rig.trade();
    assert!(after.owner_epoch > numbers.last_epoch);
    assert_eq!(
        (&after.managed_by, &after.displaced_owner, after.state),
        (&before.managed_by, &before.displaced_owner, before.state)
    );
    rig.score(-9.0);
    let intent = rig.intent();
    assert!(intent.intent_id > numbers.last_intent && intent.decision_id > numbers.last_decision);
    assert_eq!(intent.owner_epoch, after.owner_epoch);
    rig.check_fold();
    rig.restart();
    assert_eq!(rig.trade().owner_epoch, after.owner_epoch);
}

/// HALTED stops DTMS's own openings too, never its closes and stops; a hedge denied stays pending (I13).
#[test]
fn halted_denies_the_hedge_and_nothing_that_reduces_risk() {
    let mut rig = ready(Setup::default());
    let step = rig
        .engine
        .set_trading_state(TradingState::Halted, "op", "test", rig.now_ns());
    rig.take(step).unwrap();
    rig.score(-9.0);
    rig.settle();
    let trade = rig.trade();
    assert_eq!((trade.state, trade.volume), (TradeState::Hedged, 0.5));
    assert!(trade.breakeven_triggered || trade.confirmed.sl > Some(rig.price(109_000)));
    assert!(trade.hedge.is_none());
    assert_eq!(trade.phase, dtms_core::enums::StatePhase::Pending);
    rig.pass(300);
    rig.settle();
    assert_eq!(rig.trade().phase, dtms_core::enums::StatePhase::Confirmed);
    assert_eq!(rig.state(), TradeState::Closed);
}

/// A dry run decides the same and changes nothing.
#[test]
fn a_dry_run_leaves_no_trace() {
    let mut rig = ready(Setup::default());
    let before = rig.engine.snapshot();
    let stop = rig.stop(109_200, false);
    let asked = dtms_core::engine::Proposal {
        manager: EXIT,
        request_id: "",
        account_id: ACCOUNT,
        ticket: TICKET,
        owner_epoch: rig.trade().owner_epoch,
        action: &stop,
        dry_run: true,
    };
    let step = rig.engine.propose(&asked, rig.now_ns(), rig.mono_ns);
    let (events, reply) = rig.take(step).unwrap();
    assert!(events.is_empty() && reply.decision.granted && reply.decision.dry_run);
    assert_eq!(
        (
            reply.decision.decision_id,
            reply.decision.revision,
            reply.intent_id
        ),
        (0, 0, None)
    );
    assert_eq!(rig.engine.snapshot(), before);
}

/// The same request again is the same answer and no second command; another body is refused (I10).
#[test]
fn a_repeated_request_is_answered_as_before() {
    let mut rig = ready(Setup::default());
    let epoch = rig.trade().owner_epoch;
    let stop = rig.stop(109_200, false);
    let (events, first) = rig.try_propose(EXIT, "one", epoch, &stop).unwrap();
    assert_eq!(
        engine_support::names(&events),
        ["DecisionMade", "IntentRecorded"]
    );
    let (events, again) = rig.try_propose(EXIT, "one", epoch, &stop).unwrap();
    assert!(events.is_empty());
    assert_eq!(again, first);
    assert_eq!(first.decision.revision, rig.log.len() as u64 - 1);
    let other = rig.stop(109_300, false);
    let error = engine_support::refused(rig.try_propose(EXIT, "one", epoch, &other));
    assert_eq!(error.reason.as_str(), "REQUEST_ID_REUSED");
    rig.confirm();
    let (_, settled) = rig.try_propose(EXIT, "one", epoch, &stop).unwrap();
    assert_eq!(settled.outcome.unwrap().status, OutcomeStatus::Confirmed);
    let (_, own) = rig.try_propose("own_bot", "one", epoch, &other).unwrap();
    assert_ne!(
        own.decision.decision_id, first.decision.decision_id,
        "ids are each manager's own"
    );
}

/// The oldest answer is forgotten first: 100 are kept here.
#[test]
fn answers_are_bounded() {
    let mut rig = ready(Setup::default());
    let stop = rig.stop(109_200, false);
    for number in 0..=100 {
        rig.try_propose(EXIT, &format!("n{number}"), 0, &stop)
            .unwrap();
    }
    let known = rig.log.len();
    rig.try_propose(EXIT, "n1", 0, &stop).unwrap();
    assert_eq!(rig.log.len(), known);
    rig.try_propose(EXIT, "n0", 0, &stop).unwrap();
    assert_eq!(rig.log.len(), known + 1, "decided anew");
    rig.check_fold();
}

/// An outcome of somebody else's retry never reaches the client's answer; a refused client command is not retried.
#[test]
fn a_clients_command_is_never_retried_by_the_service() {
    let mut rig = ready(Setup::default());
    let stop = rig.stop(109_200, false);
    let reply = rig.propose(EXIT, &stop);
    let refusal = outcome(reply.intent_id.unwrap(), OutcomeStatus::Rejected, 10_004);
    let events = rig.answer(refusal).unwrap();
    assert_eq!(bodies!(events, OutcomeRecorded)[0].retry_at_ns, None);
    assert!(rig.intents().is_empty());
}

/// What is wrong with the words of a proposal is an error that names the field, not a denial.
#[test]
fn malformed_proposals_name_their_field() {
    let mut rig = ready(Setup::default());
    let half = 0.5 / engine_support::SCALE;
    let cases = [
        (
            EXIT,
            "r",
            Action {
                stop: Some(f64::NAN),
                ..rig.stop(1, false)
            },
            "action.stop",
        ),
        (
            EXIT,
            "r",
            Action {
                stop: Some(-1.0),
                ..rig.stop(1, false)
            },
            "action.stop",
        ),
        (
            EXIT,
            "r",
            Action {
                stop: None,
                ..rig.stop(1, false)
            },
            "action.stop",
        ),
        (
            EXIT,
            "r",
            Action {
                stop: Some(rig.price(109_200) + half),
                ..rig.stop(1, false)
            },
            "action.stop",
        ),
        (EXIT, "r", action(ActionKind::Target), "action.target"),
        (EXIT, "r", partial(0.0), "action.volume"),
        (EXIT, "r", partial(f64::INFINITY), "action.volume"),
        (EXIT, "r", action(ActionKind::OpenHedge), "action.kind"),
        (EXIT, "r", action(ActionKind::ReAdd), "action.kind"),
        (EXIT, "", rig.stop(109_200, false), "request_id"),
        ("", "r", rig.stop(109_200, false), "manager"),
        ("dtms_manager", "r", rig.stop(109_200, false), "manager"),
    ];
    for (manager, request_id, asked, field) in cases {
        let epoch = rig.trade().owner_epoch;
        let error = engine_support::refused(rig.try_propose(manager, request_id, epoch, &asked));
        assert_eq!(
            (error.reason.as_str(), error.field.as_str()),
            ("FIELD_INVALID", field)
        );
    }
}
