//! How long takes and shows last. Run by name: `--ignored pace`.

use std::time::{Duration, Instant};

use homeport_fs::{BackendChoice, TakeKind};

use crate::place::Place;
use crate::snapshots::isolated;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
#[ignore = "measures"]
fn pace_of_takes_and_shows() {
    isolated(|| {
        let at = Place::new(BackendChoice::Auto, true);
        let files: Vec<(String, String)> =
            (0..1000).map(|number| (format!("dir-{}/file-{number}", number % 10), "x".repeat(700))).collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (&**path, &**text)).collect();
        let versions = [at.version(&files), at.version(&files[..500])];
        let mut running = at.run("one", &versions[0]);
        let time = |name: &str, step: &mut dyn FnMut(usize)| {
            let times = (0..40).map(|round| {
                let begun = Instant::now();
                step(round);
                begun.elapsed()
            });
            println!("{name}: {:?}", median(times.collect()));
        };
        time("show", &mut |round| running.show(&versions[(round + 1) % 2]).unwrap());
        running.show(&versions[0]).unwrap();
        let mut took = Vec::new();
        for used in [false, true] {
            if used {
                running.python("f = open(at + '/dir-1/file-1')");
            }
            took.clear();
            for round in 0..40 {
                running.write("dir-2/changed", &format!("{round}").repeat(1000));
                let begun = Instant::now();
                let taken = running.take(TakeKind::Asked);
                took.push(begun.elapsed());
                assert_eq!(taken.clean, !used);
            }
            println!("take, used {used}: {:?}", median(took.clone()));
        }
        let begun = Instant::now();
        running.take(TakeKind::Asked);
        println!("take of nothing, used: {:?}", begun.elapsed());
        running.end().0.forget().unwrap();
    });
}
