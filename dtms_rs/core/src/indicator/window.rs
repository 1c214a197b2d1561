//! The last few values of a series.
use std::collections::VecDeque;

/// The last `capacity` values, oldest first. Allocates once, in `new`.
#[derive(Clone, Debug)]
pub struct Window {
    values: VecDeque<f64>,
    capacity: usize,
}

impl Window {
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self {
            values: VecDeque::with_capacity(capacity),
            capacity,
        }
    }

    /// Appends `value`; the oldest one leaves a full window.
    pub fn push(&mut self, value: f64) {
        if self.is_full() {
            self.values.pop_front();
        }
        self.values.push_back(value);
    }

    pub fn clear(&mut self) {
        self.values.clear();
    }

    #[must_use]
    pub fn is_full(&self) -> bool {
        self.values.len() == self.capacity
    }

    /// Sum of what is held, added oldest first.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.values.iter().sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = f64> + '_ {
        self.values.iter().copied()
    }

    /// Newest minus oldest value; `None` until the window is full.
    #[must_use]
    pub fn rise(&self) -> Option<f64> {
        let (oldest, newest) = (self.values.front()?, self.values.back()?);
        self.is_full().then_some(newest - oldest)
    }

    /// The oldest value of a full window.
    #[must_use]
    pub fn oldest(&self) -> Option<f64> {
        self.values.front().copied().filter(|_| self.is_full())
    }
}
