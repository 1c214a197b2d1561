//! Safety rails: what is measured, and from when on no new risk is taken.
//!
//! A rail blocks what makes the risk of a trade larger and nothing else. Losses and stops in a row are
//! of an account; news, spread and silence are of a symbol on an account. What holds is folded; the
//! measurements stand beside it, as a market does.
use std::collections::{BTreeMap, VecDeque};

use crate::config::NS_PER_S;
use crate::enums::{CloseReason, Rail};
use crate::event::RailChanged;
use crate::message::{Number, Text};
use crate::messages;

/// Spreads that the median is taken of: minutes of a busy symbol, so that it follows the session, and
/// enough of them that a widening does not become the median before anybody has looked.
pub const SPREADS_KEPT: usize = 1_000;
/// Below so many spreads the median says nothing yet.
pub const SPREADS_NEEDED: usize = 100;
/// A spread must be normal for so long before its rail is released: one that flickers makes no flood.
pub const SPREAD_CALM_NS: i64 = 10 * NS_PER_S;

pub const HOUR_NS: i64 = 3_600 * NS_PER_S;
pub const DAY_NS: i64 = 24 * HOUR_NS;

messages! {
    /// Equity at the beginning of a UTC day or hour, account currency.
    Mark { start_ns: i64, equity: f64 }

    /// Losing stop-outs in a row, and the UTC day of the last closing.
    Stops { count: u32, day_ns: i64 }

    /// A rail that holds, since what was measured and in words.
    Engaged { rail: Rail, value: f64, limit: f64, detail: Text }
}

/// The beginning of the span of `length_ns` (a UTC hour or day) that `now_ns` lies in.
#[must_use]
pub const fn span_start(now_ns: i64, length_ns: i64) -> i64 {
    now_ns - now_ns.rem_euclid(length_ns)
}

impl Mark {
    /// What was lost since, in percent; negative for a gain.
    #[must_use]
    pub fn loss_percent(&self, equity: f64) -> f64 {
        (self.equity - equity) / self.equity * 100.0
    }
}

impl Stops {
    /// Counts the closing of a main position. A margin stop-out is a stop; one that earned is none.
    pub fn count(&mut self, reason: CloseReason, profit: f64, time_ns: i64) {
        let is_stop = match reason {
            CloseReason::StopLoss | CloseReason::StopOut => profit < 0.0,
            CloseReason::Client | CloseReason::Dtms | CloseReason::TakeProfit => false,
        };
        let day_ns = span_start(time_ns, DAY_NS);
        if !is_stop || day_ns != self.day_ns {
            self.count = 0;
        }
        self.count += u32::from(is_stop);
        self.day_ns = day_ns;
    }
}

/// The rails that hold, in order of their numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rails(Vec<Engaged>);

impl Rails {
    #[must_use]
    pub fn holds(&self, rail: Rail) -> bool {
        self.get(rail).is_some()
    }

    /// In order of their numbers.
    #[must_use]
    pub fn engaged(&self) -> &[Engaged] {
        &self.0
    }

    #[must_use]
    pub fn get(&self, rail: Rail) -> Option<&Engaged> {
        self.0.iter().find(|engaged| engaged.rail == rail)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn fold(&mut self, changed: &RailChanged) {
        self.0.retain(|engaged| engaged.rail != changed.rail);
        if changed.engaged {
            self.0.push(Engaged {
                rail: changed.rail,
                value: changed.value,
                limit: changed.limit,
                detail: changed.detail.clone(),
            });
            self.0.sort_by_key(|engaged| engaged.rail);
        }
    }
}

impl From<Vec<Engaged>> for Rails {
    fn from(engaged: Vec<Engaged>) -> Self {
        Self(engaged)
    }
}

/// The median of the last spreads in points, and how the last one stands to it.
///
/// One sorted multiset and the place of the median in it, which a new spread moves by at most one
/// value: O(log n) a tick, and nothing where the spread is the one that falls out.
#[derive(Clone, Debug, Default)]
pub struct Spreads {
    last: VecDeque<i64>,
    counts: BTreeMap<i64, usize>,
    median: i64,
    /// Spreads below the median's value.
    below: usize,
    /// The spread and its limit in points, while it is too wide.
    wide: Option<(i64, f64)>,
    calm_since_ns: Option<i64>,
}

impl Spreads {
    /// Takes the spread of a tick. It is compared with those before it; `factor` is that of the limit, 0
    /// for no limit.
    pub fn take(&mut self, spread: i64, factor: f64, now_ns: i64) {
        self.wide = self
            .limit(factor)
            .filter(|limit| points(spread) > *limit)
            .map(|limit| (spread, limit));
        self.calm_since_ns = match self.wide {
            Some(_) => None,
            None => self.calm_since_ns.or(Some(now_ns)),
        };
        self.add(spread);
    }

