//! The folded state: everything that follows from the events, and beside it each symbol's market.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use crate::config::Config;
use crate::enums::{KillScope, LegKind, Span, TradingState};
use crate::error::{CoreError, Reason, Result};
use crate::event::{AccountMarked, Index, IntentRecorded};
use crate::guard::OutsideScore;
use crate::idempotency::Answers;
use crate::market::{Market, MarketConfig};
use crate::message::Text;
use crate::messages;
use crate::ownership::Key;
use crate::plan::Quote;
use crate::rails::{Mark, News, Rails, Spreads, Stops};
use crate::rules::Rules;
use crate::symbol::Symbol;
use crate::trade::{TradeRecord, Watch};

/// Multiplicative hashing of small integer keys; deterministic, as everything here.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

pub type KeyMap<V> = HashMap<Key, V, BuildHasherDefault<KeyHasher>>;

/// Commands whose late execution would be recognised: a broker that loses more than so many at a time has
/// other troubles, and what it does late shows as a change by somebody else.
pub const ABANDONED_MAX: usize = 1_000;

/// Where a trade stands: instrument and slot. Valid until the next unregistration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    pub instrument: usize,
    pub slot: usize,
}

messages! {
    /// An intent without a final outcome, with the request that it answers. `is_explained`: what would prove
    /// that it was executed after all is known to be the work of somebody else.
    OpenIntent {
        account_id: Text, ticket: u64, symbol: Text, request_id: Text, is_unknown: bool,
        recorded_ns: i64, intent: IntentRecorded, is_explained: bool,
    }

    /// Numbers of intents that may have been given between a backup and its return, both included.
    LostIntents { first: u64, last: u64 }
}

#[derive(Clone, Debug)]
pub struct Account {
    pub id: Text,
    pub hedging: bool,
    pub currency: Text,
    pub(crate) symbols: BTreeMap<Text, usize>,
    /// Equity at the beginning of the day and of the hour; folded, as the rails and the stops.
    pub day: Option<Mark>,
    pub hour: Option<Mark>,
    pub stops: Stops,
    pub rails: Rails,
    /// Trades that are not closed.
    pub open: usize,
    pub seen: Option<Seen>,
}

/// The account figures that came last: not folded, they come again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    pub equity: f64,
    /// A trade was open.
    pub is_exposed: bool,
}

impl Account {
    /// Folds the beginning of a day or an hour.
    pub(crate) fn mark(&mut self, marked: &AccountMarked) {
        let mark = Mark {
            start_ns: marked.start_ns,
            equity: marked.equity,
        };
        match marked.span {
            Span::Day => self.day = Some(mark),
            Span::Hour => self.hour = Some(mark),
        }
    }

    #[must_use]
    pub fn new(id: Text, hedging: bool, currency: Text) -> Self {
        Self {
            id,
            hedging,
            currency,
            symbols: BTreeMap::new(),
            day: None,
            hour: None,
            stops: Stops {
                count: 0,
                day_ns: 0,
            },
            rails: Rails::default(),
            open: 0,
            seen: None,
        }
    }
}

/// One symbol of one account. `symbol`, `trades`, `outside` and `rails` are folded; the rest is what the
/// market says, and follows from ticks and bars.
#[derive(Clone, Debug)]
pub struct Instrument {
    pub account: usize,
    pub symbol: Symbol,
    pub trades: Vec<TradeRecord>,
    pub outside: Option<OutsideScore>,
    pub rails: Rails,
    /// Trades that are not closed.
    pub open: usize,
    pub spreads: Spreads,
    pub news: News,
    pub market: Market,
    pub quote: Option<Quote>,
    /// Time of the last accepted tick, as the caller gave it.
    pub quoted_at_ns: i64,
    pub stale_alarmed: bool,
    /// Event time of the last evaluation.
    pub evaluated_at_ns: i64,
    /// Beside `trades`, slot by slot.
    pub watches: Vec<Watch>,
    /// No deadline of a watch is earlier.
    pub earliest_ns: i64,
}

