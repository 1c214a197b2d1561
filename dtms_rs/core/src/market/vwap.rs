//! Where the price stands to the session VWAP, and which side the volume is on.
use super::bars::Bar;
use crate::indicator::{SessionVwap, Window};

/// Closes beyond VWAP that confirm a side: one alone is often noise.
const CONFIRMING_CLOSES: i32 = 2;
/// Fast bars over which VWAP's own slope is taken.
const SLOPE_BARS: usize = 5;
/// Fast bars over which the shares of volume are taken.
const SHARE_BARS: usize = 10;

/// Side, flip and slope of the session VWAP. All of it starts anew with the session: another anchor
/// is another line.
#[derive(Clone, Debug)]
pub struct VwapTrack {
    vwap: SessionVwap,
    session: Option<i64>,
    history: Window,
    run: i32,
    confirmed: i8,
    flipped: i8,
}

impl Default for VwapTrack {
    fn default() -> Self {
        Self::new()
    }
}

impl VwapTrack {
    #[must_use]
    pub fn new() -> Self {
        Self {
            vwap: SessionVwap::new(),
            session: None,
            history: Window::new(SLOPE_BARS + 1),
            run: 0,
            confirmed: 0,
            flipped: 0,
        }
    }

    /// Takes a closed fast bar.
    pub fn update(&mut self, bar: &Bar) {
        let vwap = self
            .vwap
            .update(bar.time_s, bar.high, bar.low, bar.close, bar.volume);
        if self.session != self.vwap.session() {
            self.session = self.vwap.session();
            self.history.clear();
            (self.run, self.confirmed, self.flipped) = (0, 0, 0);
        }
        let Some(vwap) = vwap else { return };
        self.history.push(vwap);
        self.run = if bar.close > vwap {
            self.run.max(0).saturating_add(1)
        } else if bar.close < vwap {
            self.run.min(0).saturating_sub(1)
        } else {
            0
        };
        let side = self.side();
        if side != 0 {
            if self.confirmed == -side {
                self.flipped = side;
            }
            self.confirmed = side;
        }
    }

    /// +-1 once confirmed, +-0.5 on the first close beyond VWAP, 0 on it.
    #[must_use]
    pub fn standing(&self) -> f64 {
        match self.run.signum() {
            0 => 0.0,
            _ if self.side() != 0 => f64::from(self.side()),
            sign => 0.5 * f64::from(sign),
        }
    }

    /// +1 or -1 while the price stays on a confirmed side to which it came from the other confirmed
    /// side in this session.
    #[must_use]
    pub fn flip(&self) -> i8 {
        if self.side() == self.flipped {
            self.flipped
        } else {
            0
        }
    }

    /// Change of VWAP over the last five closes relative to VWAP; `None` for the first five bars of
    /// a session.
    #[must_use]
    pub fn slope(&self) -> Option<f64> {
        Some(self.history.rise()? / self.history.oldest()?)
    }

    fn side(&self) -> i8 {
        if self.run >= CONFIRMING_CLOSES {
            1
        } else if self.run <= -CONFIRMING_CLOSES {
            -1
        } else {
            0
        }
    }
}

/// Shares of the last ten fast bars' volume that rising and falling bars had.
#[derive(Clone, Debug)]
pub struct VolumeShare {
    rising: Window,
    falling: Window,
    all: Window,
}

impl Default for VolumeShare {
    fn default() -> Self {
        Self::new()
    }
}

impl VolumeShare {
    #[must_use]
    pub fn new() -> Self {
        Self {
            rising: Window::new(SHARE_BARS),
            falling: Window::new(SHARE_BARS),
            all: Window::new(SHARE_BARS),
        }
    }

    /// Takes a closed fast bar; a bar that closed where it opened counts for neither side.
    pub fn update(&mut self, bar: &Bar) {
        self.rising
            .push(if bar.body() > 0.0 { bar.volume } else { 0.0 });
        self.falling
            .push(if bar.body() < 0.0 { bar.volume } else { 0.0 });
        self.all.push(bar.volume);
    }

    /// The side that has at least `share` (above 0.5) of the volume: +1, -1, or 0; 0 until ten bars
    /// were seen.
    #[must_use]
    pub fn lean(&self, share: f64) -> i8 {
        let needed = share * self.all.sum();
        if !self.all.is_full() || needed <= 0.0 {
            0
        } else if self.rising.sum() >= needed {
            1
        } else if self.falling.sum() >= needed {
            -1
        } else {
            0
        }
    }
}
