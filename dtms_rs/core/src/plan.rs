//! From an entry action to concrete levels and volume, or the reason why there are none.
//!
//! Levels are computed in *oriented* prices: price x +1 for a BUY, x -1 for a SELL. There a
//! tighter stop is greater, the wrong side is above, and rounding down is rounding away from the
//! price, so one rule serves both sides and mirror symmetry holds by construction.
use crate::config::Config;
use crate::enums::{ActionKind, LegKind, Purpose, Side, SkipReason};
use crate::risk;
use crate::symbol::{Points, Steps, Symbol, scaled_down, scaled_up};
use crate::trade::{Queued, TradeRecord};

/// The last price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    pub bid: Points,
    pub ask: Points,
    pub time_msc: i64,
}

impl Quote {
    /// The price at which a position of `side` is closed.
    #[must_use]
    pub const fn exit(&self, side: Side) -> Points {
        match side {
            Side::Buy => self.bid,
            Side::Sell => self.ask,
        }
    }

    /// The price at which a position of `side` is opened.
    #[must_use]
    pub const fn entry(&self, side: Side) -> Points {
        self.exit(side.opposite())
    }
}

/// What the planner looks at besides the trade.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    pub symbol: &'a Symbol,
    /// The numbers that the trade keeps.
    pub rules: &'a Config,
    pub hedging: bool,
    pub quote: Option<Quote>,
    /// ATR(slow) as a distance; `None` until it is warm.
    pub atr: Option<Points>,
    pub swing_low: Option<Points>,
    pub swing_high: Option<Points>,
}

/// A concrete command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    pub kind: ActionKind,
    pub purpose: Purpose,
    pub leg: LegKind,
    pub position: u64,
    pub side: Side,
    pub volume: Steps,
    pub sl: Option<Points>,
    pub tp: Option<Points>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    Send(Order),
    Skip(SkipReason),
    /// It cannot be said yet: no price, or the position is frozen. Looked at again with each tick.
    Wait,
}

fn oriented(price: Points, side: Side) -> Points {
    price * side.sign()
}

/// Plans the entry action `queued` for the prices of now.
#[must_use]
pub fn plan(queued: &Queued, trade: &TradeRecord, scene: &Scene) -> Plan {
    match queued.action.kind {
        ActionKind::Stop => plan_stop(queued.action.purpose, trade, scene),
        ActionKind::PartialClose => plan_partial(trade, scene),
        ActionKind::OpenHedge => plan_hedge(trade, scene),
        ActionKind::ReAdd => plan_re_add(trade, scene),
        ActionKind::Close => match trade.position(LegKind::Main) {
            Some(position) => close(
                ActionKind::Close,
                LegKind::Main,
                position,
                trade.side,
                trade.volume,
            ),
            None => Plan::Skip(SkipReason::NothingToDo),
        },
        ActionKind::CloseHedge => match &trade.hedge {
            Some(leg) => close(
                ActionKind::CloseHedge,
                LegKind::Hedge,
                leg.ticket,
                trade.side.opposite(),
                leg.volume,
            ),
            None => Plan::Skip(SkipReason::NothingToDo),
        },
        ActionKind::CloseReAdd => match &trade.readd {
            Some(leg) => close(
                ActionKind::CloseReAdd,
                LegKind::ReAdd,
                leg.ticket,
                trade.side,
                leg.volume,
            ),
            None => Plan::Skip(SkipReason::NothingToDo),
        },
        ActionKind::CloseStray => match trade.strays.first() {
            Some(stray) => close(
                ActionKind::CloseStray,
                LegKind::Stray,
                stray.ticket,
                stray.side,
                stray.volume,
            ),
            None => Plan::Skip(SkipReason::NothingToDo),
        },
        // No entry of the table moves the target or claims a trade.
        ActionKind::Target | ActionKind::Acquire => Plan::Skip(SkipReason::NothingToDo),
    }
}

fn close(kind: ActionKind, leg: LegKind, position: u64, side: Side, volume: Steps) -> Plan {
    let purpose = match leg {
        LegKind::Main | LegKind::ReAdd | LegKind::Stray => Purpose::Flatten,
        LegKind::Hedge => Purpose::Recover,
    };
    Plan::Send(Order {
        kind,
        purpose,
        leg,
        position,
        side,
        volume,
        sl: None,
        tp: None,
    })
}

