//! Another configuration in place of the one that holds, and its record in the journal.
use super::{About, Engine, Roster, Step};
use crate::config::Config;
use crate::error::{CoreError, Result};

/// Markets and remembered answers are built by them: they hold until the next start.
const FIXED: [&str; 3] = ["fast_s", "slow_s", "request_ids_kept"];

impl Engine {
    /// Records the numbers that the engine was started with, where the journal does not have them already.
    ///
    /// # Errors
    /// `CORE_PANIC` only.
    pub fn record_rules(&mut self, by: &str, now_ns: i64) -> Result<Step<()>> {
        self.note_rules(by, now_ns)?;
        Ok(self.step(()))
    }

    fn note_rules(&mut self, by: &str, now_ns: i64) -> Result<()> {
        match self.book.rules.changed(&self.book.config, by) {
            Some(changed) => self.emit(About::Service, now_ns, changed),
            None => Ok(()),
        }
    }

    /// Takes other numbers and managers. Trades that are registered keep the numbers that they are defended by, so what
    /// is under way ends as it began; what holds for all alike holds at once.
    ///
    /// # Errors
    /// `FIELD_INVALID` names a key or manager that cannot be used, or a key that cannot change while the engine runs;
    /// then nothing has changed.
    pub fn reconfigure(
        &mut self,
        config: &[(&str, f64)],
        managers: &[(&str, i64)],
        managed_strategies: &[&str],
        by: &str,
        now_ns: i64,
    ) -> Result<Step<()>> {
        let config = Config::try_new(config)?;
        let roster = Roster::try_new(managers, managed_strategies)?;
        let numbers = config.numbers().into_iter();
        let fixed = numbers
            .zip(self.book.config.numbers())
            .find(|((key, new), (_, old))| FIXED.contains(key) && new.to_bits() != old.to_bits());
        if let Some(((key, _), _)) = fixed {
            return Err(CoreError::field(key, "cannot change while the engine runs"));
        }
        if self.book.rules.revision() == 0 {
            // What open trades keep must be known to the fold first.
            self.note_rules("", now_ns)?;
        }
        self.leases.set_ttl(config.lease_ttl_ms);
        self.book.config = config;
        self.roster = roster;
        self.record_rules(by, now_ns)
    }
}
