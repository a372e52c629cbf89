//! The image benchmark, scaled down.

use std::sync::Mutex;

use homeport_bench::{BenchError, ByteCount, ImageOptions, run_image};

fn options(dir: &tempfile::TempDir) -> ImageOptions {
    ImageOptions { files: 2000, bytes: ByteCount(50_000_000), dir: dir.path().to_owned(), rounds: 3 }
}

#[test]
fn a_small_image_gives_a_whole_report_and_leaves_nothing() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let steps = Mutex::new(0);
    let report = run_image(&options(&dir), &|_| *steps.lock().unwrap() += 1).unwrap();
    assert!(steps.into_inner().unwrap() > 5);

    let names: Vec<&str> = report.mounts.iter().map(|mount| mount.backend).collect();
    assert_eq!(names, ["erofs", "linked"]);
    for mount in &report.mounts {
        assert!(mount.mount_seconds.count == 20 && mount.mount_seconds.median > 0.0);
        assert!(mount.mount_seconds.max >= mount.mount_seconds.median);
        assert_eq!(mount.image_bytes.is_some(), mount.backend == "erofs");
    }
    assert_eq!(report.comparisons.len(), 12);
    for comparison in &report.comparisons {
        assert_eq!(comparison.ratio.count, 3, "{}", comparison.measure);
        // A side that was not read at all would be off by orders of magnitude.
        assert!((0.01..100.0).contains(&comparison.ratio.median), "{comparison:?}");
    }
    assert!(report.warmth.iter().all(|warmth| warmth.is_warm()), "{:?}", report.warmth);

    let json: serde_json::Value = serde_json::to_value(&report).unwrap();
    assert_eq!(json["files"], 2000);
    assert!(json["mounts"][0]["mount_seconds"]["median"].is_number());
    let table = report.to_string();
    for words in ["machine  Linux", "mount p50", "weights, sequential 1 MiB reads", "): warm;"] {
        assert!(table.contains(words), "`{words}` is missing in\n{table}");
    }

    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("homeport-bench"), "a mount is left:\n{mounts}");
}

#[test]
fn an_image_larger_than_the_disk_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let greedy = ImageOptions { files: 1_000_000, bytes: ByteCount(1 << 49), ..options(&dir) };
    let error = run_image(&greedy, &|_| {}).unwrap_err();
    assert!(matches!(error, BenchError::NotEnoughDisk { .. }), "{error}");
    assert!(error.to_string().contains("--bytes"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