/// Least distance of a stop to the price: at least one point, and out of the freeze zone.
#[must_use]
pub fn least_distance(symbol: &Symbol) -> Points {
    symbol.stops_level.max(symbol.freeze_level).max(Points(1))
}

/// Whether the broker refuses any change now: a level is within the freeze level of the price.
#[must_use]
pub fn is_frozen(trade: &TradeRecord, symbol: &Symbol, quote: Quote) -> bool {
    let exit = quote.exit(trade.side);
    symbol.freeze_level > Points(0)
        && [trade.sl, trade.tp]
            .into_iter()
            .flatten()
            .any(|level| (exit - level).0.abs() <= symbol.freeze_level.0)
}

fn plan_stop(purpose: Purpose, trade: &TradeRecord, scene: &Scene) -> Plan {
    if trade.main_closed {
        return Plan::Skip(SkipReason::NothingToDo);
    }
    let Some(quote) = scene.quote else {
        return Plan::Wait;
    };
    if is_frozen(trade, scene.symbol, quote) {
        return Plan::Wait;
    }
    let side = trade.side;
    let exit = oriented(quote.exit(side), side);
    let highest = scene
        .symbol
        .tick_at_most(exit - least_distance(scene.symbol));
    let now = trade.sl.map(|sl| oriented(sl, side));
    let behind_price = trade.risk.map(|risk| {
        let distance = Points(scaled_up(scene.rules.tighten_r, risk.0));
        scene.symbol.tick_at_most(exit - distance).min(highest)
    });
    let (level, purpose, otherwise) = match purpose {
        Purpose::Breakeven => {
            let entry = scene.symbol.tick_at_least(oriented(trade.entry, side));
            if now.is_some_and(|now| now >= entry) {
                return Plan::Skip(SkipReason::NoChange);
            }
            if entry <= highest {
                (entry, Purpose::Breakeven, SkipReason::NoChange)
            } else {
                let Some(level) = behind_price else {
                    return Plan::Skip(SkipReason::NotLegal);
                };
                (level, Purpose::Tighten, SkipReason::NotLegal)
            }
        }
        Purpose::Trail => {
            let swing = match side {
                Side::Buy => scene.swing_low,
                Side::Sell => scene.swing_high,
            };
            let (Some(swing), Some(atr)) = (swing, scene.atr) else {
                return Plan::Skip(SkipReason::NothingToDo);
            };
            let buffer = Points(scaled_up(scene.rules.trail_buffer_atr, atr.0));
            let level = scene.symbol.tick_at_most(oriented(swing, side) - buffer);
            (level.min(highest), Purpose::Trail, SkipReason::NoChange)
        }
        Purpose::Tighten
        | Purpose::Partial
        | Purpose::Widen
        | Purpose::Hedge
        | Purpose::Flatten
        | Purpose::Recover
        | Purpose::Other => {
            let Some(level) = behind_price else {
                return Plan::Skip(SkipReason::NoRisk);
            };
            (level, Purpose::Tighten, SkipReason::NoChange)
        }
    };
    let sl = oriented(level, side);
    if now.is_some_and(|now| level <= now) || sl <= Points(0) {
        return Plan::Skip(otherwise);
    }
    Plan::Send(Order {
        kind: ActionKind::Stop,
        purpose,
        leg: LegKind::Main,
        position: trade.ticket,
        side,
        volume: Steps(0),
        sl: Some(sl),
        tp: trade.tp,
    })
}

/// Whether `part` can be closed and leave nothing or a legal volume.
#[must_use]
pub fn leaves_legal_rest(part: Steps, whole: Steps, symbol: &Symbol) -> bool {
    let rest = whole - part;
    part >= symbol.volume_min && (rest == Steps(0) || rest >= symbol.volume_min)
}

fn plan_partial(trade: &TradeRecord, scene: &Scene) -> Plan {
    if trade.main_closed {
        return Plan::Skip(SkipReason::NothingToDo);
    }
    if trade.partial_taken {
        return Plan::Skip(SkipReason::AlreadyDone);
    }
    let part = Steps(scaled_down(scene.rules.partial_fraction, trade.volume.0));
    if !leaves_legal_rest(part, trade.volume, scene.symbol) {
        return Plan::Skip(SkipReason::MinVolume);
    }
    Plan::Send(Order {
        kind: ActionKind::PartialClose,
        purpose: Purpose::Partial,
        leg: LegKind::Main,
        position: trade.ticket,
        side: trade.side,
        volume: part,
        sl: None,
        tp: None,
    })
}

