//! `evolve(state, event)`: how each fact changes the book. Recovery and live running use only this.
use std::collections::BTreeSet;

use crate::book::{Account, At, Book, Instrument, LostIntents, key_part};
use crate::enums::{Origin, StatePhase, TradeState};
use crate::error::{CoreError, Reason, Result};
use crate::event::{BackupRestored, Body, Event, RulesChanged, SymbolDefined, TradeRegistered};
use crate::guard::OutsideScore;
use crate::idempotency::Answer;
use crate::message::Text;
use crate::rules;
use crate::symbol::Symbol;
use crate::trade::{TradeRecord, Watch};

impl Book {
    /// Folds one event in.
    ///
    /// # Errors
    /// `FUTURE_REVISION` when events are missing before it; otherwise the event contradicts the
    /// state, which after an error must not be used any more.
    pub fn evolve(&mut self, event: &Event) -> Result<()> {
        if event.revision != self.revision + 1 {
            let text = format!(
                "event {} does not follow revision {}",
                event.revision, self.revision
            );
            return Err(CoreError::new(Reason::FutureRevision, text));
        }
        self.revision = event.revision;
        match &event.body {
            Body::AccountDefined(defined) => {
                self.define_account(&event.account_id, defined.hedging, &defined.currency);
            }
            Body::SymbolDefined(defined) => return self.define_symbol(&event.account_id, defined),
            Body::TradeRegistered(registered) => return self.register(event, registered),
            Body::TradeUnregistered(_) => return self.unregister(event),
            Body::ScoreReported(reported) => {
                let index =
                    self.instrument_index(event.account_id.as_str(), event.symbol.as_str())?;
                let outside = OutsideScore {
                    score: reported.score.clone(),
                    valid_until_ns: reported.valid_until_ns,
                };
                self.instrument_mut(index)?.outside = Some(outside);
            }
            Body::TradingStateChanged(changed) => self.trading = changed.trading_state,
            Body::KillSwitchChanged(changed) => {
                let switch = (changed.scope, changed.value.clone());
                if changed.engaged {
                    self.kills.insert(switch);
                } else {
                    self.kills.remove(&switch);
                }
            }
            Body::RailChanged(changed) => {
                let account = self.account(event.account_id.as_str())?;
                if event.symbol.is_empty() {
                    self.account_mut(account)?.rails.fold(changed);
                } else {
                    let index =
                        self.instrument_index(event.account_id.as_str(), event.symbol.as_str())?;
                    self.instrument_mut(index)?.rails.fold(changed);
                }
            }
            Body::AccountMarked(marked) => {
                let index = self.account(event.account_id.as_str())?;
                self.account_mut(index)?.mark(marked);
            }
            Body::DecisionMade(made) => {
                self.last_decision = made.decision.decision_id;
                self.answers.record(Answer {
                    decision: made.decision.clone(),
                    intent_id: None,
                    outcome: None,
                });
            }
            Body::IndexReported(reported) => {
                let index = reported.index.clone();
                self.indices.insert(index.name.clone(), index);
            }
            Body::BackupRestored(restored) => self.skip_numbers(restored),
            Body::RulesChanged(changed) => return self.change_rules(event.revision, changed),
            Body::AlarmRaised(_)
            | Body::MemoSet(_)
            | Body::RiskBudgetChanged(_)
            | Body::RiskDefined(_)
            | Body::TradeArmed(_)
            | Body::StateChanged(_)
            | Body::StateConfirmed(_)
            | Body::HoldChanged(_)
            | Body::TimerEnded(_)
            | Body::IntentRecorded(_)
            | Body::OutcomeRecorded(_)
            | Body::ActionSkipped(_)
            | Body::OwnershipGranted(_)
            | Body::BreakevenTriggered(_)
            | Body::PositionChanged(_)
            | Body::LegClosed(_)
            | Body::QuarantineChanged(_)
            | Body::ActionPlanned(_)
            | Body::LegFound(_) => {}
        }
        if event.ticket != 0 {
            if let Some(at) = self.find(event.account_id.as_str(), event.ticket) {
                self.evolve_trade(at, event)?;
            } else if !matches!(event.body, Body::DecisionMade(_)) {
                return Err(CoreError::bug(format!(
                    "event {} is about an unknown trade",
                    event.revision
                )));
            }
        }
        Ok(())
    }

