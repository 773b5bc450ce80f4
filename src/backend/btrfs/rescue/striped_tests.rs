//! A raid10 of four crafted members, of which some are lost: each has half of the blocks, and the tree of chunks lies on two of them.

use std::{os::unix::fs::FileExt as _, sync::Arc};

use super::{
    map::tests::item as chunk,
    past_tests::{META, NODE, ON_MEMBER, SYSTEM, leaf, root_item},
    relate::relate,
    supers::{seal, tests::craft},
    *,
};
use crate::exec::ScriptedRunner;

const RAID10: u64 = 1 << 6;
/// The first lies on members 1 and 2, the second on 3 and 4.
const ROOT: u64 = META + NODE;
const FILES: u64 = META + 5 * NODE;

struct Machine {
    dir: tempfile::TempDir,
    host: Host,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("dev")).unwrap();
        let host = Host::captured(dir.path(), Arc::new(ScriptedRunner::new()), jiff::Timestamp::UNIX_EPOCH);
        Self { dir, host }
    }

    /// A member at this transaction, its files changed at this time.
    fn member(&self, devid: u64, generation: u64, changed: (u64, u32)) -> Survivor {
        let path = PathBuf::from(format!("/dev/{devid}"));
        let file = std::fs::File::create(self.dir.path().join(format!("dev/{devid}"))).unwrap();
        file.set_len(40 << 20).unwrap();
        let mut sb = craft(OFFSET, generation, ROOT, 7);
        let mut put = |at: usize, bytes: &[u8]| sb[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x58, &SYSTEM.to_le_bytes());
        put(0xa4, &1_u64.to_le_bytes());
        put(0x94, &u32::try_from(NODE).unwrap().to_le_bytes());
        put(0xc9, &devid.to_le_bytes());
        seal(&mut sb);
        file.write_all_at(&sb, OFFSET).unwrap();
        let stripes = [1, 2, 3, 4].map(|member| (member, ON_MEMBER + member * NODE));
        let chunks = [((256, 228, META), chunk(8 << 20, RAID10 | 1 << 2, &stripes))];
        let inode = ((257, 1, 0), [&changed.0.to_le_bytes()[..], &changed.1.to_le_bytes()].concat());
        let root = ((5, 132, 0), root_item(FILES, generation, changed));
        let on = ON_MEMBER + devid * NODE;
        match devid {
            1 | 2 => {
                file.write_all_at(&leaf(SYSTEM, 3, 1, &chunks), devid << 20).unwrap();
                file.write_all_at(&leaf(ROOT, 1, generation, &[root]), on + NODE).unwrap();
            }
            _ => file.write_all_at(&leaf(FILES, 5, generation, &[inode]), on + NODE).unwrap(),
        }
        let best = Super::parse(&sb, OFFSET).unwrap().unwrap();
        let mut made =
            survivor(Member { path, size: Bytes(40 << 20), best, faults: Vec::new(), opens: true });
        // Every one has its root at the same place; the crafted past would say otherwise.
        made.history.commits.truncate(1);
        made
    }

    fn relation(&self, one: &Survivor, newest: &Survivor, all: &[Survivor]) -> Relation {
        relate(&self.host, one, newest, all)
    }

    fn reader(&self, own: &Survivor, all: &[Survivor]) -> Reader {
        let known = relate::known(&self.host, all);
        let path = self.host.path(&own.path);
        let (_, sb) = known.iter().find(|(known, _)| *known == path).unwrap();
        Reader::open(&path, sb, &known).unwrap()
    }
}

const TIME: (u64, u32) = (1000, 5);

#[test]
fn with_one_lost_the_others_are_of_one_state() {
    for lost in 1..=4 {
        let machine = Machine::new();
        let left: Vec<_> =
            (1..=4).filter(|devid| *devid != lost).map(|devid| machine.member(devid, 38, TIME)).collect();
        for one in &left {
            for newest in left.iter().filter(|s| s.path != one.path) {
                assert_eq!(machine.relation(one, newest, &left), Relation::Same, "{lost}: {one:?}");
            }
            let reader = machine.reader(one, &left);
            assert_eq!(reader.changed((ROOT, 38)).unwrap().as_nanosecond(), 1_000_000_000_005);
            assert!(!reader.map().unwrap().is_whole_on(one.devid));
            let share = ON_MEMBER + one.devid * NODE;
            assert!(reader.used().unwrap().contains(&(share..share + (4 << 20))));
        }
    }
}

#[test]
fn what_is_on_two_of_them_must_be_the_same() {
    let machine = Machine::new();
    let all = [machine.member(2, 38, TIME), machine.member(3, 38, TIME), machine.member(4, 38, (1000, 6))];
    assert_eq!(machine.relation(&all[1], &all[2], &all), Relation::Diverged);
    assert_eq!(machine.relation(&all[0], &all[2], &all), Relation::Same, "of its own it has the only copy");
}

#[test]
fn one_that_lags_lags_whether_its_like_is_there_or_not() {
    let machine = Machine::new();
    let lost_two = [machine.member(1, 40, TIME), machine.member(3, 38, TIME), machine.member(4, 40, TIME)];
    assert_eq!(machine.relation(&lost_two[1], &lost_two[2], &lost_two), Relation::Behind(2));
    let lost_four = [machine.member(1, 40, TIME), machine.member(2, 40, TIME), machine.member(3, 38, TIME)];
    assert_eq!(machine.relation(&lost_four[2], &lost_four[0], &lost_four), Relation::Behind(2));
}

#[test]
fn half_of_the_blocks_tell_nothing_of_the_rest() {
    let machine = Machine::new();
    let alone = [machine.member(3, 38, TIME)];
    let reader = machine.reader(&alone[0], &alone);
    assert_eq!((reader.used(), reader.changed((ROOT, 38))), (None, None));
    // With a pair missing nobody can say that there is no log.
    let pair = [machine.member(1, 38, TIME), machine.member(2, 38, TIME)];
    assert_eq!(machine.reader(&pair[0], &pair).has_log_after(38, &mut || true), None);
    let apart = [machine.member(1, 38, TIME), machine.member(3, 38, TIME)];
    assert_eq!(machine.reader(&apart[0], &apart).has_log_after(38, &mut || true), Some(false));
}

#[test]
fn one_whose_first_superblock_is_of_no_use_gets_that_of_the_first() {
    let machine = Machine::new();
    let overlay = machine.dir.path().join("dev/overlay");
    std::fs::write(&overlay, vec![0; 1 << 20]).unwrap();
    let mut all = [machine.member(1, 38, TIME), machine.member(3, 38, TIME)];
    let mend =
        |all: &[Survivor]| mend(&machine.host, &all[0], &all[1], all, Path::new("/dev/overlay")).unwrap();
    assert_eq!(mend(&all), None);
    // It does not know the log that the first one knows.
    all[1].history.log = 5;
    assert!(mend(&all).is_some_and(|mended| mended.complete));
    let copies = supers::read(&overlay).unwrap();
    let (written, ..) = best_of(copies).unwrap();
    assert_eq!((written.own.devid, written.log_root, written.state()), (3, 7, (ROOT, 38)));
    // Nothing is taken over from one of another transaction.
    all[1].generation = 37;
    assert_eq!(mend(&all), None);
}