fn plan_hedge(trade: &TradeRecord, scene: &Scene) -> Plan {
    if trade.main_closed || trade.hedge.is_some() {
        return Plan::Skip(SkipReason::NothingToDo);
    }
    let symbol = scene.symbol;
    let wanted = Steps(scaled_down(scene.rules.hedge_ratio, trade.volume.0));
    let volume = wanted
        .max(symbol.volume_min)
        .min(trade.volume)
        .min(symbol.volume_max);
    if !scene.hedging {
        if !leaves_legal_rest(volume, trade.volume, symbol) || volume == trade.volume {
            return Plan::Skip(SkipReason::MinVolume);
        }
        return Plan::Send(Order {
            kind: ActionKind::Close,
            purpose: Purpose::Hedge,
            leg: LegKind::Hedge,
            position: trade.ticket,
            side: trade.side,
            volume,
            sl: None,
            tp: None,
        });
    }
    if volume < symbol.volume_min {
        return Plan::Skip(SkipReason::MinVolume);
    }
    let Some(quote) = scene.quote else {
        return Plan::Wait;
    };
    let Some(atr) = scene.atr else {
        return Plan::Skip(SkipReason::NoAtr);
    };
    let side = trade.side.opposite();
    let fill = oriented(quote.entry(side), side);
    let highest = symbol.tick_at_most(oriented(quote.exit(side), side) - least_distance(symbol));
    let distance = Points(scaled_up(scene.rules.hedge_stop_atr, atr.0));
    let level = symbol.tick_at_most(fill - distance).min(highest);
    let sl = oriented(level, side);
    let loss = i128::from((fill - level).0) * i128::from(volume.0);
    match risk::allows(trade, trade.sl, loss) {
        None => Plan::Skip(SkipReason::NoRisk),
        Some(false) => Plan::Skip(SkipReason::RiskBudget),
        Some(true) if sl <= Points(0) => Plan::Skip(SkipReason::NotLegal),
        Some(true) => Plan::Send(Order {
            kind: ActionKind::OpenHedge,
            purpose: Purpose::Hedge,
            leg: LegKind::Hedge,
            position: 0,
            side,
            volume,
            sl: Some(sl),
            tp: None,
        }),
    }
}

fn plan_re_add(trade: &TradeRecord, scene: &Scene) -> Plan {
    if trade.main_closed || trade.readd.is_some() {
        return Plan::Skip(SkipReason::NothingToDo);
    }
    let symbol = scene.symbol;
    let part = scaled_down(scene.rules.readd_fraction, trade.closed_volume.0);
    let volume = Steps(part) + trade.hedge_reduction;
    if volume == Steps(0) {
        return Plan::Skip(SkipReason::NothingToDo);
    }
    if volume < symbol.volume_min || volume > symbol.volume_max {
        return Plan::Skip(SkipReason::MinVolume);
    }
    let Some(quote) = scene.quote else {
        return Plan::Wait;
    };
    let Some(risk) = trade.risk else {
        return Plan::Skip(SkipReason::NoRisk);
    };
    let side = trade.side;
    let fill = oriented(quote.entry(side), side);
    let stop = trade.sl.map(|sl| oriented(sl, side));
    let exit = oriented(quote.exit(side), side);
    let least = least_distance(symbol);
    let stop_is_legal = stop.is_none_or(|stop| stop <= exit - least);
    let target_is_legal = trade.tp.is_none_or(|tp| oriented(tp, side) >= exit + least);
    if !(stop_is_legal && target_is_legal) {
        return Plan::Skip(SkipReason::NotLegal);
    }
    let distance = stop.map_or(risk, |stop| fill - stop);
    let loss = i128::from(distance.0) * i128::from(volume.0);
    if risk::allows(trade, trade.sl, loss) != Some(true) {
        return Plan::Skip(SkipReason::RiskBudget);
    }
    Plan::Send(Order {
        kind: ActionKind::ReAdd,
        purpose: Purpose::Recover,
        leg: LegKind::ReAdd,
        position: if scene.hedging { 0 } else { trade.ticket },
        side,
        volume,
        sl: trade.sl,
        tp: trade.tp,
    })
}
