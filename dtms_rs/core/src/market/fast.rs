//! What is read from closed fast bars.
use super::bars::Bar;
use super::score;
use super::vwap::{VolumeShare, VwapTrack};
use crate::indicator::Atr;

const ATR_PERIOD: u32 = 14;

#[derive(Clone, Debug)]
pub(super) struct Fast {
    atr: Atr,
    pub(super) vwap: VwapTrack,
    pub(super) volume: VolumeShare,
    pub(super) atr_value: Option<f64>,
    pub(super) candle_conviction: f64,
}

impl Fast {
    pub(super) fn new() -> Self {
        Self {
            atr: Atr::new(ATR_PERIOD),
            vwap: VwapTrack::new(),
            volume: VolumeShare::new(),
            atr_value: None,
            candle_conviction: 0.0,
        }
    }

    pub(super) fn close(&mut self, bar: &Bar) {
        self.vwap.update(bar);
        self.volume.update(bar);
        self.atr_value = self.atr.update(bar.high, bar.low, bar.close);
        self.candle_conviction = self
            .atr_value
            .map_or(0.0, |atr| score::candle_conviction(bar, atr));
    }
}
