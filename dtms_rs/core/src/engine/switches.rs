//! What an operator sets, and scores from outside.
use super::{About, Engine, Step};
use crate::enums::{AlarmCode, KillScope, Side, TradingState};
use crate::error::{CoreError, Result};
use crate::event::{
    AlarmRaised, Index, IndexReported, KillSwitchChanged, MemoSet, RiskBudgetChanged, Score,
    ScoreReported, TradingStateChanged,
};
use crate::guard;
use crate::market::score::GREATEST_TOTAL;
use crate::message::Text;

/// The names of a reported score, in the order of [`Score`].
pub const PARTS: [&str; 6] = [
    "structure",
    "vwap_volume",
    "momentum",
    "ema_alignment",
    "delta_pressure",
    "candle_conviction",
];

/// A budget beyond it is a slip of the hand.
const GREATEST_BUDGET_R: f64 = 10.0;
/// A memo is stored with its trade and streamed with every change of it.
const LONGEST_MEMO: usize = 2_048;
const LONGEST_INDEX: usize = 32;
/// Indices are few by nature; a feed that makes up names must not fill the book.
const MOST_INDICES: usize = 64;

impl Engine {
    /// # Errors
    /// `CORE_PANIC` only.
    pub fn set_trading_state(
        &mut self,
        state: TradingState,
        by: &str,
        reason: &str,
        now_ns: i64,
    ) -> Result<Step<()>> {
        if state != self.book.trading {
            let changed = TradingStateChanged {
                trading_state: state,
                by: Text::from(by),
                reason: Text::from(reason),
            };
            self.emit(About::Service, now_ns, changed)?;
        }
        Ok(self.step(()))
    }

    /// Throws or releases a switch; no event when it stands so already. Throwing it takes the
    /// trades it covers from their managers; releasing it gives none back. `flatten` closes the trades
    /// of the account or symbol at once, also where the switch stands already.
    ///
    /// # Errors
    /// `FIELD_INVALID` for an empty value, for DTMS itself, which no switch stops, and for a `flatten`
    /// that is released or of a manager.
    #[expect(clippy::too_many_arguments, reason = "a switch is these facts")]
    pub fn set_kill_switch(
        &mut self,
        scope: KillScope,
        value: &str,
        engaged: bool,
        flatten: bool,
        by: &str,
        reason: &str,
        now_ns: i64,
    ) -> Result<Step<()>> {
        if flatten && (scope == KillScope::Manager || !engaged) {
            return Err(CoreError::field(
                "flatten",
                "is for an account or symbol whose switch is thrown",
            ));
        }
        if value.is_empty() || (scope == KillScope::Manager && value == crate::arbiter::DTMS) {
            return Err(CoreError::field("value", "is empty or the service itself"));
        }
        let value = Text::from(value);
        if flatten || self.book.kills.contains(&(scope, value.clone())) != engaged {
            let (by, reason) = (Text::from(by), Text::from(reason));
            self.emit(
                About::Service,
                now_ns,
                KillSwitchChanged {
                    scope,
                    value: value.clone(),
                    engaged,
                    by,
                    reason,
                    flatten,
                },
            )?;
            if engaged {
                self.disown(scope, &value, now_ns)?;
            }
            if flatten {
                self.flatten(scope, &value, now_ns)?;
            }
        }
        Ok(self.step(()))
    }

    /// Records an alarm that is about an account (which need not be known), or with an empty one about the service.
    ///
    /// # Errors
    /// `CORE_PANIC` only.
    pub fn raise_alarm(
        &mut self,
        account_id: &str,
        code: AlarmCode,
        detail: &str,
        now_ns: i64,
    ) -> Result<Step<()>> {
        let detail = Text::from(detail);
        self.emit(
            About::Account(account_id),
            now_ns,
            AlarmRaised { code, detail },
        )?;
        Ok(self.step(()))
    }

    /// Sets how much the stops of a trade and its legs may lose together, in R; no event when it is so already.
    ///
    /// # Errors
    /// `TRADE_UNKNOWN`; `FIELD_INVALID` outside of 1 to 10.
    pub fn set_risk_budget(
        &mut self,
        account_id: &str,
        ticket: u64,
        budget_r: f64,
        by: &str,
        reason: &str,
        now_ns: i64,
    ) -> Result<Step<()>> {
        if !(1.0..=GREATEST_BUDGET_R).contains(&budget_r) {
            return Err(CoreError::field("budget_r", "is not between 1 and 10"));
        }
        let at = self.book.locate(account_id, ticket)?;
        if self.book.trade(at)?.risk_budget_r.to_bits() != budget_r.to_bits() {
            let (by, reason) = (Text::from(by), Text::from(reason));
            let changed = RiskBudgetChanged {
                budget_r,
                by,
                reason,
            };
            self.emit(About::Trade(at), now_ns, changed)?;
        }
        Ok(self.step(()))
    }

