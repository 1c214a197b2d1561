//! Volume-weighted average price of the session.

/// Anchor of the session: midnight UTC.
const SESSION_S: i64 = 86_400;

/// Volume-weighted mean of the typical price `(high + low + close) / 3` of the closed bars since
/// 00:00 UTC, in price units. The caller passes every closed bar once, oldest first.
#[derive(Clone, Debug, Default)]
pub struct SessionVwap {
    session: Option<i64>,
    price_volume: f64,
    volume: f64,
}

impl SessionVwap {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// `time_s`: open time of the bar, UTC. `None` as long as the session has no volume.
    pub fn update(
        &mut self,
        time_s: i64,
        high: f64,
        low: f64,
        close: f64,
        volume: f64,
    ) -> Option<f64> {
        let session = time_s.div_euclid(SESSION_S);
        if self.session != Some(session) {
            *self = Self {
                session: Some(session),
                ..Self::default()
            };
        }
        // The third is divided out at the end, so that a close that equals the mean also compares
        // equal.
        self.price_volume += (high + low + close) * volume;
        self.volume += volume;
        (self.volume > 0.0).then(|| self.price_volume / (3.0 * self.volume))
    }

    /// Days since 1970 of the running session.
    #[must_use]
    pub fn session(&self) -> Option<i64> {
        self.session
    }
}