    /// The spread and its limit in points, if the last one was too wide.
    #[must_use]
    pub const fn wide(&self) -> Option<(i64, f64)> {
        self.wide
    }

    /// Whether no spread has been too wide for [`SPREAD_CALM_NS`].
    #[must_use]
    pub fn is_calm(&self, now_ns: i64) -> bool {
        self.calm_since_ns
            .is_some_and(|since_ns| since_ns + SPREAD_CALM_NS <= now_ns)
    }

    /// The lower median in points; `None` before [`SPREADS_NEEDED`] ticks.
    #[must_use]
    pub fn median(&self) -> Option<i64> {
        (self.last.len() >= SPREADS_NEEDED).then_some(self.median)
    }

    /// Where there is none, as on a raw account, a point counts as the median.
    fn limit(&self, factor: f64) -> Option<f64> {
        let median = self.median().filter(|_| factor > 0.0)?;
        Some(factor * points(median.max(1)))
    }

    fn add(&mut self, spread: i64) {
        if self.last.len() == SPREADS_KEPT {
            let Some(oldest) = self.last.pop_front() else {
                return;
            };
            if oldest == spread {
                self.last.push_back(spread);
                return;
            }
            self.below -= usize::from(oldest < self.median);
            if let Some(count) = self.counts.get_mut(&oldest) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&oldest);
                }
            }
        }
        self.last.push_back(spread);
        *self.counts.entry(spread).or_default() += 1;
        self.below += usize::from(spread < self.median);
        self.settle();
    }

    /// Moves the median to where as many spreads lie on either side.
    fn settle(&mut self) {
        let middle = (self.last.len() - 1) / 2;
        loop {
            let here = self.counts.get(&self.median).copied().unwrap_or(0);
            if middle < self.below {
                let Some((value, count)) = self.counts.range(..self.median).next_back() else {
                    return;
                };
                self.below -= count;
                self.median = *value;
            } else if middle >= self.below + here {
                let Some((value, _)) = self.counts.range(self.median + 1..).next() else {
                    return;
                };
                self.below += here;
                self.median = *value;
            } else {
                return;
            }
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a spread in points is far below 2^53"
)]
fn points(points: i64) -> f64 {
    points as f64
}

/// A time in which news may move a symbol: `start_ns` until before `end_ns`, ns UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blackout {
    pub start_ns: i64,
    pub end_ns: i64,
    pub label: Text,
}

/// The blackouts of a symbol. Between two edges a look costs one comparison.
#[derive(Clone, Debug, Default)]
pub struct News {
    blackouts: Vec<Blackout>,
    now: Option<usize>,
    /// Nothing changes before; 0 where it is not known.
    next_ns: i64,
}

impl News {
    #[must_use]
    pub fn new(blackouts: Vec<Blackout>) -> Self {
        Self {
            blackouts,
            now: None,
            next_ns: 0,
        }
    }

    /// The blackout that holds at `now_ns`; of several the first that was given.
    pub fn at(&mut self, now_ns: i64) -> Option<&Blackout> {
        if self.next_ns <= now_ns {
            let holds = |of: &Blackout| of.start_ns <= now_ns && now_ns < of.end_ns;
            self.now = self.blackouts.iter().position(holds);
            let edges = self
                .blackouts
                .iter()
                .flat_map(|of| [of.start_ns, of.end_ns]);
            self.next_ns = edges
                .filter(|edge| *edge > now_ns)
                .min()
                .unwrap_or(i64::MAX);
        }
        self.now.and_then(|index| self.blackouts.get(index))
    }
}

/// The name of a value as it stands in proto and logs: `DailyLoss` is `DAILY_LOSS`.
#[must_use]
pub fn spoken<T: Number + PartialEq>(value: T) -> String {
    let name = T::ALL
        .iter()
        .find_map(|(name, other)| (*other == value).then_some(*name))
        .unwrap_or_default();
    let mut words = String::with_capacity(name.len() + 4);
    for (place, letter) in name.chars().enumerate() {
        if place > 0 && letter.is_uppercase() {
            words.push('_');
        }
        words.push(letter.to_ascii_uppercase());
    }
    words
}

/// A number with at most two decimals, without those that say nothing.
#[must_use]
pub fn short(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
