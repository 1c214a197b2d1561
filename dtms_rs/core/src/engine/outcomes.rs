//! What became of commands: confirmed, refused, or not known yet.
use super::queue::{is_close, is_wanted};
use super::{About, Engine, Step};
use crate::book::{At, OpenIntent};
use crate::enums::{
    ActionKind, AlarmCode, CloseReason, LegKind, OutcomeStatus, Purpose, SkipReason,
};
use crate::error::{CoreError, Result};
use crate::event::{
    ActionPlanned, BreakevenTriggered, IntentRecorded, LegClosed, Outcome, OutcomeRecorded,
    PlannedAction, PositionChanged, QuarantineChanged,
};
use crate::message::Maybe;
use crate::retcode::{self, Meaning};
use crate::symbol::Steps;
use crate::table::Guard;
use crate::trade::Queued;

impl Engine {
    /// Settles a command. UNKNOWN keeps it in flight until the broker was read; what is settled
    /// already changes nothing, save a command that was settled as not executed and is found to have
    /// been executed after all.
    ///
    /// # Errors
    /// `FIELD_INVALID` names what is missing or impossible in the outcome.
    pub fn on_outcome(&mut self, mut outcome: Outcome, now_ns: i64) -> Result<Step<()>> {
        if outcome.intent_id == 0 || outcome.intent_id > self.book.last_intent {
            return Err(CoreError::field("outcome.intent_id", "was never recorded"));
        }
        let Some(open) = self.book.intents.get(&outcome.intent_id).cloned() else {
            if outcome.status == OutcomeStatus::Confirmed {
                self.execute_late(outcome, now_ns)?;
            }
            return Ok(self.step(()));
        };
        let at = self.book.locate(open.account_id.as_str(), open.ticket)?;
        let meaning = self.meaning(at, &open.intent, &outcome)?;
        outcome.status = match meaning {
            Meaning::Success | Meaning::PositionGone
                if is_done(meaning, &open.intent, &outcome) =>
            {
                OutcomeStatus::Confirmed
            }
            Meaning::Unknown => OutcomeStatus::Unknown,
            Meaning::Success
            | Meaning::PositionGone
            | Meaning::Retry { .. }
            | Meaning::Final
            | Meaning::TradingDisabled
            | Meaning::HedgeImpossible => OutcomeStatus::Rejected,
        };
        self.check_outcome(at, &open.intent, &outcome)?;
        match outcome.status {
            OutcomeStatus::Unknown if open.is_unknown => return Ok(self.step(())),
            OutcomeStatus::Unknown => {
                self.emit(
                    About::Trade(at),
                    now_ns,
                    OutcomeRecorded {
                        outcome,
                        retry_at_ns: None,
                    },
                )?;
            }
            OutcomeStatus::Confirmed => self.confirm(at, &open, outcome, meaning, now_ns)?,
            OutcomeStatus::Rejected => self.reject(at, &open.intent, outcome, meaning, now_ns)?,
        }
        self.pump(at, now_ns)?;
        Ok(self.step(()))
    }

    /// A command that had left no trace was executed late: it takes effect now, aloud. A leg that the
    /// trade has no place for is closed.
    fn execute_late(&mut self, mut outcome: Outcome, now_ns: i64) -> Result<()> {
        let abandoned = self.book.abandoned.get(&outcome.intent_id).cloned();
        let Some(open) = abandoned.filter(|open| !open.is_explained) else {
            return Ok(());
        };
        let at = self.book.locate(open.account_id.as_str(), open.ticket)?;
        outcome.settled = true;
        self.check_outcome(at, &open.intent, &outcome)?;
        let (price, kind) = (outcome.price, open.intent.kind);
        let detail = format!(
            "{kind:?} of intent {} was executed after it had been settled as not executed",
            outcome.intent_id
        );
        self.note_moved_level(at, &open.intent, &outcome, now_ns)?;
        let recorded = OutcomeRecorded {
            outcome,
            retry_at_ns: None,
        };
        self.emit(About::Trade(at), now_ns, recorded)?;
        self.alarm(at, AlarmCode::LateExecution, &detail, now_ns)?;
        self.note_gone(at, &open.intent, price, now_ns)?;
        self.drop_repeats(at, kind, now_ns)?;
        self.plan_strays(at, now_ns)?;
        self.pump(at, now_ns)
    }

