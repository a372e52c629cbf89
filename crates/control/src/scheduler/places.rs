//! Places in a call, as runs: inputs are numbered from 0 on, so a million of them are a few runs.

use std::collections::BTreeMap;

/// A set of places.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The first and the last place of each run. Runs don't touch.
    runs: BTreeMap<i32, i32>,
    count: usize,
}

impl Places {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn contains(&self, place: i32) -> bool {
        self.runs.range(..=place).next_back().is_some_and(|(_, last)| place <= *last)
    }

    pub(super) fn insert(&mut self, place: i32) {
        if self.contains(place) {
            return;
        }
        self.count += 1;
        let (mut first, mut last) = (place, place);
        if let Some((&before, &end)) = self.runs.range(..place).next_back()
            && end.checked_add(1) == Some(place)
        {
            first = before;
        }
        if let Some(next) = place.checked_add(1)
            && let Some(end) = self.runs.remove(&next)
        {
            last = end;
        }
        self.runs.insert(first, last);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set_whose_runs_never_touch(places in proptest::collection::vec(-20..20i32, 0..60)) {
            let (mut runs, mut set) = (Places::default(), BTreeSet::new());
            for place in places {
                runs.insert(place);
                set.insert(place);
            }
            prop_assert_eq!(runs.len(), set.len());
            for place in -25..25 {
                prop_assert_eq!(runs.contains(place), set.contains(&place));
            }
            let ends: Vec<(i32, i32)> = runs.runs.into_iter().collect();
            prop_assert!(ends.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{:?}", ends);
        }
    }

    #[test]
    fn the_largest_place_is_a_place() {
        let mut places = Places::default();
        places.insert(i32::MAX);
        places.insert(i32::MAX - 1);
        assert!(places.contains(i32::MAX) && places.len() == 2);
    }
}
