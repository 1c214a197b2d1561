//! Accounts, symbols and trades come and go.
use super::{About, Engine, Step};
use crate::arbiter::UNIVERSAL;
use crate::book::At;
use crate::enums::{GrantCause, Origin, RiskSource, Side, TradeState};
use crate::error::{CoreError, Reason, Result};
use crate::event::{AccountDefined, SymbolDefined, SymbolSpec, TradeRegistered, TradeUnregistered};
use crate::message::Text;
use crate::symbol::{Points, Steps, Symbol};

/// Longest strategy name: it is stored with every trade.
const LONGEST_STRATEGY: usize = 64;

/// A position to watch over. Prices are quote-currency doubles, volume lots, times ns UTC.
#[derive(Clone, Copy, Debug)]
pub struct Registration<'a> {
    pub account_id: &'a str,
    pub ticket: u64,
    pub symbol: &'a str,
    pub side: Side,
    pub entry_price: f64,
    pub volume: f64,
    pub sl: Option<f64>,
    pub tp: Option<f64>,
    pub strategy_type: &'a str,
    pub opened_ns: i64,
    pub origin: Origin,
    pub registered_by: &'a str,
}

/// The checked money of a registration.
struct Checked {
    entry: Points,
    volume: Steps,
    sl: Option<Points>,
    tp: Option<Points>,
}

impl Engine {
    /// No event when it is known with the same facts.
    ///
    /// # Errors
    /// `FIELD_INVALID`.
    pub fn define_account(
        &mut self,
        account_id: &str,
        hedging: bool,
        currency: &str,
        now_ns: i64,
    ) -> Result<Step<()>> {
        if account_id.is_empty() {
            return Err(CoreError::field("account_id", "is empty"));
        }
        let known = self
            .book
            .account(account_id)
            .ok()
            .and_then(|index| self.book.accounts.get(index));
        if !known.is_some_and(|account| account.hedging == hedging && account.currency == *currency)
        {
            let defined = AccountDefined {
                hedging,
                currency: Text::from(currency),
            };
            self.emit(About::Account(account_id), now_ns, defined)?;
        }
        Ok(self.step(()))
    }

    /// No event when it is known with the same rules. The units (`point`, `volume_step`) of a symbol
    /// cannot change while trades of it are registered: their integers would lose their meaning.
    ///
    /// # Errors
    /// `ACCOUNT_UNKNOWN`, `FIELD_INVALID`.
    pub fn define_symbol(
        &mut self,
        account_id: &str,
        spec: SymbolSpec,
        now_ns: i64,
    ) -> Result<Step<()>> {
        self.book.account(account_id)?;
        let symbol = Symbol::try_new(spec.clone())?;
        if let Ok(index) = self.book.instrument_index(account_id, spec.symbol.as_str()) {
            let instrument = self.book.instrument(index)?;
            if instrument.symbol == symbol {
                return Ok(self.step(()));
            }
            if !instrument.trades.is_empty() && !instrument.symbol.has_units_of(&symbol) {
                return Err(CoreError::field(
                    "point",
                    "or volume_step changed while trades are registered",
                ));
            }
        }
        let name = spec.symbol.clone();
        let revision = self.book.revision + 1;
        self.record(crate::event::Event {
            revision,
            time_ns: now_ns,
            account_id: Text::from(account_id),
            ticket: 0,
            symbol: name,
            state: crate::message::Maybe(None),
            body: SymbolDefined { spec }.into(),
        })?;
        Ok(self.step(()))
    }

    /// Takes a position into the registry; the reply says whether it was new. The same again is
    /// answered with no events and resets nothing. A position that was adopted while its client was about
    /// to register it is the client's from then on: its strategy, its first levels and so its R.
    ///
    /// # Errors
    /// `ACCOUNT_UNKNOWN`, `SYMBOL_UNKNOWN`; `FIELD_INVALID` names the field; `TRADE_DIFFERS` when the
    /// ticket was registered with another body.
    pub fn register(
        &mut self,
        asked: &Registration<'_>,
        now_ns: i64,
        mono_ns: i64,
    ) -> Result<Step<bool>> {
        let index = self.book.instrument_index(asked.account_id, asked.symbol)?;
        let checked = self.check_registration(index, asked)?;
        if let Some(at) = self.book.find(asked.account_id, asked.ticket) {
            if self.is_registered_so(at, index, asked, &checked)? {
                return Ok(self.step(false));
            }
            if !self.is_adopted_so(at, index, asked, &checked)? {
                return Err(CoreError::new(
                    Reason::TradeDiffers,
                    format!("ticket {} is registered with another body", asked.ticket),
                ));
            }
        }
        let at_risk = checked
            .sl
            .filter(|sl| (checked.entry - *sl).0 * asked.side.sign() > 0);
        let (risk, risk_source) = match at_risk {
            Some(sl) => (Some(Points((checked.entry - sl).0.abs())), RiskSource::Stop),
            None => match self.atr_risk(index)? {
                Some(risk) => (Some(risk), RiskSource::Atr),
                None => (None, RiskSource::Pending),
            },
        };
        let instrument = self.book.instrument(index)?;
        let registered = TradeRegistered {
            side: asked.side,
            entry_price: instrument.symbol.price(checked.entry),
            volume: instrument.symbol.volume(checked.volume),
            sl: checked.sl.map(|sl| instrument.symbol.price(sl)),
            tp: checked.tp.map(|tp| instrument.symbol.price(tp)),
            risk_distance: risk.map(|risk| instrument.symbol.price(risk)),
            risk_source,
            strategy_type: Text::from(asked.strategy_type),
            opened_ns: asked.opened_ns,
            origin: asked.origin,
            registered_by: Text::from(asked.registered_by),
        };
        let known = match self.book.find(asked.account_id, asked.ticket) {
            Some(at) => self.book.trade(at)?.state,
            None => TradeState::Healthy,
        };
        let revision = self.book.revision + 1;
        let event = crate::event::Event {
            revision,
            time_ns: now_ns,
            account_id: self.book.account_of(index)?.id.clone(),
            ticket: asked.ticket,
            symbol: instrument.name().clone(),
            state: known.into(),
            body: registered.into(),
        };
        self.record(event)?;
        let at = self.book.locate(asked.account_id, asked.ticket)?;
        if self.book.trade(at)?.managed_by.is_empty() {
            let owner = self.first_owner(asked);
            self.grant(at, &owner, &Text::default(), GrantCause::Registered, now_ns)?;
        }
        self.watch(at, now_ns)?;
        self.leases.observe(mono_ns);
        Ok(self.step(true))
    }

