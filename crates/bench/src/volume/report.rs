//! What came out of the Volume benchmark.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use crate::image::report::{Aim, Comparison, Warmth};
use crate::machine::{ByteCount, Machine};
use crate::statistics::Summary;
use crate::table;

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct VolumeReport {
    /// Where.
    pub machine: Machine,
    /// Files of the Volume.
    pub files: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Bytes of the one file that is written and committed.
    pub written: u64,
    /// Warm reads beside plain files.
    pub comparisons: Vec<Comparison>,
    /// Whether the page cache held the large files.
    pub warmth: Vec<Warmth>,
    /// The rest, beside something.
    pub pairs: Vec<Pair>,
    /// Figures with a limit in place of a peer.
    pub singles: Vec<Single>,
}

/// Something done on a Volume and on its peer.
#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    /// Its name.
    pub measure: String,
    /// Unit of the next two.
    pub unit: &'static str,
    /// The peer.
    pub plain: Summary,
    /// The Volume.
    pub volume: Summary,
    /// Speed of the Volume over that of the peer, turn by turn.
    pub ratio: Summary,
    /// What the ratio should be.
    pub aim: Option<Aim>,
}

impl Pair {
    pub(crate) fn new(
        measure: String,
        unit: &'static str,
        plain: Summary,
        volume: Summary,
        ratio: Summary,
        at_least: Option<f64>,
    ) -> Pair {
        let aim = at_least.map(|at_least| Aim { at_least, reached: ratio.median >= at_least });
        Pair { measure, unit, plain, volume, ratio, aim }
    }
}

/// A figure of the Volume alone.
#[derive(Debug, Clone, Serialize)]
pub struct Single {
    /// Its name.
    pub measure: String,
    /// Its unit.
    pub unit: &'static str,
    /// The figure.
    pub value: Summary,
    /// The most that its median should be.
    pub at_most: Option<f64>,
}

impl Single {
    pub(crate) fn of(measure: String, unit: &'static str, values: &[f64], at_most: Option<f64>) -> Single {
        let none = Summary { count: 0, min: f64::NAN, median: f64::NAN, p99: f64::NAN, max: f64::NAN };
        Single { measure, unit, value: Summary::of(values).unwrap_or(none), at_most }
    }
}

impl Display for VolumeReport {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "machine  {}", self.machine)?;
        writeln!(
            formatter,
            "volume   {} files, {}; one file of {} written and committed\n",
            self.files,
            ByteCount(self.bytes),
            ByteCount(self.written)
        )?;
        writeln!(formatter, "{}", table::render(&pair_rows(&self.comparisons, &self.pairs), &[0, 3, 6]))?;
        write!(formatter, "{}", table::render(&single_rows(&self.singles), &[0, 4]))?;
        for warmth in &self.warmth {
            let state = if warmth.is_warm() { "warm" } else { "NOT WARM: short of memory" };
            writeln!(
                formatter,
                "page cache: {state}; {:.1} % of the plain files, {:.1} % of the Volume's",
                warmth.plain * 100.0,
                warmth.mounted * 100.0
            )?;
        }
        Ok(())
    }
}

/// Both columns and their ratio.
pub(crate) fn pair_rows(comparisons: &[Comparison], pairs: &[Pair]) -> Vec<Vec<String>> {
    let head = ["access", "peer", "volume", "unit", "ratio p50", "min..max", "aim"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut push = |measure: &str, unit: &str, plain: f64, volume: f64, ratio: Summary, aim: Option<Aim>| {
        let aim = aim.map_or(String::new(), |aim| {
            format!(">= {:.2} {}", aim.at_least, if aim.reached { "reached" } else { "MISSED" })
        });
        rows.push(vec![
            measure.to_owned(),
            format!("{plain:.2}"),
            format!("{volume:.2}"),
            unit.to_owned(),
            format!("{:.2}", ratio.median),
            format!("{:.2}..{:.2}", ratio.min, ratio.max),
            aim,
        ]);
    };
    for row in comparisons {
        let name = format!("{}, warm", row.measure);
        push(&name, row.unit, row.plain.median, row.mounted.median, row.ratio, row.aim);
    }
    for row in pairs {
        push(&row.measure, row.unit, row.plain.median, row.volume.median, row.ratio, row.aim);
    }
    rows
}

/// Figures and their limits.
pub(crate) fn single_rows(singles: &[Single]) -> Vec<Vec<String>> {
    let mut rows = vec![["figure", "p50", "max", "unit", "aim"].map(str::to_owned).to_vec()];
    for row in singles {
        let aim = row.at_most.map_or(String::new(), |most| {
            format!("<= {most} {}", if row.value.median <= most { "reached" } else { "MISSED" })
        });
        rows.push(vec![
            row.measure.clone(),
            format!("{:.2}", row.value.median),
            format!("{:.2}", row.value.max),
            row.unit.to_owned(),
            aim,
        ]);
    }
    rows
}
