//! Prices and time: what makes trades due.
use super::{About, Engine, Step};
use crate::book::{At, Book, Instrument};
use crate::config::NS_PER_S;
use crate::enums::{AlarmCode, Side};
use crate::error::{CoreError, Result};
use crate::event::AlarmRaised;
use crate::market::Bar;
use crate::message::Text;
use crate::plan::Quote;

/// Ticks side by side; all four have one length.
#[derive(Clone, Copy, Debug)]
pub struct TickBatch<'a> {
    pub time_msc: &'a [i64],
    pub bid: &'a [f64],
    pub ask: &'a [f64],
    pub volume: &'a [f64],
}

impl Engine {
    /// Takes a tick: market, then every trade of the symbol for which it means something. A tick
    /// older than the last one changes nothing, as a late bar does.
    ///
    /// # Errors
    /// `ACCOUNT_UNKNOWN`, `SYMBOL_UNKNOWN`; `FIELD_INVALID` names a price or volume that is none.
    #[expect(clippy::too_many_arguments, reason = "a tick is these numbers")]
    pub fn on_tick(
        &mut self,
        account_id: &str,
        symbol: &str,
        time_msc: i64,
        bid: f64,
        ask: f64,
        volume: f64,
        now_ns: i64,
    ) -> Result<Step<()>> {
        let index = self.book.instrument_index(account_id, symbol)?;
        self.take_tick(index, time_msc, bid, ask, volume, now_ns)?;
        Ok(self.step(()))
    }

    /// Takes a tick that was decided on before, for what stands beside the folded events: market, quote
    /// and spread. No trade is judged by it and nothing is recorded.
    ///
    /// # Errors
    /// As [`Self::on_tick`].
    #[expect(clippy::too_many_arguments, reason = "a tick is these numbers")]
    pub fn recall_tick(
        &mut self,
        account_id: &str,
        symbol: &str,
        time_msc: i64,
        bid: f64,
        ask: f64,
        volume: f64,
        now_ns: i64,
    ) -> Result<()> {
        let index = self.book.instrument_index(account_id, symbol)?;
        if !self.note_tick(index, time_msc, bid, ask, volume, now_ns)? {
            return Ok(());
        }
        self.note_spread(index, now_ns)?;
        self.book.instrument_mut(index)?.evaluated_at_ns = now_ns;
        Ok(())
    }

    /// Takes ticks until one makes events; the reply is the number taken.
    ///
    /// # Errors
    /// As [`Self::on_tick`], also for columns of different lengths. A bad tick after good ones ends
    /// the batch before it; it is refused when it comes first.
    pub fn on_ticks(
        &mut self,
        account_id: &str,
        symbol: &str,
        batch: TickBatch<'_>,
        now_ns: i64,
    ) -> Result<Step<usize>> {
        let index = self.book.instrument_index(account_id, symbol)?;
        let lengths = [batch.bid.len(), batch.ask.len(), batch.volume.len()];
        if lengths.iter().any(|length| *length != batch.time_msc.len()) {
            return Err(CoreError::field(
                "time_msc",
                "differs in length from bid, ask or volume",
            ));
        }
        let prices = batch.bid.iter().zip(batch.ask).zip(batch.volume);
        let mut taken = 0;
        for (time_msc, ((bid, ask), volume)) in batch.time_msc.iter().zip(prices) {
            match self.take_tick(index, *time_msc, *bid, *ask, *volume, now_ns) {
                Err(error) if taken == 0 || !self.out.is_empty() => return Err(error),
                Err(_) => break,
                Ok(()) => taken += 1,
            }
            if !self.out.is_empty() {
                break;
            }
        }
        Ok(self.step(taken))
    }

    fn take_tick(
        &mut self,
        index: usize,
        time_msc: i64,
        bid: f64,
        ask: f64,
        volume: f64,
        now_ns: i64,
    ) -> Result<()> {
        if !self.note_tick(index, time_msc, bid, ask, volume, now_ns)? {
            return Ok(());
        }
        self.look_at_quote(index, now_ns)?;
        self.evaluate_attentive(index, now_ns, true)
    }

