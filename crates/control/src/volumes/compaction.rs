//! Keeping stacks short, so that reading and mounting a Volume stays as fast as it was.
//!
//! Deltas of similar size are folded into one, as in a log-structured merge tree: each is at least four times as large
//! as the one above it, so a stack grows with the logarithm of what changed since its base. When the deltas together
//! have grown beside the base, all of it becomes a new base. A version keeps its number: only its layers change.
//!
//! Folding happens behind commits, which don't wait for it; only a stack that grew too deep meanwhile is folded at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use homeport_content::{Layered, Stack, fold};
use homeport_meta::volume_versions;
use homeport_store::{Root, Store};

use super::account::Links;
use super::catalog::Volumes;
use super::entry::{Entry, Loaded};
use super::version::Version;
use super::{VolumeError, blocking};

/// A delta is at least so many times as large as the one above it.
const RATIO: u64 = 4;
/// Deltas of a stack at rest.
const DEEP: usize = 12;
/// Deltas of a stack that is being committed to faster than it is folded.
const DEEPEST: usize = 24;
/// Entries below which a base is not made anew: folding deltas costs as little.
const SMALL: u64 = 4096;
/// Entries that are folded while a commit waits.
const FOLDED_AT_ONCE: u64 = 20_000;

/// What to do with a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    Keep,
    /// The deltas from here up become one.
    Fold(usize),
    /// Everything becomes a base.
    Flatten,
}

/// Decides from the sizes of the deltas, the oldest first, and the size of the base.
fn plan(sizes: &[u64], base: u64) -> Plan {
    let Some((top, below)) = sizes.split_last() else { return Plan::Keep };
    let total: u64 = sizes.iter().sum();
    if total * RATIO >= base.max(SMALL) {
        return Plan::Flatten;
    }
    let (mut from, mut folded) = (below.len(), *top);
    while from > 0 && (folded * RATIO >= sizes[from - 1] || from >= DEEP) {
        from -= 1;
        folded += sizes[from];
    }
    if from == below.len() { Plan::Keep } else { Plan::Fold(from) }
}

fn sizes(layered: &Layered) -> Vec<u64> {
    layered.deltas.iter().map(|delta| delta.entries()).collect()
}

/// Folds the deltas from `from` up.
fn fold_from(
    store: &Store,
    stack: &Stack,
    layered: &Layered,
    from: usize,
) -> Result<(Stack, Layered), VolumeError> {
    let below = Layered { base: Arc::clone(&layered.base), deltas: layered.deltas[..from].to_vec() };
    let mut upper = layered.deltas[from..].iter();
    let mut folded = upper.next().map(|delta| (**delta).clone()).unwrap_or_else(|| {
        // There is always one; a fold of nothing changes nothing.
        homeport_content::Delta::new(layered.base.root.metadata.clone())
    });
    for delta in upper {
        folded = fold(&below, &folded, delta);
    }
    let id = store.put_delta(&folded)?;
    let stack = Stack { base: stack.base, deltas: stack.deltas[..from].to_vec() }.with(id);
    Ok((stack, below.with(Arc::new(folded))))
}

/// Folds a stack that has grown too deep, as long as that is little work.
pub(super) fn keep_shallow(
    store: &Store,
    (stack, layered): (Stack, Layered),
) -> Result<(Stack, Layered), VolumeError> {
    if stack.deltas.len() <= DEEPEST {
        return Ok((stack, layered));
    }
    let sizes = sizes(&layered);
    let (mut from, mut entries) = (sizes.len(), 0);
    while from > 0 && entries + sizes[from - 1] <= FOLDED_AT_ONCE {
        from -= 1;
        entries += sizes[from];
    }
    if from + 1 >= sizes.len() {
        return Ok((stack, layered));
    }
    fold_from(store, &stack, &layered, from)
}

impl Volumes {
    /// Looks after the layers of the newest version, beside whoever asked for it.
    pub(super) fn tidy_soon(self: &Arc<Self>, volume_id: &str, entry: &Arc<Entry>) {
        if entry.tidying.swap(true, Ordering::AcqRel) {
            return;
        }
        let (volumes, entry, volume_id) = (Arc::clone(self), Arc::clone(entry), volume_id.to_owned());
        tokio::spawn(async move {
            loop {
                let looked_at = entry.now().head.number();
                let tidied = volumes.tidy(&volume_id, &entry).await;
                entry.tidying.store(false, Ordering::Release);
                let again = match tidied {
                    Ok(folded) => folded || entry.now().head.number() != looked_at,
                    Err(error) => {
                        tracing::warn!(volume = volume_id, %error, "the layers of a Volume could not be folded");
                        false
                    }
                };
                // What was appended meanwhile found somebody at work and left it to them.
                if !again || entry.tidying.swap(true, Ordering::AcqRel) {
                    return;
                }
            }
        });
    }

