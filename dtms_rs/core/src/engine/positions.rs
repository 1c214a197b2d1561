//! What the broker holds: positions as they are, gone, or not to be found.
use super::queue::is_close;
use super::{About, Engine, Step};
use crate::effects::has_place;
use crate::enums::{ActionKind, AlarmCode, CloseReason, LegKind, TradeState};
use crate::error::{CoreError, Result};
use crate::event::{LegClosed, LegFound, PositionChanged, QuarantineChanged};
use crate::table::Guard;

impl Engine {
    /// Takes a report of what the broker holds. While a command of the trade is in flight the report
    /// may be older than its effect and says nothing; otherwise a difference is a change by somebody
    /// else (I8). A position of no trade is ignored.
    ///
    /// # Errors
    /// `FIELD_INVALID` names the field.
    pub fn on_position(
        &mut self,
        account_id: &str,
        position: u64,
        volume: f64,
        sl: Option<f64>,
        tp: Option<f64>,
        now_ns: i64,
    ) -> Result<Step<()>> {
        let Some((at, leg)) = self.book.leg_of(account_id, position) else {
            return Ok(self.step(()));
        };
        let symbol = &self.book.instrument(at.instrument)?.symbol;
        let held = symbol.exact_volume("volume", volume)?;
        let level = |field: &str, price: Option<f64>| {
            price
                .map(|price| symbol.nearest_price(field, price))
                .transpose()
        };
        let (held_sl, held_tp) = (level("sl", sl)?, level("tp", tp)?);
        let trade = self.book.trade(at)?;
        let is_found = leg == LegKind::Main && trade.quarantined;
        let differs = match leg {
            LegKind::Main => (trade.volume, trade.sl, trade.tp) != (held, held_sl, held_tp),
            LegKind::Hedge => trade
                .hedge
                .as_ref()
                .is_some_and(|leg| (leg.volume, leg.sl) != (held, held_sl)),
            LegKind::ReAdd => trade
                .readd
                .as_ref()
                .is_some_and(|leg| (leg.volume, leg.sl) != (held, held_sl)),
            LegKind::Stray => trade
                .strays
                .iter()
                .any(|stray| stray.ticket == position && stray.volume != held),
        };
        let is_idle = trade.in_flight.is_none();
        let changed = PositionChanged {
            leg,
            volume: symbol.volume(held),
            sl: held_sl.map(|sl| symbol.price(sl)),
            tp: held_tp.map(|tp| symbol.price(tp)),
            external: true,
        };
        if is_found {
            self.emit(
                About::Trade(at),
                now_ns,
                QuarantineChanged { quarantined: false },
            )?;
        }
        if differs && is_idle {
            self.emit(About::Trade(at), now_ns, changed)?;
        }
        if is_found || (differs && is_idle) {
            self.pump(at, now_ns)?;
        }
        Ok(self.step(()))
    }

    /// Takes a position that bears the mark of an intent which the journal has lost, as it went on from a
    /// backup. On the trade's side it is a re-add, against it a hedge; what the trade has no place for is a
    /// stray, and closed. One that is somebody's already changes nothing.
    ///
    /// # Errors
    /// `TRADE_UNKNOWN`; `FIELD_INVALID` names the field.
    pub fn on_lost_leg(
        &mut self,
        account_id: &str,
        ticket: u64,
        found: &LegFound,
        now_ns: i64,
    ) -> Result<Step<()>> {
        let at = self.book.locate(account_id, ticket)?;
        if !self.is_lost(found.intent_id) {
            return Err(CoreError::field("intent_id", "is not lost"));
        }
        if self.book.leg_of(account_id, found.position).is_some() {
            return Ok(self.step(()));
        }
        let trade = self.book.trade(at)?;
        let (kind, leg) = if found.side == trade.side {
            (ActionKind::ReAdd, LegKind::ReAdd)
        } else {
            (ActionKind::OpenHedge, LegKind::Hedge)
        };
        let leg = if has_place(trade, kind, true) {
            leg
        } else {
            LegKind::Stray
        };
        let detail = format!(
            "position {} bears the mark of intent {}, of a time that the journal has lost: taken for a {leg:?}",
            found.position, found.intent_id
        );
        self.emit(
            About::Trade(at),
            now_ns,
            LegFound {
                leg,
                ..found.clone()
            },
        )?;
        self.alarm(at, AlarmCode::LostLeg, &detail, now_ns)?;
        self.drop_repeats(at, kind, now_ns)?;
        self.plan_strays(at, now_ns)?;
        self.pump(at, now_ns)?;
        Ok(self.step(()))
    }

