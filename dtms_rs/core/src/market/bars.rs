//! From ticks and closed outside bars to the closed bars of one timeframe.

/// One bar of bid prices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bar {
    /// Open time, UTC; a multiple of the timeframe.
    pub time_s: i64,
    pub open: f64,
    pub high: f64,
    pub low: f64,
    pub close: f64,
    /// Tick volume, or real volume where the feed has it; 0 is allowed and weighs nothing.
    pub volume: f64,
}

impl Bar {
    /// Prices finite, positive and ordered; volume finite and not negative.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        let body_high = self.open.max(self.close);
        let body_low = self.open.min(self.close);
        [self.open, self.high, self.low, self.close]
            .iter()
            .all(|price| price.is_finite() && *price > 0.0)
            && self.low <= body_low
            && body_high <= self.high
            && self.volume.is_finite()
            && self.volume >= 0.0
    }

    #[must_use]
    pub fn range(&self) -> f64 {
        self.high - self.low
    }

    /// `close - open`, signed.
    #[must_use]
    pub fn body(&self) -> f64 {
        self.close - self.open
    }
}

/// Why an outside bar changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarIgnored {
    /// Older than the newest bar of its timeframe.
    Late,
    /// Its time is already covered by a closed bar.
    Duplicate,
    /// OHLC inconsistent, not finite or not positive; open time not a multiple of the timeframe; or
    /// a timeframe that is no whole part of the fast or the slow one.
    Invalid,
}

/// The bars that one call closed, oldest first. Two where an outside bar arrives while an older bar
/// was still forming.
pub type ClosedBars = [Option<Bar>; 2];

/// The bar that is being built, and the span of time that its pieces cover.
#[derive(Clone, Copy, Debug)]
struct Forming {
    bar: Bar,
    first_s: i64,
    last_tick_s: Option<i64>,
}

/// Builds the bars of one timeframe. Closed bars come out in order of time and once each.
///
/// A window without a tick has no bar. A bar closes when something of a later window arrives, or at
/// once when an outside bar reaches its end.
#[derive(Clone, Debug)]
pub struct BarBuilder {
    timeframe_s: i64,
    forming: Option<Forming>,
    last_closed_s: Option<i64>,
    /// End of the newest outside bar taken: ticks before it are in that bar already.
    outside_until_s: i64,
}

impl BarBuilder {
    /// A timeframe of 0 is read as 1 s.
    #[must_use]
    pub fn new(timeframe_s: u32) -> Self {
        Self {
            timeframe_s: i64::from(timeframe_s.max(1)),
            forming: None,
            last_closed_s: None,
            outside_until_s: i64::MIN,
        }
    }

    /// Takes a tick into the bar of its window and returns the bar that it closed. Ticks of a
    /// closed or older window build nothing.
    pub fn tick(&mut self, time_s: i64, price: f64, volume: f64) -> Option<Bar> {
        let window_s = self.window(time_s);
        let forming_s = self.forming.map(|forming| forming.bar.time_s);
        if time_s < self.outside_until_s
            || Some(window_s) <= self.last_closed_s
            || Some(window_s) < forming_s
        {
            return None;
        }
        let closed = self.close_before(window_s);
        if let Some(forming) = &mut self.forming {
            forming.tick(time_s, price, volume);
        } else {
            let bar = Bar {
                time_s: window_s,
                open: price,
                high: price,
                low: price,
                close: price,
                volume,
            };
            self.forming = Some(Forming {
                bar,
                first_s: time_s,
                last_tick_s: Some(time_s),
            });
        }
        closed
    }

    /// Takes a closed, consistent bar of another source. Of the builder's own timeframe it replaces
    /// the forming bar and closes it; a smaller one is merged as a fragment. `Ok(None)`: a
    /// timeframe that this builder cannot use.
    ///
    /// # Errors
    /// `Invalid` for an open time off the timeframe's grid, `Duplicate` and `Late` for time that is
    /// already covered.
    pub fn outside(
        &mut self,
        timeframe_s: u32,
        bar: &Bar,
    ) -> Result<Option<ClosedBars>, BarIgnored> {
        let span_s = i64::from(timeframe_s);
        if span_s == 0 || self.timeframe_s % span_s != 0 {
            return Ok(None);
        }
        if bar.time_s.rem_euclid(span_s) != 0 {
            return Err(BarIgnored::Invalid);
        }
        let window_s = self.window(bar.time_s);
        if let Some(last_s) = self.last_closed_s.filter(|last_s| window_s <= *last_s) {
            return Err(if window_s == last_s {
                BarIgnored::Duplicate
            } else {
                BarIgnored::Late
            });
        }
        let end_s = bar.time_s.saturating_add(span_s);
        if span_s == self.timeframe_s {
            let older = self.close_before(window_s);
            self.forming = self
                .forming
                .filter(|forming| forming.bar.time_s != window_s);
            self.close_outside(window_s, end_s);
            return Ok(Some([older, Some(*bar)]));
        }
        if bar.time_s < self.outside_until_s {
            return Err(BarIgnored::Duplicate);
        }
        if self
            .forming
            .is_some_and(|forming| window_s < forming.bar.time_s)
        {
            return Err(BarIgnored::Late);
        }
        Ok(Some(self.merge(window_s, bar, end_s)))
    }

    fn merge(&mut self, window_s: i64, fragment: &Bar, end_s: i64) -> ClosedBars {
        let older = self.close_before(window_s);
        let forming = self.forming.map_or_else(
            || Forming {
                bar: Bar {
                    time_s: window_s,
                    ..*fragment
                },
                first_s: fragment.time_s,
                last_tick_s: None,
            },
            |forming| forming.merged(fragment, end_s),
        );
        if end_s < window_s.saturating_add(self.timeframe_s) {
            self.forming = Some(forming);
            self.outside_until_s = end_s;
            return [older, None];
        }
        self.forming = None;
        self.close_outside(window_s, end_s);
        [older, Some(forming.bar)]
    }

    fn close_before(&mut self, window_s: i64) -> Option<Bar> {
        let closed = self
            .forming
            .take_if(|forming| forming.bar.time_s < window_s)?
            .bar;
        self.last_closed_s = Some(closed.time_s);
        Some(closed)
    }

    fn close_outside(&mut self, window_s: i64, end_s: i64) {
        self.last_closed_s = Some(window_s);
        self.outside_until_s = self.outside_until_s.max(end_s);
    }

    fn window(&self, time_s: i64) -> i64 {
        time_s.saturating_sub(time_s.rem_euclid(self.timeframe_s))
    }
}

impl Forming {
    fn tick(&mut self, time_s: i64, price: f64, volume: f64) {
        self.bar.high = self.bar.high.max(price);
        self.bar.low = self.bar.low.min(price);
        self.bar.close = price;
        self.bar.volume += volume;
        self.last_tick_s = self.last_tick_s.max(Some(time_s));
    }

    /// With a fragment that ticks may have covered before: prices are united, volume is counted
    /// once.
    fn merged(mut self, fragment: &Bar, end_s: i64) -> Self {
        self.bar.high = self.bar.high.max(fragment.high);
        self.bar.low = self.bar.low.min(fragment.low);
        if fragment.time_s < self.first_s {
            self.bar.open = fragment.open;
            self.first_s = fragment.time_s;
        }
        if self.last_tick_s < Some(end_s) {
            self.bar.close = fragment.close;
        }
        if self.last_tick_s < Some(fragment.time_s) {
            self.bar.volume += fragment.volume;
        }
        self
    }
}
