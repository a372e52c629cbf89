//! Who called whom.

use std::collections::{HashMap, HashSet};

use super::{Call, Scheduler};

/// Inputs in one graph; a larger one is cut off.
const MOST_INPUTS: usize = 1000;

/// Calls that belong together: each but the first was made by an input of an earlier one.
#[derive(Debug, Default)]
pub struct CallGraph<'a> {
    /// The calls, callers first.
    pub calls: Vec<&'a Call>,
    /// There are more.
    pub truncated: bool,
}

impl Scheduler {
    /// The graph that a call is part of, from the outermost call on that is still known.
    pub fn call_graph(&self, call_id: &str) -> Option<CallGraph<'_>> {
        let mut root = self.calls.get(call_id)?;
        let mut seen = HashSet::new();
        while seen.insert(&root.id)
            && let Some(parent) = self.inputs.get(&root.parent_input_id)
            && let Some(caller) = self.calls.get(&parent.call_id)
        {
            root = caller;
        }
        let mut made_by: HashMap<&str, Vec<&Call>> = HashMap::new();
        for call in self.calls.values().filter(|call| !call.parent_input_id.is_empty()) {
            made_by.entry(&call.parent_input_id).or_default().push(call);
        }
        let mut graph = CallGraph { calls: vec![root], truncated: false };
        let (mut next, mut inputs, mut found) = (0, 0, HashSet::from([&root.id]));
        while let Some(call) = graph.calls.get(next).copied() {
            next += 1;
            for input in call.input_ids() {
                inputs += 1;
                if inputs > MOST_INPUTS {
                    graph.truncated = true;
                    return Some(graph);
                }
                let made = made_by.get(input.as_str()).into_iter().flatten();
                graph.calls.extend(made.filter(|call| found.insert(&call.id)));
            }
        }
        Some(graph)
    }
}
