//! Looks at bytes as they lie on the disk.
use dtms_core::checksum;
use dtms_core::error::CoreError;
use dtms_core::wire;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyDict;

use crate::dicts::event_to_dict;
use crate::errors::refused;

/// The places of those encoded events that record a decision.
#[pyfunction]
#[expect(
    clippy::needless_pass_by_value,
    reason = "what is read out of Python is owned"
)]
pub fn decisions(events: Vec<(u64, PyBackedBytes)>) -> PyResult<Vec<usize>> {
    let mut found = Vec::new();
    for (place, (_revision, body)) in events.iter().enumerate() {
        let name = wire::body_of(body).map_err(|malformed| refused(CoreError::from(malformed)))?;
        if name == "decision_made" {
            found.push(place);
        }
    }
    Ok(found)
}

/// An encoded event as a dict.
#[pyfunction]
pub fn decode_event<'py>(py: Python<'py>, body: &[u8]) -> PyResult<Bound<'py, PyDict>> {
    let event = wire::event(body).map_err(|malformed| refused(CoreError::from(malformed)))?;
    event_to_dict(py, &event)
}

/// The running checksum of a `SQLite` write-ahead log.
#[pyfunction]
pub fn wal_checksum(seed: (u32, u32), data: &[u8], big_endian: bool) -> (u32, u32) {
    checksum::wal_checksum(seed, data, big_endian)
}
