//! Bars, swings, regime and score of one symbol.
pub mod bars;
pub mod delta;
mod fast;
pub mod regime;
pub mod score;
mod slow;
pub mod swings;
pub mod vwap;

pub use bars::{Bar, BarIgnored};
pub use regime::{Regime, RegimeStructure, Session, Volatility};
pub use score::Parts;

use bars::{BarBuilder, ClosedBars};
use delta::Delta;
use fast::Fast;
use slow::Slow;
use swings::Break;

/// Share of volume that makes a flip.
const VOLUME_SHARE: f64 = 0.65;
/// The same in low volatility, where thin volume leans easily.
const VOLUME_SHARE_LOW_VOLATILITY: f64 = 0.72;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MarketConfig {
    /// Timeframe of vwap, volume and candle, in seconds.
    pub fast_s: u32,
    /// Timeframe of structure, momentum and averages, in seconds.
    pub slow_s: u32,
    /// Change of VWAP over five fast bars relative to VWAP, beyond which it slopes; per symbol.
    pub vwap_slope_threshold: f64,
}

/// Which timeframes closed a bar in one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    pub fast: bool,
    pub slow: bool,
}

/// What a market says now. Trade-neutral: + is bullish; a SELL reads the negated values, exactly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// Before weighting; each 0 until its indicators are warm.
    pub parts: Parts,
    /// Parts weighted by the regime, -10.5..=10.5.
    pub total: f64,
    pub regime: Regime,
    /// Of the score thresholds, 0.5..=1.8.
    pub multiplier: f64,
    /// +1/-1 while the price stays on the VWAP side that it flipped to, from the second close on.
    pub vwap_flip: i8,
    /// +1/-1 while rising/falling fast bars have at least 0.65 of the last ten bars' volume (0.72
    /// in low volatility).
    pub volume_flip: i8,
    /// Edge: set only in the reading of the tick or bar that closed the slow bar. So are the next
    /// two.
    pub bos: i8,
    pub choch: i8,
    /// The close after a CHOCH lies beyond the broken level too.
    pub choch_confirmed: i8,
    /// Last confirmed slow swings.
    pub swing_low: Option<f64>,
    pub swing_high: Option<f64>,
    /// ATR(14) in price units; `None` for the first 14 bars.
    pub atr_slow: Option<f64>,
    pub atr_fast: Option<f64>,
}

/// One symbol's market: ticks and closed bars in, readings out. O(1) and without allocation per
/// tick and per bar.
#[derive(Clone, Debug)]
pub struct Market {
    vwap_slope_threshold: f64,
    fast_bars: BarBuilder,
    slow_bars: BarBuilder,
    fast: Fast,
    slow: Slow,
    delta: Delta,
    now_s: i64,
    reading: Reading,
}

impl Market {
    #[must_use]
    pub fn new(config: MarketConfig) -> Self {
        let slow = Slow::new();
        let now_s = i64::MIN;
        let regime = Regime {
            session: Session::at(now_s),
            volatility: slow.volatility,
            structure: slow.structure,
        };
        Self {
            vwap_slope_threshold: config.vwap_slope_threshold,
            fast_bars: BarBuilder::new(config.fast_s),
            slow_bars: BarBuilder::new(config.slow_s),
            fast: Fast::new(),
            slow,
            delta: Delta::new(),
            now_s,
            reading: Reading {
                parts: Parts::default(),
                total: 0.0,
                regime,
                multiplier: regime.multiplier(),
                vwap_flip: 0,
                volume_flip: 0,
                bos: 0,
                choch: 0,
                choch_confirmed: 0,
                swing_low: None,
                swing_high: None,
                atr_slow: None,
                atr_fast: None,
            },
        }
    }

    /// Takes a tick. Bars are built from `bid`; `volume` is 1.0 for a plain tick. A tick with a
    /// price that is not finite and positive, or a volume that is not finite or negative, is not a
    /// price: it changes and closes nothing, and refusing it aloud is up to the caller.
    pub fn on_tick(&mut self, time_msc: i64, bid: f64, ask: f64, volume: f64) -> Closed {
        self.clear_edges();
        let is_price = |price: f64| price.is_finite() && price > 0.0;
        if !(is_price(bid) && is_price(ask) && volume.is_finite() && volume >= 0.0) {
            return Closed::default();
        }
        let time_s = time_msc.div_euclid(1_000);
        self.now_s = self.now_s.max(time_s);
        let fast = [self.fast_bars.tick(time_s, bid, volume), None];
        let slow = [self.slow_bars.tick(time_s, bid, volume), None];
        self.delta.update(time_msc, bid, ask, volume);
        self.take(fast, slow)
    }

