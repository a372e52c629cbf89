//! Medians and percentiles of a few measurements.

use serde::Serialize;

/// What a set of measurements is reduced to. The unit is that of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// How many there were.
    pub count: usize,
    /// The smallest.
    pub min: f64,
    /// The middle one; of an even number the mean of the two in the middle.
    pub median: f64,
    /// The smallest one that at least 99 % do not exceed: the largest, of fewer than 100.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// Reduces measurements; `None` if there are none.
    pub fn of(values: &[f64]) -> Option<Summary> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        // Nearest rank, in whole numbers: 0.99 has no exact binary form.
        let rank = (sorted.len() * 99).div_ceil(100).max(1);
        Some(Summary { count: sorted.len(), min, median, p99: sorted[rank - 1], max })
    }
}

/// The ratio of each pair of turns, `peers[n] / ours[n]`, reduced.
///
/// With times as measurements that is the ratio of speeds: above 1 ours is the faster.
pub(crate) fn ratios(peers: &[f64], ours: &[f64]) -> Option<Summary> {
    let ratios: Vec<f64> = peers.iter().zip(ours).map(|(peer, ours)| peer / ours).collect();
    Summary::of(&ratios)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_measured_has_no_summary() {
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn an_odd_number_has_its_middle_one_as_median_whatever_the_order() {
        let summary = Summary::of(&[9.0, 1.0, 5.0]).unwrap();
        assert_eq!((summary.min, summary.median, summary.max), (1.0, 5.0, 9.0));
        assert_eq!(summary.count, 3);
    }

    #[test]
    fn an_even_number_has_the_mean_of_the_middle_two_as_median() {
        assert_eq!(Summary::of(&[4.0, 1.0, 2.0, 100.0]).unwrap().median, 3.0);
    }

    #[test]
    fn p99_is_the_largest_of_few_and_leaves_out_one_of_a_hundred() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(Summary::of(&values).unwrap().p99, 99.0);
        assert_eq!(Summary::of(&values[..10]).unwrap().p99, 10.0);
        assert_eq!(Summary::of(&[7.0]).unwrap().p99, 7.0);
    }

    #[test]
    fn ratios_are_those_of_the_turns_not_of_the_medians() {
        // The machine slowed down for one turn: both sides of it are slow.
        let ratio = ratios(&[1.0, 10.0, 1.0], &[2.0, 20.0, 2.0]).unwrap();
        assert_eq!((ratio.min, ratio.median, ratio.max), (0.5, 0.5, 0.5));
    }
}