    /// An adopted position has no owner (I23); a managed strategy belongs to Universal, the rest to
    /// DTMS. A manager that a kill switch stops owns nothing.
    fn first_owner(&self, asked: &Registration<'_>) -> Text {
        let stopped = self
            .book
            .kills
            .contains(&(crate::enums::KillScope::Manager, Text::from(UNIVERSAL)));
        match asked.origin {
            Origin::External => Text::default(),
            Origin::Client
                if !stopped && self.roster.managed_strategies.contains(asked.strategy_type) =>
            {
                Text::from(UNIVERSAL)
            }
            Origin::Client => self.dtms.clone(),
        }
    }

    fn check_registration(&self, index: usize, asked: &Registration<'_>) -> Result<Checked> {
        let symbol = &self.book.instrument(index)?.symbol;
        if asked.ticket == 0 {
            return Err(CoreError::field("ticket", "is 0"));
        }
        if asked.strategy_type.chars().count() > LONGEST_STRATEGY {
            return Err(CoreError::field(
                "strategy_type",
                "is longer than 64 characters",
            ));
        }
        if asked.opened_ns <= 0 {
            return Err(CoreError::field("opened_ns", "is not a time"));
        }
        // What the broker holds is so, whatever the rules say: an average price between two ticks, a stop
        // beyond the entry.
        let is_adopted = asked.origin == Origin::External;
        let exact = |field: &str, price: f64| {
            if is_adopted {
                symbol.nearest_price(field, price)
            } else {
                symbol.exact_price(field, price)
            }
        };
        let entry = exact("entry_price", asked.entry_price)?;
        let volume = symbol.exact_volume("volume", asked.volume)?;
        if !is_adopted && !(symbol.volume_min..=symbol.volume_max).contains(&volume) {
            return Err(CoreError::field(
                "volume",
                "is not between volume_min and volume_max",
            ));
        }
        let level = |field: &str, price: Option<f64>, ahead: i64| -> Result<Option<Points>> {
            let Some(price) = price else { return Ok(None) };
            let level = exact(field, price)?;
            if is_adopted || (level - entry).0 * ahead * asked.side.sign() > 0 {
                Ok(Some(level))
            } else {
                Err(CoreError::field(field, "is on the wrong side of the entry"))
            }
        };
        let (sl, tp) = (level("sl", asked.sl, -1)?, level("tp", asked.tp, 1)?);
        Ok(Checked {
            entry,
            volume,
            sl,
            tp,
        })
    }

    /// Whether the trade is one that was adopted, still open, and `asked` is its client's registration.
    fn is_adopted_so(
        &self,
        at: At,
        index: usize,
        asked: &Registration<'_>,
        checked: &Checked,
    ) -> Result<bool> {
        let trade = self.book.trade(at)?;
        Ok(trade.origin == Origin::External
            && asked.origin == Origin::Client
            && trade.state != TradeState::Closed
            && at.instrument == index
            && trade.side == asked.side
            && trade.entry == checked.entry
            && trade.initial_volume == checked.volume)
    }

    fn is_registered_so(
        &self,
        at: At,
        index: usize,
        asked: &Registration<'_>,
        checked: &Checked,
    ) -> Result<bool> {
        let trade = self.book.trade(at)?;
        Ok(at.instrument == index
            && trade.side == asked.side
            && trade.entry == checked.entry
            && trade.initial_volume == checked.volume
            && trade.initial_sl == checked.sl
            && trade.initial_tp == checked.tp
            && trade.strategy_type == *asked.strategy_type
            && trade.opened_ns == asked.opened_ns)
    }

    /// Forgets a trade; its position stays at the broker as it is.
    ///
    /// # Errors
    /// `TRADE_UNKNOWN`; `FIELD_INVALID` while DTMS has something to settle for it: a command at the
    /// broker, queued actions, or a leg that would be left without its trade.
    pub fn unregister(
        &mut self,
        account_id: &str,
        ticket: u64,
        by: &str,
        now_ns: i64,
    ) -> Result<Step<()>> {
        let at = self.book.locate(account_id, ticket)?;
        let trade = self.book.trade(at)?;
        let is_busy = trade.in_flight.is_some() || !trade.queue.is_empty();
        let has_legs = trade.hedge.is_some() || trade.readd.is_some() || !trade.strays.is_empty();
        if is_busy || has_legs {
            return Err(CoreError::field(
                "ticket",
                "has a command, action or leg that is not settled",
            ));
        }
        self.leases.drop(self.book.key(at)?);
        self.emit(
            About::Trade(at),
            now_ns,
            TradeUnregistered { by: Text::from(by) },
        )?;
        Ok(self.step(()))
    }
}