impl Instrument {
    #[must_use]
    pub fn new(account: usize, symbol: Symbol, config: &Config) -> Self {
        let market = Self::cold_market(&symbol, config);
        Self {
            account,
            symbol,
            trades: Vec::new(),
            outside: None,
            rails: Rails::default(),
            open: 0,
            spreads: Spreads::default(),
            news: News::default(),
            market,
            quote: None,
            quoted_at_ns: i64::MIN,
            stale_alarmed: false,
            evaluated_at_ns: i64::MIN,
            watches: Vec::new(),
            earliest_ns: i64::MAX,
        }
    }

    #[must_use]
    pub fn cold_market(symbol: &Symbol, config: &Config) -> Market {
        let seconds = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
        Market::new(MarketConfig {
            fast_s: seconds(config.fast_s),
            slow_s: seconds(config.slow_s),
            vwap_slope_threshold: symbol.spec().vwap_slope_threshold,
        })
    }

    #[must_use]
    pub fn name(&self) -> &Text {
        &self.symbol.spec().symbol
    }

    /// Looks at the trade in `slot` anew.
    pub fn rewatch(&mut self, slot: usize, rules: &Rules, now_ns: i64) {
        if let (Some(trade), Some(watch)) = (self.trades.get(slot), self.watches.get_mut(slot)) {
            *watch = Watch::of(trade, rules.of(trade.rules), now_ns);
            self.earliest_ns = self.earliest_ns.min(watch.deadline_ns);
        }
    }
}

/// State = fold of events. Maps are only looked up, never walked where order could show.
#[derive(Clone, Debug)]
pub struct Book {
    /// As given, not folded: what holds for all trades alike.
    pub config: Config,
    pub rules: Rules,
    pub revision: u64,
    pub last_epoch: u64,
    pub last_decision: u64,
    pub last_intent: u64,
    pub lost_intents: Vec<LostIntents>,
    pub last_action: u64,
    pub trading: TradingState,
    pub kills: BTreeSet<(KillScope, Text)>,
    /// The last report of each index, by name.
    pub indices: BTreeMap<Text, Index>,
    pub accounts: Vec<Account>,
    pub instruments: Vec<Instrument>,
    pub intents: BTreeMap<u64, OpenIntent>,
    /// Settled as not executed because the broker showed no trace of them, the newest of them.
    pub abandoned: BTreeMap<u64, OpenIntent>,
    pub answers: Answers,
    pub(crate) account_ids: BTreeMap<Text, usize>,
    pub(crate) trades: KeyMap<At>,
    /// Broker positions to the trade they belong to.
    pub(crate) positions: KeyMap<u64>,
}

impl Book {
    #[must_use]
    pub fn new(config: Config) -> Self {
        let kept = usize::try_from(config.request_ids_kept).unwrap_or(usize::MAX);
        Self {
            rules: Rules::new(config.clone()),
            config,
            revision: 0,
            last_epoch: 0,
            last_decision: 0,
            last_intent: 0,
            lost_intents: Vec::new(),
            last_action: 0,
            trading: TradingState::Active,
            kills: BTreeSet::new(),
            indices: BTreeMap::new(),
            accounts: Vec::new(),
            instruments: Vec::new(),
            intents: BTreeMap::new(),
            abandoned: BTreeMap::new(),
            answers: Answers::new(kept),
            account_ids: BTreeMap::new(),
            trades: KeyMap::default(),
            positions: KeyMap::default(),
        }
    }

    #[must_use]
    pub fn trade_count(&self) -> usize {
        self.trades.len()
    }

    /// # Errors
    /// `ACCOUNT_UNKNOWN`.
    pub fn account(&self, account_id: &str) -> Result<usize> {
        let unknown = || {
            CoreError::new(
                Reason::AccountUnknown,
                format!("account {account_id:?} is not defined"),
            )
        };
        self.account_ids
            .get(account_id)
            .copied()
            .ok_or_else(unknown)
    }

    /// # Errors
    /// `ACCOUNT_UNKNOWN` or `SYMBOL_UNKNOWN`.
    pub fn instrument_index(&self, account_id: &str, symbol: &str) -> Result<usize> {
        let account = self.account(account_id)?;
        self.accounts
            .get(account)
            .and_then(|account| account.symbols.get(symbol))
            .copied()
            .ok_or_else(|| {
                CoreError::new(
                    Reason::SymbolUnknown,
                    format!("symbol {symbol:?} is not defined on {account_id:?}"),
                )
            })
    }