    fn evolve_trade(&mut self, at: At, event: &Event) -> Result<()> {
        match &event.body {
            Body::IntentRecorded(intent) => self.intend(at, event, intent)?,
            Body::OutcomeRecorded(recorded) => self.conclude(at, event, recorded)?,
            Body::PositionChanged(changed) => self.correct(at, changed, event.time_ns)?,
            Body::LegFound(found) => self.find_leg(at, found)?,
            Body::LegClosed(closed) => self.lose_leg(at, closed, event.time_ns)?,
            Body::OwnershipGranted(granted) => {
                self.last_epoch = granted.owner_epoch;
                self.trade_mut(at)?.own(granted);
            }
            Body::RiskDefined(defined) => {
                let risk = self
                    .instrument(at.instrument)?
                    .symbol
                    .distance(defined.risk_distance);
                let trade = self.trade_mut(at)?;
                trade.risk = risk;
                trade.risk_source = defined.risk_source;
            }
            Body::TradeArmed(_) => self.trade_mut(at)?.armed = true,
            Body::StateChanged(changed) => {
                self.last_action = changed
                    .actions
                    .iter()
                    .map(|action| action.action_id)
                    .max()
                    .unwrap_or(self.last_action);
                self.trade_mut(at)?.enter(changed, event.time_ns);
                if changed.to == TradeState::Closed && changed.from != TradeState::Closed {
                    self.count_open(at.instrument, false)?;
                }
            }
            Body::ActionPlanned(planned) => {
                self.last_action = self.last_action.max(planned.action.action_id);
                self.trade_mut(at)?.plan(&planned.action);
            }
            Body::StateConfirmed(_) => self.trade_mut(at)?.phase = StatePhase::Confirmed,
            Body::HoldChanged(hold) => self.trade_mut(at)?.better_since_ns = hold.better_since_ns,
            Body::TimerEnded(ended) => self.trade_mut(at)?.end_timer(ended.timer),
            Body::ActionSkipped(skipped) => self.trade_mut(at)?.settle(skipped.action.action_id),
            Body::BreakevenTriggered(_) => self.trade_mut(at)?.breakeven_triggered = true,
            Body::QuarantineChanged(changed) => {
                self.trade_mut(at)?.quarantined = changed.quarantined;
            }
            Body::MemoSet(set) => self.trade_mut(at)?.note_memo(&set.manager, &set.memo),
            Body::RiskBudgetChanged(changed) => {
                self.trade_mut(at)?.risk_budget_r = changed.budget_r;
            }
            Body::AccountDefined(_)
            | Body::SymbolDefined(_)
            | Body::TradeRegistered(_)
            | Body::TradeUnregistered(_)
            | Body::DecisionMade(_)
            | Body::ScoreReported(_)
            | Body::IndexReported(_)
            | Body::RailChanged(_)
            | Body::AccountMarked(_)
            | Body::BackupRestored(_)
            | Body::RulesChanged(_)
            | Body::AlarmRaised(_)
            | Body::TradingStateChanged(_)
            | Body::KillSwitchChanged(_) => {}
        }
        self.trade_mut(at)?.revision = event.revision;
        Ok(())
    }

    fn skip_numbers(&mut self, restored: &BackupRestored) {
        self.lost_intents.push(LostIntents {
            first: self.last_intent + 1,
            last: restored.last_intent,
        });
        self.last_epoch = restored.last_epoch;
        self.last_decision = restored.last_decision;
        self.last_intent = restored.last_intent;
    }

    /// Trades keep the numbers they have. Those of before the first record have what the service was started with then.
    fn change_rules(&mut self, revision: u64, changed: &RulesChanged) -> Result<()> {
        let numbers = rules::recorded(&self.config, &changed.numbers)?;
        let is_first = self.rules.revision() == 0;
        let mut used = BTreeSet::new();
        for instrument in &mut self.instruments {
            for trade in &mut instrument.trades {
                if is_first {
                    trade.rules = revision;
                }
                used.insert(trade.rules);
            }
        }
        self.rules
            .change(revision, numbers, |older| used.contains(&older));
        Ok(())
    }

