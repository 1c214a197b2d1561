//! Readings become guards: what the market and the timers say, from the side of a trade.
use crate::config::{Config, NS_PER_S};
use crate::enums::{MarketStructure, Session, Side, TradeState, Volatility};
use crate::event::{Regime, Score, Thresholds};
use crate::market::Reading;
use crate::message::{Maybe, Number, Text};
use crate::messages;
use crate::table::Guard;
use crate::trade::{CLASS_ALWAYS, TradeRecord, class};

messages! {
    /// A score from outside, for a BUY, and until when it holds.
    OutsideScore { score: Score, valid_until_ns: i64 }
}

/// The market from one side: what all trades of that side have in common at one moment.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts of one reading"
)]
pub struct View {
    /// `None` while the market is cold and nobody reports a score.
    pub total: Option<f64>,
    pub thresholds: Thresholds,
    pub flip: bool,
    pub bos: bool,
    pub choch: bool,
    pub choch_confirmed: bool,
}

impl View {
    /// `edges`: the reading is new, so its breaks of structure have not been acted on yet.
    #[must_use]
    pub fn new(
        reading: &Reading,
        outside: Option<&OutsideScore>,
        config: &Config,
        side: Side,
        now_ns: i64,
        edges: bool,
    ) -> Self {
        let sign: i8 = match side {
            Side::Buy => 1,
            Side::Sell => -1,
        };
        let is_warm = reading.atr_slow.is_some();
        let edges = edges && is_warm;
        let total = match outside.filter(|outside| now_ns < outside.valid_until_ns) {
            Some(outside) => Some(outside.score.total),
            None => is_warm.then_some(reading.total),
        };
        Self {
            total: total.map(|total| signed(total, side)),
            thresholds: thresholds(config, reading.multiplier),
            flip: is_warm && reading.vwap_flip == -sign && reading.volume_flip == -sign,
            bos: edges && reading.bos == sign,
            choch: edges && reading.choch == -sign,
            choch_confirmed: edges && reading.choch_confirmed == -sign,
        }
    }

    fn at_most(&self, threshold: f64) -> bool {
        self.total.is_some_and(|total| total <= threshold)
    }

    fn at_least(&self, threshold: f64) -> bool {
        self.total.is_some_and(|total| total >= threshold)
    }

    fn is_worse(&self, state: TradeState) -> bool {
        match state {
            TradeState::Healthy => self.at_most(self.thresholds.warn1),
            TradeState::WarningL1 | TradeState::Recovering => self.at_most(self.thresholds.warn2),
            TradeState::WarningL2 => self.at_most(self.thresholds.critical),
            TradeState::Hedged | TradeState::Closed => false,
        }
    }

    /// Whether the score is good enough to begin or keep holding.
    #[must_use]
    pub fn is_better(&self, state: TradeState) -> bool {
        match state {
            TradeState::WarningL1 => self.at_least(self.thresholds.warn1_recovered),
            TradeState::WarningL2 => self.at_least(self.thresholds.warn2_eased),
            TradeState::Healthy
            | TradeState::Hedged
            | TradeState::Recovering
            | TradeState::Closed => false,
        }
    }

    /// What speaks against a trade in `state`, the gravest first.
    fn against(&self, state: TradeState) -> Option<Guard> {
        match state {
            TradeState::Hedged if self.choch_confirmed => Some(Guard::ChochConfirmed),
            TradeState::Recovering if self.choch => Some(Guard::Choch),
            TradeState::WarningL2 if self.flip && !self.is_worse(state) => Some(Guard::Flip),
            TradeState::Healthy
            | TradeState::WarningL1
            | TradeState::WarningL2
            | TradeState::Hedged
            | TradeState::Recovering
            | TradeState::Closed => self.is_worse(state).then_some(Guard::ScoreWorse),
        }
    }

    fn breaks_for(&self, state: TradeState) -> bool {
        match state {
            TradeState::Healthy | TradeState::Hedged => self.bos,
            TradeState::WarningL1
            | TradeState::WarningL2
            | TradeState::Recovering
            | TradeState::Closed => false,
        }
    }

    /// Bits of the classes (see [`class`]) to which this view says anything new.
    #[must_use]
    pub fn attention(&self, side: Side) -> u32 {
        let mut mask = 1 << CLASS_ALWAYS;
        for (_, state) in TradeState::ALL {
            for holding in [false, true] {
                if self.against(*state).is_some()
                    || self.breaks_for(*state)
                    || self.is_better(*state) != holding
                {
                    mask |= 1 << class(side, *state, holding);
                }
            }
        }
        mask
    }
}

