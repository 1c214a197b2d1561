//! Short spellings of bars for the market tests.
use dtms_core::market::Bar;

/// Monday, 5 May 2014, 00:00 UTC.
pub const MONDAY_S: i64 = 1_399_248_000;

pub fn bar(time_s: i64, open: f64, high: f64, low: f64, close: f64) -> Bar {
    Bar {
        time_s,
        open,
        high,
        low,
        close,
        volume: 1.0,
    }
}

pub fn flat(time_s: i64, price: f64) -> Bar {
    bar(time_s, price, price, price, price)
}
