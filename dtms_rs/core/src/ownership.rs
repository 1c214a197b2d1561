//! Leases of owners other than DTMS, on the service's monotonic clock.
//!
//! Leases are no part of the folded state: after a start every owner has a full lease again.
use std::collections::{BTreeMap, BTreeSet};

use crate::config::NS_PER_MS;

/// A trade: (account index, ticket).
pub type Key = (u32, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lease {
    /// `None`: granted in a call that had no monotonic time; starts with the next one that has.
    until_ns: Option<i64>,
    /// The owner gave it back while a write was in flight; settled first, then granted on.
    released: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Leases {
    held: BTreeMap<Key, Lease>,
    by_end: BTreeSet<(i64, Key)>,
    fresh: BTreeSet<Key>,
    ttl_ns: i64,
}

impl Leases {
    #[must_use]
    pub fn new(lease_ttl_ms: i64) -> Self {
        Self {
            ttl_ns: lease_ttl_ms * NS_PER_MS,
            ..Self::default()
        }
    }

    /// Leases that are granted or renewed from now on last so long.
    pub const fn set_ttl(&mut self, lease_ttl_ms: i64) {
        self.ttl_ns = lease_ttl_ms * NS_PER_MS;
    }

    /// Gives the owner of `key` a full lease from the next known time on.
    pub fn grant(&mut self, key: Key) {
        self.drop(key);
        self.held.insert(
            key,
            Lease {
                until_ns: None,
                released: false,
            },
        );
        self.fresh.insert(key);
    }

    pub fn drop(&mut self, key: Key) {
        if let Some(Lease {
            until_ns: Some(until_ns),
            ..
        }) = self.held.remove(&key)
        {
            self.by_end.remove(&(until_ns, key));
        }
        self.fresh.remove(&key);
    }

    pub fn clear(&mut self) {
        *self = Self {
            ttl_ns: self.ttl_ns,
            ..Self::default()
        };
    }

    /// Starts the leases that waited for a time.
    pub fn observe(&mut self, mono_ns: i64) {
        for key in std::mem::take(&mut self.fresh) {
            let until_ns = mono_ns.saturating_add(self.ttl_ns);
            self.held.insert(
                key,
                Lease {
                    until_ns: Some(until_ns),
                    released: false,
                },
            );
            self.by_end.insert((until_ns, key));
        }
    }

    /// A full lease again, from now on.
    pub fn renew(&mut self, key: Key, mono_ns: i64) {
        self.grant(key);
        self.observe(mono_ns);
    }

    /// Ends the lease as soon as nothing of the trade is in flight.
    pub fn release(&mut self, key: Key) {
        self.drop(key);
        self.held.insert(
            key,
            Lease {
                until_ns: Some(i64::MIN),
                released: true,
            },
        );
        self.by_end.insert((i64::MIN, key));
    }

    #[must_use]
    pub fn was_released(&self, key: Key) -> bool {
        self.held.get(&key).is_some_and(|lease| lease.released)
    }

    #[must_use]
    pub fn is_over(&self, key: Key, mono_ns: i64) -> bool {
        self.held
            .get(&key)
            .and_then(|lease| lease.until_ns)
            .is_some_and(|until_ns| until_ns <= mono_ns)
    }

    /// Trades whose lease is over, in a fixed order.
    #[must_use]
    pub fn over(&self, mono_ns: i64) -> Vec<Key> {
        let mut keys: Vec<Key> = self
            .by_end
            .range(..=(mono_ns, (u32::MAX, u64::MAX)))
            .map(|(_, key)| *key)
            .collect();
        keys.sort_unstable();
        keys
    }

    #[must_use]
    pub fn remaining_ms(&self, key: Key, mono_ns: i64) -> Option<i64> {
        let lease = self.held.get(&key)?;
        let until_ns = lease
            .until_ns
            .unwrap_or_else(|| mono_ns.saturating_add(self.ttl_ns));
        Some(until_ns.saturating_sub(mono_ns).max(0) / NS_PER_MS)
    }
}
