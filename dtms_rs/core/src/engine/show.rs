//! What the engine can be asked. Nothing here changes anything.
use std::collections::BTreeMap;

use super::Engine;
use crate::book::{Account, At, OpenIntent};
use crate::enums::{KillScope, Rail, TradeState, TradingState};
use crate::error::Result;
use crate::event::{ConfirmedLevels, Index, Leg, Trade};
use crate::message::{Maybe, Text};
use crate::messages;
use crate::rails::Engaged;
use crate::symbol::{Points, Symbol};
use crate::trade::{LegRecord, StrayRecord};

messages! {
    /// The last price of a symbol and what managers need to compute R, in price units.
    QuoteView {
        bid: f64, ask: f64, spread_points: i64, atr_slow: Option<f64>, atr_fast: Option<f64>,
        time_msc: i64, swing_high: Option<f64>, swing_low: Option<f64>,
    }

    /// A rail that holds; without a symbol for all of the account.
    EngagedRail { account_id: Text, symbol: Text, rail: Rail, detail: Text }
}

/// The engine at a glance.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    pub revision: u64,
    pub trading_state: TradingState,
    pub kill_switches: Vec<(KillScope, Text)>,
    pub rails: Vec<EngagedRail>,
    pub trades_by_state: BTreeMap<TradeState, u64>,
    pub open_intents: u64,
}

impl Engine {
    /// A trade as it is shown; `None` when it is not registered.
    ///
    /// # Errors
    /// `CORE_PANIC` only.
    pub fn trade(&self, account_id: &str, ticket: u64) -> Result<Option<Trade>> {
        self.book
            .find(account_id, ticket)
            .map(|at| self.trade_at(at))
            .transpose()
    }

    fn trade_at(&self, at: At) -> Result<Trade> {
        let instrument = self.book.instrument(at.instrument)?;
        let symbol = &instrument.symbol;
        let trade = self.book.trade(at)?;
        let price = |points: Option<Points>| points.map(|points| symbol.price(points));
        Ok(Trade {
            account_id: self.book.account_of(at.instrument)?.id.clone(),
            ticket: trade.ticket,
            symbol: instrument.name().clone(),
            side: trade.side,
            entry_price: symbol.price(trade.entry),
            initial_volume: symbol.volume(trade.initial_volume),
            volume: symbol.volume(trade.volume),
            initial_sl: price(trade.initial_sl),
            initial_tp: price(trade.initial_tp),
            confirmed: ConfirmedLevels {
                sl: price(trade.sl),
                tp: price(trade.tp),
                confirmed_at_ns: trade.confirmed_at_ns,
                set_by_rank: trade.set_by_rank,
            },
            risk_distance: price(trade.risk),
            risk_source: trade.risk_source,
            state: trade.state,
            phase: trade.phase,
            state_since_ns: trade.state_since_ns,
            armed: trade.armed,
            breakeven_triggered: trade.breakeven_triggered,
            managed_by: trade.managed_by.clone(),
            owner_epoch: trade.owner_epoch,
            owner_rank: Maybe(self.roster.rank(trade.managed_by.as_str(), trade.state)),
            displaced_owner: trade.displaced.clone(),
            flat_timer_ends_ns: trade.flat_timer_ends_ns,
            recovery_timer_ends_ns: trade.recovery_timer_ends_ns,
            better_since_ns: trade.better_since_ns,
            partial_taken: trade.partial_taken,
            closed_volume: symbol.volume(trade.closed_volume + trade.hedge_reduction),
            hedge: trade.hedge.as_ref().map(|leg| leg_view(leg, symbol)),
            readd: trade.readd.as_ref().map(|leg| leg_view(leg, symbol)),
            strays: trade
                .strays
                .iter()
                .map(|stray| stray_view(stray, symbol))
                .collect(),
            strategy_type: trade.strategy_type.clone(),
            opened_ns: trade.opened_ns,
            registered_ns: trade.registered_ns,
            origin: trade.origin,
            last_score: trade.last_score.clone(),
            pending_actions: trade
                .current
                .iter()
                .chain(&trade.queue)
                .map(|queued| queued.action.clone())
                .collect(),
            managers: trade.managers.clone(),
            quarantined: trade.quarantined,
            close_price: trade.close_price,
            revision: trade.revision,
            risk_budget_r: trade.risk_budget_r,
            rules_revision: trade.rules,
        })
    }

    /// (account, ticket) of the registered trades in order of registration, closed ones included
    /// unless `open_only`.
    #[must_use]
    pub fn keys(&self, open_only: bool) -> Vec<(Text, u64)> {
        let mut listed = Vec::with_capacity(if open_only { 0 } else { self.trade_count() });
        for instrument in &self.book.instruments {
            let Some(account) = self.book.accounts.get(instrument.account) else {
                continue;
            };
            for trade in &instrument.trades {
                if !(open_only && trade.state == TradeState::Closed) {
                    listed.push((trade.registered_revision, account.id.clone(), trade.ticket));
                }
            }
        }
        listed.sort_unstable_by_key(|(revision, _, _)| *revision);
        listed
            .into_iter()
            .map(|(_, account_id, ticket)| (account_id, ticket))
            .collect()
    }

