//! Pools of each level in the states that `tests/lab/zfs-states.sh` makes, as two versions told of them.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use crate::{
    backend::zfs::{json, text, told},
    host::zfs::kstat,
    model::zfs::ZfsState,
};

const STATES: &str = "tests/fixtures/zfs";

fn read(version: &str, state: &str, file: &str) -> String {
    let path = Path::new(STATES).join(version).join(state).join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn one(pools: Vec<ZfsState>) -> ZfsState {
    let [pool] = <[_; 1]>::try_from(pools).unwrap();
    pool
}

/// A pool in a line: its level and state, what runs on it, and each device that is not simply at work.
fn line(mut pool: ZfsState) -> String {
    pool.vdevs.iter_mut().for_each(told::mark);
    let level = told::level_of(&pool).unwrap();
    let scan = pool.scan.as_ref().map_or_else(String::new, |s| format!(", {:?} {:?}", s.kind, s.state));
    let mut line = format!("{level} {}{scan}", pool.state);
    for leaf in told::of_members(&pool) {
        let name = leaf.name.trim_start_matches("scsi-0QEMU_QEMU_HARDDISK_");
        let errors = leaf.errors.unwrap();
        let clean = errors.read + errors.write + errors.checksum == 0;
        if leaf.state != "ONLINE" || leaf.resilvering || !clean {
            let filled = if leaf.resilvering { ", filled" } else { "" };
            let counts =
                [errors.read, errors.write, errors.checksum].map(|count| if count > 0 { "n" } else { "0" });
            let _ = write!(line, "; {name} {} {}{filled}", leaf.state, counts.join(" "));
        }
    }
    line
}

fn guids(pool: &ZfsState) -> BTreeSet<u64> {
    told::of_members(pool).into_iter().filter_map(|leaf| leaf.guid).collect()
}

#[test]
fn pools_of_each_level_are_told_by_each_version() {
    let mut all = String::new();
    for version in ["2.1.11", "2.3.9"] {
        let states = fs::read_dir(Path::new(STATES).join(version)).unwrap();
        let states: BTreeSet<_> =
            states.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let is_here = |name: &&String| name.starts_with("mirror-") || name.starts_with("raidz");
        for state in states.iter().filter(is_here) {
            let pool = one(text::parse_status(&read(version, state, "status.txt")).unwrap());
            let numbered = one(text::parse_status(&read(version, state, "status-numbers.txt")).unwrap());
            assert_eq!(guids(&numbered).len(), told::of_members(&pool).len(), "{state}");
            assert_eq!(
                kstat::parse_state(&read(version, state, "kstat.txt")).unwrap(),
                pool.state,
                "{state}"
            );
            if version == "2.3.9" {
                let exact = one(json::parse_status(&read(version, state, "status-tree.json")).unwrap());
                assert_eq!(guids(&exact), guids(&numbered), "{state}");
                assert_eq!(line(exact), line(pool.clone()), "{state}");
            }
            let _ = writeln!(all, "{version} {state}: {}", line(pool));
        }
    }
    insta::assert_snapshot!(all);
}
