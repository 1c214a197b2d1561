//! The engine: commands in, events out. The only mutable root.
//!
//! Every public method decides, folds each event in at once and returns the events. State is the
//! fold of the events; markets, quotes and leases stand beside it and follow from what is fed in.
mod course;
mod outcomes;
mod owners;
mod positions;
mod proposals;
mod queue;
mod rails;
mod reconfiguration;
mod registry;
mod show;
mod switches;
mod ticks;

use std::collections::{BTreeMap, BTreeSet};

pub use owners::Claim;
pub use proposals::{Proposal, Reply};
pub use registry::Registration;
pub use show::{QuoteView, Status};
pub use switches::PARTS;
pub use ticks::TickBatch;

use crate::arbiter::{Asker, DTMS};
use crate::book::{At, Book};
use crate::config::Config;
use crate::enums::{Rank, TradeState};
use crate::error::{CoreError, Result};
use crate::event::{Body, Event, StateChanged};
use crate::message::{Maybe, Number, Text};
use crate::ownership::Leases;
use crate::plan::Scene;
use crate::symbol::Points;
use crate::wire;

/// What one call brought about.
#[derive(Clone, Debug, PartialEq)]
pub struct Step<R> {
    pub events: Vec<Event>,
    pub reply: R,
}

/// Who the managers are: ranks by name, and the strategy types that belong to the Universal Manager.
#[derive(Clone, Debug, Default)]
struct Roster {
    ranks: BTreeMap<Text, Rank>,
    managed_strategies: BTreeSet<Text>,
}

impl Roster {
    fn try_new(managers: &[(&str, i64)], managed_strategies: &[&str]) -> Result<Self> {
        let mut roster = Self::default();
        for (name, number) in managers {
            let rank = Rank::from_number(*number);
            let is_managers = matches!(rank, Some(Rank::Strategy | Rank::ProfitProtection));
            match rank {
                Some(rank) if is_managers || *name == DTMS => {
                    roster.ranks.insert(Text::from(*name), rank)
                }
                Some(_) | None => {
                    return Err(CoreError::field(
                        name,
                        "has no rank that a manager may have",
                    ));
                }
            };
        }
        roster.managed_strategies = managed_strategies
            .iter()
            .map(|name| Text::from(*name))
            .collect();
        Ok(roster)
    }

    /// Rank of `name` on a trade in `state`; nobody has none. Custom managers are the lowest.
    fn rank(&self, name: &str, state: TradeState) -> Option<Rank> {
        if name.is_empty() {
            return None;
        }
        if name == DTMS {
            return Some(if state.is_defensive() {
                Rank::DtmsDefensive
            } else {
                Rank::DtmsNormal
            });
        }
        Some(
            self.ranks
                .get(name)
                .copied()
                .unwrap_or(Rank::ProfitProtection),
        )
    }
}

