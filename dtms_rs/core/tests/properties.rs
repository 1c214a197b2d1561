//! Any sequence of commands is safe: the guarantees hold after each, and the fold is exact.
//!
//! A failing case is printed with its seed and kept in `properties.proptest-regressions`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::too_many_lines,
    reason = "a test fails by panic; a validator looks at a few kinds of events; one arm per command"
)]
mod engine_support;

use std::collections::{HashMap, HashSet};

use dtms_core::arbiter::DTMS;
use dtms_core::enums::{
    ActionKind, CloseReason, GrantCause, KillScope, LegKind, OutcomeStatus, Rank, StatePhase,
    TradeState, TradingState,
};
use dtms_core::event::{Action, Body, Event, IntentRecorded, OutcomeRecorded, OwnershipGranted};
use dtms_core::message::Number;
use dtms_core::table::{Guard, next};
use engine_support::{
    ACCOUNT, EXIT, MANAGED, PIVOT, Rig, SYMBOL, Setup, TICKET, UNIVERSAL, action, outcome, text,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

#[derive(Clone, Debug)]
enum Command {
    Tick {
        price: i64,
        spread: i64,
    },
    Bar {
        close: i64,
    },
    Score(i32),
    Pass(i64),
    Confirm,
    Fill(i32),
    Refuse(u32),
    Unknown,
    CloseMain(usize),
    CloseHedge(usize),
    Report {
        sl: Option<i64>,
        volume: i32,
    },
    Missing,
    Acquire(usize),
    Release(usize),
    Renew {
        manager: usize,
        stale: bool,
    },
    Propose {
        manager: usize,
        kind: usize,
        level: i64,
        loosen: bool,
        stale: bool,
    },
    Trading(usize),
    /// Equity in thousandths of the first.
    Equity(i32),
    /// News from so many seconds before now to so many after.
    News(i64, i64),
    Kill {
        manager: usize,
        engaged: bool,
    },
    Register {
        managed: bool,
        age_s: i64,
        sl: Option<i64>,
        volume: i32,
    },
    Restart {
        from_events: bool,
    },
}

const MANAGERS: [&str; 3] = [UNIVERSAL, EXIT, "own_bot"];
const RETCODES: [u32; 10] = [
    0, 10_004, 10_006, 10_013, 10_016, 10_018, 10_019, 10_025, 10_036, 10_046,
];

fn command() -> impl Strategy<Value = Command> {
    let price = 108_500..111_500_i64;
    prop_oneof![
        6 => (price.clone(), 0..40_i64).prop_map(|(price, spread)| Command::Tick { price, spread }),
        4 => price.clone().prop_map(|close| Command::Bar { close }),
        6 => (-100..100_i32).prop_map(Command::Score),
        4 => (0..400_i64).prop_map(Command::Pass),
        10 => Just(Command::Confirm),
        1 => (1..60_i32).prop_map(Command::Fill),
        3 => prop::sample::select(RETCODES.to_vec()).prop_map(Command::Refuse),
        1 => Just(Command::Unknown),
        1 => (0..4_usize).prop_map(Command::CloseMain),
        2 => (0..3_usize).prop_map(Command::CloseHedge),
        2 => (prop::option::of(price.clone()), 1..100_i32).prop_map(|(sl, volume)| Command::Report { sl, volume }),
        1 => Just(Command::Missing),
        2 => (0..3_usize).prop_map(Command::Acquire),
        1 => (0..3_usize).prop_map(Command::Release),
        2 => (0..3_usize, prop::bool::weighted(0.1)).prop_map(|(manager, stale)| Command::Renew { manager, stale }),
        6 => (0..3_usize, 0..4_usize, price, any::<bool>(), prop::bool::weighted(0.1)).prop_map(
            |(manager, kind, level, loosen, stale)| Command::Propose { manager, kind, level, loosen, stale }
        ),
        1 => (0..3_usize).prop_map(Command::Trading),
        1 => (950..1_010_i32).prop_map(Command::Equity),
        1 => (0..100_i64, 0..200_i64).prop_map(|(before_s, after_s)| Command::News(before_s, after_s)),
        1 => (0..3_usize, any::<bool>()).prop_map(|(manager, engaged)| Command::Kill { manager, engaged }),
        1 => any::<bool>().prop_map(|from_events| Command::Restart { from_events }),
    ]
}

fn registration() -> impl Strategy<Value = Command> {
    (
        any::<bool>(),
        prop::sample::select(vec![0, 880, 1_000]),
        prop::option::weighted(0.9, 108_800..109_950_i64),
        1..200_i32,
    )
        .prop_map(|(managed, age_s, sl, volume)| Command::Register {
            managed,
            age_s,
            sl,
            volume,
        })
}

/// What the guarantees need to remember between events.
struct Validator {
    epoch: u64,
    state: TradeState,
    intents: HashMap<u64, IntentRecorded>,
    /// Recorded, and not yet known to be done or refused.
    in_flight: HashSet<u64>,
    /// Entry actions that were never sent, and those that wait to be sent again.
    untried: HashSet<u64>,
    retrying: HashSet<u64>,
    /// Who set the stop that stands, where DTMS knows it.
    stop_rank: Option<Rank>,
}

fn oriented(rig: &Rig, price: f64) -> i64 {
    rig.points(price)
}

impl Validator {
    fn check(
        &mut self,
        rig: &Rig,
        events: &[Event],
        before: Option<&dtms_core::event::Trade>,
        allowed_to_loosen: bool,
    ) {
        let mut left_defence = false;
        for event in events.iter().filter(|event| event.ticket == TICKET) {
            if left_defence {
                // I5: the drop of rank follows at once, save for actions that the change supersedes.
                match &event.body {
                    Body::OwnershipGranted(grant) => {
                        assert_eq!(grant.cause, GrantCause::Returned);
                        left_defence = false;
                    }
                    Body::ActionSkipped(_) => {}
                    other => panic!("rank kept after defence: {other:?}"),
                }
            }
            match &event.body {
                Body::OwnershipGranted(grant) => {
                    // I1, I2: one grant after the other, each under a higher token.
                    assert!(grant.owner_epoch > self.epoch);
                    self.epoch = grant.owner_epoch;
                    self.check_hands(grant);
                    if grant.cause == GrantCause::Acquired && !grant.displaced.is_empty() {
                        let displaced = if grant.displaced == *UNIVERSAL {
                            Rank::Strategy
                        } else if grant.displaced == *"dtms_manager" {
                            Rank::DtmsNormal
                        } else {
                            Rank::ProfitProtection
                        };
                        assert!(grant.rank.0.unwrap() > displaced, "I4: {grant:?}");
                    }
                }
                Body::StateChanged(change) => {
                    assert_eq!(change.from, self.state);
                    assert_ne!(change.from, TradeState::Closed, "I12: CLOSED is final");
                    let is_edge = Guard::ALL.into_iter().any(|guard| {
                        guard.cause() == change.cause
                            && next(change.from, guard).is_some_and(|edge| edge.to == change.to)
                    });
                    assert!(
                        is_edge,
                        "I12: {:?} -> {:?} by {:?}",
                        change.from, change.to, change.cause
                    );
                    left_defence = change.from.is_defensive() && !change.to.is_defensive();
                    if !change.actions.is_empty() {
                        assert_eq!(change.phase, StatePhase::Pending, "I14");
                    }
                    self.state = change.to;
                    self.untried
                        .extend(change.actions.iter().map(|action| action.action_id));
                }
                Body::ActionSkipped(skipped) => {
                    self.untried.remove(&skipped.action.action_id);
                    self.retrying.remove(&skipped.action.action_id);
                }
                Body::OutcomeRecorded(recorded) => self.conclude(recorded),
                Body::PositionChanged(changed) if changed.leg == LegKind::Main => {
                    self.stop_rank = None;
                }
                Body::IntentRecorded(intent) => {
                    assert_eq!(
                        intent.owner_epoch, self.epoch,
                        "I3: recorded under the token of now"
                    );
                    assert!(
                        self.in_flight.is_empty(),
                        "one change of a trade at a time: {intent:?}"
                    );
                    self.check_turn(rig, intent);
                    self.in_flight.insert(intent.intent_id);
                    self.intents.insert(intent.intent_id, intent.clone());
                    if intent.kind == ActionKind::Stop {
                        self.check_stop(rig, intent, before, allowed_to_loosen);
                    }
                }
                _ => {}
            }
        }
        assert!(!left_defence, "I5: the rank drops in the same step");
    }

    /// I4, I6: a grant goes where its cause sends it, and waits for the write that is under way. A kill
    /// switch and a change of state do not wait: they fence what is in hand.
    fn check_hands(&self, grant: &OwnershipGranted) {
        match grant.cause {
            GrantCause::Defensive => {
                assert_eq!(grant.managed_by, *DTMS, "I4");
                assert!(self.state.is_defensive(), "I4: {grant:?}");
            }
            GrantCause::Expired | GrantCause::Released => {
                assert_eq!(grant.managed_by, *DTMS, "I4");
                assert!(self.in_flight.is_empty(), "I6: {grant:?}");
            }
            GrantCause::Acquired => {
                assert!(!self.state.is_defensive(), "I4: {grant:?}");
                assert!(self.in_flight.is_empty(), "I6: {grant:?}");
            }
            GrantCause::Killed => assert_eq!(grant.managed_by, *DTMS, "I4"),
            GrantCause::Registered | GrantCause::Returned | GrantCause::Restored => {}
        }
    }

    /// What DTMS has queued goes first: no manager acts in defence, nor before an entry action that
    /// could be sent (it has a price, and nothing before it waits to be tried again).
    fn check_turn(&mut self, rig: &Rig, intent: &IntentRecorded) {
        if intent.action_id != 0 {
            self.untried.remove(&intent.action_id);
            self.retrying.remove(&intent.action_id);
            return;
        }
        assert!(!self.state.is_defensive(), "a manager acts in defence");
        let is_priced = rig.engine.quote(ACCOUNT, SYMBOL).unwrap().is_some();
        assert!(
            self.untried.is_empty() || !self.retrying.is_empty() || !is_priced,
            "{:?} waits, and {:?} goes first",
            self.untried,
            intent.manager
        );
    }

    fn conclude(&mut self, recorded: &OutcomeRecorded) {
        let outcome = &recorded.outcome;
        if outcome.status == OutcomeStatus::Unknown {
            return;
        }
        assert!(
            self.in_flight.remove(&outcome.intent_id),
            "settled twice: {outcome:?}"
        );
        let intent = &self.intents[&outcome.intent_id];
        if recorded.retry_at_ns.is_some() {
            self.retrying.insert(intent.action_id);
        }
        if outcome.status == OutcomeStatus::Confirmed && intent.kind == ActionKind::Stop {
            self.stop_rank = Some(intent.rank);
        }
    }

    /// I11, as far as the state before the command tells: one command of the broker at a time means
    /// that the confirmed levels are those of before or those that this call's own outcome brought.
    fn check_stop(
        &self,
        rig: &Rig,
        intent: &IntentRecorded,
        before: Option<&dtms_core::event::Trade>,
        allowed_to_loosen: bool,
    ) {
        let quote = rig.engine.quote(ACCOUNT, SYMBOL).unwrap();
        let trade = rig.trade();
        let Some(sl) = intent.sl else {
            assert!(
                allowed_to_loosen || trade.confirmed.sl.is_none(),
                "I11: a stop is removed"
            );
            return;
        };
        let quote = quote.unwrap();
        let exit = if rig.mirror { quote.ask } else { quote.bid };
        let (sl, exit) = (oriented(rig, sl), oriented(rig, exit));
        assert!(
            sl <= exit - 10,
            "I11: {sl} is inside the stops level of {exit}"
        );
        assert_eq!(intent.tp, trade.confirmed.tp, "I11: the target is kept");
        if let Some(confirmed) = trade.confirmed.sl {
            let loosens = sl < oriented(rig, confirmed);
            assert!(
                !loosens || (allowed_to_loosen && intent.action_id == 0),
                "I11: {before:?}"
            );
            assert!(
                !loosens || self.stop_rank.is_none_or(|rank| rank <= intent.rank),
                "I11: loosens what {:?} has set",
                self.stop_rank
            );
        }
    }

    fn check_now(rig: &Rig) {
        let Some(trade) = rig.engine.trade(ACCOUNT, TICKET).unwrap() else {
            return;
        };
        let own = rig.intents().iter().any(|intent| intent.action_id != 0);
        if trade.phase == StatePhase::Confirmed {
            assert!(
                trade.pending_actions.is_empty() && !own,
                "I14: confirmed with {:?}",
                trade.pending_actions
            );
            if trade.state == TradeState::Closed {
                assert!(
                    trade.hedge.is_none() && trade.readd.is_none() && trade.volume == 0.0,
                    "I13"
                );
            }
        }
        assert!(rig.intents().len() <= 1, "one command of a trade at a time");
        if let Some(hedge) = &trade.hedge {
            assert!(hedge.volume <= 2.0, "the hedge never exceeds the trade");
        }
    }
}

fn run(rig: &mut Rig, command: &Command) -> Option<(Vec<Event>, bool)> {
    let now_ns = rig.now_ns();
    let mono_ns = rig.mono_ns;
    let events = match command {
        Command::Tick { price, spread } => rig.quote(*price, price + spread).unwrap(),
        Command::Bar { close } => rig.bar(*close, 10.0),
        Command::Score(tenths) => rig.score(f64::from(*tenths) / 10.0),
        Command::Pass(seconds) => rig.pass(*seconds),
        Command::Confirm => {
            let intent = rig.intents().first().cloned()?;
            let done = rig.done(&intent);
            rig.answer(done).unwrap()
        }
        Command::Fill(steps) => {
            let intent = rig.intents().first().cloned()?;
            let mut done = rig.done(&intent);
            let part = f64::from(*steps) / 100.0;
            done.volume = done.volume.map(|volume| volume.min(part));
            rig.answer(done).unwrap()
        }
        Command::Refuse(retcode) => {
            let intent = rig.intents().first().cloned()?;
            rig.answer(outcome(intent.intent_id, OutcomeStatus::Rejected, *retcode))
                .unwrap()
        }
        Command::Unknown => {
            let intent = rig.intents().first().cloned()?;
            rig.answer(outcome(intent.intent_id, OutcomeStatus::Unknown, 0))
                .unwrap()
        }
        Command::CloseMain(reason) => rig.closed(TICKET, CloseReason::ALL[*reason].1, PIVOT),
        Command::CloseHedge(reason) => {
            let hedge = rig.engine.trade(ACCOUNT, TICKET).unwrap()?.hedge?.ticket;
            rig.closed(hedge, CloseReason::ALL[*reason].1, PIVOT)
        }
        Command::Report { sl, volume } => {
            let trade = rig.engine.trade(ACCOUNT, TICKET).unwrap()?;
            let volume = (f64::from(*volume) / 100.0).min(trade.volume).max(0.01);
            let sl = sl.map(|sl| rig.price(sl));
            let step =
                rig.engine
                    .on_position(ACCOUNT, TICKET, volume, sl, trade.confirmed.tp, now_ns);
            rig.take(step).unwrap().0
        }
        Command::Missing => {
            let step = rig.engine.on_missing(ACCOUNT, TICKET, now_ns);
            rig.take(step).unwrap().0
        }
        Command::Acquire(manager) => {
            let step = rig
                .engine
                .acquire(ACCOUNT, TICKET, MANAGERS[*manager], now_ns, mono_ns);
            rig.take(step).unwrap().0
        }
        Command::Release(manager) => {
            let epoch = rig.trade().owner_epoch;
            let step =
                rig.engine
                    .release(ACCOUNT, TICKET, MANAGERS[*manager], epoch, now_ns, mono_ns);
            rig.take(step).ok()?.0
        }
        Command::Propose {
            manager,
            kind,
            level,
            loosen,
            stale,
        } => {
            let asked = match kind {
                0 | 1 => rig.stop(*level, *loosen),
                2 => Action {
                    volume: Some(0.25),
                    ..action(ActionKind::PartialClose)
                },
                _ => action(ActionKind::Close),
            };
            let epoch = rig.trade().owner_epoch - u64::from(*stale);
            let id = format!("p{}", rig.log.len());
            let (events, reply) = rig
                .try_propose(MANAGERS[*manager], &id, epoch, &asked)
                .unwrap();
            assert!(!(*stale && reply.decision.granted), "I3");
            let granted_loose = reply.decision.granted && *loosen;
            return Some((events, granted_loose));
        }
        Command::Trading(state) => {
            let step =
                rig.engine
                    .set_trading_state(TradingState::ALL[*state].1, "op", "test", now_ns);
            rig.take(step).unwrap().0
        }
        Command::Equity(thousandths) => rig.equity(f64::from(*thousandths) * 10.0),
        Command::News(before_s, after_s) => rig.news(&[(-before_s, *after_s, "news")]),
        Command::Kill { manager, engaged } => {
            let scope = KillScope::Manager;
            let step = rig.engine.set_kill_switch(
                scope,
                MANAGERS[*manager],
                *engaged,
                false,
                "op",
                "test",
                now_ns,
            );
            rig.take(step).unwrap().0
        }
        Command::Register {
            managed,
            age_s,
            sl,
            volume,
        } => {
            let strategy = if *managed { MANAGED } else { "" };
            rig.register_as(
                strategy,
                *age_s,
                *sl,
                Some(113_000),
                f64::from(*volume) / 100.0,
            )
        }
        Command::Renew { manager, stale } => {
            let trade = rig.trade();
            let asked = trade.owner_epoch - u64::from(*stale);
            let renewed = rig
                .engine
                .renew(ACCOUNT, TICKET, MANAGERS[*manager], asked, mono_ns);
            let owns = trade.managed_by == *MANAGERS[*manager] && !*stale;
            assert!(renewed.is_err() || owns, "I3: renewed what is not his");
            Vec::new()
        }
        Command::Restart { from_events } => {
            rig.check_fold();
            if *from_events {
                rig.refold();
            } else {
                rig.restart();
            }
            Vec::new()
        }
    };
    Some((events, false))
}

/// The positions that the broker said were closed already.
fn positions_gone(log: &[Event]) -> Vec<u64> {
    let mut intents = HashMap::new();
    let mut gone = Vec::new();
    for event in log {
        match &event.body {
            Body::IntentRecorded(intent) => {
                intents.insert(intent.intent_id, intent.position);
            }
            Body::OutcomeRecorded(recorded) if recorded.outcome.retcode == 10_036 => {
                gone.extend(intents.get(&recorded.outcome.intent_id));
            }
            _ => {}
        }
    }
    gone
}

fn without_spread(command: Command) -> Command {
    if let Command::Tick { price, .. } = command {
        Command::Tick { price, spread: 0 }
    } else {
        command
    }
}

fn play(commands: &[Command], setup: Setup, warm: bool) -> Rig {
    let mut rig = setup.rig();
    if warm {
        rig.warm();
    }
    rig.score(-1.0);
    let mut validator = Validator {
        epoch: 0,
        state: TradeState::Healthy,
        intents: HashMap::new(),
        in_flight: HashSet::new(),
        untried: HashSet::new(),
        retrying: HashSet::new(),
        stop_rank: None,
    };
    for command in commands {
        let before = rig.engine.trade(ACCOUNT, TICKET).unwrap();
        if let Some((events, may_loosen)) = run(&mut rig, command) {
            validator.check(&rig, &events, before.as_ref(), may_loosen);
        }
        Validator::check_now(&rig);
        assert_eq!(validator.state, rig.state());
    }
    rig
}

fn commands(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Command>> {
    (registration(), prop::collection::vec(command(), length)).prop_map(|(first, mut rest)| {
        rest.insert(0, first);
        rest
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/properties.proptest-regressions",
        ))),
        ..ProptestConfig::default()
    })]

    /// I1-I7, I11-I14, whose turn it is, and the exact fold over random commands of three managers, on hedging and netting accounts, warm and cold.
    #[test]
    fn any_sequence_keeps_the_guarantees(
        commands in commands(1..120),
        hedging in any::<bool>(),
        warm in prop::bool::weighted(0.9),
    ) {
        let rig = play(&commands, Setup { hedging, ..Setup::default() }, warm);
        rig.check_fold();
    }

    /// I12: a SELL in the mirrored market lives exactly the mirrored life. Without a spread: bars are
    /// made of bids, whose mirror image would be asks.
    #[test]
    fn a_mirrored_trade_lives_the_mirrored_life(
        commands in commands(1..80),
        hedging in any::<bool>(),
    ) {
        let commands: Vec<Command> = commands.into_iter().map(without_spread).collect();
        let straight = play(&commands, Setup { hedging, ..Setup::default() }, true);
        let mirrored = play(&commands, Setup { hedging, ..Setup::mirrored(true) }, true);
        let (one, other) = (text::lines(&straight.log, false), text::lines(&mirrored.log, true));
        for (one, other) in one.iter().zip(&other) {
            prop_assert_eq!(one, other);
        }
        prop_assert_eq!(one.len(), other.len());
    }

    /// I13: whatever happened, a closed trade comes to an end once the broker obeys: no leg remains.
    #[test]
    fn closed_ends_with_nothing_left(commands in commands(1..100)) {
        let mut rig = play(&commands, Setup::default(), true);
        rig.closed(TICKET, CloseReason::StopLoss, 109_000);
        let gone = positions_gone(&rig.log);
        for _ in 0..50 {
            rig.settle();
            rig.pass(61);
        }
        // A close that was answered with POSITION_CLOSED waits for the deals to tell by what.
        for (_, position) in rig.engine.open_positions(ACCOUNT).unwrap() {
            prop_assert!(gone.contains(&position));
            rig.closed(position, CloseReason::StopLoss, PIVOT);
        }
        let trade = rig.trade();
        prop_assert_eq!(trade.state, TradeState::Closed);
        let quarantined = trade.quarantined;
        prop_assert!(!quarantined);
        prop_assert_eq!(trade.phase, StatePhase::Confirmed);
        prop_assert!(trade.hedge.is_none() && trade.readd.is_none());
        prop_assert_eq!(rig.engine.open_positions(ACCOUNT).unwrap(), vec![]);
        prop_assert_eq!(rig.leg(LegKind::Hedge), None);
    }
}