    /// What has come late need not be tried again.
    pub(super) fn drop_repeats(&mut self, at: At, kind: ActionKind, now_ns: i64) -> Result<()> {
        let trade = self.book.trade(at)?;
        let is_done = (kind == ActionKind::OpenHedge && trade.hedge.is_some())
            || (kind == ActionKind::ReAdd && trade.readd.is_some())
            || (kind == ActionKind::PartialClose && trade.partial_taken);
        let waiting = trade.queue.iter().map(|queued| &queued.action);
        let repeat = waiting.clone().find(|action| action.kind == kind).cloned();
        match repeat.filter(|_| is_done) {
            Some(action) => self.skip(at, action, SkipReason::AlreadyDone, now_ns),
            None => Ok(()),
        }
    }

    /// Every stray has an action that closes it.
    pub(super) fn plan_strays(&mut self, at: At, now_ns: i64) -> Result<()> {
        let trade = self.book.trade(at)?;
        let planned = trade
            .queue
            .iter()
            .chain(&trade.current)
            .filter(|queued| queued.action.kind == ActionKind::CloseStray)
            .count();
        for _ in planned..trade.strays.len() {
            let action = PlannedAction {
                action_id: self.book.last_action + 1,
                kind: ActionKind::CloseStray,
                purpose: Purpose::Flatten,
            };
            self.emit(About::Trade(at), now_ns, ActionPlanned { action })?;
        }
        Ok(())
    }

    fn meaning(&self, at: At, intent: &IntentRecorded, outcome: &Outcome) -> Result<Meaning> {
        let most = u32::try_from(self.rules(at)?.max_retries).unwrap_or(u32::MAX);
        let by_code = retcode::meaning(outcome.retcode, most);
        Ok(match outcome.status {
            OutcomeStatus::Confirmed if by_code == Meaning::PositionGone => Meaning::PositionGone,
            OutcomeStatus::Confirmed => Meaning::Success,
            OutcomeStatus::Unknown => Meaning::Unknown,
            // A refusal that settles an UNKNOWN: the broker was read, it was not done.
            OutcomeStatus::Rejected if outcome.settled && by_code == Meaning::Unknown => {
                Meaning::Retry {
                    delay_ms: 250,
                    most: 1,
                }
            }
            OutcomeStatus::Rejected
                if by_code == Meaning::Success
                    && intent.kind != ActionKind::Stop
                    && intent.kind != ActionKind::Target =>
            {
                Meaning::Final
            }
            OutcomeStatus::Rejected => by_code,
        })
    }

    /// Numbers that the broker's side must give are there and make sense.
    fn check_outcome(&self, at: At, intent: &IntentRecorded, outcome: &Outcome) -> Result<()> {
        if outcome.status != OutcomeStatus::Confirmed {
            return Ok(());
        }
        let symbol = &self.book.instrument(at.instrument)?.symbol;
        for (field, price) in [
            ("outcome.price", outcome.price),
            ("outcome.sl", outcome.sl),
            ("outcome.tp", outcome.tp),
        ] {
            if let Some(price) = price {
                symbol.nearest_price(field, price)?;
            }
        }
        if let Some(volume) = outcome.volume.filter(|volume| *volume != 0.0) {
            symbol.exact_volume("outcome.volume", volume)?;
        }
        if intent.position == 0 {
            if outcome.opened_ticket == 0 {
                return Err(CoreError::field(
                    "outcome.opened_ticket",
                    "is missing for an opening",
                ));
            }
            if outcome.price.is_none() {
                return Err(CoreError::field(
                    "outcome.price",
                    "is missing for an opening",
                ));
            }
        }
        Ok(())
    }

