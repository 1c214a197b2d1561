//! The pure core of DTMS.
pub mod indicator;
pub mod market;
