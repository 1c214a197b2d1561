//! The bridge: argument conversion and error mapping, nothing else.
use pyo3::prelude::*;

#[pymodule]
mod _core {}