    /// Folds what should be folded in the newest version, and drops versions that need not be kept. False when there
    /// was nothing to fold.
    pub(super) async fn tidy(
        self: &Arc<Self>,
        volume_id: &str,
        entry: &Arc<Entry>,
    ) -> Result<bool, VolumeError> {
        self.prune(volume_id, entry).await?;
        let hold = self.store.hold();
        let (head, loaded) = self.load_head(entry).await?;
        let plan = plan(&sizes(&loaded.layered), loaded.links.names);
        if plan == Plan::Keep {
            return Ok(false);
        }
        hold.pin(Root::of_stack(&head.stack));
        let (store, stack) = (Arc::clone(&self.store), head.stack.clone());
        let made = blocking(move || make(&store, plan, &stack, loaded)).await??;
        self.replace_layers(volume_id, entry, &head.stack, made).await?;
        drop(hold);
        Ok(true)
    }

    /// Puts new layers in place of `old`, above which more may have come meanwhile.
    async fn replace_layers(
        &self,
        volume_id: &str,
        entry: &Entry,
        old: &Stack,
        made: Made,
    ) -> Result<(), VolumeError> {
        let _turn = entry.turn.lock().await;
        if self.entry(volume_id).is_err() {
            return Ok(());
        }
        let now = entry.now();
        let depth = old.deltas.len();
        let rests_on_old =
            now.head.stack.base == old.base && now.head.stack.deltas.get(..depth) == Some(&old.deltas[..]);
        let (Some(loaded), true, true) = (now.loaded, rests_on_old, now.head.number() > 0) else {
            return Ok(());
        };
        let mut stack = made.stack;
        stack.deltas.extend_from_slice(&now.head.stack.deltas[depth..]);
        let mut layered = made.layered;
        layered.deltas.extend_from_slice(&loaded.layered.deltas[depth..]);
        let mut record = now.head.record.clone();
        if let (Some((files, bytes)), true) = (made.totals, stack.deltas.is_empty()) {
            (record.files, record.bytes) = (files, bytes);
        }
        let version = Version::new(record, stack);
        volume_versions::replace(&self.meta, &[version.row(volume_id)]).await?;
        entry.change(|state| {
            state.head = Arc::new(version);
            state.loaded = Some(Loaded { layered: Arc::new(layered), links: made.links });
        });
        Ok(())
    }
}

/// New layers for a version.
struct Made {
    stack: Stack,
    layered: Layered,
    links: Arc<Links>,
    /// Names and bytes, where all of it was read.
    totals: Option<(u64, u64)>,
}

fn make(store: &Store, plan: Plan, stack: &Stack, loaded: Loaded) -> Result<Made, VolumeError> {
    let Loaded { layered, links } = loaded;
    if let Plan::Fold(from) = plan {
        let (stack, layered) = fold_from(store, stack, &layered, from)?;
        return Ok(Made { stack, layered, links, totals: None });
    }
    let tree = layered.flatten();
    let id = store.put_tree(&tree)?;
    let layered = Layered::of(Arc::new(tree));
    let links = Arc::new(Links::of(&layered.base));
    let totals = Some(layered.totals());
    Ok(Made { stack: Stack::of(id), layered, links, totals })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_of_similar_size_are_folded() {
        assert_eq!(plan(&[], 0), Plan::Keep);
        assert_eq!(plan(&[1], 10_000), Plan::Keep);
        assert_eq!(plan(&[1, 1], 10_000), Plan::Fold(0));
        assert_eq!(plan(&[100, 20, 1], 10_000), Plan::Keep);
        assert_eq!(plan(&[100, 20, 4, 1], 10_000), Plan::Fold(0));
        assert_eq!(plan(&[200, 20, 5, 1], 10_000), Plan::Keep);
        assert_eq!(plan(&[400, 20, 4, 1], 10_000), Plan::Fold(1));
    }

    #[test]
    fn a_stack_stays_shallow_whatever_comes() {
        let mut sizes = Vec::new();
        for number in 0..5_000_u64 {
            sizes.push(1 + number % 7);
            match plan(&sizes, 1_000_000) {
                Plan::Keep => {}
                Plan::Fold(from) => {
                    let folded = sizes.drain(from..).sum();
                    sizes.push(folded);
                }
                Plan::Flatten => sizes.clear(),
            }
            assert!(sizes.len() <= DEEP, "{sizes:?}");
        }
    }

    #[test]
    fn what_has_grown_beside_the_base_becomes_a_base() {
        assert_eq!(plan(&[SMALL / RATIO], 0), Plan::Flatten);
        assert_eq!(plan(&[SMALL / RATIO - 1], 0), Plan::Keep);
        assert_eq!(plan(&[100_000], 1_000_000), Plan::Keep);
        assert_eq!(plan(&[250_000], 1_000_000), Plan::Flatten);
    }
}
