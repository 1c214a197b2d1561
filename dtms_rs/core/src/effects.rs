//! What intents, outcomes and reports of the broker do to a trade.

use crate::book::{ABANDONED_MAX, At, Book, OpenIntent};
use crate::enums::{ActionKind, LegKind, OutcomeStatus, Purpose, TradeState};
use crate::error::{CoreError, Result};
use crate::event::{Event, IntentRecorded, LegClosed, LegFound, OutcomeRecorded, PositionChanged};
use crate::message::Maybe;
use crate::symbol::{Points, Steps};
use crate::trade::{LegRecord, Queued, TradeRecord};

impl Book {
    pub(crate) fn intend(&mut self, at: At, event: &Event, intent: &IntentRecorded) -> Result<()> {
        self.last_intent = intent.intent_id;
        let request_id = self.answers.link(intent.decision_id, intent.intent_id);
        let open = OpenIntent {
            account_id: event.account_id.clone(),
            ticket: event.ticket,
            symbol: event.symbol.clone(),
            request_id,
            is_unknown: false,
            recorded_ns: event.time_ns,
            intent: intent.clone(),
            is_explained: false,
        };
        self.intents.insert(intent.intent_id, open);
        let trade = self.trade_mut(at)?;
        trade.in_flight = Some(intent.intent_id);
        if let Some(place) = trade
            .queue
            .iter()
            .position(|queued| queued.action.action_id == intent.action_id)
        {
            trade.current = Some(trade.queue.remove(place));
        }
        Ok(())
    }

    pub(crate) fn conclude(
        &mut self,
        at: At,
        event: &Event,
        recorded: &OutcomeRecorded,
    ) -> Result<()> {
        let outcome = &recorded.outcome;
        let missing = || CoreError::bug(format!("outcome of unknown intent {}", outcome.intent_id));
        let Some(open) = self.intents.get_mut(&outcome.intent_id) else {
            // Settled as not executed, and executed all the same.
            let late = self.abandoned.remove(&outcome.intent_id);
            let open = late.ok_or_else(missing)?;
            return self.take_effect(at, event, &open.intent, recorded, true);
        };
        if outcome.status == OutcomeStatus::Unknown {
            open.is_unknown = true;
            let open = open.clone();
            self.answers
                .amend(&open.intent.manager, &open.request_id, |answer| {
                    answer.outcome = Some(outcome.clone());
                });
            return Ok(());
        }
        let open = self
            .intents
            .remove(&outcome.intent_id)
            .ok_or_else(missing)?;
        self.answers
            .amend(&open.intent.manager, &open.request_id, |answer| {
                answer.outcome = Some(outcome.clone());
            });
        let trade = self.trade_mut(at)?;
        trade.in_flight = None;
        let current = if open.intent.action_id == 0 {
            None
        } else {
            trade.current.take()
        };
        if let (Some(queued), Some(retry_at_ns)) = (current, recorded.retry_at_ns) {
            let attempt = queued.attempt + 1;
            trade.queue.insert(
                0,
                Queued {
                    action: queued.action,
                    attempt,
                    not_before_ns: retry_at_ns,
                },
            );
        }
        if outcome.status == OutcomeStatus::Confirmed {
            self.take_effect(at, event, &open.intent, recorded, false)?;
        } else if outcome.settled {
            self.abandoned.insert(outcome.intent_id, open);
            if self.abandoned.len() > ABANDONED_MAX {
                self.abandoned.pop_first();
            }
        }
        Ok(())
    }

