//! Safety rails: account figures, spreads, news and silence become edges of rails.
use super::{About, Engine, Step};
use crate::arbiter::Halt;
use crate::book::{At, Book, Seen};
use crate::config::NS_PER_S;
use crate::enums::{Rail, Span};
use crate::error::{CoreError, Result};
use crate::event::{AccountMarked, RailChanged};
use crate::message::Text;
use crate::rails::{Blackout, DAY_NS, Engaged, HOUR_NS, News, short, span_start, spoken};

/// Longest label of a blackout: it is stored with every edge of the rail.
const LONGEST_LABEL: usize = 200;

impl Engine {
    /// Takes the account's equity, in its currency. While a trade is open it marks the beginning of UTC
    /// days and hours, and trips the loss rails.
    ///
    /// # Errors
    /// `ACCOUNT_UNKNOWN`; `FIELD_INVALID` for an equity that is no number.
    pub fn on_account(&mut self, account_id: &str, equity: f64, now_ns: i64) -> Result<Step<()>> {
        let index = self.book.account(account_id)?;
        if !equity.is_finite() {
            return Err(CoreError::field("equity", "is not finite"));
        }
        self.end_spans(index, now_ns)?;
        let account = self.book.account_mut(index)?;
        let is_exposed = account.open > 0;
        // What stood open over the beginning of a span: the last figure before it is that of the beginning.
        let before = account.seen.filter(|seen| seen.is_exposed);
        account.seen = Some(Seen { equity, is_exposed });
        if is_exposed || before.is_some() {
            let at_start = before.map_or(equity, |seen| seen.equity);
            self.mark(index, Span::Day, at_start, now_ns)?;
            self.mark(index, Span::Hour, at_start, now_ns)?;
        }
        self.note_loss(index, Span::Day, equity, now_ns)?;
        self.note_loss(index, Span::Hour, equity, now_ns)?;
        Ok(self.step(()))
    }

    /// The last figure that was taken before, and whether a trade was open then; nothing is recorded.
    ///
    /// # Errors
    /// As [`Self::on_account`].
    pub fn recall_account(
        &mut self,
        account_id: &str,
        equity: f64,
        is_exposed: bool,
    ) -> Result<()> {
        let index = self.book.account(account_id)?;
        if !equity.is_finite() {
            return Err(CoreError::field("equity", "is not finite"));
        }
        self.book.account_mut(index)?.seen = Some(Seen { equity, is_exposed });
        Ok(())
    }

    /// Sets the times in which news may move the symbol, in place of those before.
    ///
    /// # Errors
    /// `ACCOUNT_UNKNOWN`, `SYMBOL_UNKNOWN`; `FIELD_INVALID` for a time that ends before it begins, or a
    /// label that is too long.
    pub fn set_news(
        &mut self,
        account_id: &str,
        symbol: &str,
        blackouts: Vec<Blackout>,
        now_ns: i64,
    ) -> Result<Step<()>> {
        let index = self.book.instrument_index(account_id, symbol)?;
        for blackout in &blackouts {
            if blackout.end_ns < blackout.start_ns {
                return Err(CoreError::field("end_ns", "lies before start_ns"));
            }
            if blackout.label.as_str().chars().count() > LONGEST_LABEL {
                return Err(CoreError::field("label", "is longer than 200 characters"));
            }
        }
        self.book.instrument_mut(index)?.news = News::new(blackouts);
        self.look_at_market(index, now_ns)?;
        Ok(self.step(()))
    }

    /// The rails that hold for a trade, those of its account first.
    pub(super) fn rails_of(&self, at: At) -> Result<impl Iterator<Item = &Engaged>> {
        let account = self.book.account_of(at.instrument)?;
        let instrument = self.book.instrument(at.instrument)?;
        Ok(account
            .rails
            .engaged()
            .iter()
            .chain(instrument.rails.engaged().iter()))
    }

    /// In words what `halt` is; empty for none.
    pub(super) fn halted_by(&self, at: At, manager: &str, halt: Option<Halt>) -> Result<Text> {
        let words = match halt {
            None => String::new(),
            Some(Halt::Quarantined) => "quarantined: not found at the broker".to_owned(),
            Some(Halt::Trading) => format!("trading state {}", spoken(self.book.trading)),
            Some(Halt::Killed) => {
                let switch = self.kill_of(at, manager)?;
                switch.map_or_else(String::new, |(scope, value)| {
                    let scope = spoken(scope).to_lowercase();
                    format!("kill switch {scope} {}", value.as_str())
                })
            }
            Some(Halt::Railed) => self
                .rails_of(at)?
                .next()
                .map_or_else(String::new, |engaged| {
                    format!("rail {} {}", spoken(engaged.rail), engaged.detail.as_str())
                }),
        };
        Ok(Text::from(words.as_str()))
    }

