//! The risk budget: what was lost on closed parts and legs, and the loss at the stops of trade, hedge
//! and re-add, together never exceed the initial risk.
//!
//! Amounts are points x volume steps of the trade's symbol.
use crate::enums::Side;
use crate::symbol::{Points, Steps, scaled_down};
use crate::trade::TradeRecord;

/// What is lost when the stop is hit; a stop in profit loses nothing (and pays for nothing else).
#[must_use]
pub fn loss_at_stop(side: Side, entry: Points, stop: Points, volume: Steps) -> i128 {
    let distance = i128::from((entry - stop).0) * i128::from(side.sign());
    distance.max(0) * i128::from(volume.0)
}

/// The initial risk, or what an operator made of it; `None` until R is known.
#[must_use]
pub fn budget(trade: &TradeRecord) -> Option<i128> {
    trade.risk.map(|risk| {
        let risk = scaled_down(trade.risk_budget_r, risk.0);
        i128::from(risk) * i128::from(trade.initial_volume.0)
    })
}

/// The loss so far and at the stops, with the main stop at `stop`; without one the main position counts with
/// R. `None` until R is known.
#[must_use]
pub fn exposure(trade: &TradeRecord, stop: Option<Points>) -> Option<i128> {
    let risk = trade.risk?;
    let main = match stop {
        Some(stop) => loss_at_stop(trade.side, trade.entry, stop, trade.volume),
        None => i128::from(risk.0) * i128::from(trade.volume.0),
    };
    // What was lost already is lost; what was earned pays for that, and for nothing beyond.
    let mut total = main + i128::from(-trade.realised.min(0));
    if let Some(hedge) = &trade.hedge {
        let stop = hedge
            .sl
            .unwrap_or(hedge.entry - risk * trade.side.opposite().sign());
        total += loss_at_stop(trade.side.opposite(), hedge.entry, stop, hedge.volume);
    }
    if let Some(readd) = &trade.readd {
        let stop = readd.sl.unwrap_or(readd.entry - risk * trade.side.sign());
        total += loss_at_stop(trade.side, readd.entry, stop, readd.volume);
    }
    Some(total)
}

/// Whether `more` fits into what the budget leaves; `None` until R is known.
#[must_use]
pub fn allows(trade: &TradeRecord, stop: Option<Points>, more: i128) -> Option<bool> {
    Some(exposure(trade, stop)? + more <= budget(trade)?)
}
