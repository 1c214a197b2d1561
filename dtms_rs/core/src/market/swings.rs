//! Market structure: confirmed swings, and the closes that break them.

/// Bars on each side that a swing must stand out from.
const SIDE_BARS: usize = 2;
const FRACTAL_BARS: usize = 2 * SIDE_BARS + 1;

/// What one close did to the structure; +1 upward, -1 downward, 0 nothing. At most one of `bos` and
/// `choch` is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Break {
    /// Break of structure: in the direction of the trend, or the first break, which founds the
    /// trend.
    pub bos: i8,
    /// Change of character: against the trend, which it turns.
    pub choch: i8,
    /// The close after a CHOCH lies beyond the broken level too.
    pub choch_confirmed: i8,
}

#[derive(Clone, Copy, Debug)]
struct Swing {
    level: f64,
    broken: bool,
}

/// Swings and trend of one timeframe. A swing is a fractal: a high strictly above the two before it
/// and not below the two after it (of equal highs the first counts); lows mirrored.
#[derive(Clone, Debug)]
pub struct Structure {
    recent: [(f64, f64); FRACTAL_BARS],
    seen: usize,
    high: Option<Swing>,
    low: Option<Swing>,
    trend: i8,
    bos_age: Option<u32>,
    choch_age: Option<u32>,
    choch_level: f64,
}

impl Default for Structure {
    fn default() -> Self {
        Self::new()
    }
}

impl Structure {
    #[must_use]
    pub fn new() -> Self {
        Self {
            recent: [(0.0, 0.0); FRACTAL_BARS],
            seen: 0,
            high: None,
            low: None,
            trend: 0,
            bos_age: None,
            choch_age: None,
            choch_level: 0.0,
        }
    }

    /// Takes a closed bar. The close is compared with the swings as they stood before this bar;
    /// only then may the bar confirm a new one.
    pub fn update(&mut self, high: f64, low: f64, close: f64) -> Break {
        self.bos_age = self.bos_age.map(|age| age.saturating_add(1));
        self.choch_age = self.choch_age.map(|age| age.saturating_add(1));
        let mut result = Break {
            choch_confirmed: self.confirmation(close),
            ..Break::default()
        };
        if let Some((side, level)) = self.take_break(close) {
            if self.trend == -side {
                result.choch = side;
                self.choch_age = Some(0);
                self.choch_level = level;
                self.bos_age = None;
            } else {
                result.bos = side;
                self.bos_age = Some(0);
            }
            self.trend = side;
        }
        self.remember(high, low);
        result
    }

    /// Level of the last confirmed swing high, broken or not.
    #[must_use]
    pub fn swing_high(&self) -> Option<f64> {
        self.high.map(|swing| swing.level)
    }

    /// Level of the last confirmed swing low, broken or not.
    #[must_use]
    pub fn swing_low(&self) -> Option<f64> {
        self.low.map(|swing| swing.level)
    }

    /// Direction of the last break: +1, -1, or 0 before the first one.
    #[must_use]
    pub fn trend(&self) -> i8 {
        self.trend
    }

    /// Bars closed since the last BOS of this trend; 0 on the bar that made it.
    #[must_use]
    pub fn bos_age(&self) -> Option<u32> {
        self.bos_age
    }

    /// Bars closed since the last CHOCH; 0 on the bar that made it.
    #[must_use]
    pub fn choch_age(&self) -> Option<u32> {
        self.choch_age
    }

    fn confirmation(&self, close: f64) -> i8 {
        let beyond = match self.trend {
            1 => close > self.choch_level,
            -1 => close < self.choch_level,
            _ => false,
        };
        if self.choch_age == Some(1) && beyond {
            self.trend
        } else {
            0
        }
    }

    /// Direction and level of an unbroken swing that the close lies beyond. Never both sides: bars
    /// above an unbroken high would have broken it before they could make a higher low.
    fn take_break(&mut self, close: f64) -> Option<(i8, f64)> {
        let up = self
            .high
            .as_mut()
            .filter(|swing| !swing.broken && close > swing.level)
            .map(|swing| (1, swing));
        let down = self
            .low
            .as_mut()
            .filter(|swing| !swing.broken && close < swing.level)
            .map(|swing| (-1, swing));
        let (side, swing) = up.or(down)?;
        swing.broken = true;
        Some((side, swing.level))
    }

    fn remember(&mut self, high: f64, low: f64) {
        self.recent.rotate_left(1);
        if let Some(last) = self.recent.last_mut() {
            *last = (high, low);
        }
        self.seen = (self.seen + 1).min(FRACTAL_BARS);
        if self.seen < FRACTAL_BARS {
            return;
        }
        let [(h0, l0), (h1, l1), (h2, l2), (h3, l3), (h4, l4)] = self.recent;
        if h2 > h0 && h2 > h1 && h2 >= h3 && h2 >= h4 {
            self.high = Some(Swing {
                level: h2,
                broken: false,
            });
        }
        if l2 < l0 && l2 < l1 && l2 <= l3 && l2 <= l4 {
            self.low = Some(Swing {
                level: l2,
                broken: false,
            });
        }
    }
}