    /// Takes the price into the market; false for one older than the last.
    fn note_tick(
        &mut self,
        index: usize,
        time_msc: i64,
        bid: f64,
        ask: f64,
        volume: f64,
        now_ns: i64,
    ) -> Result<bool> {
        let instrument = self.book.instrument_mut(index)?;
        let quote = Quote {
            bid: instrument.symbol.nearest_price("bid", bid)?,
            ask: instrument.symbol.nearest_price("ask", ask)?,
            time_msc,
        };
        if quote.ask < quote.bid {
            return Err(CoreError::field("ask", "is below bid"));
        }
        if !(volume.is_finite() && volume >= 0.0) {
            return Err(CoreError::field("volume", "is not a number of at least 0"));
        }
        if instrument
            .quote
            .is_some_and(|last| time_msc < last.time_msc)
        {
            return Ok(false);
        }
        instrument.quote = Some(quote);
        instrument.quoted_at_ns = now_ns;
        instrument.stale_alarmed = false;
        instrument.market.on_tick(time_msc, bid, ask, volume);
        Ok(true)
    }

    /// Takes a closed bar of bid prices; the reply says whether it was of use. One that is late,
    /// repeated or inconsistent changes nothing.
    ///
    /// # Errors
    /// `ACCOUNT_UNKNOWN`, `SYMBOL_UNKNOWN`; `FIELD_INVALID` for a timeframe of 0.
    pub fn on_bar(
        &mut self,
        account_id: &str,
        symbol: &str,
        timeframe_s: u32,
        bar: Bar,
        now_ns: i64,
    ) -> Result<Step<bool>> {
        let index = self.book.instrument_index(account_id, symbol)?;
        if timeframe_s == 0 {
            return Err(CoreError::field("timeframe_s", "is 0"));
        }
        let is_taken = self
            .book
            .instrument_mut(index)?
            .market
            .on_bar(timeframe_s, bar)
            .is_ok();
        if is_taken {
            self.evaluate_attentive(index, now_ns, true)?;
        }
        Ok(self.step(is_taken))
    }

    /// Takes a closed bar of the past for the indicators only: no trade is judged by it. The reply says whether it was
    /// of use.
    ///
    /// # Errors
    /// As [`Self::on_bar`].
    pub fn recall_bar(
        &mut self,
        account_id: &str,
        symbol: &str,
        timeframe_s: u32,
        bar: Bar,
    ) -> Result<bool> {
        let index = self.book.instrument_index(account_id, symbol)?;
        if timeframe_s == 0 {
            return Err(CoreError::field("timeframe_s", "is 0"));
        }
        let market = &mut self.book.instrument_mut(index)?.market;
        Ok(market.on_bar(timeframe_s, bar).is_ok())
    }

    /// Lets time pass: timers, holds, arming by age, retries, and leases.
    ///
    /// # Errors
    /// `CORE_PANIC` only.
    pub fn on_time(&mut self, now_ns: i64, mono_ns: i64) -> Result<Step<()>> {
        self.settle_leases(now_ns, mono_ns)?;
        for index in 0..self.book.accounts.len() {
            self.end_spans(index, now_ns)?;
        }
        for index in 0..self.book.instruments.len() {
            self.note_stale(index, now_ns)?;
            self.look_at_market(index, now_ns)?;
            if self.book.instrument(index)?.earliest_ns <= now_ns {
                self.evaluate_attentive(index, now_ns, false)?;
            }
        }
        Ok(self.step(()))
    }

    /// No later than this something is due in [`Self::on_time`]; leases run on the other clock.
    #[must_use]
    pub fn next_deadline_ns(&self) -> Option<i64> {
        let earliest = self
            .book
            .instruments
            .iter()
            .map(|instrument| instrument.earliest_ns)
            .min();
        earliest.filter(|deadline| *deadline != i64::MAX)
    }