    /// Keeps what `manager` wants to find again on a trade; no event when it stands there already.
    ///
    /// # Errors
    /// `TRADE_UNKNOWN`; `FIELD_INVALID` for a manager that has no name, or a memo that is too long.
    pub fn set_memo(
        &mut self,
        account_id: &str,
        ticket: u64,
        manager: &str,
        memo: &str,
        now_ns: i64,
    ) -> Result<Step<()>> {
        self.check_manager(manager)?;
        if memo.chars().count() > LONGEST_MEMO {
            return Err(CoreError::field("memo", "is longer than 2048 characters"));
        }
        let at = self.book.locate(account_id, ticket)?;
        let record = self.book.trade(at)?.manager(manager);
        if record.map_or("", |record| record.memo.as_str()) != memo {
            let (manager, memo) = (Text::from(manager), Text::from(memo));
            self.emit(About::Trade(at), now_ns, MemoSet { manager, memo })?;
        }
        Ok(self.step(()))
    }

    /// Takes a number of the market that is no price of a symbol here, valid until `valid_until_ns`.
    ///
    /// # Errors
    /// `FIELD_INVALID` names what is empty, too long, no number or over already.
    pub fn report_index(
        &mut self,
        name: &str,
        value: f64,
        by: &str,
        valid_until_ns: i64,
        now_ns: i64,
    ) -> Result<Step<()>> {
        if name.is_empty() || name.chars().count() > LONGEST_INDEX {
            return Err(CoreError::field(
                "name",
                "is empty or longer than 32 characters",
            ));
        }
        if !value.is_finite() {
            return Err(CoreError::field("value", "is no number"));
        }
        if valid_until_ns <= now_ns {
            return Err(CoreError::field("valid_until_ns", "is not in the future"));
        }
        if !self.book.indices.contains_key(name) && self.book.indices.len() >= MOST_INDICES {
            return Err(CoreError::field("name", "is one index too many"));
        }
        let index = Index {
            name: Text::from(name),
            value,
            time_ns: now_ns,
            valid_until_ns,
        };
        let by = Text::from(by);
        self.emit(About::Service, now_ns, IndexReported { index, by })?;
        Ok(self.step(()))
    }

    /// Takes a score from outside in place of the computed one until `valid_until_ns`. `named` are
    /// parts or `total` as a BUY sees them; without a total (or with 0, which proto3 cannot tell from
    /// none) it is the sum of the parts.
    ///
    /// # Errors
    /// `ACCOUNT_UNKNOWN`, `SYMBOL_UNKNOWN`; `FIELD_INVALID` names what is unknown, out of range or
    /// over already.
    pub fn report_score(
        &mut self,
        account_id: &str,
        symbol: &str,
        named: &[(&str, f64)],
        by: &str,
        valid_until_ns: i64,
        now_ns: i64,
    ) -> Result<Step<()>> {
        let index = self.book.instrument_index(account_id, symbol)?;
        if by.is_empty() {
            return Err(CoreError::field("by", "is empty"));
        }
        if valid_until_ns <= now_ns {
            return Err(CoreError::field("valid_until_ns", "is not in the future"));
        }
        let score = self.outside_score(index, named, by)?;
        self.emit(
            About::Instrument(index),
            now_ns,
            ScoreReported {
                score,
                valid_until_ns,
            },
        )?;
        self.evaluate_attentive(index, now_ns, false)?;
        Ok(self.step(()))
    }

    fn outside_score(&self, index: usize, named: &[(&str, f64)], by: &str) -> Result<Score> {
        for (name, value) in named {
            if !(PARTS.contains(name) || *name == "total") {
                return Err(CoreError::field(name, "is no part of a score"));
            }
            if !(value.is_finite() && value.abs() <= GREATEST_TOTAL) {
                return Err(CoreError::field(name, "is not within -10.5 and 10.5"));
            }
        }
        if named.is_empty() {
            return Err(CoreError::field("score", "has neither parts nor a total"));
        }
        let value = |name: &str| {
            named
                .iter()
                .find_map(|(other, value)| (*other == name).then_some(*value))
        };
        let [
            structure,
            vwap_volume,
            momentum,
            ema_alignment,
            delta_pressure,
            candle_conviction,
        ] = PARTS.map(|name| value(name).unwrap_or(0.0));
        let sum =
            structure + vwap_volume + momentum + ema_alignment + delta_pressure + candle_conviction;
        let given = value("total").filter(|total| *total != 0.0);
        let total = given.unwrap_or_else(|| sum.clamp(-GREATEST_TOTAL, GREATEST_TOTAL));
        let reading = self.book.instrument(index)?.market.reading();
        Ok(Score {
            total,
            structure,
            vwap_volume,
            momentum,
            ema_alignment,
            delta_pressure,
            candle_conviction,
            regime: Some(guard::regime(reading)),
            thresholds: Some(guard::thresholds(
                self.book.rules.newest(),
                reading.multiplier,
            )),
            reported_by: Text::from(by),
        })
    }

    /// The score as a trade of `side` sees it, computed from what is warm so far; `None` before the
    /// first price.
    ///
    /// # Errors
    /// `ACCOUNT_UNKNOWN`, `SYMBOL_UNKNOWN`.
    pub fn score(&self, account_id: &str, symbol: &str, side: Side) -> Result<Option<Score>> {
        let index = self.book.instrument_index(account_id, symbol)?;
        let instrument = self.book.instrument(index)?;
        let (reading, outside) = (instrument.market.reading(), instrument.outside.as_ref());
        let now_ns = instrument.evaluated_at_ns;
        let score = || guard::score(reading, outside, self.book.rules.newest(), side, now_ns);
        Ok(instrument.quote.map(|_| score()))
    }
}
