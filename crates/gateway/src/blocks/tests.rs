use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::receive::Sink;

const BLOCK: usize = BLOCK_BYTES as usize;

/// Bytes that differ from block to block and have no zeros.
fn bytes(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| ((at / BLOCK + at % 241) as u8 ^ seed) | 1).collect()
}

fn name(block: &[u8]) -> BlockName {
    Sha256::digest(block).into()
}

fn plan(bytes: &[u8]) -> BlockPlan {
    BlockPlan::new(bytes.len() as u64, bytes.chunks(BLOCK).map(name).collect()).unwrap()
}

/// As the newest clients name blocks: without the zeros at their ends.
fn cut(block: &[u8]) -> &[u8] {
    &block[..block.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)]
}

fn open(dir: &Path) -> BlockStore {
    std::fs::create_dir_all(dir).unwrap();
    BlockStore::open(dir.join("blocks"), Arc::new(SystemTime::now)).unwrap()
}

fn send(store: &BlockStore, upload: &Arc<BlockUpload>, index: usize, block: &[u8]) {
    let mut sink = upload.receive(index, name(block)).unwrap().unwrap();
    block.chunks(1 << 20).for_each(|piece| sink.write(piece).unwrap());
    assert_eq!(sink.finish().unwrap(), Ok(block.len() as u64));
    store.arrived(upload, index, name(block), block.len() as u64);
}

#[test]
fn a_file_is_whole_when_its_last_block_arrived_in_whatever_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let file = bytes(7, 2 * BLOCK + 5);
    let plan = plan(&file);
    let upload = store.begin(&plan).unwrap();
    assert_eq!(upload.missing(&plan).unwrap(), [0, 1, 2]);
    for index in [2, 0] {
        assert!(upload.assemble(&plan).is_none());
        let (start, length) = plan.range(index);
        send(&store, &upload, index, &file[start as usize..(start + length) as usize]);
    }
    assert_eq!(upload.missing(&plan).unwrap(), [1]);
    send(&store, &upload, 1, &file[BLOCK..2 * BLOCK]);
    let whole = upload.assemble(&plan).unwrap();
    assert_eq!(whole.digest, *blake3::hash(&file).as_bytes());
    assert!(std::fs::read(&whole.path).unwrap() == file);
    assert!(upload.assemble(&plan).is_none(), "given out once");
    assert!(upload.receive(1, name(b"other")).unwrap().is_none(), "nobody writes to it any more");
    store.forget(&upload).unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join("blocks")).unwrap().count(), 0);
    assert_eq!(store.begin(&plan).unwrap().missing(&plan).unwrap(), [0, 1, 2]);
}

#[test]
fn zeros_are_never_sent_and_take_no_space() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut file = vec![0; 4 * BLOCK + 100];
    file[BLOCK..BLOCK + 3].copy_from_slice(b"abc");
    let digest = *blake3::hash(&file).as_bytes();
    // One client leaves zeros out, another doesn't.
    let all = |cutting: bool| {
        let blocks = file.chunks(BLOCK).map(|block| name(if cutting { cut(block) } else { block })).collect();
        BlockPlan::new(file.len() as u64, blocks).unwrap()
    };
    for cutting in [true, false] {
        let plan = all(cutting);
        let upload = store.begin(&plan).unwrap();
        assert_eq!(upload.missing(&plan).unwrap(), [1], "cutting {cutting}");
        let block = &file[BLOCK..2 * BLOCK];
        send(&store, &upload, 1, if cutting { cut(block) } else { block });
        let whole = upload.assemble(&plan).unwrap();
        assert_eq!(whole.digest, digest);
        assert!(std::fs::read(&whole.path).unwrap() == file);
        if cutting {
            assert!(store.disk_usage() < 1 << 20, "{} bytes on disk", store.disk_usage());
        }
        store.forget(&upload).unwrap();
    }
}