    fn define_account(&mut self, id: &Text, hedging: bool, currency: &Text) {
        let known = self
            .account_ids
            .get(id)
            .and_then(|index| self.accounts.get_mut(*index));
        if let Some(account) = known {
            account.hedging = hedging;
            account.currency = currency.clone();
        } else {
            self.account_ids.insert(id.clone(), self.accounts.len());
            self.accounts
                .push(Account::new(id.clone(), hedging, currency.clone()));
        }
    }

    fn define_symbol(&mut self, account_id: &Text, defined: &SymbolDefined) -> Result<()> {
        let symbol = Symbol::try_new(defined.spec.clone())?;
        let account_index = self.account(account_id.as_str())?;
        let index = self.instruments.len();
        let config = self.config.clone();
        let account = self
            .accounts
            .get_mut(account_index)
            .ok_or_else(|| CoreError::bug("no such account"))?;
        if let Some(known) = account.symbols.get(&symbol.spec().symbol) {
            let instrument = self
                .instruments
                .get_mut(*known)
                .ok_or_else(|| CoreError::bug("no such instrument"))?;
            if instrument.symbol.spec().vwap_slope_threshold.to_bits()
                != symbol.spec().vwap_slope_threshold.to_bits()
            {
                instrument.market = Instrument::cold_market(&symbol, &config);
            }
            instrument.symbol = symbol;
        } else {
            account.symbols.insert(symbol.spec().symbol.clone(), index);
            self.instruments
                .push(Instrument::new(account_index, symbol, &config));
        }
        Ok(())
    }

    fn register(&mut self, event: &Event, registered: &TradeRegistered) -> Result<()> {
        let account = self.account(event.account_id.as_str())?;
        let index = self.instrument_index(event.account_id.as_str(), event.symbol.as_str())?;
        let key = (key_part(account), event.ticket);
        if let Some(at) = self.trades.get(&key).copied() {
            let rules = self.rules.revision();
            let instrument = self.instrument_mut(at.instrument)?;
            let symbol = &instrument.symbol;
            let claimed = TradeRecord::registered(event, registered, symbol, rules)?;
            let trade = instrument.trades.get_mut(at.slot);
            let adopted = trade.filter(|trade| trade.origin == Origin::External);
            if let (Some(trade), Origin::Client) = (adopted, registered.origin) {
                trade.claim(claimed);
                return Ok(());
            }
        }
        if event.ticket == 0 || self.trades.contains_key(&key) {
            return Err(CoreError::bug(format!(
                "trade {} is registered twice",
                event.ticket
            )));
        }
        let Self {
            rules, instruments, ..
        } = &mut *self;
        let instrument = instruments
            .get_mut(index)
            .ok_or_else(|| CoreError::bug("no such instrument"))?;
        let trade =
            TradeRecord::registered(event, registered, &instrument.symbol, rules.revision())?;
        let at = At {
            instrument: index,
            slot: instrument.trades.len(),
        };
        let watch = Watch::of(&trade, rules.newest(), event.time_ns);
        instrument.earliest_ns = instrument.earliest_ns.min(watch.deadline_ns);
        instrument.watches.push(watch);
        instrument.trades.push(trade);
        self.trades.insert(key, at);
        self.positions.insert(key, event.ticket);
        self.count_open(index, true)
    }

    fn unregister(&mut self, event: &Event) -> Result<()> {
        let at = self.locate(event.account_id.as_str(), event.ticket)?;
        let key = self.key(at)?;
        let instrument = self.instrument_mut(at.instrument)?;
        let gone = instrument.trades.swap_remove(at.slot);
        instrument.watches.swap_remove(at.slot);
        let moved = instrument.trades.get(at.slot).map(|trade| trade.ticket);
        if let Some(ticket) = moved {
            self.trades.insert((key.0, ticket), at);
        }
        self.trades.remove(&key);
        self.positions.remove(&key);
        for leg in gone.hedge.iter().chain(&gone.readd) {
            self.positions.remove(&(key.0, leg.ticket));
        }
        self.abandoned
            .retain(|_, open| open.account_id != event.account_id || open.ticket != event.ticket);
        if gone.state == TradeState::Closed {
            return Ok(());
        }
        self.count_open(at.instrument, false)
    }
}
