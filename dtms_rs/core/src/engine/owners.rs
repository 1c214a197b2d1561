//! Ownership: acquire, renew, release, and leases that run out.
use super::{About, Engine, Step};
use crate::arbiter::{Brakes, claim_denial, claim_halt};
use crate::book::At;
use crate::enums::{ActionKind, DenialCode, GrantCause, KillScope, TradeState};
use crate::error::{CoreError, Reason, Result};
use crate::event::{Action, BackupRestored, DecisionMade, Ownership};
use crate::message::{Maybe, Text};
use crate::table::Guard;

/// Tokens, decisions or commands that can be given between a backup and the loss of what came after it: a
/// million a second, for 19 hours. Exact as a double even after 100,000 restores.
const LOST_AT_MOST: u64 = 1 << 36;

/// The answer to a claim.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    pub denial: Option<DenialCode>,
    /// The decision behind a denial, 0 for a grant.
    pub decision_id: u64,
    pub ownership: Ownership,
}

impl Engine {
    /// Gives every lease its full length from `mono_ns` on: after recovery nobody loses a lease to
    /// the time the service was away.
    ///
    /// # Errors
    /// `CORE_PANIC` only.
    pub fn start(&mut self, mono_ns: i64) -> Result<()> {
        self.leases.clear();
        let owned: Vec<At> = self.every_trade();
        for at in owned {
            self.lease_to_owner(at)?;
        }
        self.leases.observe(mono_ns);
        Ok(())
    }

    pub(super) fn every_trade(&self) -> Vec<At> {
        let slots =
            |(instrument, of): (usize, usize)| (0..of).map(move |slot| At { instrument, slot });
        self.book
            .instruments
            .iter()
            .map(|instrument| instrument.trades.len())
            .enumerate()
            .flat_map(slots)
            .collect()
    }

    /// The owner of a trade, `None` for an unknown trade.
    ///
    /// # Errors
    /// `CORE_PANIC` only.
    pub fn ownership(
        &self,
        account_id: &str,
        ticket: u64,
        mono_ns: i64,
    ) -> Result<Option<Ownership>> {
        self.book
            .find(account_id, ticket)
            .map(|at| self.ownership_at(at, mono_ns))
            .transpose()
    }

    fn ownership_at(&self, at: At, mono_ns: i64) -> Result<Ownership> {
        let trade = self.book.trade(at)?;
        Ok(Ownership {
            account_id: self.book.account_of(at.instrument)?.id.clone(),
            ticket: trade.ticket,
            managed_by: trade.managed_by.clone(),
            owner_epoch: trade.owner_epoch,
            owner_rank: Maybe(self.roster.rank(trade.managed_by.as_str(), trade.state)),
            lease_remaining_ms: self.leases.remaining_ms(self.book.key(at)?, mono_ns),
            breakeven_triggered: trade.breakeven_triggered,
            defensive: trade.is_defensive(),
            displaced_owner: trade.displaced.clone(),
        })
    }

    /// Claims a trade for `manager`: granted when nobody owns it or the owner's rank is strictly
    /// lower; to the owner itself it renews the lease. A denial is recorded as a decision.
    ///
    /// # Errors
    /// `TRADE_UNKNOWN`, `FIELD_INVALID` for a name that no manager may use.
    pub fn acquire(
        &mut self,
        account_id: &str,
        ticket: u64,
        manager: &str,
        now_ns: i64,
        mono_ns: i64,
    ) -> Result<Step<Claim>> {
        self.check_manager(manager)?;
        let at = self.book.locate(account_id, ticket)?;
        self.settle_lease(at, now_ns, mono_ns)?;
        let brakes = self.brakes(at, manager)?;
        let asker = self.asker(at, manager)?;
        let denial = claim_denial(asker, self.book.trade(at)?, brakes);
        let key = self.book.key(at)?;
        let manager = Text::from(manager);
        let mut decision_id = 0;
        if denial.is_some() {
            decision_id = self.deny_claim(at, &manager, denial, brakes, now_ns)?;
        } else if asker.is_owner {
            self.leases.renew(key, mono_ns);
        } else {
            let displaced = self.book.trade(at)?.managed_by.clone();
            self.grant(at, &manager, &displaced, GrantCause::Acquired, now_ns)?;
            self.leases.observe(mono_ns);
            self.watch(at, now_ns)?;
        }
        let ownership = self.ownership_at(at, mono_ns)?;
        Ok(self.step(Claim {
            denial,
            decision_id,
            ownership,
        }))
    }

