//! Incremental indicators: one `update` per closed bar, the value once enough bars were seen.
//!
//! Seeding, smoothing and first index follow TA-Lib, so that every value can be checked against it.
//! Nothing here keeps a running sum that values leave again: what slides is recomputed from its
//! window, so no rounding error can pile up. Inputs are finite; the market layer refuses anything
//! else before it gets here. A period of 0 is read as 1.
mod atr;
mod bollinger;
mod ema;
mod macd;
mod rsi;
mod vwap;
mod wilder;
mod window;

pub use atr::Atr;
pub use bollinger::{Band, Bollinger};
pub use ema::Ema;
pub use macd::{Macd, MacdValue};
pub use rsi::Rsi;
pub use vwap::SessionVwap;
pub use wilder::Wilder;
pub use window::Window;