    /// The trade, if it is registered.
    #[must_use]
    pub fn find(&self, account_id: &str, ticket: u64) -> Option<At> {
        let account = self.account_ids.get(account_id)?;
        self.trades.get(&(key_part(*account), ticket)).copied()
    }

    /// # Errors
    /// `TRADE_UNKNOWN`.
    pub fn locate(&self, account_id: &str, ticket: u64) -> Result<At> {
        self.find(account_id, ticket).ok_or_else(|| {
            CoreError::new(
                Reason::TradeUnknown,
                format!("trade {ticket} is not registered on {account_id:?}"),
            )
        })
    }

    /// The trade that a broker's position belongs to, and as which leg.
    #[must_use]
    pub fn leg_of(&self, account_id: &str, position: u64) -> Option<(At, LegKind)> {
        let account = self.account_ids.get(account_id)?;
        let ticket = self.positions.get(&(key_part(*account), position))?;
        let at = self.trades.get(&(key_part(*account), *ticket)).copied()?;
        let trade = self.instruments.get(at.instrument)?.trades.get(at.slot)?;
        trade
            .positions()
            .find(|(_, ticket)| *ticket == position)
            .map(|(leg, _)| (at, leg))
    }

    /// The trade that a broker's position belongs or belonged to.
    #[must_use]
    pub fn owner_of(&self, account_id: &str, position: u64) -> Option<u64> {
        let account = self.account_ids.get(account_id)?;
        self.positions.get(&(key_part(*account), position)).copied()
    }

    /// # Errors
    /// `CORE_PANIC`: a place that was valid has gone.
    pub fn instrument(&self, index: usize) -> Result<&Instrument> {
        self.instruments
            .get(index)
            .ok_or_else(|| CoreError::bug("no such instrument"))
    }

    /// # Errors
    /// As [`Self::instrument`].
    pub fn instrument_mut(&mut self, index: usize) -> Result<&mut Instrument> {
        self.instruments
            .get_mut(index)
            .ok_or_else(|| CoreError::bug("no such instrument"))
    }

    /// # Errors
    /// As [`Self::instrument`].
    pub fn trade(&self, at: At) -> Result<&TradeRecord> {
        let instrument = self.instrument(at.instrument)?;
        instrument
            .trades
            .get(at.slot)
            .ok_or_else(|| CoreError::bug("no such trade"))
    }

    /// # Errors
    /// As [`Self::instrument`].
    pub fn trade_mut(&mut self, at: At) -> Result<&mut TradeRecord> {
        let instrument = self.instrument_mut(at.instrument)?;
        instrument
            .trades
            .get_mut(at.slot)
            .ok_or_else(|| CoreError::bug("no such trade"))
    }

    /// # Errors
    /// As [`Self::instrument`].
    pub fn account_of(&self, instrument: usize) -> Result<&Account> {
        let index = self.instrument(instrument)?.account;
        self.accounts
            .get(index)
            .ok_or_else(|| CoreError::bug("no such account"))
    }

    /// # Errors
    /// `CORE_PANIC`: a place that was valid has gone.
    pub fn account_mut(&mut self, index: usize) -> Result<&mut Account> {
        self.accounts
            .get_mut(index)
            .ok_or_else(|| CoreError::bug("no such account"))
    }

    /// A trade of the instrument began or ended.
    pub(crate) fn count_open(&mut self, instrument: usize, is_begun: bool) -> Result<()> {
        let count = |open: &mut usize| {
            *open = if is_begun {
                *open + 1
            } else {
                open.saturating_sub(1)
            };
        };
        let of = self.instrument_mut(instrument)?;
        count(&mut of.open);
        let account = of.account;
        count(&mut self.account_mut(account)?.open);
        Ok(())
    }

    /// # Errors
    /// As [`Self::instrument`].
    pub fn key(&self, at: At) -> Result<Key> {
        Ok((
            key_part(self.instrument(at.instrument)?.account),
            self.trade(at)?.ticket,
        ))
    }

    #[must_use]
    pub fn at(&self, key: Key) -> Option<At> {
        self.trades.get(&key).copied()
    }
}

/// Accounts are numbered in order of definition; there are never 2^32 of them.
#[must_use]
pub fn key_part(account: usize) -> u32 {
    u32::try_from(account).unwrap_or(u32::MAX)
}