    /// Records a denied claim with its inputs; its number. What is granted stands in the grant.
    fn deny_claim(
        &mut self,
        at: At,
        manager: &Text,
        denial: Option<DenialCode>,
        brakes: Brakes,
        now_ns: i64,
    ) -> Result<u64> {
        let claim = Action {
            kind: ActionKind::Acquire,
            purpose: Maybe(None),
            stop: None,
            target: None,
            volume: None,
            allow_loosen: false,
        };
        let mut decision =
            self.decision(at, manager, &Text::default(), claim, 0, denial, now_ns)?;
        let halt = claim_halt(self.book.trade(at)?, brakes);
        decision.halted_by = self.halted_by(
            at,
            manager.as_str(),
            halt.filter(|_| denial == Some(DenialCode::Halted)),
        )?;
        let decision_id = decision.decision_id;
        self.emit(About::Trade(at), now_ns, DecisionMade { decision })?;
        Ok(decision_id)
    }

    /// Prolongs the lease of the owner that shows the current token.
    ///
    /// # Errors
    /// `TRADE_UNKNOWN`; `STALE_EPOCH` when `manager` does not own the trade under `owner_epoch`.
    pub fn renew(
        &mut self,
        account_id: &str,
        ticket: u64,
        manager: &str,
        owner_epoch: u64,
        mono_ns: i64,
    ) -> Result<Ownership> {
        let at = self.book.locate(account_id, ticket)?;
        self.check_token(at, manager, owner_epoch)?;
        let key = self.book.key(at)?;
        if self.leases.is_over(key, mono_ns) {
            return Err(CoreError::new(Reason::StaleEpoch, "the lease is over"));
        }
        self.leases.renew(key, mono_ns);
        self.ownership_at(at, mono_ns)
    }

    /// Gives the trade back to DTMS; with a write in flight, as soon as that is settled.
    ///
    /// # Errors
    /// As [`Self::renew`].
    pub fn release(
        &mut self,
        account_id: &str,
        ticket: u64,
        manager: &str,
        owner_epoch: u64,
        now_ns: i64,
        mono_ns: i64,
    ) -> Result<Step<Ownership>> {
        let at = self.book.locate(account_id, ticket)?;
        self.check_token(at, manager, owner_epoch)?;
        self.leases.release(self.book.key(at)?);
        self.settle_lease(at, now_ns, mono_ns)?;
        let ownership = self.ownership_at(at, mono_ns)?;
        Ok(self.step(ownership))
    }

    fn check_token(&self, at: At, manager: &str, owner_epoch: u64) -> Result<()> {
        self.check_manager(manager)?;
        let trade = self.book.trade(at)?;
        if trade.managed_by == *manager && trade.owner_epoch == owner_epoch {
            return Ok(());
        }
        let text = format!(
            "{:?} owns the trade under epoch {}",
            trade.managed_by, trade.owner_epoch
        );
        Err(CoreError::new(Reason::StaleEpoch, text))
    }

