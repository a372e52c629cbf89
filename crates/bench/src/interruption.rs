//! Ctrl-C and its like as a flag that long work looks at, so that it can clean up behind itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::BenchError;

/// Catches SIGINT, SIGTERM and SIGHUP for as long as it lives.
#[derive(Debug)]
pub(crate) struct Interruption {
    flag: Arc<AtomicBool>,
    registered: Vec<SigId>,
}

impl Interruption {
    /// From now on signals set the flag and do not end the process.
    pub(crate) fn catch() -> Result<Interruption, BenchError> {
        let mut interruption = Interruption { flag: Arc::default(), registered: Vec::new() };
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let id = signal_hook::flag::register(signal, Arc::clone(&interruption.flag))
                .map_err(BenchError::Signals)?;
            interruption.registered.push(id);
        }
        Ok(interruption)
    }

    /// An error once a signal has come.
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        if self.flag.load(Ordering::Relaxed) {
            return Err(BenchError::Interrupted);
        }
        Ok(())
    }
}

impl Drop for Interruption {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}