    /// Finds the trades to which the market or the time says something, and evaluates those only.
    pub(super) fn evaluate_attentive(
        &mut self,
        index: usize,
        now_ns: i64,
        edges: bool,
    ) -> Result<()> {
        self.book.instrument_mut(index)?.evaluated_at_ns = now_ns;
        if self.book.instrument(index)?.trades.is_empty() {
            return Ok(());
        }
        let rules = &self.book.rules;
        let long = self.view(index, rules.newest(), Side::Buy, now_ns, edges)?;
        let short = self.view(index, rules.newest(), Side::Sell, now_ns, edges)?;
        let mut mask = long.attention(Side::Buy) | short.attention(Side::Sell);
        // Whoever has older numbers is looked at where any of them says something.
        for older in rules.older() {
            for side in [Side::Buy, Side::Sell] {
                mask |= self
                    .view(index, older, side, now_ns, edges)?
                    .attention(side);
            }
        }
        let mut due = std::mem::take(&mut self.due);
        due.clear();
        let instrument = self.book.instrument_mut(index)?;
        sift(instrument, mask, now_ns, &mut due);
        for slot in &due {
            let at = At {
                instrument: index,
                slot: *slot,
            };
            let trade = self.book.trade(at)?;
            if trade.rules == self.book.rules.revision() {
                let view = match trade.side {
                    Side::Buy => &long,
                    Side::Sell => &short,
                };
                self.evaluate(at, view, now_ns)?;
            } else {
                let view = self.view(index, self.rules(at)?, trade.side, now_ns, edges)?;
                self.evaluate(at, &view, now_ns)?;
            }
        }
        self.due = due;
        Ok(())
    }

    /// One alarm per silence, for symbols with open trades.
    fn note_stale(&mut self, index: usize, now_ns: i64) -> Result<()> {
        let Book {
            config,
            instruments,
            ..
        } = &mut self.book;
        let instrument = instruments
            .get_mut(index)
            .ok_or_else(|| CoreError::bug("no such instrument"))?;
        let is_stale = !instrument.stale_alarmed
            && instrument.open > 0
            && config.stale_after_s > 0
            && instrument.quote.is_some()
            && now_ns - instrument.quoted_at_ns > config.stale_after_s * NS_PER_S;
        if !is_stale {
            return Ok(());
        }
        instrument.stale_alarmed = true;
        let silence_ns = now_ns - instrument.quoted_at_ns;
        let detail =
            Text::from(format!("no price for more than {} s", config.stale_after_s).as_str());
        self.emit(
            About::Instrument(index),
            now_ns,
            AlarmRaised {
                code: AlarmCode::DataStale,
                detail: detail.clone(),
            },
        )?;
        self.engage_stale(index, silence_ns, detail, now_ns)
    }
}

/// The hot path: one pass over the watches, nothing allocated for a trade that needs nothing.
fn sift(instrument: &mut Instrument, mask: u32, now_ns: i64, due: &mut Vec<usize>) {
    // Without a price no level is reached: the bounds lie beyond both.
    let (bid, ask) = instrument
        .quote
        .map_or((0, 0), |quote| (quote.bid.0, quote.ask.0));
    let has_quote = instrument.quote.is_some();
    let mut earliest_ns = i64::MAX;
    for (slot, watch) in instrument.watches.iter().enumerate() {
        let exit = if watch.is_sell { ask } else { bid };
        let is_reached = has_quote && (exit >= watch.arm_above || exit <= watch.arm_below);
        let is_due = is_reached || watch.deadline_ns <= now_ns || (mask >> watch.class) & 1 == 1;
        if is_due {
            due.push(slot);
        } else {
            earliest_ns = earliest_ns.min(watch.deadline_ns);
        }
    }
    // The trades that are due lower it again when they are looked at anew.
    instrument.earliest_ns = earliest_ns;
}