    /// Managers have a name, and it is not that of the service.
    #[expect(
        clippy::unused_self,
        reason = "reads as the other checks of the engine"
    )]
    pub(super) fn check_manager(&self, manager: &str) -> Result<()> {
        if manager.is_empty() || manager == crate::arbiter::DTMS {
            return Err(CoreError::field(
                "manager",
                "is empty or the service itself",
            ));
        }
        Ok(())
    }

    /// DTMS and nobody hold no lease; nor does anybody on a trade that is over.
    pub(super) fn lease_to_owner(&mut self, at: At) -> Result<()> {
        let trade = self.book.trade(at)?;
        let leases = !trade.managed_by.is_empty()
            && trade.managed_by != self.dtms
            && trade.state != TradeState::Closed;
        let key = self.book.key(at)?;
        if leases {
            self.leases.grant(key);
        } else {
            self.leases.drop(key);
        }
        Ok(())
    }

    /// Lets the trade fall back to DTMS if its lease is over and nothing of it is in flight (I6).
    pub(super) fn settle_lease(&mut self, at: At, now_ns: i64, mono_ns: i64) -> Result<()> {
        self.leases.observe(mono_ns);
        let key = self.book.key(at)?;
        let trade = self.book.trade(at)?;
        if !self.leases.is_over(key, mono_ns) || trade.in_flight.is_some() {
            return Ok(());
        }
        if trade.state == TradeState::Closed {
            self.leases.drop(key);
            return Ok(());
        }
        let cause = if self.leases.was_released(key) {
            GrantCause::Released
        } else {
            GrantCause::Expired
        };
        let displaced = trade.managed_by.clone();
        self.grant(at, &self.dtms.clone(), &displaced, cause, now_ns)
    }

    pub(super) fn settle_leases(&mut self, now_ns: i64, mono_ns: i64) -> Result<()> {
        self.leases.observe(mono_ns);
        for key in self.leases.over(mono_ns) {
            match self.book.at(key) {
                Some(at) => self.settle_lease(at, now_ns, mono_ns)?,
                None => self.leases.drop(key),
            }
        }
        Ok(())
    }

    pub(super) fn brakes(&self, at: At, manager: &str) -> Result<Brakes> {
        Ok(Brakes {
            trading: self.book.trading,
            killed: self.is_killed(at, manager)?,
            railed: self.rails_of(at)?.next().is_some(),
        })
    }

    /// Whether a kill switch stops `manager` on this trade.
    pub(super) fn is_killed(&self, at: At, manager: &str) -> Result<bool> {
        Ok(self.kill_of(at, manager)?.is_some())
    }

    /// The kill switch that stops `manager` on this trade.
    pub(super) fn kill_of(&self, at: At, manager: &str) -> Result<Option<(KillScope, Text)>> {
        if self.book.kills.is_empty() {
            return Ok(None);
        }
        let account = self.book.account_of(at.instrument)?.id.clone();
        let symbol = self.book.instrument(at.instrument)?.name().clone();
        let switches = [
            (KillScope::Account, account),
            (KillScope::Symbol, symbol),
            (KillScope::Manager, Text::from(manager)),
        ];
        Ok(switches
            .into_iter()
            .find(|switch| self.book.kills.contains(switch)))
    }

    /// Takes every trade that a thrown switch covers from its manager, and fences what he had in hand.
    pub(super) fn disown(&mut self, scope: KillScope, value: &Text, now_ns: i64) -> Result<()> {
        for at in self.every_trade() {
            let trade = self.book.trade(at)?;
            let owner = trade.managed_by.clone();
            if owner.is_empty() || owner == self.dtms || trade.state == TradeState::Closed {
                continue;
            }
            if self.is_covered(at, scope, value)? {
                self.grant(at, &self.dtms.clone(), &owner, GrantCause::Killed, now_ns)?;
            }
        }
        Ok(())
    }

    /// The journal goes on from a backup made at `made_ns`. What was recorded after it is not known, but
    /// managers and gateways may hold tokens from then, and the broker orders: all numbers given from here on
    /// are past those, and every owner gets a new token.
    ///
    /// # Errors
    /// `CORE_PANIC` only.
    pub fn restored(&mut self, made_ns: i64, now_ns: i64) -> Result<Step<()>> {
        let numbers = BackupRestored {
            made_ns,
            last_epoch: self.book.last_epoch + LOST_AT_MOST,
            last_decision: self.book.last_decision + LOST_AT_MOST,
            last_intent: self.book.last_intent + LOST_AT_MOST,
        };
        self.emit(About::Service, now_ns, numbers)?;
        for at in self.every_trade() {
            let trade = self.book.trade(at)?;
            if trade.state != TradeState::Closed {
                let (owner, displaced) = (trade.managed_by.clone(), trade.displaced.clone());
                self.grant(at, &owner, &displaced, GrantCause::Restored, now_ns)?;
            }
        }
        Ok(self.step(()))
    }

    /// Closes every trade that a thrown switch covers, whatever state it is in.
    pub(super) fn flatten(&mut self, scope: KillScope, value: &Text, now_ns: i64) -> Result<()> {
        for at in self.every_trade() {
            if self.is_covered(at, scope, value)?
                && self.transition(at, Guard::ClosedByOperator, now_ns)?
            {
                self.pump(at, now_ns)?;
            }
        }
        Ok(())
    }

    fn is_covered(&self, at: At, scope: KillScope, value: &Text) -> Result<bool> {
        Ok(match scope {
            KillScope::Account => self.book.account_of(at.instrument)?.id == *value,
            KillScope::Symbol => self.book.instrument(at.instrument)?.name() == value,
            KillScope::Manager => self.book.trade(at)?.managed_by == *value,
        })
    }
}