    /// Takes a closed bar of bid prices from outside. Of the fast or slow timeframe it replaces the
    /// forming bar; a timeframe that is a whole part of one is merged into it; a larger one than a
    /// timeframe says nothing about it.
    ///
    /// # Errors
    /// The bar was of no use to either timeframe and changed nothing but the edges, which it ends.
    pub fn on_bar(&mut self, timeframe_s: u32, bar: Bar) -> Result<Closed, BarIgnored> {
        self.clear_edges();
        if !bar.is_consistent() {
            return Err(BarIgnored::Invalid);
        }
        let fast = self.fast_bars.outside(timeframe_s, &bar);
        let slow = self.slow_bars.outside(timeframe_s, &bar);
        let (fast, slow) = match (fast, slow) {
            (Ok(None), Ok(None)) => return Err(BarIgnored::Invalid),
            (Err(ignored), Err(_) | Ok(None)) | (Ok(None), Err(ignored)) => return Err(ignored),
            (fast, slow) => (fast.ok().flatten(), slow.ok().flatten()),
        };
        self.now_s = self
            .now_s
            .max(bar.time_s.saturating_add(i64::from(timeframe_s)));
        Ok(self.take(fast.unwrap_or_default(), slow.unwrap_or_default()))
    }

    /// As of the last tick or bar.
    #[must_use]
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    fn take(&mut self, fast: ClosedBars, slow: ClosedBars) -> Closed {
        let closed = Closed {
            fast: fast.iter().any(Option::is_some),
            slow: slow.iter().any(Option::is_some),
        };
        for bar in fast.iter().flatten() {
            self.fast.close(bar);
        }
        for bar in slow.iter().flatten() {
            let edges = self.slow.close(bar);
            self.note_edges(edges);
        }
        self.refresh(closed);
        closed
    }

    fn clear_edges(&mut self) {
        (
            self.reading.bos,
            self.reading.choch,
            self.reading.choch_confirmed,
        ) = (0, 0, 0);
    }

    /// Where one call closes two slow bars, the later break of a kind counts and an earlier one is
    /// not lost.
    fn note_edges(&mut self, edges: Break) {
        let later = |new: i8, old: i8| if new == 0 { old } else { new };
        self.reading.bos = later(edges.bos, self.reading.bos);
        self.reading.choch = later(edges.choch, self.reading.choch);
        self.reading.choch_confirmed = later(edges.choch_confirmed, self.reading.choch_confirmed);
    }

    fn refresh(&mut self, closed: Closed) {
        let reading = &mut self.reading;
        if closed.slow {
            let swings = &self.slow.swings;
            reading.parts.structure =
                score::structure(swings.trend(), swings.choch_age(), swings.bos_age());
            reading.parts.momentum = self.slow.momentum;
            reading.parts.ema_alignment = self.slow.ema_alignment;
            reading.swing_low = swings.swing_low();
            reading.swing_high = swings.swing_high();
            reading.atr_slow = self.slow.atr_value;
        }
        if closed.fast || closed.slow {
            let share = match self.slow.volatility {
                Volatility::Low => VOLUME_SHARE_LOW_VOLATILITY,
                Volatility::Normal | Volatility::High => VOLUME_SHARE,
            };
            let vwap = &self.fast.vwap;
            reading.volume_flip = self.fast.volume.lean(share);
            reading.vwap_flip = vwap.flip();
            reading.parts.vwap_volume = score::vwap_volume(
                vwap.standing(),
                vwap.slope(),
                self.vwap_slope_threshold,
                reading.volume_flip,
            );
            reading.parts.candle_conviction = self.fast.candle_conviction;
            reading.atr_fast = self.fast.atr_value;
        }
        reading.parts.delta_pressure = self.delta.pressure();
        reading.regime = Regime {
            session: Session::at(self.now_s),
            volatility: self.slow.volatility,
            structure: self.slow.structure,
        };
        reading.multiplier = reading.regime.multiplier();
        reading.total = score::total(reading.parts, reading.regime.weights());
    }
}
