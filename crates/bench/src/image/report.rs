//! What came out of the image benchmark.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use crate::machine::{ByteCount, Machine};
use crate::statistics::Summary;
use crate::table;

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct ImageReport {
    /// Where.
    pub machine: Machine,
    /// Files of the image.
    pub files: u64,
    /// Files and directories of the image.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes of the large files, which the throughput is measured with.
    pub large_bytes: u64,
    /// Seconds that it took to hash the files into the store and write them there.
    pub import_seconds: f64,
    /// How the image is mounted, for each form of lower layer.
    pub mounts: Vec<MountReport>,
    /// Reads through those mounts beside plain files.
    pub comparisons: Vec<Comparison>,
    /// Whether the page cache held the large files.
    pub warmth: Vec<Warmth>,
}

/// Making one form of lower layer, and mounting it.
#[derive(Debug, Clone, Serialize)]
pub struct MountReport {
    /// `erofs` or `linked`.
    pub backend: &'static str,
    /// Seconds that it took to prepare the image, which is done once.
    pub build_seconds: f64,
    /// Bytes of the EROFS image.
    pub image_bytes: Option<u64>,
    /// Seconds of the first mount of a new process, which decodes the tree.
    pub first_mount_seconds: f64,
    /// Seconds of a mount with a fresh writable layer.
    pub mount_seconds: Summary,
    /// Seconds of an unmount.
    pub unmount_seconds: Summary,
}

/// One kind of access.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// Its name.
    pub measure: &'static str,
    /// The form of lower layer.
    pub backend: &'static str,
    /// Unit of the next two.
    pub unit: &'static str,
    /// Plain files.
    pub plain: Summary,
    /// The mounted image.
    pub mounted: Summary,
    /// Speed of the image over that of plain files, turn by turn.
    pub ratio: Summary,
    /// What the ratio should be.
    pub aim: Option<Aim>,
}

/// An aim and whether it is reached.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Aim {
    /// Least ratio.
    pub at_least: f64,
    /// Whether the median reaches it.
    pub reached: bool,
}

/// Shares of the large files that were in the page cache, from 0 to 1.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Warmth {
    /// The form of lower layer.
    pub backend: &'static str,
    /// Of the plain files, the lowest before and after the reads.
    pub plain: f64,
    /// Of the image's files, the lowest before and after the reads.
    pub mounted: f64,
}

impl Warmth {
    /// Whether the figures are those of warm files. A few pages that the kernel took back in the meantime
    /// change nothing that could be measured.
    pub fn is_warm(&self) -> bool {
        self.plain.min(self.mounted) > 0.995
    }
}

impl Display for ImageReport {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let small = self.bytes - self.large_bytes;
        writeln!(formatter, "machine  {}", self.machine)?;
        writeln!(
            formatter,
            "image    {} files, {} ({} in small files, {} in weights); into the store in {:.1} s\n",
            self.files,
            ByteCount(self.bytes),
            ByteCount(small),
            ByteCount(self.large_bytes),
            self.import_seconds
        )?;
        writeln!(formatter, "{}", table::render(&self.mount_rows(), &[0]))?;
        write!(formatter, "{}", table::render(&self.comparison_rows(), &[0, 1, 4, 7]))?;
        writeln!(formatter)?;
        for warmth in &self.warmth {
            let state = if warmth.is_warm() { "warm" } else { "NOT WARM: short of memory" };
            writeln!(
                formatter,
                "page cache ({}): {state}; {:.1} % of the plain files, {:.1} % of the image's",
                warmth.backend,
                warmth.plain * 100.0,
                warmth.mounted * 100.0
            )?;
        }
        Ok(())
    }
}

impl ImageReport {
    fn mount_rows(&self) -> Vec<Vec<String>> {
        let mut rows = vec![heading(&[
            "mounting",
            "build once",
            "image size",
            "first mount",
            "mount p50",
            "mount max",
            "unmount p50",
        ])];
        for mount in &self.mounts {
            rows.push(vec![
                mount.backend.to_owned(),
                format!("{:.2} s", mount.build_seconds),
                mount.image_bytes.map_or("-".into(), |bytes| ByteCount(bytes).to_string()),
                milliseconds(mount.first_mount_seconds),
                milliseconds(mount.mount_seconds.median),
                milliseconds(mount.mount_seconds.max),
                milliseconds(mount.unmount_seconds.median),
            ]);
        }
        rows
    }

    fn comparison_rows(&self) -> Vec<Vec<String>> {
        let plain = format!("plain {}", self.machine.file_system);
        let mut rows =
            vec![heading(&["warm access", "layer", &plain, "image", "unit", "ratio p50", "min..max", "aim"])];
        for comparison in &self.comparisons {
            let Comparison { plain, mounted, ratio, .. } = comparison;
            let aim = comparison.aim.map_or(String::new(), |aim| {
                let verdict = if aim.reached { "reached" } else { "MISSED" };
                format!(">= {:.2} {verdict}", aim.at_least)
            });
            rows.push(vec![
                comparison.measure.to_owned(),
                comparison.backend.to_owned(),
                format!("{:.2}", plain.median),
                format!("{:.2}", mounted.median),
                comparison.unit.to_owned(),
                format!("{:.2}", ratio.median),
                format!("{:.2}..{:.2}", ratio.min, ratio.max),
                aim,
            ]);
        }
        rows
    }
}

fn heading(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.2} ms", seconds * 1e3)
}
