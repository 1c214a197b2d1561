//! The core's definitions as data, so that a test can compare them with the proto files.
use std::collections::BTreeMap;

use dtms_core::enums::{Visitor, all};
use dtms_core::event;
use dtms_core::message::Number;
use pyo3::prelude::*;

/// Messages as `{name: {field: type}}`; types in proto's words.
#[pyfunction]
pub fn schema() -> BTreeMap<&'static str, BTreeMap<&'static str, String>> {
    event::schema()
        .into_iter()
        .map(|(name, fields)| (name, fields.into_iter().collect()))
        .collect()
}

/// Enumerations as `{name: {PREFIXED_VALUE: number}}`, with their UNSPECIFIED zero.
#[pyfunction]
pub fn enums() -> BTreeMap<&'static str, BTreeMap<String, i32>> {
    all(Listing::default()).0
}

#[derive(Default)]
struct Listing(BTreeMap<&'static str, BTreeMap<String, i32>>);

impl Visitor for Listing {
    fn visit<T: Number>(mut self) -> Self {
        let prefix = upper_snake(T::NAME);
        let mut values: BTreeMap<String, i32> = T::ALL
            .iter()
            .map(|(name, value)| (format!("{prefix}_{}", upper_snake(name)), value.number()))
            .collect();
        values.insert(format!("{prefix}_UNSPECIFIED"), 0);
        self.0.insert(T::NAME, values);
        self
    }
}

/// `WarningL1` to `WARNING_L1`.
fn upper_snake(name: &str) -> String {
    let mut snake = String::new();
    for (index, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && index > 0 {
            snake.push('_');
        }
        snake.push(letter.to_ascii_uppercase());
    }
    snake
}
