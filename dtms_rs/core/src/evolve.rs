//! `evolve(state, event)`: how each fact changes the book. Recovery and live running use only this.
use std::collections::BTreeMap;

use crate::book::{Account, At, Book, Instrument, OpenIntent, key_part};
use crate::enums::{ActionKind, LegKind, OutcomeStatus, Purpose, StatePhase, TradeState};
use crate::error::{CoreError, Reason, Result};
use crate::event::{
    Body, Event, IntentRecorded, LegClosed, OutcomeRecorded, OwnershipGranted, PositionChanged, SymbolDefined,
    TradeRegistered,
};
use crate::guard::OutsideScore;
use crate::idempotency::Answer;
use crate::message::{Maybe, Text};
use crate::symbol::{Points, Steps, Symbol};
use crate::trade::{LegRecord, Queued, TradeRecord, Watch};

impl Book {
    /// Folds one event in.
    ///
    /// # Errors
    /// `FUTURE_REVISION` when events are missing before it; otherwise the event contradicts the
    /// state, which after an error must not be used any more.
    pub fn evolve(&mut self, event: &Event) -> Result<()> {
        if event.revision != self.revision + 1 {
            let text = format!("event {} does not follow revision {}", event.revision, self.revision);
            return Err(CoreError::new(Reason::FutureRevision, text));
        }
        self.revision = event.revision;
        match &event.body {
            Body::AccountDefined(defined) => self.define_account(&event.account_id, defined.hedging, &defined.currency),
            Body::SymbolDefined(defined) => return self.define_symbol(&event.account_id, defined),
            Body::TradeRegistered(registered) => return self.register(event, registered),
            Body::TradeUnregistered(_) => return self.unregister(event),
            Body::ScoreReported(reported) => {
                let index = self.instrument_index(event.account_id.as_str(), event.symbol.as_str())?;
                let outside = OutsideScore { score: reported.score.clone(), valid_until_ns: reported.valid_until_ns };
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
            Body::DecisionMade(made) => {
                self.last_decision = made.decision.decision_id;
                self.answers.record(Answer { decision: made.decision.clone(), intent_id: None, outcome: None });
            }
            Body::AlarmRaised(_)
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
            | Body::QuarantineChanged(_) => {}
        }
        if event.ticket != 0 {
            if let Some(at) = self.find(event.account_id.as_str(), event.ticket) {
                self.evolve_trade(at, event)?;
            } else if !matches!(event.body, Body::DecisionMade(_)) {
                return Err(CoreError::bug(format!("event {} is about an unknown trade", event.revision)));
            }
        }
        Ok(())
    }

    fn evolve_trade(&mut self, at: At, event: &Event) -> Result<()> {
        match &event.body {
            Body::IntentRecorded(intent) => self.intend(at, event, intent)?,
            Body::OutcomeRecorded(recorded) => self.conclude(at, event, recorded)?,
            Body::PositionChanged(changed) => self.correct(at, changed, event.time_ns)?,
            Body::LegClosed(closed) => self.lose_leg(at, closed)?,
            Body::OwnershipGranted(granted) => {
                self.last_epoch = granted.owner_epoch;
                self.trade_mut(at)?.own(granted);
            }
            Body::RiskDefined(defined) => {
                let risk = self.instrument(at.instrument)?.symbol.distance(defined.risk_distance);
                let trade = self.trade_mut(at)?;
                trade.risk = risk;
                trade.risk_source = defined.risk_source;
            }
            Body::TradeArmed(_) => self.trade_mut(at)?.armed = true,
            Body::StateChanged(changed) => {
                self.last_action = changed.actions.iter().map(|action| action.action_id).max().unwrap_or(self.last_action);
                self.trade_mut(at)?.enter(changed, event.time_ns);
            }
            Body::StateConfirmed(_) => self.trade_mut(at)?.phase = StatePhase::Confirmed,
            Body::HoldChanged(hold) => self.trade_mut(at)?.better_since_ns = hold.better_since_ns,
            Body::TimerEnded(ended) => self.trade_mut(at)?.end_timer(ended.timer),
            Body::ActionSkipped(skipped) => self.trade_mut(at)?.settle(skipped.action.action_id),
            Body::BreakevenTriggered(_) => self.trade_mut(at)?.breakeven_triggered = true,
            Body::QuarantineChanged(changed) => self.trade_mut(at)?.quarantined = changed.quarantined,
            Body::AccountDefined(_)
            | Body::SymbolDefined(_)
            | Body::TradeRegistered(_)
            | Body::TradeUnregistered(_)
            | Body::DecisionMade(_)
            | Body::ScoreReported(_)
            | Body::AlarmRaised(_)
            | Body::TradingStateChanged(_)
            | Body::KillSwitchChanged(_) => {}
        }
        self.trade_mut(at)?.revision = event.revision;
        Ok(())
    }

    fn define_account(&mut self, id: &Text, hedging: bool, currency: &Text) {
        let known = self.account_ids.get(id).and_then(|index| self.accounts.get_mut(*index));
        if let Some(account) = known {
            account.hedging = hedging;
            account.currency = currency.clone();
        } else {
            self.account_ids.insert(id.clone(), self.accounts.len());
            let currency = currency.clone();
            self.accounts.push(Account { id: id.clone(), hedging, currency, symbols: BTreeMap::new() });
        }
    }

    fn define_symbol(&mut self, account_id: &Text, defined: &SymbolDefined) -> Result<()> {
        let symbol = Symbol::try_new(defined.spec.clone())?;
        let account_index = self.account(account_id.as_str())?;
        let index = self.instruments.len();
        let config = self.config.clone();
        let account = self.accounts.get_mut(account_index).ok_or_else(|| CoreError::bug("no such account"))?;
        if let Some(known) = account.symbols.get(&symbol.spec().symbol) {
            let instrument = self.instruments.get_mut(*known).ok_or_else(|| CoreError::bug("no such instrument"))?;
            if instrument.symbol.spec().vwap_slope_threshold.to_bits() != symbol.spec().vwap_slope_threshold.to_bits() {
                instrument.market = Instrument::cold_market(&symbol, &config);
            }
            instrument.symbol = symbol;
        } else {
            account.symbols.insert(symbol.spec().symbol.clone(), index);
            self.instruments.push(Instrument::new(account_index, symbol, &config));
        }
        Ok(())
    }

    fn register(&mut self, event: &Event, registered: &TradeRegistered) -> Result<()> {
        let account = self.account(event.account_id.as_str())?;
        let index = self.instrument_index(event.account_id.as_str(), event.symbol.as_str())?;
        let key = (key_part(account), event.ticket);
        if event.ticket == 0 || self.trades.contains_key(&key) {
            return Err(CoreError::bug(format!("trade {} is registered twice", event.ticket)));
        }
        let config = self.config.clone();
        let instrument = self.instrument_mut(index)?;
        let trade = TradeRecord::registered(event, registered, &instrument.symbol)?;
        let at = At { instrument: index, slot: instrument.trades.len() };
        let watch = Watch::of(&trade, &config, event.time_ns);
        instrument.earliest_ns = instrument.earliest_ns.min(watch.deadline_ns);
        instrument.watches.push(watch);
        instrument.trades.push(trade);
        self.trades.insert(key, at);
        self.positions.insert(key, event.ticket);
        Ok(())
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
        for leg in [Some(gone.ticket), gone.hedge.map(|leg| leg.ticket), gone.readd.map(|leg| leg.ticket)] {
            if let Some(position) = leg {
                self.positions.remove(&(key.0, position));
            }
        }
        Ok(())
    }

    fn intend(&mut self, at: At, event: &Event, intent: &IntentRecorded) -> Result<()> {
        self.last_intent = intent.intent_id;
        let request_id = self.answers.link(intent.decision_id, intent.intent_id);
        let open = OpenIntent {
            account_id: event.account_id.clone(),
            ticket: event.ticket,
            symbol: event.symbol.clone(),
            request_id,
            is_unknown: false,
            intent: intent.clone(),
        };
        self.intents.insert(intent.intent_id, open);
        let trade = self.trade_mut(at)?;
        trade.in_flight = Some(intent.intent_id);
        if let Some(place) = trade.queue.iter().position(|queued| queued.action.action_id == intent.action_id) {
            trade.current = Some(trade.queue.remove(place));
        }
        Ok(())
    }

    fn conclude(&mut self, at: At, event: &Event, recorded: &OutcomeRecorded) -> Result<()> {
        let outcome = &recorded.outcome;
        let missing = || CoreError::bug(format!("outcome of unknown intent {}", outcome.intent_id));
        let open = self.intents.get_mut(&outcome.intent_id).ok_or_else(missing)?;
        if outcome.status == OutcomeStatus::Unknown {
            open.is_unknown = true;
            let open = open.clone();
            self.answers.amend(&open.intent.manager, &open.request_id, |answer| answer.outcome = Some(outcome.clone()));
            return Ok(());
        }
        let open = self.intents.remove(&outcome.intent_id).ok_or_else(missing)?;
        self.answers.amend(&open.intent.manager, &open.request_id, |answer| answer.outcome = Some(outcome.clone()));
        let trade = self.trade_mut(at)?;
        trade.in_flight = None;
        let current = if open.intent.action_id == 0 { None } else { trade.current.take() };
        if let (Some(queued), Some(retry_at_ns)) = (current, recorded.retry_at_ns) {
            let attempt = queued.attempt + 1;
            trade.queue.insert(0, Queued { action: queued.action, attempt, not_before_ns: retry_at_ns });
        }
        if outcome.status == OutcomeStatus::Confirmed {
            self.take_effect(at, event, &open.intent, recorded)?;
        }
        Ok(())
    }

    /// What a confirmed command has changed at the broker.
    fn take_effect(&mut self, at: At, event: &Event, intent: &IntentRecorded, recorded: &OutcomeRecorded) -> Result<()> {
        let outcome = &recorded.outcome;
        let key = self.key(at)?;
        let instrument = self.instrument_mut(at.instrument)?;
        let symbol = &instrument.symbol;
        let level = |name: &str, price: Option<f64>| price.map(|price| symbol.nearest_price(name, price)).transpose();
        let sl = level("outcome.sl", outcome.sl)?;
        let tp = level("outcome.tp", outcome.tp)?;
        let price = level("outcome.price", outcome.price)?;
        let volume = match outcome.volume.filter(|volume| *volume > 0.0) {
            Some(volume) => symbol.exact_volume("outcome.volume", volume)?,
            None if intent.volume > 0.0 => symbol.exact_volume("volume", intent.volume)?,
            None => Steps(0),
        };
        let trade = instrument.trades.get_mut(at.slot).ok_or_else(|| CoreError::bug("no such trade"))?;
        let is_own = intent.action_id != 0;
        let is_partial = intent.kind == ActionKind::PartialClose;
        trade.note_change(&intent.manager, is_partial, event.time_ns);
        let mut opened = None;
        match (intent.kind, intent.leg) {
            (ActionKind::Stop | ActionKind::Target, _) => {
                let is_echoed = sl.is_some() || tp.is_some() || (intent.sl.is_none() && intent.tp.is_none());
                if is_echoed {
                    if sl != trade.sl {
                        trade.set_by_rank = Maybe(Some(intent.rank));
                    }
                    (trade.sl, trade.tp, trade.confirmed_at_ns) = (sl, tp, event.time_ns);
                }
            }
            (ActionKind::OpenHedge, _) => {
                let entry = price.ok_or_else(|| CoreError::field("outcome.price", "is missing for an opening"))?;
                trade.hedge = Some(LegRecord { ticket: outcome.opened_ticket, volume, entry, sl });
                opened = Some(outcome.opened_ticket);
            }
            (ActionKind::ReAdd, _) if intent.position == 0 => {
                let entry = price.ok_or_else(|| CoreError::field("outcome.price", "is missing for an opening"))?;
                trade.readd = Some(LegRecord { ticket: outcome.opened_ticket, volume, entry, sl });
                trade.closed_volume = Steps(0);
                opened = Some(outcome.opened_ticket);
            }
            (ActionKind::ReAdd, _) => {
                trade.volume += volume;
                (trade.closed_volume, trade.hedge_reduction) = (Steps(0), Steps(0));
            }
            (_, LegKind::Main) => {
                trade.volume = Steps((trade.volume - volume).0.max(0));
                if is_own && intent.purpose == Maybe(Some(Purpose::Partial)) {
                    trade.partial_taken = true;
                    trade.closed_volume += volume;
                }
            }
            (ActionKind::Close, LegKind::Hedge) => {
                trade.volume = Steps((trade.volume - volume).0.max(0));
                trade.hedge_reduction += volume;
            }
            (_, LegKind::Hedge) => reduce(trade.hedge.as_mut(), volume),
            (_, LegKind::ReAdd) => reduce(trade.readd.as_mut(), volume),
        }
        if let Some(position) = opened {
            self.positions.insert((key.0, position), key.1);
        }
        Ok(())
    }

    fn correct(&mut self, at: At, changed: &PositionChanged, time_ns: i64) -> Result<()> {
        let instrument = self.instrument_mut(at.instrument)?;
        let symbol = &instrument.symbol;
        let level = |name: &str, price: Option<f64>| price.map(|price| symbol.nearest_price(name, price)).transpose();
        let (sl, tp) = (level("sl", changed.sl)?, level("tp", changed.tp)?);
        let volume = symbol.exact_volume("volume", changed.volume)?;
        let trade = instrument.trades.get_mut(at.slot).ok_or_else(|| CoreError::bug("no such trade"))?;
        match changed.leg {
            LegKind::Main => {
                if sl != trade.sl {
                    trade.set_by_rank = Maybe(None);
                }
                (trade.volume, trade.sl, trade.tp, trade.confirmed_at_ns) = (volume, sl, tp, time_ns);
            }
            LegKind::Hedge => correct_leg(trade.hedge.as_mut(), volume, sl),
            LegKind::ReAdd => correct_leg(trade.readd.as_mut(), volume, sl),
        }
        Ok(())
    }

    fn lose_leg(&mut self, at: At, closed: &LegClosed) -> Result<()> {
        let key = self.key(at)?;
        let trade = self.trade_mut(at)?;
        match closed.leg {
            LegKind::Main => {
                trade.main_closed = true;
                trade.volume = Steps(0);
                trade.close_price = Some(closed.price);
            }
            LegKind::Hedge => trade.hedge = None,
            LegKind::ReAdd => trade.readd = None,
        }
        if closed.leg != LegKind::Main {
            self.positions.remove(&(key.0, closed.position));
        }
        Ok(())
    }
}

fn reduce(leg: Option<&mut LegRecord>, volume: Steps) {
    if let Some(leg) = leg {
        leg.volume = Steps((leg.volume - volume).0.max(0));
    }
}

fn correct_leg(leg: Option<&mut LegRecord>, volume: Steps, sl: Option<Points>) {
    if let Some(leg) = leg {
        (leg.volume, leg.sl) = (volume, sl);
    }
}

impl TradeRecord {
    fn registered(event: &Event, registered: &TradeRegistered, symbol: &Symbol) -> Result<Self> {
        let level = |name: &str, price: Option<f64>| price.map(|price| symbol.exact_price(name, price)).transpose();
        let (sl, tp) = (level("sl", registered.sl)?, level("tp", registered.tp)?);
        let volume = symbol.exact_volume("volume", registered.volume)?;
        Ok(Self {
            ticket: event.ticket,
            side: registered.side,
            entry: symbol.exact_price("entry_price", registered.entry_price)?,
            initial_volume: volume,
            volume,
            initial_sl: sl,
            initial_tp: tp,
            sl,
            tp,
            confirmed_at_ns: event.time_ns,
            set_by_rank: Maybe(None),
            risk: registered.risk_distance.and_then(|distance| symbol.distance(distance)),
            risk_source: registered.risk_source,
            state: TradeState::Healthy,
            phase: StatePhase::Confirmed,
            state_since_ns: event.time_ns,
            armed: false,
            breakeven_triggered: false,
            managed_by: Text::default(),
            owner_epoch: 0,
            displaced: Text::default(),
            flat_timer_ends_ns: None,
            recovery_timer_ends_ns: None,
            better_since_ns: None,
            partial_taken: false,
            closed_volume: Steps(0),
            hedge_reduction: Steps(0),
            hedge: None,
            readd: None,
            strategy_type: registered.strategy_type.clone(),
            opened_ns: registered.opened_ns,
            registered_ns: event.time_ns,
            origin: registered.origin,
            last_score: None,
            queue: Vec::new(),
            current: None,
            in_flight: None,
            managers: Vec::new(),
            quarantined: false,
            main_closed: false,
            close_price: None,
            revision: event.revision,
            registered_revision: event.revision,
        })
    }

    fn own(&mut self, granted: &OwnershipGranted) {
        use crate::enums::GrantCause::{Acquired, Defensive, Expired, Killed, Registered, Released, Returned};
        self.managed_by = granted.managed_by.clone();
        self.owner_epoch = granted.owner_epoch;
        self.displaced = match granted.cause {
            Defensive => granted.displaced.clone(),
            Registered | Acquired | Returned | Released | Expired | Killed => Text::default(),
        };
    }
}