    /// Whether the intent may have been recorded between a backup and its return, and is known no more.
    #[must_use]
    pub fn is_lost(&self, intent_id: u64) -> bool {
        let lost = &self.book.lost_intents;
        lost.iter()
            .any(|span| (span.first..=span.last).contains(&intent_id))
    }

    /// Takes a proof that the broker closed a position. A close of our own that is still in flight
    /// is settled by its outcome; a leg that is closed already changes nothing.
    ///
    /// # Errors
    /// `FIELD_INVALID` names the field.
    pub fn on_closed(
        &mut self,
        account_id: &str,
        position: u64,
        reason: CloseReason,
        price: f64,
        profit: f64,
        now_ns: i64,
    ) -> Result<Step<()>> {
        let Some((at, leg)) = self.book.leg_of(account_id, position) else {
            return Ok(self.step(()));
        };
        self.book
            .instrument(at.instrument)?
            .symbol
            .nearest_price("price", price)?;
        if !profit.is_finite() {
            return Err(CoreError::field("profit", "is not finite"));
        }
        let trade = self.book.trade(at)?;
        let in_flight = trade.in_flight.and_then(|id| self.book.intents.get(&id));
        let is_ours = in_flight.is_some_and(|open| {
            let closes = is_close(open.intent.kind) || open.intent.kind == ActionKind::PartialClose;
            closes && open.intent.position == position && reason == CloseReason::Dtms
        });
        if is_ours {
            return Ok(self.step(()));
        }
        if trade.quarantined {
            self.emit(
                About::Trade(at),
                now_ns,
                QuarantineChanged { quarantined: false },
            )?;
        }
        let state = self.book.trade(at)?.state;
        self.emit(
            About::Trade(at),
            now_ns,
            LegClosed {
                leg,
                position,
                reason,
                price,
                profit,
            },
        )?;
        match (leg, state) {
            (LegKind::Main, _) => {
                self.note_stops(at, now_ns)?;
                self.transition(at, Guard::BrokerClosed, now_ns)?;
            }
            (LegKind::Hedge, TradeState::Hedged) => {
                let is_stop = reason == CloseReason::StopLoss;
                let guard = if is_stop {
                    Guard::HedgeStopped
                } else {
                    Guard::HedgeClosedByHand
                };
                self.transition(at, guard, now_ns)?;
            }
            (LegKind::Hedge | LegKind::ReAdd | LegKind::Stray, _) => {}
        }
        self.pump(at, now_ns)?;
        Ok(self.step(()))
    }

    /// The trade is not at the broker and not proven closed: nothing is changed until it is found
    /// or proven (I21, I23).
    ///
    /// # Errors
    /// `TRADE_UNKNOWN`.
    pub fn on_missing(&mut self, account_id: &str, ticket: u64, now_ns: i64) -> Result<Step<()>> {
        let at = self.book.locate(account_id, ticket)?;
        let trade = self.book.trade(at)?;
        if !trade.quarantined && !trade.main_closed {
            self.emit(
                About::Trade(at),
                now_ns,
                QuarantineChanged { quarantined: true },
            )?;
            self.alarm(
                at,
                AlarmCode::Quarantined,
                "not found at the broker and not proven closed",
                now_ns,
            )?;
            self.watch(at, now_ns)?;
        }
        Ok(self.step(()))
    }
}
