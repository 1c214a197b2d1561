//! The book as bytes: magic, version, length, fields in order of definition, checksum.
//!
//! Markets, quotes and leases are not in it: they are fed again.
use crate::book::{Account, At, Book, Instrument, LostIntents, OpenIntent, key_part};
use crate::checksum::crc64;
use crate::codec::{Bytes, Cursor};
use crate::config::Config;
use crate::engine::Engine;
use crate::enums::{KillScope, TradeState, TradingState};
use crate::error::{CoreError, Result};
use crate::event::{Index, SymbolSpec};
use crate::guard::OutsideScore;
use crate::idempotency::Answer;
use crate::message::{Field, Malformed, Reader, Text, Writer};
use crate::messages;
use crate::rails::{Engaged, Mark, Rails, Stops};
use crate::rules::{Rules, RulesRecord};
use crate::symbol::Symbol;
use crate::trade::{TradeRecord, Watch};

const MAGIC: &[u8; 4] = b"DTMS";
/// Rises with every change of a message of the book. Another version is refused: the journal is
/// folded from its start instead.
const VERSION: u32 = 6;
/// Magic, version, checksum.
const HEADER: usize = 16;

messages! {
    Counters {
        revision: u64, last_epoch: u64, last_decision: u64, last_intent: u64, last_action: u64,
        trading: TradingState, lost_intents: Vec<LostIntents>,
    }
    Kill { scope: KillScope, value: Text }
    AccountRecord {
        id: Text, hedging: bool, currency: Text, day: Option<Mark>, hour: Option<Mark>, stops: Stops,
        rails: Vec<Engaged>,
    }
    InstrumentRecord {
        account: u64, spec: SymbolSpec, outside: Option<OutsideScore>, rails: Vec<Engaged>,
    }
}

impl Engine {
    /// The folded state as bytes. Two engines with equal state have equal bytes.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let mut body = Bytes::default();
        self.book().write(&mut body);
        let mut bytes = Vec::with_capacity(HEADER + body.0.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&crc64(&body.0).to_le_bytes());
        bytes.extend_from_slice(&body.0);
        bytes
    }

    /// Takes the state of a snapshot in place of its own.
    ///
    /// # Errors
    /// `FIELD_INVALID` (`snapshot`) when it is damaged or of another version; the engine is as before.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<()> {
        let damaged = |why: &str| CoreError::field("snapshot", why);
        let (magic, rest) = bytes
            .split_at_checked(4)
            .ok_or_else(|| damaged("is cut off"))?;
        let (version, rest) = rest
            .split_first_chunk::<4>()
            .ok_or_else(|| damaged("is cut off"))?;
        let (checksum, body) = rest
            .split_first_chunk::<8>()
            .ok_or_else(|| damaged("is cut off"))?;
        if magic != MAGIC {
            return Err(damaged("is no snapshot"));
        }
        if u32::from_le_bytes(*version) != VERSION {
            return Err(damaged("is of another version"));
        }
        if u64::from_le_bytes(*checksum) != crc64(body) {
            return Err(damaged("fails its checksum"));
        }
        let mut cursor = Cursor::new(body);
        let book = Book::read(&mut cursor, self.book().config.clone())?;
        if !cursor.is_at_end() {
            return Err(damaged("has bytes left over"));
        }
        self.replace_book(book)
    }
}

fn write_all<'a, T: Field + 'a>(values: impl ExactSizeIterator<Item = &'a T>, to: &mut Bytes) {
    to.open_list("", values.len());
    for value in values {
        value.write("", to);
    }
}

impl Book {
    fn write(&self, to: &mut Bytes) {
        Counters {
            revision: self.revision,
            last_epoch: self.last_epoch,
            last_decision: self.last_decision,
            last_intent: self.last_intent,
            last_action: self.last_action,
            trading: self.trading,
            lost_intents: self.lost_intents.clone(),
        }
        .write("counters", to);
        let kills: Vec<Kill> = self
            .kills
            .iter()
            .map(|(scope, value)| Kill {
                scope: *scope,
                value: value.clone(),
            })
            .collect();
        kills.write("kills", to);
        self.rules.records().write("rules", to);
        write_all(self.indices.values(), to);
        let record = |account: &Account| AccountRecord {
            id: account.id.clone(),
            hedging: account.hedging,
            currency: account.currency.clone(),
            day: account.day.clone(),
            hour: account.hour.clone(),
            stops: account.stops.clone(),
            rails: account.rails.engaged().to_vec(),
        };
        self.accounts
            .iter()
            .map(record)
            .collect::<Vec<_>>()
            .write("accounts", to);
        to.open_list("instruments", self.instruments.len());
        for instrument in &self.instruments {
            let account = instrument.account as u64;
            let (spec, outside) = (instrument.symbol.spec().clone(), instrument.outside.clone());
            InstrumentRecord {
                account,
                spec,
                outside,
                rails: instrument.rails.engaged().to_vec(),
            }
            .write("", to);
            write_all(instrument.trades.iter(), to);
        }
        write_all(self.intents.values(), to);
        write_all(self.abandoned.values(), to);
        let answers: Vec<&Answer> = self.answers.iter().collect();
        write_all(answers.into_iter(), to);
    }