    /// What a confirmed command has changed at the broker. A position that was opened when the trade has no
    /// place for it (any more) is a stray.
    fn take_effect(
        &mut self,
        at: At,
        event: &Event,
        intent: &IntentRecorded,
        recorded: &OutcomeRecorded,
        is_late: bool,
    ) -> Result<()> {
        let outcome = &recorded.outcome;
        let key = self.key(at)?;
        let instrument = self.instrument_mut(at.instrument)?;
        let symbol = &instrument.symbol;
        let level = |name: &str, price: Option<f64>| {
            price
                .map(|price| symbol.nearest_price(name, price))
                .transpose()
        };
        let sl = level("outcome.sl", outcome.sl)?;
        let tp = level("outcome.tp", outcome.tp)?;
        let price = level("outcome.price", outcome.price)?;
        let volume = match outcome.volume.filter(|volume| *volume > 0.0) {
            Some(volume) => symbol.exact_volume("outcome.volume", volume)?,
            None if intent.volume > 0.0 => symbol.exact_volume("volume", intent.volume)?,
            None => Steps(0),
        };
        let trade = instrument
            .trades
            .get_mut(at.slot)
            .ok_or_else(|| CoreError::bug("no such trade"))?;
        let is_own = intent.action_id != 0;
        let is_partial = intent.kind == ActionKind::PartialClose;
        trade.note_change(&intent.manager, is_partial, event.time_ns);
        let mut opened = None;
        let opens = matches!(intent.kind, ActionKind::OpenHedge | ActionKind::ReAdd);
        if opens && intent.position == 0 && !has_place(trade, intent.kind, is_late) {
            let entry = price
                .ok_or_else(|| CoreError::field("outcome.price", "is missing for an opening"))?;
            trade.stray(outcome.opened_ticket, intent.side, volume, entry);
            self.positions.insert((key.0, outcome.opened_ticket), key.1);
            return Ok(());
        }
        match (intent.kind, intent.leg) {
            (ActionKind::Stop | ActionKind::Target, _) => {
                let is_echoed =
                    sl.is_some() || tp.is_some() || (intent.sl.is_none() && intent.tp.is_none());
                if is_echoed {
                    if sl != trade.sl {
                        trade.set_by_rank = Maybe(Some(intent.rank));
                    }
                    (trade.sl, trade.tp, trade.confirmed_at_ns) = (sl, tp, event.time_ns);
                    self.explain_levels(at)?;
                }
            }
            (ActionKind::OpenHedge, _) => {
                let entry = price.ok_or_else(|| {
                    CoreError::field("outcome.price", "is missing for an opening")
                })?;
                trade.hedges += 1;
                trade.hedge = Some(LegRecord {
                    ticket: outcome.opened_ticket,
                    volume,
                    entry,
                    sl,
                });
                opened = Some(outcome.opened_ticket);
            }
            (ActionKind::ReAdd, _) if intent.position == 0 => {
                let entry = price.ok_or_else(|| {
                    CoreError::field("outcome.price", "is missing for an opening")
                })?;
                trade.readd = Some(LegRecord {
                    ticket: outcome.opened_ticket,
                    volume,
                    entry,
                    sl,
                });
                trade.closed_volume = Steps(0);
                opened = Some(outcome.opened_ticket);
            }
            (ActionKind::ReAdd, _) => {
                trade.volume += volume;
                (trade.closed_volume, trade.hedge_reduction) = (Steps(0), Steps(0));
            }
            (_, LegKind::Main) => {
                trade.volume = Steps((trade.volume - volume).0.max(0));
                if let Some(price) = price {
                    trade.realise(trade.side, trade.entry, price, volume);
                }
                if is_own && intent.purpose == Maybe(Some(Purpose::Partial)) {
                    trade.partial_taken = true;
                    trade.closed_volume += volume;
                }
            }
            (ActionKind::Close, LegKind::Hedge) => {
                trade.volume = Steps((trade.volume - volume).0.max(0));
                trade.hedge_reduction += volume;
                trade.hedges += 1;
                if let Some(price) = price {
                    trade.realise(trade.side, trade.entry, price, volume);
                }
            }
            (_, LegKind::Stray) => trade.reduce_stray(intent.position, volume, price),
            (_, LegKind::Hedge | LegKind::ReAdd) => trade.reduce(intent.leg, volume, price),
        }
        if let Some(position) = opened {
            self.positions.insert((key.0, position), key.1);
        }
        Ok(())
    }

    pub(crate) fn correct(
        &mut self,
        at: At,
        changed: &PositionChanged,
        time_ns: i64,
    ) -> Result<()> {
        let instrument = self.instrument_mut(at.instrument)?;
        let symbol = &instrument.symbol;
        let level = |name: &str, price: Option<f64>| {
            price
                .map(|price| symbol.nearest_price(name, price))
                .transpose()
        };
        let (sl, tp) = (level("sl", changed.sl)?, level("tp", changed.tp)?);
        let volume = symbol.exact_volume("volume", changed.volume)?;
        let trade = instrument
            .trades
            .get_mut(at.slot)
            .ok_or_else(|| CoreError::bug("no such trade"))?;
        match changed.leg {
            LegKind::Main => {
                if sl != trade.sl {
                    trade.set_by_rank = Maybe(None);
                }
                (trade.volume, trade.sl, trade.tp, trade.confirmed_at_ns) =
                    (volume, sl, tp, time_ns);
                self.explain_levels(at)?;
            }
            LegKind::Hedge => correct_leg(trade.hedge.as_mut(), volume, sl),
            LegKind::ReAdd => correct_leg(trade.readd.as_mut(), volume, sl),
            // Which of them is not said; what a command closes is told by its outcome.
            LegKind::Stray => {}
        }
        Ok(())
    }

