//! The queue of a trade: entry actions waiting for their turn, one command at a time.
use super::{About, Engine};
use crate::arbiter::{own_denial, own_halt};
use crate::book::At;
use crate::enums::{
    ActionKind, AlarmCode, DenialCode, LegKind, SkipReason, StatePhase, TradeState,
};
use crate::error::Result;
use crate::event::{
    Action, ActionSkipped, AlarmRaised, Decision, DecisionMade, IntentRecorded, PlannedAction,
    StateConfirmed,
};
use crate::message::{Maybe, Text};
use crate::plan::{self, Order, Plan};
use crate::symbol::Steps;
use crate::table::{self, Guard};
use crate::trade::Queued;

impl Engine {
    /// The entry's actions with their ids. A leg is closed only if it exists or may yet come to.
    pub(super) fn planned(&self, at: At, entry: &[table::Entry]) -> Result<Vec<PlannedAction>> {
        let trade = self.book.trade(at)?;
        let opens = |kind: ActionKind| {
            trade
                .current
                .as_ref()
                .is_some_and(|queued| queued.action.kind == kind)
        };
        let wanted = entry.iter().filter(|(kind, _)| match kind {
            ActionKind::CloseHedge => trade.hedge.is_some() || opens(ActionKind::OpenHedge),
            ActionKind::CloseReAdd => trade.readd.is_some() || opens(ActionKind::ReAdd),
            ActionKind::Close => !trade.main_closed,
            ActionKind::Stop
            | ActionKind::Target
            | ActionKind::PartialClose
            | ActionKind::OpenHedge
            | ActionKind::ReAdd
            | ActionKind::CloseStray
            | ActionKind::Acquire => true,
        });
        let ids = self.book.last_action + 1..;
        Ok(ids
            .zip(wanted)
            .map(|(action_id, (kind, purpose))| PlannedAction {
                action_id,
                kind: *kind,
                purpose: *purpose,
            })
            .collect())
    }

    /// Queued actions that have no meaning any more once `to` is entered with `entry`.
    pub(super) fn obsolete(
        &self,
        at: At,
        to: TradeState,
        entry: &[PlannedAction],
    ) -> Result<Vec<PlannedAction>> {
        let queue = &self.book.trade(at)?.queue;
        let is_obsolete = |queued: &&Queued| {
            let kind = queued.action.kind;
            entry.iter().any(|action| action.kind == kind) || !is_wanted(kind, to)
        };
        Ok(queue
            .iter()
            .filter(is_obsolete)
            .map(|queued| queued.action.clone())
            .collect())
    }

    pub(super) fn skip(
        &mut self,
        at: At,
        action: PlannedAction,
        reason: SkipReason,
        now_ns: i64,
    ) -> Result<()> {
        self.emit(About::Trade(at), now_ns, ActionSkipped { action, reason })
    }

    pub(super) fn alarm(
        &mut self,
        at: At,
        code: AlarmCode,
        detail: &str,
        now_ns: i64,
    ) -> Result<()> {
        self.emit(
            About::Trade(at),
            now_ns,
            AlarmRaised {
                code,
                detail: Text::from(detail),
            },
        )
    }

    /// Sends the next action if nothing is in flight, settles those that need no command, and
    /// confirms the state when nothing is left. Ends every command about a trade.
    pub(super) fn pump(&mut self, at: At, now_ns: i64) -> Result<()> {
        let mut waiting = Vec::new();
        loop {
            let trade = self.book.trade(at)?;
            if trade.in_flight.is_some() || trade.quarantined {
                break;
            }
            // In order: a hedge may need what the partial before it frees. Only closes are independent
            // of each other, and what waits for a price holds nobody up.
            let is_open = |queued: &&Queued| !waiting.contains(&queued.action.action_id);
            let is_due = |queued: &&Queued| queued.not_before_ns <= now_ns;
            let mut open = trade.queue.iter().filter(is_open);
            let next = if trade.state == TradeState::Closed {
                open.find(is_due)
            } else {
                open.next().filter(is_due)
            };
            let Some(queued) = next.cloned() else {
                break;
            };
            match plan::plan(&queued, trade, &self.scene(at)?) {
                Plan::Wait => waiting.push(queued.action.action_id),
                Plan::Skip(reason) => self.carry_out(at, &queued, Err(reason), now_ns)?,
                Plan::Send(order) => self.carry_out(at, &queued, Ok(order), now_ns)?,
            }
        }
        let trade = self.book.trade(at)?;
        if trade.phase == StatePhase::Pending && trade.is_settled() {
            let confirmed_state = trade.state;
            self.emit(About::Trade(at), now_ns, StateConfirmed { confirmed_state })?;
        }
        self.watch(at, now_ns)
    }