#[test]
fn an_upload_goes_on_after_a_restart_with_what_is_really_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = bytes(3, 6 * BLOCK);
    let plan = plan(&file);
    {
        let store = open(dir.path());
        let upload = store.begin(&plan).unwrap();
        for index in 0..5 {
            send(&store, &upload, index, &file[index * BLOCK..(index + 1) * BLOCK]);
        }
        // What a power loss may leave of block 1.
        let data = File::options().write(true).open(upload.data()).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&data, &[0; 4096], BLOCK_BYTES + 4096).unwrap();
        // And of the journal.
        let journal = dir.path().join(format!("blocks/{}.journal", plan.key()));
        std::io::Write::write_all(&mut File::options().append(true).open(journal).unwrap(), &[9; 60])
            .unwrap();
    }
    let store = open(dir.path());
    let upload = store.begin(&plan).unwrap();
    assert_eq!(upload.missing(&plan).unwrap(), [1, 5]);
    for index in [1, 5] {
        send(&store, &upload, index, &file[index * BLOCK..(index + 1) * BLOCK]);
    }
    let whole = upload.assemble(&plan).unwrap();
    assert_eq!(whole.digest, *blake3::hash(&file).as_bytes());
    assert!(std::fs::read(&whole.path).unwrap() == file);
}

#[test]
fn what_is_left_of_a_crash_between_two_steps_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = dir.path().join("blocks");
    let file = bytes(1, 10);
    let key = plan(&file).key();
    for parts in [vec!["data"], vec!["journal"]] {
        open(dir.path()).begin(&plan(&file)).unwrap();
        for part in parts {
            std::fs::remove_file(blocks.join(format!("{key}.{part}"))).unwrap();
        }
        let store = open(dir.path());
        assert!(store.find(&key).is_none());
        assert_eq!(std::fs::read_dir(&blocks).unwrap().count(), 0);
    }
}

#[test]
fn a_block_that_is_not_what_it_was_announced_as_is_refused_and_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let file = bytes(9, 100);
    let mut shorter = file.clone();
    shorter[50..].fill(0);
    let plan = BlockPlan::new(100, vec![name(cut(&shorter))]).unwrap();
    let upload = store.begin(&plan).unwrap();
    let mut sink = upload.receive(0, name(cut(&shorter))).unwrap().unwrap();
    sink.write(&file).unwrap();
    assert_eq!(sink.finish().unwrap(), Err(name(&file)));
    assert_eq!(upload.missing(&plan).unwrap(), [0]);
    // The longer bytes of before must not show behind the shorter ones.
    send(&store, &upload, 0, cut(&shorter));
    let whole = upload.assemble(&plan).unwrap();
    assert_eq!(std::fs::read(whole.path).unwrap(), shorter);
}

#[test]
fn a_newer_sender_of_a_block_takes_it_from_an_older_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let file = bytes(5, 1000);
    let plan = plan(&file);
    let upload = store.begin(&plan).unwrap();
    let mut old = upload.receive(0, name(&file)).unwrap().unwrap();
    old.write(&file[..500]).unwrap();
    let mut new = upload.receive(0, name(&file)).unwrap().unwrap();
    assert!(matches!(old.write(&file[500..]), Err(crate::receive::ReceiveError::Superseded)));
    new.write(&file).unwrap();
    assert_eq!(new.finish().unwrap(), Ok(1000));
    assert!(matches!(old.finish(), Ok(Err(_)) | Err(_)));
    assert!(upload.receive(0, name(&file)).unwrap().is_none(), "it is there");
    assert!(std::fs::read(upload.assemble(&plan).unwrap().path).unwrap() == file);
}

#[test]
fn a_block_of_another_upload_is_taken_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let first = bytes(1, 2 * BLOCK + 10);
    let first_plan = plan(&first);
    let upload = store.begin(&first_plan).unwrap();
    send(&store, &upload, 1, &first[BLOCK..2 * BLOCK]);

    let mut second = bytes(2, BLOCK);
    second.extend_from_slice(&first[BLOCK..2 * BLOCK]);
    second.extend_from_slice(&first[BLOCK..2 * BLOCK]);
    let second_plan = plan(&second);
    let other = store.begin(&second_plan).unwrap();
    let missing = other.missing(&second_plan).unwrap();
    let filled: HashSet<usize> = missing
        .into_iter()
        .filter(|index| store.fill_from_uploads(&other, &second_plan, *index).unwrap() == Filled::Yes)
        .collect();
    assert_eq!(filled, HashSet::from([1, 2]));
    send(&store, &other, 0, &second[..BLOCK]);
    let whole = other.assemble(&second_plan).unwrap();
    assert_eq!(whole.digest, *blake3::hash(&second).as_bytes());
    assert!(std::fs::read(whole.path).unwrap() == second);
}

