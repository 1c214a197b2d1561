//! The course of one trade: arming, transitions, and its queue of actions.
use super::{About, Engine};
use crate::arbiter::own_denial;
use crate::book::At;
use crate::config::NS_PER_S;
use crate::enums::{
    ActionKind, AlarmCode, ArmCause, DenialCode, GrantCause, LegKind, RiskSource, Side, SkipReason,
    StatePhase, Timer, TradeState,
};
use crate::error::{CoreError, Result};
use crate::event::{
    Action, ActionSkipped, AlarmRaised, Decision, DecisionMade, HoldChanged, IntentRecorded,
    OwnershipGranted, PlannedAction, RiskDefined, StateChanged, StateConfirmed, TimerEnded, TradeArmed,
};
use crate::guard::{self, View};
use crate::message::{Maybe, Text};
use crate::plan::{self, Order, Plan};
use crate::symbol::{Points, Steps};
use crate::table::{self, Guard};
use crate::trade::Queued;

impl Engine {
    /// Everything that a new price, a new bar or the passing of time can mean to one trade.
    pub(super) fn evaluate(&mut self, at: At, view: &View, now_ns: i64) -> Result<()> {
        if self.book.trade(at)?.quarantined {
            return Ok(());
        }
        self.define_risk(at, now_ns)?;
        self.arm(at, now_ns)?;
        self.walk(at, view, now_ns)?;
        self.pump(at, now_ns)
    }

    pub(super) fn view(&self, instrument: usize, side: Side, now_ns: i64, edges: bool) -> Result<View> {
        let instrument = self.book.instrument(instrument)?;
        let (reading, outside) = (instrument.market.reading(), instrument.outside.as_ref());
        Ok(View::new(reading, outside, &self.book.config, side, now_ns, edges))
    }

    /// R of a trade without a stop, as soon as ATR is known.
    fn define_risk(&mut self, at: At, now_ns: i64) -> Result<()> {
        let trade = self.book.trade(at)?;
        if trade.risk.is_some() || trade.state == TradeState::Closed {
            return Ok(());
        }
        let Some(risk) = self.atr_risk(at.instrument)? else { return Ok(()) };
        let risk_distance = self.book.instrument(at.instrument)?.symbol.price(risk);
        self.emit(About::Trade(at), now_ns, RiskDefined { risk_distance, risk_source: RiskSource::Atr })
    }

    /// 2 x ATR(slow), the R of a trade that has no stop.
    pub(super) fn atr_risk(&self, instrument: usize) -> Result<Option<Points>> {
        let instrument = self.book.instrument(instrument)?;
        let atr = instrument.market.reading().atr_slow;
        Ok(atr.and_then(|atr| instrument.symbol.distance(2.0 * atr)))
    }

    fn arm(&mut self, at: At, now_ns: i64) -> Result<()> {
        let instrument = self.book.instrument(at.instrument)?;
        let trade = self.book.trade(at)?;
        if trade.armed || trade.state == TradeState::Closed {
            return Ok(());
        }
        let watch = instrument.watches.get(at.slot).ok_or_else(|| CoreError::bug("no such watch"))?;
        let exit = instrument.quote.map(|quote| quote.exit(trade.side).0);
        let (above, below) = match trade.side {
            Side::Buy => (ArmCause::Gain, ArmCause::Loss),
            Side::Sell => (ArmCause::Loss, ArmCause::Gain),
        };
        let cause = if exit.is_some_and(|exit| exit >= watch.arm_above) {
            above
        } else if exit.is_some_and(|exit| exit <= watch.arm_below) {
            below
        } else if now_ns - trade.opened_ns >= self.book.config.arm_after_s * NS_PER_S {
            ArmCause::Time
        } else {
            return Ok(());
        };
        self.emit(About::Trade(at), now_ns, TradeArmed { cause })
    }

    /// Follows the table until nothing applies. Worse acts at once and may skip levels; better is
    /// one step per evaluation, and none after a worse one.
    fn walk(&mut self, at: At, view: &View, now_ns: i64) -> Result<()> {
        let mut may_improve = true;
        while self.book.trade(at)?.armed {
            let trade = self.book.trade(at)?;
            let found = guard::first(trade, view, &self.book.config, now_ns, may_improve);
            if let Some(guard) = found {
                let is_worse = !matches!(guard, Guard::Bos | Guard::BetterHeld | Guard::RecoveryConfirmed);
                self.transition(at, guard, now_ns)?;
                may_improve = false;
                if is_worse {
                    continue;
                }
            } else if trade.state == TradeState::WarningL1 && trade.flat_timer_ends_ns.is_some_and(|ends| ends <= now_ns) {
                self.emit(About::Trade(at), now_ns, TimerEnded { timer: Timer::Flat })?;
                continue;
            }
            let began = self.note_hold(at, view, now_ns)?;
            if !(began && may_improve) {
                break;
            }
        }
        Ok(())
    }