    /// A position that an order of a lost time has opened becomes the leg that was found fit.
    pub(crate) fn find_leg(&mut self, at: At, found: &LegFound) -> Result<()> {
        let key = self.key(at)?;
        let instrument = self.instrument_mut(at.instrument)?;
        let symbol = &instrument.symbol;
        let volume = symbol.exact_volume("volume", found.volume)?;
        let entry = symbol.nearest_price("entry_price", found.entry_price)?;
        let sl = found
            .sl
            .map(|price| symbol.nearest_price("sl", price))
            .transpose()?;
        let trade = instrument
            .trades
            .get_mut(at.slot)
            .ok_or_else(|| CoreError::bug("no such trade"))?;
        let leg = LegRecord {
            ticket: found.position,
            volume,
            entry,
            sl,
        };
        match found.leg {
            LegKind::Hedge => {
                trade.hedges += 1;
                trade.hedge = Some(leg);
            }
            LegKind::ReAdd => {
                trade.readd = Some(leg);
                trade.closed_volume = Steps(0);
            }
            LegKind::Main | LegKind::Stray => {
                trade.stray(found.position, found.side, volume, entry);
            }
        }
        self.positions.insert((key.0, found.position), key.1);
        Ok(())
    }

    /// A level that stands where an abandoned change had wanted it is no trace of that change any more:
    /// who has set it is known.
    fn explain_levels(&mut self, at: At) -> Result<()> {
        if self.abandoned.is_empty() {
            return Ok(());
        }
        let instrument = self.instrument(at.instrument)?;
        let symbol = instrument.symbol.clone();
        let trade = self.trade(at)?;
        let (ticket, sl, tp) = (trade.ticket, trade.sl, trade.tp);
        let account_id = self
            .accounts
            .get(instrument.account)
            .map(|account| account.id.clone());
        for open in self.abandoned.values_mut() {
            let (is_stop, is_target) = (
                open.intent.kind == ActionKind::Stop,
                open.intent.kind == ActionKind::Target,
            );
            let is_about_it =
                open.ticket == ticket && Some(&open.account_id) == account_id.as_ref();
            if is_about_it && (is_stop || is_target) {
                let (wanted, stands) = if is_stop {
                    (open.intent.sl, sl)
                } else {
                    (open.intent.tp, tp)
                };
                let wanted = wanted
                    .map(|price| symbol.nearest_price("level", price))
                    .transpose()?;
                open.is_explained |= wanted == stands;
            }
        }
        Ok(())
    }

    pub(crate) fn lose_leg(&mut self, at: At, closed: &LegClosed, time_ns: i64) -> Result<()> {
        let key = self.key(at)?;
        let price = self
            .instrument(at.instrument)?
            .symbol
            .nearest_price("price", closed.price)?;
        if closed.leg == LegKind::Main {
            let account = self.instrument(at.instrument)?.account;
            let stops = &mut self.account_mut(account)?.stops;
            stops.count(closed.reason, closed.profit, time_ns);
        }
        let trade = self.trade_mut(at)?;
        match closed.leg {
            LegKind::Main => {
                trade.main_closed = true;
                trade.volume = Steps(0);
                trade.close_price = Some(closed.price);
            }
            LegKind::Hedge => {
                trade.end_leg(closed.leg, price);
                trade.hedge_ended_ns = Some(time_ns);
                trade.hedge = None;
            }
            LegKind::ReAdd => {
                trade.end_leg(closed.leg, price);
                trade.readd = None;
            }
            LegKind::Stray => {
                let left = trade
                    .strays
                    .iter()
                    .find(|stray| stray.ticket == closed.position);
                if let Some(volume) = left.map(|stray| stray.volume) {
                    trade.reduce_stray(closed.position, volume, Some(price));
                }
                trade.strays.retain(|stray| stray.ticket != closed.position);
            }
        }
        if closed.leg != LegKind::Main {
            self.positions.remove(&(key.0, closed.position));
        }
        Ok(())
    }
}

/// Whether the leg that a command has opened is still wanted, and the only one of its kind. One that came late
/// belongs to the state that asked for it, or to nobody.
pub(crate) fn has_place(trade: &TradeRecord, kind: ActionKind, is_late: bool) -> bool {
    let (is_free, state) = if kind == ActionKind::OpenHedge {
        (trade.hedge.is_none(), TradeState::Hedged)
    } else {
        (trade.readd.is_none(), TradeState::Healthy)
    };
    is_free && (!is_late || (trade.state == state && !trade.main_closed))
}

fn correct_leg(leg: Option<&mut LegRecord>, volume: Steps, sl: Option<Points>) {
    if let Some(leg) = leg {
        (leg.volume, leg.sl) = (volume, sl);
    }
}