    fn mark(&mut self, index: usize, span: Span, equity: f64, now_ns: i64) -> Result<()> {
        let account = self.book.account_mut(index)?;
        let (mark, length_ns) = match span {
            Span::Day => (account.day.as_ref(), DAY_NS),
            Span::Hour => (account.hour.as_ref(), HOUR_NS),
        };
        let start_ns = span_start(now_ns, length_ns);
        // Of nothing or of debts there is no share.
        if equity <= 0.0 || mark.is_some_and(|mark| mark.start_ns >= start_ns) {
            return Ok(());
        }
        let id = account.id.clone();
        let marked = AccountMarked {
            span,
            start_ns,
            equity,
        };
        self.emit(About::Account(id.as_str()), now_ns, marked)
    }

    fn note_loss(&mut self, index: usize, span: Span, equity: f64, now_ns: i64) -> Result<()> {
        let config = &self.book.config;
        let (rail, limit, length_ns) = match span {
            Span::Day => (Rail::DailyLoss, config.daily_loss_percent, DAY_NS),
            Span::Hour => (Rail::HourlyLoss, config.hourly_loss_percent, HOUR_NS),
        };
        let account = self.book.account_mut(index)?;
        let mark = match span {
            Span::Day => account.day.as_ref(),
            Span::Hour => account.hour.as_ref(),
        };
        let start_ns = span_start(now_ns, length_ns);
        let Some(mark) = mark.filter(|mark| mark.start_ns == start_ns) else {
            return Ok(());
        };
        let loss = mark.loss_percent(equity);
        if limit == 0.0 || loss < limit || account.rails.holds(rail) {
            return Ok(());
        }
        let detail = format!("{} % of {} %", short(loss), short(limit));
        self.account_rail(index, engaged(rail, loss, limit, &detail), now_ns)
    }

    /// Counts what was just folded: the main position of a trade is closed.
    pub(super) fn note_stops(&mut self, at: At, now_ns: i64) -> Result<()> {
        let index = self.book.instrument(at.instrument)?.account;
        let limit = self.book.config.consecutive_stops;
        let account = self.book.account_mut(index)?;
        let count = i64::from(account.stops.count);
        let holds = account.rails.holds(Rail::ConsecutiveStops);
        let is_tripped = limit > 0 && count >= limit;
        if holds == is_tripped {
            return Ok(());
        }
        let (value, limit) = (real(count), real(limit));
        let detail = if is_tripped {
            format!("{count} of {limit} stops in a row")
        } else {
            "a trade ended otherwise".to_owned()
        };
        let changed = RailChanged {
            engaged: is_tripped,
            ..engaged(Rail::ConsecutiveStops, value, limit, &detail)
        };
        self.account_rail(index, changed, now_ns)
    }

    /// Releases the account's rails whose day or hour is over, or that are switched off.
    pub(super) fn end_spans(&mut self, index: usize, now_ns: i64) -> Result<()> {
        if self.book.account_mut(index)?.rails.is_empty() {
            return Ok(());
        }
        let config = &self.book.config;
        let off = [
            (Rail::DailyLoss, config.daily_loss_percent == 0.0),
            (Rail::HourlyLoss, config.hourly_loss_percent == 0.0),
            (Rail::ConsecutiveStops, config.consecutive_stops == 0),
        ];
        let account = self.book.account_mut(index)?;
        let begins = |mark: &Option<crate::rails::Mark>| mark.as_ref().map(|mark| mark.start_ns);
        let (day_ns, hour_ns) = (span_start(now_ns, DAY_NS), span_start(now_ns, HOUR_NS));
        let over = [
            (
                begins(&account.day).is_none_or(|start| start < day_ns),
                "a new day",
            ),
            (
                begins(&account.hour).is_none_or(|start| start < hour_ns),
                "a new hour",
            ),
            (account.stops.day_ns < day_ns, "a new day"),
        ];
        let mut released = Vec::new();
        for ((rail, is_off), (is_over, why)) in off.into_iter().zip(over) {
            let Some(limit) = account.rails.get(rail).map(|engaged| engaged.limit) else {
                continue;
            };
            if is_off || is_over {
                let why = if is_off { "switched off" } else { why };
                released.push(freed(rail, 0.0, limit, why));
            }
        }
        for changed in released {
            self.account_rail(index, changed, now_ns)?;
        }
        Ok(())
    }