    fn confirm(
        &mut self,
        at: At,
        open: &OpenIntent,
        outcome: Outcome,
        meaning: Meaning,
        now_ns: i64,
    ) -> Result<()> {
        let intent = &open.intent;
        if self.book.trade(at)?.quarantined && meaning == Meaning::Success {
            // What the broker has just changed is there, or was until now.
            let found = QuarantineChanged { quarantined: false };
            self.emit(About::Trade(at), now_ns, found)?;
        }
        if meaning == Meaning::PositionGone {
            // Its deals will tell by what, at which price and with what result: see on_closed.
            let outcome = Outcome {
                volume: None,
                ..outcome
            };
            return self.emit(
                About::Trade(at),
                now_ns,
                OutcomeRecorded {
                    outcome,
                    retry_at_ns: None,
                },
            );
        }
        self.note_moved_level(at, intent, &outcome, now_ns)?;
        let price = outcome.price;
        // A part was filled: the rest of a close is sent at once, under a new intent.
        let planned = self
            .book
            .trade(at)?
            .current
            .as_ref()
            .map(|queued| queued.action.kind);
        let is_own_close = intent.action_id != 0 && planned.is_some_and(is_close);
        let has_rest = is_own_close && self.leaves_rest(at, intent, &outcome)?;
        let retry_at_ns = has_rest.then_some(now_ns);
        self.emit(
            About::Trade(at),
            now_ns,
            OutcomeRecorded {
                outcome,
                retry_at_ns,
            },
        )?;
        self.note_breakeven(at, intent, now_ns)?;
        self.note_gone(at, intent, price, now_ns)?;
        self.plan_strays(at, now_ns)
    }

    /// A command names one level and keeps the other as it stands at the broker. Where that is not what was
    /// known, somebody else has moved it before the command came.
    fn note_moved_level(
        &mut self,
        at: At,
        intent: &IntentRecorded,
        outcome: &Outcome,
        now_ns: i64,
    ) -> Result<()> {
        let symbol = &self.book.instrument(at.instrument)?.symbol;
        let trade = self.book.trade(at)?;
        let level = |name: &str, price: Option<f64>| {
            price
                .map(|price| symbol.nearest_price(name, price))
                .transpose()
        };
        let echoed = (
            level("outcome.sl", outcome.sl)?,
            level("outcome.tp", outcome.tp)?,
        );
        let levels = if intent.kind == ActionKind::Stop {
            (trade.sl, echoed.1)
        } else if intent.kind == ActionKind::Target {
            (echoed.0, trade.tp)
        } else {
            return Ok(());
        };
        if echoed == (None, None) || levels == (trade.sl, trade.tp) {
            return Ok(());
        }
        let moved = PositionChanged {
            leg: LegKind::Main,
            volume: symbol.volume(trade.volume),
            sl: levels.0.map(|sl| symbol.price(sl)),
            tp: levels.1.map(|tp| symbol.price(tp)),
            external: true,
        };
        self.emit(About::Trade(at), now_ns, moved)
    }

    fn leaves_rest(&self, at: At, intent: &IntentRecorded, outcome: &Outcome) -> Result<bool> {
        let symbol = &self.book.instrument(at.instrument)?.symbol;
        let Some(filled) = outcome.volume.filter(|volume| *volume > 0.0) else {
            return Ok(false);
        };
        Ok(symbol.exact_volume("outcome.volume", filled)?
            < symbol.exact_volume("volume", intent.volume)?)
    }

    fn note_breakeven(&mut self, at: At, intent: &IntentRecorded, now_ns: i64) -> Result<()> {
        let trade = self.book.trade(at)?;
        let is_asked =
            intent.kind == ActionKind::Stop && intent.purpose == Maybe(Some(Purpose::Breakeven));
        let stands = trade
            .sl
            .is_some_and(|sl| (sl - trade.entry).0 * trade.side.sign() >= 0);
        if is_asked && stands && !trade.breakeven_triggered {
            self.emit(
                About::Trade(at),
                now_ns,
                BreakevenTriggered {
                    by: intent.manager.clone(),
                },
            )?;
        }
        Ok(())
    }

    /// A position that a confirmed command has closed to the last step.
    fn note_gone(
        &mut self,
        at: At,
        intent: &IntentRecorded,
        price: Option<f64>,
        now_ns: i64,
    ) -> Result<()> {
        let trade = self.book.trade(at)?;
        let is_gone = match intent.leg {
            LegKind::Main => !trade.main_closed && trade.volume == Steps(0),
            LegKind::Hedge => trade
                .hedge
                .as_ref()
                .is_some_and(|leg| leg.volume == Steps(0)),
            LegKind::ReAdd => trade
                .readd
                .as_ref()
                .is_some_and(|leg| leg.volume == Steps(0)),
            LegKind::Stray => trade
                .strays
                .iter()
                .any(|stray| stray.ticket == intent.position && stray.volume == Steps(0)),
        };
        if !is_gone {
            return Ok(());
        }
        let quote = self.book.instrument(at.instrument)?.quote;
        let symbol = &self.book.instrument(at.instrument)?.symbol;
        let Some(price) =
            price.or_else(|| quote.map(|quote| symbol.price(quote.exit(intent.side))))
        else {
            // At an unknown price nothing is called closed: the deal will tell, see on_closed.
            return Ok(());
        };
        // The outcome of an order has no profit; the closing deals have it.
        let closed = LegClosed {
            leg: intent.leg,
            position: intent.position,
            reason: CloseReason::Dtms,
            price,
            profit: 0.0,
        };
        self.emit(About::Trade(at), now_ns, closed)?;
        if intent.leg == LegKind::Main {
            self.note_stops(at, now_ns)?;
            self.transition(at, Guard::ClosedByManager, now_ns)?;
        }
        Ok(())
    }