    fn carry_out(
        &mut self,
        at: At,
        queued: &Queued,
        planned: std::result::Result<Order, SkipReason>,
        now_ns: i64,
    ) -> Result<()> {
        let action = &queued.action;
        let order = planned.as_ref().ok();
        // What is sent may be of another kind than what was planned: a hedge that is a reduction.
        let kind = order.map_or(action.kind, |order| order.kind);
        let halt = own_halt(kind, self.brakes(at, self.dtms.as_str())?);
        let asker = self.asker(at, self.dtms.as_str())?;
        // A stray is no part of the trade, so nobody who owns the trade has a say in it.
        let denial = if kind == ActionKind::CloseStray {
            None
        } else {
            own_denial(asker, self.book.trade(at)?, halt)
        };
        let mut decision = self.own_decision(at, action, order, denial, now_ns)?;
        decision.halted_by = self.halted_by(at, self.dtms.as_str(), halt)?;
        self.emit(About::Trade(at), now_ns, DecisionMade { decision })?;
        if denial.is_some() {
            return self.skip(at, action.clone(), SkipReason::Denied, now_ns);
        }
        match planned {
            Ok(order) => self.intend(
                at,
                &self.dtms.clone(),
                action.action_id,
                &order,
                queued.attempt,
                now_ns,
            ),
            Err(reason) => {
                self.skip(at, action.clone(), reason, now_ns)?;
                self.after_skip(at, action.kind, reason, now_ns)
            }
        }
    }

    fn own_decision(
        &self,
        at: At,
        action: &PlannedAction,
        order: Option<&Order>,
        denial: Option<DenialCode>,
        now_ns: i64,
    ) -> Result<Decision> {
        let symbol = &self.book.instrument(at.instrument)?.symbol;
        let volume = order
            .map(|order| order.volume)
            .filter(|volume| *volume > Steps(0));
        let asked = Action {
            kind: action.kind,
            purpose: Maybe(Some(action.purpose)),
            stop: order.and_then(|order| order.sl).map(|sl| symbol.price(sl)),
            target: None,
            volume: volume.map(|volume| symbol.volume(volume)),
            allow_loosen: false,
        };
        let epoch = self.book.trade(at)?.owner_epoch;
        self.decision(
            at,
            &self.dtms,
            &Text::default(),
            asked,
            epoch,
            denial,
            now_ns,
        )
    }

    /// A hedge that cannot be had: without ATR the trade stays as it is and somebody has to look;
    /// beyond the risk budget it is closed instead.
    fn after_skip(
        &mut self,
        at: At,
        kind: ActionKind,
        reason: SkipReason,
        now_ns: i64,
    ) -> Result<()> {
        if kind != ActionKind::OpenHedge {
            return Ok(());
        }
        match reason {
            SkipReason::NoAtr
            | SkipReason::NoRisk
            | SkipReason::MinVolume
            | SkipReason::NotLegal => self.alarm(
                at,
                AlarmCode::HedgeFailed,
                "no hedge: ATR, R or a legal volume is missing",
                now_ns,
            ),
            SkipReason::RiskBudget => {
                self.alarm(
                    at,
                    AlarmCode::HedgeFailed,
                    "no hedge: it would exceed the risk budget",
                    now_ns,
                )?;
                self.transition(at, Guard::HedgeImpossible, now_ns)
                    .map(|_| ())
            }
            SkipReason::NoChange
            | SkipReason::Superseded
            | SkipReason::Denied
            | SkipReason::AlreadyDone
            | SkipReason::NothingToDo
            | SkipReason::Rejected => Ok(()),
        }
    }

    /// The intent: durable before the command is sent.
    pub(super) fn intend(
        &mut self,
        at: At,
        manager: &Text,
        action_id: u64,
        order: &Order,
        attempt: u32,
        now_ns: i64,
    ) -> Result<()> {
        let rank = self.asker(at, manager.as_str())?.rank;
        let symbol = &self.book.instrument(at.instrument)?.symbol;
        let intent = IntentRecorded {
            intent_id: self.book.last_intent + 1,
            decision_id: self.book.last_decision,
            action_id,
            manager: manager.clone(),
            rank,
            owner_epoch: self.book.trade(at)?.owner_epoch,
            kind: order.kind,
            purpose: Maybe(Some(order.purpose)),
            leg: order.leg,
            position: order.position,
            side: order.side,
            volume: symbol.volume(order.volume),
            sl: order.sl.map(|sl| symbol.price(sl)),
            tp: order.tp.map(|tp| symbol.price(tp)),
            attempt,
        };
        self.emit(About::Trade(at), now_ns, intent)
    }
}

/// Whether an action planned in an earlier state still has a meaning in `state`.
pub(super) const fn is_wanted(kind: ActionKind, state: TradeState) -> bool {
    match kind {
        ActionKind::Close
        | ActionKind::CloseHedge
        | ActionKind::CloseReAdd
        | ActionKind::CloseStray => true,
        ActionKind::Stop | ActionKind::Target | ActionKind::PartialClose => {
            !matches!(state, TradeState::Closed)
        }
        ActionKind::OpenHedge => matches!(state, TradeState::Hedged),
        ActionKind::ReAdd => matches!(state, TradeState::Healthy),
        ActionKind::Acquire => false,
    }
}

/// Whether a command makes a position smaller or ends it.
pub(super) const fn is_close(kind: ActionKind) -> bool {
    match kind {
        ActionKind::Close
        | ActionKind::CloseHedge
        | ActionKind::CloseReAdd
        | ActionKind::CloseStray => true,
        ActionKind::Stop
        | ActionKind::Target
        | ActionKind::PartialClose
        | ActionKind::OpenHedge
        | ActionKind::ReAdd
        | ActionKind::Acquire => false,
    }
}

/// The leg that a manager's command is about.
pub(super) const MAIN: LegKind = LegKind::Main;