    /// Begins or ends the hold of a better score; true when it began.
    fn note_hold(&mut self, at: At, view: &View, now_ns: i64) -> Result<bool> {
        let trade = self.book.trade(at)?;
        let is_better = view.is_better(trade.state);
        if is_better == trade.better_since_ns.is_some() {
            return Ok(false);
        }
        self.emit(About::Trade(at), now_ns, HoldChanged { better_since_ns: is_better.then_some(now_ns) })?;
        Ok(is_better)
    }

    /// Takes the edge of `guard`; false when the table has none.
    pub(super) fn transition(&mut self, at: At, guard: Guard, now_ns: i64) -> Result<bool> {
        let trade = self.book.trade(at)?;
        let (from, side, was_defensive) = (trade.state, trade.side, trade.is_defensive());
        let Some(edge) = table::next(from, guard) else { return Ok(false) };
        let actions = self.planned(at, edge.entry)?;
        let obsolete = self.obsolete(at, edge.to, &actions)?;
        let trade = self.book.trade(at)?;
        let remains = trade.queue.len() > obsolete.len() || trade.current.is_some();
        let is_pending = !actions.is_empty() || remains || {
            // What the state claims must hold at the broker before it shows as confirmed.
            edge.to == TradeState::Closed
                && !(trade.main_closed && trade.hedge.is_none() && trade.readd.is_none())
        };
        let instrument = self.book.instrument(at.instrument)?;
        let (reading, outside) = (instrument.market.reading(), instrument.outside.as_ref());
        let known = guard::is_known(reading, outside, now_ns);
        let score = known.then(|| guard::score(reading, outside, &self.book.config, side, now_ns));
        let (bid, ask) = self.quoted(at.instrument)?;
        let ends = |timer: Timer, length_ns: i64| (edge.timer == Some(timer)).then_some(now_ns + length_ns);
        let change = StateChanged {
            from,
            to: edge.to,
            cause: guard.cause(),
            phase: if is_pending { StatePhase::Pending } else { StatePhase::Confirmed },
            score,
            actions,
            flat_timer_ends_ns: ends(Timer::Flat, self.book.config.flat_timer_ns()),
            recovery_timer_ends_ns: ends(Timer::Recovery, self.book.config.recovery_timer_ns()),
            bid,
            ask,
        };
        self.emit(About::Trade(at), now_ns, change)?;
        for action in obsolete {
            self.skip(at, action, SkipReason::Superseded, now_ns)?;
        }
        self.pass_ownership(at, was_defensive, now_ns)?;
        Ok(true)
    }

    /// The entry's actions with their ids. A leg is closed only if it exists or may yet come to.
    fn planned(&self, at: At, entry: &[table::Entry]) -> Result<Vec<PlannedAction>> {
        let trade = self.book.trade(at)?;
        let opens = |kind: ActionKind| trade.current.as_ref().is_some_and(|queued| queued.action.kind == kind);
        let wanted = entry.iter().filter(|(kind, _)| match kind {
            ActionKind::CloseHedge => trade.hedge.is_some() || opens(ActionKind::OpenHedge),
            ActionKind::CloseReAdd => trade.readd.is_some() || opens(ActionKind::ReAdd),
            ActionKind::Close => !trade.main_closed,
            ActionKind::Stop
            | ActionKind::Target
            | ActionKind::PartialClose
            | ActionKind::OpenHedge
            | ActionKind::ReAdd => true,
        });
        let ids = self.book.last_action + 1..;
        Ok(ids.zip(wanted).map(|(action_id, (kind, purpose))| PlannedAction { action_id, kind: *kind, purpose: *purpose }).collect())
    }

    /// Queued actions that have no meaning any more once `to` is entered with `entry`.
    fn obsolete(&self, at: At, to: TradeState, entry: &[PlannedAction]) -> Result<Vec<PlannedAction>> {
        let queue = &self.book.trade(at)?.queue;
        let is_obsolete = |queued: &&Queued| {
            let kind = queued.action.kind;
            entry.iter().any(|action| action.kind == kind) || !is_wanted(kind, to)
        };
        Ok(queue.iter().filter(is_obsolete).map(|queued| queued.action.clone()).collect())
    }

