//! Random walks for the market tests.
use dtms_core::market::Bar;
use proptest::prelude::*;

/// Monday, 5 May 2014, 00:00 UTC.
const MONDAY_S: i64 = 1_399_248_000;

/// One bar of an integer walk, as offsets from a level.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub body: i32,
    pub above: i32,
    pub below: i32,
    pub volume: u32,
}

pub fn steps(largest: i32, count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    let step = (
        -largest..=largest,
        0..=largest / 2,
        0..=largest / 2,
        1_u32..10,
    );
    let step = step.prop_map(|(body, above, below, volume)| Step {
        body,
        above,
        below,
        volume,
    });
    prop::collection::vec(step, count)
}

/// Bars of a walk around `level` that stays within a third of it. `side` -1.0 gives the mirror
/// image about `level`; with integers below 2^53 both are exact.
pub fn walk(level: f64, side: f64, timeframe_s: u32, steps: &[Step]) -> Vec<Bar> {
    let bound = level / 3.0;
    let mut offset = 0.0;
    let mut time_s = MONDAY_S;
    let mut bars = Vec::with_capacity(steps.len());
    for step in steps {
        let open = offset;
        offset = (open + f64::from(step.body)).clamp(-bound, bound);
        let high = open.max(offset) + f64::from(step.above);
        let low = open.min(offset) - f64::from(step.below);
        let (high, low) = if side > 0.0 { (high, low) } else { (low, high) };
        bars.push(Bar {
            time_s,
            open: level + side * open,
            high: level + side * high,
            low: level + side * low,
            close: level + side * offset,
            volume: f64::from(step.volume),
        });
        time_s += i64::from(timeframe_s);
    }
    bars
}