    fn read(from: &mut Cursor<'_>, config: Config) -> Result<Self> {
        let mut book = Self::new(config);
        let counters = Counters::read("counters", from)?;
        book.revision = counters.revision;
        book.last_epoch = counters.last_epoch;
        book.last_decision = counters.last_decision;
        book.last_intent = counters.last_intent;
        book.lost_intents = counters.lost_intents;
        book.last_action = counters.last_action;
        book.trading = counters.trading;
        let kills = Vec::<Kill>::read("kills", from)?;
        book.kills = kills
            .into_iter()
            .map(|kill| (kill.scope, kill.value))
            .collect();
        let rules = Vec::<RulesRecord>::read("rules", from)?;
        book.rules = Rules::restored(&book.config, &rules)?;
        let indices = Vec::<Index>::read("indices", from)?;
        book.indices = indices
            .into_iter()
            .map(|index| (index.name.clone(), index))
            .collect();
        for account in Vec::<AccountRecord>::read("accounts", from)? {
            book.account_ids
                .insert(account.id.clone(), book.accounts.len());
            book.accounts.push(Account {
                day: account.day,
                hour: account.hour,
                stops: account.stops,
                rails: Rails::from(account.rails),
                ..Account::new(account.id, account.hedging, account.currency)
            });
        }
        for _ in 0..from.open_list("instruments")? {
            let record = InstrumentRecord::read("instrument", from)?;
            let trades = Vec::<TradeRecord>::read("trades", from)?;
            book.place(record, trades)?;
        }
        for open in Vec::<OpenIntent>::read("intents", from)? {
            book.intents.insert(open.intent.intent_id, open);
        }
        for open in Vec::<OpenIntent>::read("abandoned", from)? {
            book.abandoned.insert(open.intent.intent_id, open);
        }
        for answer in Vec::<Answer>::read("answers", from)? {
            book.answers.record(answer);
        }
        Ok(book)
    }

    fn place(&mut self, record: InstrumentRecord, trades: Vec<TradeRecord>) -> Result<()> {
        let unknown = || CoreError::from(Malformed::new("account", "of an instrument is unknown"));
        let account_index = usize::try_from(record.account).map_err(|_| unknown())?;
        let index = self.instruments.len();
        let account = self.accounts.get_mut(account_index).ok_or_else(unknown)?;
        account.symbols.insert(record.spec.symbol.clone(), index);
        let mut instrument =
            Instrument::new(account_index, Symbol::try_new(record.spec)?, &self.config);
        instrument.outside = record.outside;
        instrument.rails = Rails::from(record.rails);
        let key = key_part(account_index);
        for (slot, trade) in trades.iter().enumerate() {
            self.trades.insert(
                (key, trade.ticket),
                At {
                    instrument: index,
                    slot,
                },
            );
            self.positions.insert((key, trade.ticket), trade.ticket);
            for leg in [&trade.hedge, &trade.readd].into_iter().flatten() {
                self.positions.insert((key, leg.ticket), trade.ticket);
            }
            for stray in &trade.strays {
                self.positions.insert((key, stray.ticket), trade.ticket);
            }
            // What is due already shows with the first tick or time that comes.
            let watch = Watch::of(trade, self.rules.of(trade.rules), i64::MIN);
            instrument.earliest_ns = instrument.earliest_ns.min(watch.deadline_ns);
            instrument.watches.push(watch);
        }
        let is_open = |trade: &&TradeRecord| trade.state != TradeState::Closed;
        instrument.open = trades.iter().filter(is_open).count();
        account.open += instrument.open;
        instrument.trades = trades;
        self.instruments.push(instrument);
        Ok(())
    }
}
