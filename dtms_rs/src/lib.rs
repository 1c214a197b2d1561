//! The bridge: argument conversion and error mapping, nothing else.
use pyo3::prelude::*;

mod columns;
mod dicts;
mod engine;
mod errors;
mod indicators;
mod schema;
mod step;
mod stored;

#[pymodule]
mod _core {
    #[pymodule_export]
    use crate::engine::Engine;
    #[pymodule_export]
    use crate::errors::{CoreError, CorePanic};
    #[pymodule_export]
    use crate::indicators::{atr, bollinger, ema, macd, rsi, score_bars};
    #[pymodule_export]
    use crate::schema::{enums, schema};
    #[pymodule_export]
    use crate::step::Step;
    #[pymodule_export]
    use crate::stored::{decisions, decode_event, wal_checksum};
}