/// What an event is about.
#[derive(Clone, Copy, Debug)]
enum About<'a> {
    Trade(At),
    Instrument(usize),
    Account(&'a str),
    /// A trade that is not registered.
    Unknown(&'a str, u64),
    Service,
}

/// The decider. Not for concurrent use: one writer.
#[derive(Clone, Debug)]
pub struct Engine {
    book: Book,
    roster: Roster,
    leases: Leases,
    dtms: Text,
    out: Vec<Event>,
    due: Vec<usize>,
}

impl Engine {
    /// # Errors
    /// `FIELD_INVALID` names a configuration key or manager that cannot be used.
    pub fn try_new(
        config: &[(&str, f64)],
        managers: &[(&str, i64)],
        managed_strategies: &[&str],
    ) -> Result<Self> {
        let config = Config::try_new(config)?;
        Ok(Self {
            leases: Leases::new(config.lease_ttl_ms),
            book: Book::new(config),
            roster: Roster::try_new(managers, managed_strategies)?,
            dtms: Text::from(DTMS),
            out: Vec::new(),
            due: Vec::new(),
        })
    }

    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.book.revision
    }

    #[must_use]
    pub fn trade_count(&self) -> usize {
        self.book.trade_count()
    }

    /// Folds a recorded event in: recovery and replay.
    ///
    /// # Errors
    /// `FUTURE_REVISION` when events before it are missing; anything else means that the events and
    /// this version of the engine contradict each other, and the engine must not be used any more.
    pub fn apply(&mut self, event: &Event) -> Result<()> {
        self.book.evolve(event)?;
        if let Some(at) = self.book.find(event.account_id.as_str(), event.ticket) {
            self.watch(at, event.time_ns)?;
            if let Body::OwnershipGranted(_) = event.body {
                self.lease_to_owner(at)?;
            }
        }
        Ok(())
    }

    /// Folds encoded events in, in order; the places of those that record a decision.
    ///
    /// # Errors
    /// As [`Self::apply`]; `FIELD_INVALID` for what is no event of this version. Those before it are
    /// folded in then.
    pub fn fold<'a>(&mut self, bodies: impl Iterator<Item = &'a [u8]>) -> Result<Vec<usize>> {
        let mut decisions = Vec::new();
        for (place, body) in bodies.enumerate() {
            let event = wire::event(body)?;
            self.apply(&event)?;
            if let Body::DecisionMade(_) = event.body {
                decisions.push(place);
            }
        }
        Ok(decisions)
    }

    pub(crate) const fn book(&self) -> &Book {
        &self.book
    }

    pub(crate) fn replace_book(&mut self, book: Book) -> Result<()> {
        self.book = book;
        self.leases.clear();
        for at in self.every_trade() {
            self.lease_to_owner(at)?;
        }
        Ok(())
    }

    fn step<R>(&mut self, reply: R) -> Step<R> {
        Step {
            events: std::mem::take(&mut self.out),
            reply,
        }
    }

    /// Records a fact: builds the event, folds it in, and keeps it for the caller.
    fn emit(&mut self, about: About<'_>, now_ns: i64, body: impl Into<Body>) -> Result<()> {
        let body = body.into();
        let (account_id, ticket, symbol, state) = match about {
            About::Trade(at) => {
                let trade = self.book.trade(at)?;
                let state = if let Body::StateChanged(StateChanged { to, .. }) = &body {
                    *to
                } else {
                    trade.state
                };
                let (ticket, symbol) = (
                    trade.ticket,
                    self.book.instrument(at.instrument)?.name().clone(),
                );
                (
                    self.book.account_of(at.instrument)?.id.clone(),
                    ticket,
                    symbol,
                    Some(state),
                )
            }
            About::Instrument(index) => {
                let symbol = self.book.instrument(index)?.name().clone();
                (self.book.account_of(index)?.id.clone(), 0, symbol, None)
            }
            About::Account(id) => (Text::from(id), 0, Text::default(), None),
            About::Unknown(id, ticket) => (Text::from(id), ticket, Text::default(), None),
            About::Service => (Text::default(), 0, Text::default(), None),
        };
        let revision = self.book.revision + 1;
        self.record(Event {
            revision,
            time_ns: now_ns,
            account_id,
            ticket,
            symbol,
            state: Maybe(state),
            body,
        })
    }

    fn record(&mut self, event: Event) -> Result<()> {
        self.book.evolve(&event)?;
        self.out.push(event);
        Ok(())
    }

    fn watch(&mut self, at: At, now_ns: i64) -> Result<()> {
        let Book {
            rules, instruments, ..
        } = &mut self.book;
        let instrument = instruments
            .get_mut(at.instrument)
            .ok_or_else(|| CoreError::bug("no such instrument"))?;
        instrument.rewatch(at.slot, rules, now_ns);
        Ok(())
    }

    fn asker(&self, at: At, name: &str) -> Result<Asker> {
        let trade = self.book.trade(at)?;
        let rank = self
            .roster
            .rank(name, trade.state)
            .unwrap_or(Rank::ProfitProtection);
        Ok(Asker {
            rank,
            is_dtms: name == DTMS,
            is_owner: trade.managed_by == *name,
            owner_rank: self.roster.rank(trade.managed_by.as_str(), trade.state),
        })
    }

    /// The numbers that the trade keeps.
    fn rules(&self, at: At) -> Result<&Config> {
        Ok(self.book.rules.of(self.book.trade(at)?.rules))
    }

    fn scene(&self, at: At) -> Result<Scene<'_>> {
        let hedging = self.book.account_of(at.instrument)?.hedging;
        let instrument = self.book.instrument(at.instrument)?;
        let reading = instrument.market.reading();
        let swing = |price: Option<f64>| {
            price.and_then(|price| instrument.symbol.nearest_price("swing", price).ok())
        };
        Ok(Scene {
            symbol: &instrument.symbol,
            rules: self.rules(at)?,
            hedging,
            quote: instrument.quote,
            atr: reading
                .atr_slow
                .and_then(|atr| instrument.symbol.distance(atr)),
            swing_low: swing(reading.swing_low),
            swing_high: swing(reading.swing_high),
        })
    }

    fn quoted(&self, instrument: usize) -> Result<(Option<f64>, Option<f64>)> {
        let instrument = self.book.instrument(instrument)?;
        let price = |points: Points| instrument.symbol.price(points);
        Ok((
            instrument.quote.map(|quote| price(quote.bid)),
            instrument.quote.map(|quote| price(quote.ask)),
        ))
    }
}
