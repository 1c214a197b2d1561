//! What is read from closed slow bars.
use super::bars::Bar;
use super::regime::{RegimeStructure, Volatility};
use super::score::{self, EmaRise, Momentum};
use super::swings::{Break, Structure};
use crate::indicator::{Atr, Bollinger, Ema, Macd, Rsi, Window};

const ATR_PERIOD: u32 = 14;
const RSI_PERIOD: u32 = 14;
const MACD_PERIODS: (u32, u32, u32) = (12, 26, 9);
const BOLLINGER_PERIOD: u32 = 20;
const BOLLINGER_DEVIATIONS: f64 = 2.0;
const EMA_SHORT: u32 = 50;
const EMA_LONG: u32 = 200;
/// Slow bars over which an EMA's slope is taken: one bar's slope only repeats which side of it the
/// price closed on.
const EMA_RISE_BARS: u32 = 5;
/// Slow bars whose mean ATR is the normal volatility.
const MEAN_ATR_BARS: u32 = 50;

/// An EMA and its last few values.
#[derive(Clone, Debug)]
struct EmaTrack {
    ema: Ema,
    period: u32,
    history: Window,
}

impl EmaTrack {
    fn new(period: u32) -> Self {
        Self {
            ema: Ema::new(period),
            period,
            history: Window::new(EMA_RISE_BARS as usize + 1),
        }
    }

    fn update(&mut self, close: f64) -> Option<EmaRise> {
        self.history.push(self.ema.update(close)?);
        Some(EmaRise {
            rise: self.history.rise()?,
            bars: EMA_RISE_BARS,
            period: self.period,
        })
    }
}

#[derive(Clone, Debug)]
pub(super) struct Slow {
    atr: Atr,
    atrs: Window,
    bollinger: Bollinger,
    rsi: Rsi,
    macd: Macd,
    short: EmaTrack,
    long: EmaTrack,
    pub(super) swings: Structure,
    before: Option<Momentum>,
    pub(super) atr_value: Option<f64>,
    pub(super) momentum: f64,
    pub(super) ema_alignment: f64,
    pub(super) volatility: Volatility,
    pub(super) structure: RegimeStructure,
}

impl Slow {
    pub(super) fn new() -> Self {
        let (fast, slow, signal) = MACD_PERIODS;
        Self {
            atr: Atr::new(ATR_PERIOD),
            atrs: Window::new(MEAN_ATR_BARS as usize),
            bollinger: Bollinger::new(BOLLINGER_PERIOD, BOLLINGER_DEVIATIONS),
            rsi: Rsi::new(RSI_PERIOD),
            macd: Macd::new(fast, slow, signal),
            short: EmaTrack::new(EMA_SHORT),
            long: EmaTrack::new(EMA_LONG),
            swings: Structure::new(),
            before: None,
            atr_value: None,
            momentum: 0.0,
            ema_alignment: 0.0,
            volatility: Volatility::Normal,
            structure: RegimeStructure::Trend,
        }
    }

    pub(super) fn close(&mut self, bar: &Bar) -> Break {
        self.atr_value = self.atr.update(bar.high, bar.low, bar.close);
        self.rsi.update(bar.close);
        let macd = self.macd.update(bar.close);
        let now = self
            .rsi
            .balance()
            .zip(macd)
            .map(|(balance, macd)| Momentum {
                balance,
                histogram: macd.histogram,
            });
        let short = self.short.update(bar.close);
        let long = self.long.update(bar.close);
        if let Some(atr) = self.atr_value {
            let steps = self.before.zip(now);
            self.momentum = steps.map_or(0.0, |(before, now)| score::momentum(before, now, atr));
            self.ema_alignment = short.map_or(0.0, |short| score::ema_alignment(short, long, atr));
            self.atrs.push(atr);
            if self.atrs.is_full() {
                self.volatility = Volatility::of(atr, self.atrs.sum() / f64::from(MEAN_ATR_BARS));
            }
        }
        self.before = now;
        if let Some(band) = self.bollinger.update(bar.close) {
            self.structure = RegimeStructure::of(band.width);
        }
        self.swings.update(bar.high, bar.low, bar.close)
    }
}