    fn reject(
        &mut self,
        at: At,
        intent: &IntentRecorded,
        outcome: Outcome,
        meaning: Meaning,
        now_ns: i64,
    ) -> Result<()> {
        let trade = self.book.trade(at)?;
        let planned = trade.current.clone().filter(|_| intent.action_id != 0);
        let retcode = outcome.retcode;
        let Some(queued) = planned else {
            return self.emit(
                About::Trade(at),
                now_ns,
                OutcomeRecorded {
                    outcome,
                    retry_at_ns: None,
                },
            );
        };
        let kind = queued.action.kind;
        let is_taken_over = trade.queue.iter().any(|other| other.action.kind == kind);
        let is_obsolete = is_taken_over || !is_wanted(kind, trade.state);
        let pause_ns = retcode::pause_ns(meaning, queued.attempt, is_close(kind));
        let retry_at_ns = pause_ns
            .filter(|_| !is_obsolete)
            .map(|pause_ns| now_ns + pause_ns);
        self.emit(
            About::Trade(at),
            now_ns,
            OutcomeRecorded {
                outcome,
                retry_at_ns,
            },
        )?;
        if is_obsolete {
            return self.skip(at, queued.action, SkipReason::Superseded, now_ns);
        }
        if retry_at_ns.is_none() {
            self.give_up(at, &queued, meaning, retcode, now_ns)?;
        } else if meaning == Meaning::TradingDisabled && queued.attempt == 0 {
            let detail =
                format!("{kind:?}: trading is disabled (retcode {retcode}); it is tried again");
            self.alarm(at, AlarmCode::TradingDisabled, &detail, now_ns)?;
        }
        Ok(())
    }

    fn give_up(
        &mut self,
        at: At,
        queued: &Queued,
        meaning: Meaning,
        retcode: u32,
        now_ns: i64,
    ) -> Result<()> {
        let kind = queued.action.kind;
        self.skip(at, queued.action.clone(), SkipReason::Rejected, now_ns)?;
        if meaning == Meaning::PositionGone {
            return Ok(());
        }
        let is_hedge = kind == ActionKind::OpenHedge;
        let code = match meaning {
            Meaning::TradingDisabled => AlarmCode::TradingDisabled,
            Meaning::HedgeImpossible if is_hedge => AlarmCode::HedgeFailed,
            Meaning::Success
            | Meaning::Unknown
            | Meaning::Retry { .. }
            | Meaning::PositionGone
            | Meaning::Final
            | Meaning::HedgeImpossible => AlarmCode::ActionFailed,
        };
        let detail = format!(
            "{kind:?} was refused for good (retcode {retcode}, try {})",
            queued.attempt + 1
        );
        self.alarm(at, code, &detail, now_ns)?;
        if is_hedge && meaning == Meaning::HedgeImpossible {
            self.transition(at, Guard::HedgeImpossible, now_ns)?;
        }
        Ok(())
    }
}

/// Whether a command that met its goal without doing counts as done: the levels stand so already,
/// or the position that was to be closed is gone.
fn is_done(meaning: Meaning, intent: &IntentRecorded, outcome: &Outcome) -> bool {
    match meaning {
        Meaning::Success => true,
        Meaning::PositionGone => {
            is_close(intent.kind) || outcome.status == OutcomeStatus::Confirmed
        }
        Meaning::Unknown
        | Meaning::Retry { .. }
        | Meaning::Final
        | Meaning::TradingDisabled
        | Meaning::HedgeImpossible => false,
    }
}
