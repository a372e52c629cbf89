//! The protocol under every interleaving: the code that the store runs, on a ground whose every
//! operation is a point at which another thread may go on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use homeport_content::Digest;
use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::{Condvar, Mutex};
use shuttle::{Config, FailurePersistence, Runner, thread};

use super::{Access, Ground, HoldOn, PinOn, Protocol};
use crate::StoreError;
use crate::clock::Time;
use crate::hold::Root;

/// What a variant of the protocol leaves out, to see that the test misses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// Content that is found keeps its old time.
    Freshening,
    /// Shards are not locked.
    Locks,
    /// Holds begin when the content has been looked for.
    EarlyHolds,
    /// Holds end before the root is written.
    LongHolds,
    /// The cutoff is fixed after the roots were read.
    EarlyCutoff,
    /// Other processes don't see holds.
    Announcements,
    /// Roots that content is taken over from are not pinned.
    Pins,
    /// A pin that is let go of during a collection does not count for it.
    ReleasedPins,
}

/// The places of content, as numbers; all in one shard.
type Place = u8;

/// A file system and a database, seen by all processes.
struct World {
    without: Without,
    /// No point of interruption: it is read under locks that are none either.
    time: AtomicU64,
    files: Mutex<BTreeMap<Place, Time>>,
    shard: Shard,
    announced: Mutex<BTreeSet<(usize, Time)>>,
    rows: Mutex<BTreeMap<&'static str, Vec<Place>>>,
}

#[derive(Default)]
struct Shard {
    /// Those who share it, or -1 if somebody has it alone.
    users: Mutex<i32>,
    changed: Condvar,
}

/// A world as one process sees it.
struct Process {
    world: Arc<World>,
    number: usize,
}

struct Guard(Arc<World>, Access);

impl Drop for Guard {
    fn drop(&mut self) {
        let mut users = self.0.shard.users.lock().unwrap();
        *users = if self.1 == Access::Alone { 0 } else { *users - 1 };
        self.0.shard.changed.notify_all();
    }
}

fn digest(place: Place) -> Digest {
    Digest::of(&[place])
}

impl Ground for Process {
    type Place = Place;
    type Staged = ();
    type Shard = ();
    type Guard = Option<Guard>;

    fn now(&self) -> Time {
        self.world.time.fetch_add(1, Ordering::Relaxed)
    }

    fn lock(&self, _: &Place, access: Access) -> Result<Option<Option<Guard>>, StoreError> {
        if self.world.without == Without::Locks {
            return Ok(Some(None));
        }
        let shard = &self.world.shard;
        let mut users = shard.users.lock().unwrap();
        while *users < 0 || (access == Access::Alone && *users > 0) {
            users = shard.changed.wait(users).unwrap();
        }
        *users = if access == Access::Alone { -1 } else { *users + 1 };
        Ok(Some(Some(Guard(Arc::clone(&self.world), access))))
    }

    fn make_shard(&self, _: &Place) -> Result<(), StoreError> {
        Ok(())
    }

    fn look(&self, place: &Place) -> Result<Option<(Time, u64)>, StoreError> {
        Ok(self.world.files.lock().unwrap().get(place).map(|time| (*time, 1)))
    }

    fn touch(&self, place: &Place, time: Time) -> Result<bool, StoreError> {
        let mut files = self.world.files.lock().unwrap();
        let Some(found) = files.get_mut(place) else { return Ok(false) };
        if self.world.without != Without::Freshening {
            *found = time;
        }
        Ok(true)
    }

    fn publish(&self, (): &(), place: &Place, time: Time) -> Result<(), StoreError> {
        self.world.files.lock().unwrap().insert(*place, time);
        Ok(())
    }

    fn remove(&self, place: &Place) -> Result<(), StoreError> {
        self.world.files.lock().unwrap().remove(place);
        Ok(())
    }

    fn list(&self, (): &()) -> Result<Vec<(Digest, Place)>, StoreError> {
        Ok(self.world.files.lock().unwrap().keys().map(|place| (digest(*place), *place)).collect())
    }

    fn announce(&self, start: Time) {
        self.world.announced.lock().unwrap().insert((self.number, start));
    }

    fn retract(&self, start: Time) {
        self.world.announced.lock().unwrap().remove(&(self.number, start));
    }

    fn oldest_elsewhere(&self, time: Time) -> Option<Time> {
        let announced = self.world.announced.lock().unwrap();
        let others = announced.iter().filter(|(number, start)| *number != self.number && *start < time);
        others.map(|(_, start)| *start).min().filter(|_| self.world.without != Without::Announcements)
    }
}

