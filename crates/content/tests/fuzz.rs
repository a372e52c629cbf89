//! Trees and deltas of which the bytes are not what we wrote.

use std::sync::Arc;

use homeport_content::{Delta, Layered, Tree};
use homeport_fuzz::Target;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

mod random;

/// A few values, the same ones every time.
fn some<S: Strategy>(strategy: S, encode: impl Fn(S::Value) -> Vec<u8>) -> Vec<Vec<u8>> {
    let mut runner = TestRunner::deterministic();
    let values = (0..24).filter_map(|_| strategy.new_tree(&mut runner).ok());
    values.map(|value| encode(value.current())).filter(|bytes| bytes.len() < 4096).collect()
}

#[test]
fn fuzz_trees() {
    Target::new(env!("CARGO_MANIFEST_DIR"), "trees").fuzz(
        some(random::tree(), |tree| tree.encode()),
        |bytes| match Tree::decode(bytes) {
            Ok(tree) => {
                assert_eq!(tree.encode(), bytes, "what decodes is the encoding");
                format!("{} leaves", tree.leaves.len().min(2))
            }
            Err(error) => error.to_string(),
        },
    );
}

#[test]
fn fuzz_deltas() {
    // Deltas come from workers: what decodes is put on stacks at once.
    let base = Arc::new(Tree::default());
    Target::new(env!("CARGO_MANIFEST_DIR"), "deltas").fuzz(
        some(random::few_delta(), |delta| delta.encode()),
        |bytes| match Delta::decode(bytes) {
            Ok(delta) => {
                assert_eq!(delta.encode(), bytes, "what decodes is the encoding");
                let flat = Layered { base: Arc::clone(&base), deltas: vec![Arc::new(delta)] }.flatten();
                assert_eq!(
                    Tree::decode(&flat.encode()).as_ref(),
                    Ok(&flat),
                    "a stack of valid layers is valid"
                );
                format!("{} leaves", flat.leaves.len().min(2))
            }
            Err(error) => error.to_string(),
        },
    );
}
