//! Columns of numbers behind Python's buffer protocol, read without a copy.
use pyo3::buffer::{Element, PyBuffer};
use pyo3::prelude::*;

use crate::errors::refused;

/// The numbers of a one-dimensional contiguous buffer.
///
/// The slice lives as long as the borrow of the buffer, which keeps the exporter's memory in place.
/// As with numpy itself, it is the caller who must not write to an array that a call is reading.
pub fn slice<'a, T: Element>(name: &str, buffer: &'a PyBuffer<T>) -> PyResult<&'a [T]> {
    if buffer.dimensions() != 1 || !buffer.is_c_contiguous() {
        let refusal = dtms_core::error::CoreError::field(name, "is no contiguous column");
        return Err(refused(refusal));
    }
    if buffer.item_count() == 0 {
        return Ok(&[]);
    }
    // SAFETY: the buffer is contiguous, its element type was checked against T when it was taken,
    // and the exporter may not free or move it before the buffer is released (PEP 3118).
    Ok(unsafe { std::slice::from_raw_parts(buffer.buf_ptr().cast::<T>(), buffer.item_count()) })
}
