//! The pure core of DTMS: states, arbitration, registry and scoring.
//!
//! [`engine::Engine`] is the one mutable root: commands go in with their time, events come out, and
//! its state is the fold of its events ([`book::Book::evolve`]). No clock, no I/O, no randomness.
pub mod arbiter;
pub mod book;
pub mod checksum;
pub mod codec;
pub mod config;
mod effects;
pub mod engine;
pub mod enums;
pub mod error;
pub mod event;
mod evolve;
pub mod guard;
pub mod idempotency;
pub mod indicator;
pub mod market;
pub mod message;
pub mod ownership;
pub mod plan;
pub mod rails;
pub mod retcode;
pub mod risk;
pub mod rules;
mod snapshot;
pub mod symbol;
pub mod table;
pub mod trade;
pub mod wire;
