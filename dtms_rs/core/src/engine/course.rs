//! The course of one trade: arming, transitions, and ownership that follows them.
use super::{About, Engine};
use crate::book::At;
use crate::config::{Config, NS_PER_S};
use crate::enums::{
    ArmCause, GrantCause, RiskSource, Side, SkipReason, StatePhase, Timer, TradeState,
};
use crate::error::{CoreError, Result};
use crate::event::{
    HoldChanged, OwnershipGranted, RiskDefined, StateChanged, TimerEnded, TradeArmed,
};
use crate::guard::{self, View};
use crate::message::{Maybe, Text};
use crate::symbol::Points;
use crate::table::{self, Guard};

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

    pub(super) fn view(
        &self,
        instrument: usize,
        rules: &Config,
        side: Side,
        now_ns: i64,
        edges: bool,
    ) -> Result<View> {
        let instrument = self.book.instrument(instrument)?;
        let (reading, outside) = (instrument.market.reading(), instrument.outside.as_ref());
        Ok(View::new(reading, outside, rules, side, now_ns, edges))
    }

    /// R of a trade without a stop, as soon as ATR is known.
    fn define_risk(&mut self, at: At, now_ns: i64) -> Result<()> {
        let trade = self.book.trade(at)?;
        if trade.risk.is_some() || trade.state == TradeState::Closed {
            return Ok(());
        }
        let Some(risk) = self.atr_risk(at.instrument)? else {
            return Ok(());
        };
        let risk_distance = self.book.instrument(at.instrument)?.symbol.price(risk);
        self.emit(
            About::Trade(at),
            now_ns,
            RiskDefined {
                risk_distance,
                risk_source: RiskSource::Atr,
            },
        )
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
        let watch = instrument
            .watches
            .get(at.slot)
            .ok_or_else(|| CoreError::bug("no such watch"))?;
        let exit = instrument.quote.map(|quote| quote.exit(trade.side).0);
        let (above, below) = match trade.side {
            Side::Buy => (ArmCause::Gain, ArmCause::Loss),
            Side::Sell => (ArmCause::Loss, ArmCause::Gain),
        };
        let cause = if exit.is_some_and(|exit| exit >= watch.arm_above) {
            above
        } else if exit.is_some_and(|exit| exit <= watch.arm_below) {
            below
        } else if now_ns - trade.opened_ns >= self.rules(at)?.arm_after_s * NS_PER_S {
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
            let found = guard::first(trade, view, self.rules(at)?, now_ns, may_improve);
            if let Some(guard) = found {
                let is_worse = !matches!(
                    guard,
                    Guard::Bos | Guard::BetterHeld | Guard::RecoveryConfirmed
                );
                self.transition(at, guard, now_ns)?;
                may_improve = false;
                if is_worse {
                    continue;
                }
            } else if trade.state == TradeState::WarningL1
                && trade.flat_timer_ends_ns.is_some_and(|ends| ends <= now_ns)
            {
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
        self.emit(
            About::Trade(at),
            now_ns,
            HoldChanged {
                better_since_ns: is_better.then_some(now_ns),
            },
        )?;
        Ok(is_better)
    }

    /// Takes the edge of `guard`; false when the table has none.
    pub(super) fn transition(&mut self, at: At, guard: Guard, now_ns: i64) -> Result<bool> {
        let trade = self.book.trade(at)?;
        let (from, side, was_defensive) = (trade.state, trade.side, trade.is_defensive());
        let Some(edge) = table::next(from, guard) else {
            return Ok(false);
        };
        let actions = self.planned(at, edge.entry)?;
        let obsolete = self.obsolete(at, edge.to, &actions)?;
        let trade = self.book.trade(at)?;
        let remains = trade.queue.len() > obsolete.len() || trade.current.is_some();
        let is_pending = !actions.is_empty() || remains || {
            // What the state claims must hold at the broker before it shows as confirmed.
            edge.to == TradeState::Closed && !trade.is_gone()
        };
        let instrument = self.book.instrument(at.instrument)?;
        let (reading, outside) = (instrument.market.reading(), instrument.outside.as_ref());
        let rules = self.rules(at)?;
        let known = guard::is_known(reading, outside, now_ns);
        let score = known.then(|| guard::score(reading, outside, rules, side, now_ns));
        let (bid, ask) = self.quoted(at.instrument)?;
        let ends = |timer: Timer, length_ns: i64| {
            (edge.timer == Some(timer)).then_some(now_ns + length_ns)
        };
        let change = StateChanged {
            from,
            to: edge.to,
            cause: guard.cause(),
            phase: if is_pending {
                StatePhase::Pending
            } else {
                StatePhase::Confirmed
            },
            score,
            actions,
            flat_timer_ends_ns: ends(Timer::Flat, rules.flat_timer_ns()),
            recovery_timer_ends_ns: ends(Timer::Recovery, rules.recovery_timer_ns()),
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

    /// Rank follows the state in the same step (I4, I5).
    fn pass_ownership(&mut self, at: At, was_defensive: bool, now_ns: i64) -> Result<()> {
        let trade = self.book.trade(at)?;
        let owner = trade.managed_by.clone();
        match (was_defensive, trade.is_defensive()) {
            (false, true) => {
                let displaced = if owner == self.dtms {
                    Text::default()
                } else {
                    owner
                };
                self.grant(
                    at,
                    &self.dtms.clone(),
                    &displaced,
                    GrantCause::Defensive,
                    now_ns,
                )
            }
            (true, false) => {
                let returns =
                    !trade.displaced.is_empty() && !self.is_killed(at, trade.displaced.as_str())?;
                let to = if returns {
                    trade.displaced.clone()
                } else {
                    self.dtms.clone()
                };
                let displaced = if owner == to { Text::default() } else { owner };
                self.grant(at, &to, &displaced, GrantCause::Returned, now_ns)
            }
            (false, false) | (true, true) => Ok(()),
        }
    }

    /// A new owner under a new fencing token.
    pub(super) fn grant(
        &mut self,
        at: At,
        to: &Text,
        displaced: &Text,
        cause: GrantCause,
        now_ns: i64,
    ) -> Result<()> {
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
}
