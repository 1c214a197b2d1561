//! What a return code of `MetaTrader` 5 means for the action behind it: one table.
use crate::config::NS_PER_MS;

/// What follows from a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Done, or nothing was left to do.
    Success,
    /// The broker has not said what became of it: read, never repeat blindly.
    Unknown,
    /// Tried again, recomputed from the price of then, `most` times, the delay doubling.
    Retry {
        delay_ms: i64,
        most: u32,
    },
    /// The position is gone: a success for a close; what it was closed by, the broker's deals tell.
    PositionGone,
    Final,
    /// The account or terminal does not let anybody trade.
    TradingDisabled,
    /// No hedge can be had: the trade is closed instead. Final for any other action.
    HedgeImpossible,
}
use Meaning::{Final, HedgeImpossible, PositionGone, Retry, Success, TradingDisabled, Unknown};

/// For conditions that end by themselves: the session opens, the link comes back.
const FOR_EVER: u32 = u32::MAX;
/// Longest pause between two tries; a close may have to wait out a weekend.
const LONGEST_PAUSE_MS: i64 = 60_000;
/// First pause of a close that is refused for whatever reason; closes never give up.
const CLOSE_PAUSE_MS: i64 = 250;

/// The meaning of `retcode`; `max_retries` is how often a moved price is followed.
#[must_use]
pub const fn meaning(retcode: u32, max_retries: u32) -> Meaning {
    match retcode {
        10_009 | 10_010 | 10_025 => Success,
        10_008 => Unknown,
        10_036 => PositionGone,
        // Not sent at all, or refused at the broker's edge for an older token.
        0 => Retry {
            delay_ms: 250,
            most: max_retries,
        },
        // REQUOTE, PRICE_CHANGED.
        10_004 | 10_020 => Retry {
            delay_ms: 0,
            most: max_retries,
        },
        // REJECT, ERROR, TIMEOUT (settled as not done), INVALID_PRICE, INVALID_STOPS,
        // INVALID_VOLUME, INVALID_FILL, ORDER_CHANGED, INVALID_CLOSE_VOLUME: once more, recomputed.
        10_006 | 10_011 | 10_012 | 10_014 | 10_015 | 10_016 | 10_023 | 10_030 | 10_038 => Retry {
            delay_ms: 250,
            most: 1,
        },
        // PRICE_OFF, LOCKED, CLOSE_ORDER_EXIST.
        10_021 | 10_028 | 10_039 => Retry {
            delay_ms: 500,
            most: 5,
        },
        // TOO_MANY_REQUESTS.
        10_024 => Retry {
            delay_ms: 1_000,
            most: 5,
        },
        // FROZEN, CONNECTION.
        10_029 | 10_031 => Retry {
            delay_ms: 1_000,
            most: FOR_EVER,
        },
        // MARKET_CLOSED.
        10_018 => Retry {
            delay_ms: LONGEST_PAUSE_MS,
            most: FOR_EVER,
        },
        // TRADE_DISABLED, SERVER_DISABLES_AT, CLIENT_DISABLES_AT.
        10_017 | 10_026 | 10_027 => TradingDisabled,
        // NO_MONEY, LIMIT_ORDERS, LIMIT_VOLUME, LIMIT_POSITIONS, LONG_ONLY, SHORT_ONLY, CLOSE_ONLY,
        // HEDGE_PROHIBITED.
        10_019 | 10_033 | 10_034 | 10_040 | 10_042 | 10_043 | 10_044 | 10_046 => HedgeImpossible,
        // CANCEL, INVALID, INVALID_EXPIRATION, ONLY_REAL, INVALID_ORDER, REJECT_CANCEL, FIFO_CLOSE,
        // and whatever a later terminal may invent.
        _ => Final,
    }
}

/// Pause before try `attempt + 1` in ns, `None` when it was tried often enough.
#[must_use]
pub fn pause_ns(meaning: Meaning, attempt: u32, is_close: bool) -> Option<i64> {
    let (delay_ms, most) = match meaning {
        Retry { delay_ms, most } => (delay_ms, most),
        Success | Unknown | PositionGone => return None,
        Final | TradingDisabled | HedgeImpossible => (CLOSE_PAUSE_MS, 0),
    };
    if attempt >= most && !is_close {
        return None;
    }
    let delay_ms = if is_close {
        delay_ms.max(if attempt == 0 {
            delay_ms
        } else {
            CLOSE_PAUSE_MS
        })
    } else {
        delay_ms
    };
    let doubled = delay_ms.saturating_mul(1_i64 << attempt.min(20));
    Some(doubled.min(LONGEST_PAUSE_MS) * NS_PER_MS)
}
