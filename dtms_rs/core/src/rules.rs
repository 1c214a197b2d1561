//! The numbers that trades are defended by: each trade keeps those in force when it was registered.
//!
//! They are facts of the journal, so the fold knows them whatever the service is started with. What holds for all alike
//! (rails, leases, cooldown, loosening, stale prices) is not frozen and stands in [`crate::book::Book::config`].
use std::collections::BTreeMap;

use crate::config::Config;
use crate::error::Result;
use crate::event::{RuleNumber, RulesChanged};
use crate::message::Text;
use crate::messages;

messages! {
    /// Numbers and the revision of the event that recorded them.
    RulesRecord { revision: u64, numbers: Vec<RuleNumber> }
}

/// The newest numbers, and older ones that trades still keep: no more sets than trades.
#[derive(Clone, Debug)]
pub struct Rules {
    newest: Config,
    /// Revision of the event that recorded the newest; 0 where none has yet.
    revision: u64,
    older: BTreeMap<u64, Config>,
}

impl Rules {
    /// What the service was started with: what holds until the journal says something.
    #[must_use]
    pub const fn new(given: Config) -> Self {
        Self {
            newest: given,
            revision: 0,
            older: BTreeMap::new(),
        }
    }

    /// What a trade registered now gets.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    #[must_use]
    pub const fn newest(&self) -> &Config {
        &self.newest
    }

    /// The numbers of a trade, by the revision that it keeps.
    #[must_use]
    pub fn of(&self, revision: u64) -> &Config {
        self.older.get(&revision).unwrap_or(&self.newest)
    }

    /// Those that are the newest no more.
    pub fn older(&self) -> impl Iterator<Item = &Config> {
        self.older.values()
    }

    /// Folds numbers in that hold from `revision` on; of the older ones only those that are in use are kept.
    pub(crate) fn change(&mut self, revision: u64, numbers: Config, is_used: impl Fn(u64) -> bool) {
        let before = std::mem::replace(&mut self.newest, numbers);
        self.older.insert(self.revision, before);
        self.older.retain(|older, _| is_used(*older));
        self.revision = revision;
    }

    /// The fact that `given` holds from now on; `None` where the journal says so already.
    #[must_use]
    pub fn changed(&self, given: &Config, by: &str) -> Option<RulesChanged> {
        if self.revision != 0 && *given == self.newest {
            return None;
        }
        let before = self.newest.numbers();
        let number = |((key, value), (_, before)): ((&'static str, f64), (&'static str, f64))| {
            let is_other = value.to_bits() != before.to_bits();
            RuleNumber {
                key: Text::from(key),
                value,
                before: is_other.then_some(before),
            }
        };
        Some(RulesChanged {
            numbers: given
                .numbers()
                .into_iter()
                .zip(before)
                .map(number)
                .collect(),
            by: Text::from(by),
        })
    }

    /// All of them, the newest last; none before the journal says something.
    pub(crate) fn records(&self) -> Vec<RulesRecord> {
        let record = |revision: u64, config: &Config| RulesRecord {
            revision,
            numbers: config.numbers().into_iter().map(RuleNumber::from).collect(),
        };
        let older = self
            .older
            .iter()
            .map(|(revision, config)| record(*revision, config));
        let newest = (self.revision != 0).then(|| record(self.revision, &self.newest));
        older.chain(newest).collect()
    }

    /// What [`Self::records`] gave.
    pub(crate) fn restored(given: &Config, records: &[RulesRecord]) -> Result<Self> {
        let mut rules = Self::new(given.clone());
        if let Some((newest, older)) = records.split_last() {
            rules.newest = recorded(given, &newest.numbers)?;
            rules.revision = newest.revision;
            for record in older {
                let config = recorded(given, &record.numbers)?;
                rules.older.insert(record.revision, config);
            }
        }
        Ok(rules)
    }
}

impl From<(&'static str, f64)> for RuleNumber {
    fn from((key, value): (&'static str, f64)) -> Self {
        Self {
            key: Text::from(key),
            value,
            before: None,
        }
    }
}

/// The configuration that these numbers are.
pub(crate) fn recorded(given: &Config, numbers: &[RuleNumber]) -> Result<Config> {
    let pairs: Vec<(&str, f64)> = numbers
        .iter()
        .map(|number| (number.key.as_str(), number.value))
        .collect();
    given.recorded(&pairs)
}
