//! Time as the control plane sees it: seconds since the epoch that never run backwards.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Seconds since the epoch.
pub type Seconds = f64;

/// A source of time; tests drive their own.
pub trait Clock: Send + Sync {
    /// Now. Never less than an earlier answer.
    fn now(&self) -> Seconds;
}

/// The wall clock at start, carried on by the monotonic clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
    epoch: Seconds,
}

impl Default for SystemClock {
    fn default() -> Self {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        Self { start: Instant::now(), epoch }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Seconds {
        self.epoch + self.start.elapsed().as_secs_f64()
    }
}