#[test]
fn a_file_that_is_not_what_it_was_thought_to_be_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let file = bytes(4, BLOCK + 77);
    let plan = plan(&file);
    let upload = store.begin(&plan).unwrap();
    let path = dir.path().join("elsewhere");
    std::fs::write(&path, &file).unwrap();
    let source = File::open(&path).unwrap();
    let fill = |index, start, length| upload.fill(&plan, index, &source, start, length).unwrap();
    assert_eq!(fill(0, 1, BLOCK_BYTES), Filled::No);
    assert_eq!(fill(1, BLOCK_BYTES, 76), Filled::No);
    assert_eq!(fill(1, BLOCK_BYTES, 78), Filled::No);
    assert_eq!(fill(1, 2 * BLOCK_BYTES, 77), Filled::No, "behind the end of the file");
    assert_eq!(upload.missing(&plan).unwrap(), [0, 1]);
    assert_eq!(fill(0, 0, BLOCK_BYTES), Filled::Yes);
    assert_eq!(fill(1, BLOCK_BYTES, 77), Filled::Yes);
    assert!(std::fs::read(upload.assemble(&plan).unwrap().path).unwrap() == file);
}

#[test]
fn a_block_that_is_the_same_in_an_older_version_of_the_file_is_taken_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut new = bytes(4, 3 * BLOCK + 77);
    // A block that ends in zeros has two names.
    new[BLOCK + 300_000..2 * BLOCK].fill(0);
    let mut old = new.clone();
    old[7] ^= 1;
    old.truncate(3 * BLOCK + 76);
    let path = dir.path().join("old");
    std::fs::write(&path, &old).unwrap();
    let source = File::open(&path).unwrap();
    for cutting in [true, false] {
        let store = open(&dir.path().join(cutting.to_string()));
        let names = new.chunks(BLOCK).map(|block| name(if cutting { cut(block) } else { block })).collect();
        let plan = BlockPlan::new(new.len() as u64, names).unwrap();
        assert!(plan.is_of(&new) && !plan.is_of(&old));
        let upload = store.begin(&plan).unwrap();
        for (index, filled) in [Filled::No, Filled::Yes, Filled::Yes, Filled::No].into_iter().enumerate() {
            assert_eq!(upload.fill_alike(&plan, index, &source).unwrap(), filled, "block {index}, {cutting}");
        }
        send(&store, &upload, 0, &new[..BLOCK]);
        send(&store, &upload, 3, &new[3 * BLOCK..]);
        assert!(std::fs::read(upload.assemble(&plan).unwrap().path).unwrap() == new);
    }
}

#[test]
fn an_upload_that_nobody_goes_on_with_is_swept() {
    const HOUR: Duration = Duration::from_secs(3600);
    let dir = tempfile::tempdir().unwrap();
    let ahead = Arc::new(AtomicU64::new(0));
    let at = |ahead: &Arc<AtomicU64>| {
        let ahead = Arc::clone(ahead);
        let clock = move || SystemTime::now() + Duration::from_secs(ahead.load(Ordering::SeqCst));
        BlockStore::open(dir.path().join("blocks"), Arc::new(clock)).unwrap()
    };
    let file = bytes(4, 77);
    let plan = plan(&file);
    let store = at(&ahead);
    store.begin(&plan).unwrap();
    ahead.store(7000, Ordering::SeqCst);
    let upload = store.begin(&plan).unwrap();
    assert_eq!(store.sweep(HOUR).unwrap(), 0, "it was just asked for");
    // Another run of the server knows when.
    drop(store);
    let store = at(&ahead);
    assert_eq!(store.sweep(HOUR).unwrap(), 0);
    ahead.store(14_000, Ordering::SeqCst);
    assert_eq!(store.sweep(HOUR).unwrap(), 1);
    assert!(!upload.data().exists());
    assert_eq!(store.begin(&plan).unwrap().missing(&plan).unwrap(), [0]);
}
