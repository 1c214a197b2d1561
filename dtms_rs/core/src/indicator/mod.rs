//! Incremental indicators.