impl World {
    /// Old content that nothing refers to, beside what rows name.
    fn new(without: Without, files: &[Place], rows: &[(&'static str, &[Place])]) -> Arc<World> {
        Arc::new(World {
            without,
            time: AtomicU64::new(100),
            files: Mutex::new(files.iter().map(|place| (*place, 1)).collect()),
            shard: Shard::default(),
            announced: Mutex::default(),
            rows: Mutex::new(rows.iter().map(|(name, places)| (*name, places.to_vec())).collect()),
        })
    }

    fn process(self: &Arc<World>, number: usize) -> Arc<Protocol<Process>> {
        Arc::new(Protocol::new(Process { world: Arc::clone(self), number }))
    }

    /// What must always be true.
    fn check(&self) {
        let files = self.files.lock().unwrap().clone();
        for (name, places) in self.rows.lock().unwrap().iter() {
            let missing: Vec<_> = places.iter().filter(|place| !files.contains_key(place)).collect();
            assert!(missing.is_empty(), "{name} lost {missing:?}");
        }
    }
}

/// Stores `places` as an operation does, and names them.
fn commit(process: &Arc<Protocol<Process>>, name: &'static str, places: &[Place]) {
    let world = Arc::clone(&process.ground.world);
    let store = || {
        for place in places {
            if !process.keep(place).unwrap() {
                process.publish(&(), place).unwrap();
            }
        }
    };
    if world.without == Without::EarlyHolds {
        store();
    }
    let hold = HoldOn::new(process);
    if world.without != Without::EarlyHolds {
        store();
    }
    let hold = (world.without != Without::LongHolds).then_some(hold);
    world.rows.lock().unwrap().insert(name, places.to_vec());
    drop(hold);
}

/// Names what another row names, as long as that is there.
fn derive(process: &Arc<Protocol<Process>>, from: &'static str, name: &'static str) {
    let world = Arc::clone(&process.ground.world);
    let root = |place: &Place| Root::Object(digest(*place));
    let Some(places) = world.rows.lock().unwrap().get(from).cloned() else { return };
    let pin =
        (world.without != Without::Pins).then(|| PinOn::new(process, places.iter().map(root).collect()));
    if !world.rows.lock().unwrap().contains_key(from) {
        return;
    }
    world.rows.lock().unwrap().insert(name, places);
    drop(pin);
}

/// One collection, as [`crate::Collection`] makes it.
fn collect(process: &Arc<Protocol<Process>>) {
    let world = Arc::clone(&process.ground.world);
    let rows = || world.rows.lock().unwrap().values().flatten().copied().collect::<Vec<_>>();
    let late = (world.without == Without::EarlyCutoff).then(rows);
    let cutoff = process.begin_collection(0);
    let roots = late.unwrap_or_else(rows);
    let mut marked: BTreeSet<_> = roots.into_iter().map(digest).collect();
    // Marking takes its time.
    thread::yield_now();
    if world.without == Without::ReleasedPins {
        process.state().released.clear();
    }
    marked.extend(process.pinned().iter().map(|root| *root.digest()));
    process.sweep(&(), cutoff, &|digest| marked.contains(digest), false).unwrap();
    process.end_collection();
}

/// Two commits of what is there as garbage, one of them in another process, and a collection.
fn commits_beside_a_collection(without: Without) {
    let world = World::new(without, &[1, 2, 9], &[]);
    let (server, other) = (world.process(0), world.process(1));
    let threads = [
        thread::spawn({
            let server = Arc::clone(&server);
            move || commit(&server, "one", &[1, 2])
        }),
        thread::spawn(move || commit(&other, "other", &[2, 3])),
        thread::spawn(move || collect(&server)),
    ];
    for thread in threads {
        thread.join().unwrap();
    }
    world.check();
    // Nobody holds anything any more: what nothing refers to goes.
    let last = world.process(2);
    collect(&last);
    world.check();
    assert_eq!(world.files.lock().unwrap().keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
}

/// A row is made from another one, which goes; meanwhile a collection.
fn a_successor_beside_a_collection(without: Without) {
    let world = World::new(without, &[1], &[("old", &[1])]);
    let server = world.process(0);
    let threads = [
        thread::spawn({
            let server = Arc::clone(&server);
            move || derive(&server, "old", "new")
        }),
        thread::spawn({
            let world = Arc::clone(&world);
            move || drop(world.rows.lock().unwrap().remove("old"))
        }),
        thread::spawn(move || collect(&server)),
    ];
    for thread in threads {
        thread.join().unwrap();
    }
    world.check();
}

fn run(scheduler: impl Scheduler + 'static, scenario: fn(Without), without: Without) {
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::None;
    Runner::new(scheduler, config).run(move || scenario(without));
}

fn is_caught(scenario: fn(Without), without: Without) -> bool {
    let tried =
        |search: fn(fn(Without), Without)| std::panic::catch_unwind(|| search(scenario, without)).is_err();
    tried(|scenario, without| run(RandomScheduler::new_from_seed(7, 20_000), scenario, without))
        || tried(|scenario, without| run(PctScheduler::new_from_seed(7, 4, 20_000), scenario, without))
}

const SCENARIOS: [fn(Without); 2] = [commits_beside_a_collection, a_successor_beside_a_collection];

#[test]
fn nothing_that_has_a_root_is_ever_removed() {
    for scenario in SCENARIOS {
        run(RandomScheduler::new_from_seed(1, 20_000), scenario, Without::Nothing);
        run(PctScheduler::new_from_seed(1, 4, 20_000), scenario, Without::Nothing);
        run(DfsScheduler::new(Some(20_000), false), scenario, Without::Nothing);
    }
}

#[test]
fn every_part_of_the_protocol_is_needed() {
    let [commits, successor] = SCENARIOS;
    let parts = [
        (commits, Without::Freshening),
        (commits, Without::Locks),
        (commits, Without::EarlyHolds),
        (commits, Without::LongHolds),
        (commits, Without::EarlyCutoff),
        (commits, Without::Announcements),
        (successor, Without::Pins),
        (successor, Without::ReleasedPins),
    ];
    for (scenario, without) in parts {
        assert!(is_caught(scenario, without), "{without:?} was not missed");
    }
}
