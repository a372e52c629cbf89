//! What the upkeep of the store counts.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::Collected;

/// Counts since the start of the server.
#[derive(Debug, Default)]
pub(crate) struct StorageMetrics {
    kept: Gauge<i64>,
    free: Gauge<i64>,
    removed: Counter<u64, AtomicU64>,
    removed_bytes: Counter<u64, AtomicU64>,
    collections: Counter<u64, AtomicU64>,
    faults: Counter<u64, AtomicU64>,
    mended: Counter<u64, AtomicU64>,
}

impl StorageMetrics {
    pub(super) fn collected(&self, collected: &Collected) {
        self.collections.inc();
        self.kept.set(signed(collected.kept_bytes));
        self.removed.inc_by(collected.removed_objects + collected.removed_trees + collected.removed_images);
        self.removed_bytes.inc_by(collected.removed_bytes);
    }

    pub(super) fn holds(&self, bytes: u64) {
        self.kept.set(signed(bytes));
    }

    pub(super) fn is_free(&self, bytes: u64) {
        self.free.set(signed(bytes));
    }

    pub(super) fn fault(&self, mended: bool) {
        self.faults.inc();
        if mended {
            self.mended.inc();
        }
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("storage");
        let with_bytes = [
            ("kept", "What is in the store, when that was counted last", &self.kept),
            ("free", "What is free on the file system of the store", &self.free),
        ];
        for (name, help, gauge) in with_bytes {
            registry.register_with_unit(name, help, Unit::Bytes, gauge.clone());
        }
        let removed = "What collections of garbage removed";
        registry.register_with_unit("garbage_removed", removed, Unit::Bytes, self.removed_bytes.clone());
        registry.register(
            "garbage_removed_files",
            "Objects, trees, deltas and mountable layers that were removed",
            self.removed.clone(),
        );
        registry.register("collections", "Collections of garbage", self.collections.clone());
        registry.register("faults", "Damaged or missing content that was found", self.faults.clone());
        registry.register("faults_mended", "Faults that were mended", self.mended.clone());
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
