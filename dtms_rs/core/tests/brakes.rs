//! The whole table of brakes: who may still do what under rail, trading state, kill switch, quarantine.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic"
)]
mod engine_support;

use dtms_core::enums::{
    ActionKind, CloseReason, DenialCode, KillScope, Rail, SkipReason, TradeState, TradingState,
};
use dtms_core::event::{Action, Event};
use dtms_core::message::Number;
use dtms_core::rails::spoken;
use engine_support::rails::{calm, holding, lose, ready};
use engine_support::{ACCOUNT, EXIT, PIVOT, Rig, SYMBOL, Setup, TICKET, UNIVERSAL, action};

/// Within the hour that the trades of the table begin in.
const RECOVERY_S: i64 = 480;

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