    /// Rank follows the state in the same step (I4, I5).
    fn pass_ownership(&mut self, at: At, was_defensive: bool, now_ns: i64) -> Result<()> {
        let trade = self.book.trade(at)?;
        let owner = trade.managed_by.clone();
        match (was_defensive, trade.is_defensive()) {
            (false, true) => {
                let displaced = if owner == self.dtms { Text::default() } else { owner };
                self.grant(at, &self.dtms.clone(), &displaced, GrantCause::Defensive, now_ns)
            }
            (true, false) => {
                let returns = !trade.displaced.is_empty() && !self.is_killed(at, trade.displaced.as_str())?;
                let to = if returns { trade.displaced.clone() } else { self.dtms.clone() };
                let displaced = if owner == to { Text::default() } else { owner };
                self.grant(at, &to, &displaced, GrantCause::Returned, now_ns)
            }
            (false, false) | (true, true) => Ok(()),
        }
    }

    /// A new owner under a new fencing token.
    pub(super) fn grant(&mut self, at: At, to: &Text, displaced: &Text, cause: GrantCause, now_ns: i64) -> Result<()> {
        let granted = OwnershipGranted {
            managed_by: to.clone(),
            owner_epoch: self.book.last_epoch + 1,
            rank: Maybe(self.roster.rank(to.as_str(), self.book.trade(at)?.state)),
            displaced: displaced.clone(),
            cause,
        };
        self.emit(About::Trade(at), now_ns, granted)?;
        self.lease_to_owner(at)
    }

    pub(super) fn skip(&mut self, at: At, action: PlannedAction, reason: SkipReason, now_ns: i64) -> Result<()> {
        self.emit(About::Trade(at), now_ns, ActionSkipped { action, reason })
    }

    pub(super) fn alarm(&mut self, at: At, code: AlarmCode, detail: &str, now_ns: i64) -> Result<()> {
        self.emit(About::Trade(at), now_ns, AlarmRaised { code, detail: Text::from(detail) })
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
            let is_due = |queued: &&Queued| {
                queued.not_before_ns <= now_ns && !waiting.contains(&queued.action.action_id)
            };
            let Some(queued) = trade.queue.iter().find(is_due).cloned() else { break };
            match plan::plan(&queued, trade, &self.scene(at.instrument)?) {
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
        let denial = {
            let asker = self.asker(at, self.dtms.as_str())?;
            own_denial(asker, self.book.trade(at)?, action.kind, order, self.book.trading)
        };
        let decision = self.own_decision(at, action, order, denial, now_ns)?;
        self.emit(About::Trade(at), now_ns, DecisionMade { decision })?;
        if denial.is_some() {
            return self.skip(at, action.clone(), SkipReason::Denied, now_ns);
        }
        match planned {
            Ok(order) => self.intend(at, &self.dtms.clone(), action.action_id, &order, queued.attempt, now_ns),
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
        let volume = order.map(|order| order.volume).filter(|volume| *volume > Steps(0));
        let asked = Action {
            kind: action.kind,
            purpose: Maybe(Some(action.purpose)),
            stop: order.and_then(|order| order.sl).map(|sl| symbol.price(sl)),
            target: None,
            volume: volume.map(|volume| symbol.volume(volume)),
            allow_loosen: false,
        };
        let epoch = self.book.trade(at)?.owner_epoch;
        self.decision(at, &self.dtms, &Text::default(), asked, epoch, denial, now_ns)
    }

    /// A hedge that cannot be had: without ATR the trade stays as it is and somebody has to look;
    /// beyond the risk budget it is closed instead.
    fn after_skip(&mut self, at: At, kind: ActionKind, reason: SkipReason, now_ns: i64) -> Result<()> {
        if kind != ActionKind::OpenHedge {
            return Ok(());
        }
        match reason {
            SkipReason::NoAtr | SkipReason::NoRisk | SkipReason::MinVolume | SkipReason::NotLegal => {
                self.alarm(at, AlarmCode::HedgeFailed, "no hedge: ATR, R or a legal volume is missing", now_ns)
            }
            SkipReason::RiskBudget => {
                self.alarm(at, AlarmCode::HedgeFailed, "no hedge: it would exceed the risk budget", now_ns)?;
                self.transition(at, Guard::HedgeImpossible, now_ns).map(|_| ())
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
        ActionKind::Close | ActionKind::CloseHedge | ActionKind::CloseReAdd => true,
        ActionKind::Stop | ActionKind::Target | ActionKind::PartialClose => !matches!(state, TradeState::Closed),
        ActionKind::OpenHedge => matches!(state, TradeState::Hedged),
        ActionKind::ReAdd => matches!(state, TradeState::Healthy),
    }
}

/// Whether a command makes a position smaller or ends it.
pub(super) const fn is_close(kind: ActionKind) -> bool {
    match kind {
        ActionKind::Close | ActionKind::CloseHedge | ActionKind::CloseReAdd => true,
        ActionKind::Stop
        | ActionKind::Target
        | ActionKind::PartialClose
        | ActionKind::OpenHedge
        | ActionKind::ReAdd => false,
    }
}

/// The leg that a manager's command is about.
pub(super) const MAIN: LegKind = LegKind::Main;