/// The first guard that applies to an armed trade. `may_improve` is false once the trade has got
/// worse in the same evaluation.
#[must_use]
pub fn first(
    trade: &TradeRecord,
    view: &View,
    config: &Config,
    now_ns: i64,
    may_improve: bool,
) -> Option<Guard> {
    let ended = |timer: Option<i64>| timer.is_some_and(|ends_ns| ends_ns <= now_ns);
    let rests = trade.state == TradeState::WarningL2 && !trade.may_hedge(config, now_ns);
    if let Some(guard) = view.against(trade.state).filter(|_| !rests) {
        return Some(guard);
    }
    if ended(trade.flat_timer_ends_ns)
        && (trade.state == TradeState::Hedged || config.close_on_flat_timer_l1)
    {
        return Some(Guard::FlatTimerEnded);
    }
    if ended(trade.recovery_timer_ends_ns) {
        let confirmed = view.at_least(view.thresholds.recovery_confirmed);
        return Some(if confirmed {
            Guard::RecoveryConfirmed
        } else {
            Guard::RecoveryFailed
        });
    }
    if !may_improve {
        return None;
    }
    if view.breaks_for(trade.state) {
        return Some(Guard::Bos);
    }
    let held = trade
        .better_since_ns
        .is_some_and(|since| now_ns - since >= config.hold_s * NS_PER_S);
    (held && view.is_better(trade.state)).then_some(Guard::BetterHeld)
}

/// The configured thresholds times the regime's multiplier.
#[must_use]
pub fn thresholds(config: &Config, multiplier: f64) -> Thresholds {
    Thresholds {
        multiplier,
        warn1: config.warn1 * multiplier,
        warn1_recovered: config.warn1_recovered * multiplier,
        warn2: config.warn2 * multiplier,
        warn2_eased: config.warn2_eased * multiplier,
        critical: config.critical * multiplier,
        recovery_confirmed: config.recovery_confirmed * multiplier,
    }
}

/// A bullish number from the side of a trade, without a negative zero.
#[must_use]
pub fn signed(value: f64, side: Side) -> f64 {
    match side {
        Side::Buy => value + 0.0,
        Side::Sell => 0.0 - value,
    }
}

/// Whether a score may move a trade: somebody outside reports it, or the market is warm.
#[must_use]
pub fn is_known(reading: &Reading, outside: Option<&OutsideScore>, now_ns: i64) -> bool {
    reading.atr_slow.is_some() || outside.is_some_and(|outside| now_ns < outside.valid_until_ns)
}

/// The score in full, from the side of a trade.
#[must_use]
pub fn score(
    reading: &Reading,
    outside: Option<&OutsideScore>,
    config: &Config,
    side: Side,
    now_ns: i64,
) -> Score {
    let bullish = match outside.filter(|outside| now_ns < outside.valid_until_ns) {
        Some(outside) => outside.score.clone(),
        None => own_score(reading),
    };
    Score {
        total: signed(bullish.total, side),
        structure: signed(bullish.structure, side),
        vwap_volume: signed(bullish.vwap_volume, side),
        momentum: signed(bullish.momentum, side),
        ema_alignment: signed(bullish.ema_alignment, side),
        delta_pressure: signed(bullish.delta_pressure, side),
        candle_conviction: signed(bullish.candle_conviction, side),
        regime: Some(regime(reading)),
        thresholds: Some(thresholds(config, reading.multiplier)),
        reported_by: bullish.reported_by,
    }
}

fn own_score(reading: &Reading) -> Score {
    let parts = reading.parts.times(reading.regime.weights());
    Score {
        total: reading.total,
        structure: parts.structure,
        vwap_volume: parts.vwap_volume,
        momentum: parts.momentum,
        ema_alignment: parts.ema_alignment,
        delta_pressure: parts.delta_pressure,
        candle_conviction: parts.candle_conviction,
        regime: None,
        thresholds: None,
        reported_by: Text::default(),
    }
}

#[must_use]
pub fn regime(reading: &Reading) -> Regime {
    Regime {
        session: Maybe(Session::from_number(i64::from(
            reading.regime.session.number(),
        ))),
        volatility: Maybe(Volatility::from_number(i64::from(
            reading.regime.volatility.number(),
        ))),
        structure: Maybe(MarketStructure::from_number(i64::from(
            reading.regime.structure.number(),
        ))),
    }
}
