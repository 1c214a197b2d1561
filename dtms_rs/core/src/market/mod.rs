//! Bars, swings, regime and score of one symbol.