    /// Intents without a final outcome, oldest first.
    pub fn open_intents(&self) -> impl Iterator<Item = &OpenIntent> {
        self.book.intents.values()
    }

    /// Intents that the broker showed no trace of and that were settled as not executed, oldest first: one of
    /// them may yet turn out to have been executed late, see [`Engine::on_outcome`]. Changes of a level that
    /// somebody else has set to the same price since are not among them.
    pub fn abandoned(&self) -> impl Iterator<Item = &OpenIntent> {
        let abandoned = self.book.abandoned.values();
        abandoned.filter(|open| !open.is_explained)
    }

    /// The last report of each index, by name.
    pub fn indices(&self) -> impl Iterator<Item = &Index> {
        self.book.indices.values()
    }

    /// # Errors
    /// `ACCOUNT_UNKNOWN`, `SYMBOL_UNKNOWN`.
    pub fn quote(&self, account_id: &str, symbol: &str) -> Result<Option<QuoteView>> {
        let index = self.book.instrument_index(account_id, symbol)?;
        let instrument = self.book.instrument(index)?;
        let reading = instrument.market.reading();
        Ok(instrument.quote.map(|quote| QuoteView {
            bid: instrument.symbol.price(quote.bid),
            ask: instrument.symbol.price(quote.ask),
            spread_points: (quote.ask - quote.bid).0,
            atr_slow: reading.atr_slow,
            atr_fast: reading.atr_fast,
            time_msc: quote.time_msc,
            swing_high: reading.swing_high,
            swing_low: reading.swing_low,
        }))
    }

    #[must_use]
    pub fn status(&self) -> Status {
        let mut trades_by_state: BTreeMap<TradeState, u64> = BTreeMap::new();
        for trade in self
            .book
            .instruments
            .iter()
            .flat_map(|instrument| &instrument.trades)
        {
            *trades_by_state.entry(trade.state).or_default() += 1;
        }
        Status {
            revision: self.book.revision,
            trading_state: self.book.trading,
            kill_switches: self.book.kills.iter().cloned().collect(),
            rails: self.engaged_rails(),
            trades_by_state,
            open_intents: self.book.intents.len() as u64,
        }
    }

    /// Every rail that holds: those of accounts, then those of symbols, in order of definition.
    fn engaged_rails(&self) -> Vec<EngagedRail> {
        let shown = |account: &Account, symbol: Text, engaged: &Engaged| EngagedRail {
            account_id: account.id.clone(),
            symbol,
            rail: engaged.rail,
            detail: engaged.detail.clone(),
        };
        let mut listed = Vec::new();
        for account in &self.book.accounts {
            let of = account.rails.engaged().iter();
            listed.extend(of.map(|engaged| shown(account, Text::default(), engaged)));
        }
        for instrument in &self.book.instruments {
            let Some(account) = self.book.accounts.get(instrument.account) else {
                continue;
            };
            let of = instrument.rails.engaged().iter();
            listed.extend(of.map(|engaged| shown(account, instrument.name().clone(), engaged)));
        }
        listed
    }

    /// (ticket, position) of every position that is open as far as the engine knows: the trades and
    /// their legs, in order of registration.
    ///
    /// # Errors
    /// `ACCOUNT_UNKNOWN`.
    pub fn open_positions(&self, account_id: &str) -> Result<Vec<(u64, u64)>> {
        let account = self.book.account(account_id)?;
        let mut listed = Vec::new();
        for instrument in self
            .book
            .instruments
            .iter()
            .filter(|instrument| instrument.account == account)
        {
            for trade in &instrument.trades {
                listed.extend(
                    trade
                        .positions()
                        .map(|(_, position)| (trade.registered_revision, trade.ticket, position)),
                );
            }
        }
        listed.sort_by_key(|(revision, _, _)| *revision);
        Ok(listed
            .into_iter()
            .map(|(_, ticket, position)| (ticket, position))
            .collect())
    }

    /// Whether a trade of the account is open.
    ///
    /// # Errors
    /// `ACCOUNT_UNKNOWN`.
    pub fn is_exposed(&self, account_id: &str) -> Result<bool> {
        let index = self.book.account(account_id)?;
        let account = self.book.accounts.get(index);
        Ok(account.is_some_and(|account| account.open > 0))
    }

    /// The ticket of the trade to which a broker's position belongs, as main position or as leg.
    #[must_use]
    pub fn position_owner(&self, account_id: &str, position: u64) -> Option<u64> {
        self.book.owner_of(account_id, position)
    }
}

fn stray_view(stray: &StrayRecord, symbol: &Symbol) -> Leg {
    Leg {
        ticket: stray.ticket,
        volume: symbol.volume(stray.volume),
        entry_price: symbol.price(stray.entry),
        sl: None,
    }
}

fn leg_view(leg: &LegRecord, symbol: &Symbol) -> Leg {
    Leg {
        ticket: leg.ticket,
        volume: symbol.volume(leg.volume),
        entry_price: symbol.price(leg.entry),
        sl: leg.sl.map(|sl| symbol.price(sl)),
    }
}