    /// What a new price says about the rails of its symbol; next to nothing on a quiet tick.
    pub(super) fn look_at_quote(&mut self, index: usize, now_ns: i64) -> Result<()> {
        self.note_spread(index, now_ns)?;
        let instrument = self.book.instrument_mut(index)?;
        if instrument.rails.holds(Rail::StaleData) {
            let limit = real(self.book.config.stale_after_s);
            let changed = freed(Rail::StaleData, 0.0, limit, "a price came");
            self.emit(About::Instrument(index), now_ns, changed)?;
        }
        self.look_at_market(index, now_ns)
    }

    /// Takes the spread of the last price.
    pub(super) fn note_spread(&mut self, index: usize, now_ns: i64) -> Result<()> {
        let factor = self.book.config.spread_factor;
        let instrument = self.book.instrument_mut(index)?;
        if let Some(quote) = instrument.quote {
            let spread = (quote.ask - quote.bid).0;
            instrument.spreads.take(spread, factor, now_ns);
        }
        Ok(())
    }

    /// Spread and news, as they stand at `now_ns`. A rail is engaged for a symbol with open trades only.
    pub(super) fn look_at_market(&mut self, index: usize, now_ns: i64) -> Result<()> {
        let Book {
            config,
            instruments,
            ..
        } = &mut self.book;
        let instrument = instruments
            .get_mut(index)
            .ok_or_else(|| CoreError::bug("no such instrument"))?;
        let news = instrument.news.at(now_ns);
        let wide = instrument.spreads.wide();
        if news.is_none() && wide.is_none() && instrument.rails.is_empty() {
            return Ok(());
        }
        let may_engage = instrument.open > 0;
        let is_off = config.spread_factor == 0.0;
        let spread = match (instrument.rails.get(Rail::Spread), wide) {
            (None, Some((spread, limit))) if may_engage => {
                let detail = format!("{spread} points of {} points", short(limit));
                Some(engaged(Rail::Spread, real(spread), limit, &detail))
            }
            (Some(held), _) if is_off => Some(freed(Rail::Spread, 0.0, held.limit, "switched off")),
            (Some(held), None) if instrument.spreads.is_calm(now_ns) => {
                let last = instrument
                    .quote
                    .map_or(0, |quote| (quote.ask - quote.bid).0);
                Some(freed(
                    Rail::Spread,
                    real(last),
                    held.limit,
                    "the spread is normal",
                ))
            }
            (None | Some(_), _) => None,
        };
        let news = match (instrument.rails.get(Rail::News), news) {
            (None, Some(blackout)) if may_engage => {
                let left = real((blackout.end_ns - now_ns) / NS_PER_S);
                Some(engaged(Rail::News, left, 0.0, blackout.label.as_str()))
            }
            (Some(_), None) => Some(freed(Rail::News, 0.0, 0.0, "the blackout is over")),
            (None | Some(_), _) => None,
        };
        for changed in spread.into_iter().chain(news) {
            self.emit(About::Instrument(index), now_ns, changed)?;
        }
        Ok(())
    }

    pub(super) fn engage_stale(
        &mut self,
        index: usize,
        silence_ns: i64,
        detail: Text,
        now_ns: i64,
    ) -> Result<()> {
        if self.book.instrument(index)?.rails.holds(Rail::StaleData) {
            return Ok(());
        }
        let changed = RailChanged {
            rail: Rail::StaleData,
            engaged: true,
            value: real(silence_ns / NS_PER_S),
            limit: real(self.book.config.stale_after_s),
            detail,
        };
        self.emit(About::Instrument(index), now_ns, changed)
    }

    fn account_rail(&mut self, index: usize, changed: RailChanged, now_ns: i64) -> Result<()> {
        let id = self.book.account_mut(index)?.id.clone();
        self.emit(About::Account(id.as_str()), now_ns, changed)
    }
}

fn engaged(rail: Rail, value: f64, limit: f64, detail: &str) -> RailChanged {
    RailChanged {
        rail,
        engaged: true,
        value,
        limit,
        detail: Text::from(detail),
    }
}

fn freed(rail: Rail, value: f64, limit: f64, why: &str) -> RailChanged {
    RailChanged {
        engaged: false,
        ..engaged(rail, value, limit, why)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts, seconds and points are far below 2^53"
)]
fn real(number: i64) -> f64 {
    number as f64
}
