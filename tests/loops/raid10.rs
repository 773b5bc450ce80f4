//! A raid10: no survivor has everything, and which of them are of one state is told all the same.

use std::{fs, path::Path};

use crate::{
    halves::{Mirror, Traces, find, forget, recover},
    recover::{Attached, Cut, TO, attach, cut},
    sandbox::{Sandbox, isolated},
    store::Store,
    trouble::ended,
    writer::{DATABASE, Mode, Writer, version_of},
};

const MEMBERS: [&str; 4] = ["one", "two", "three", "four"];

fn attached(s: &Sandbox, store: &Store, cut: &Cut, lost: &[usize]) -> Vec<Attached> {
    (0..MEMBERS.len()).filter(|n| !lost.contains(n)).map(|n| cut.attach(s, store, n)).collect()
}

fn named(left: &[Attached]) -> Vec<&str> {
    left.iter().map(Attached::name).collect()
}

#[test]
fn any_three_of_four_are_enough() {
    isolated("raid10::any_three_of_four_are_enough", |s| {
        let store = Store::new(s);
        let cut = cut(s, &store, "raid10", &MEMBERS);
        for (lost, overlay) in [(0, "fuse"), (1, "auto"), (2, "image"), (3, "auto")] {
            let left = attached(s, &store, &cut, &[lost]);
            let traces = Traces::of(s);
            let ran = recover(s, &named(&left), TO, &["--all", "--overlay", overlay]);
            assert_eq!(ran.code, 0, "without {lost}: {}{}", ran.stdout, ran.stderr);
            cut.is_whole(Path::new(TO));
            left.iter().for_each(|member| member.is_untouched(s));
            traces.are_all(s);
            fs::remove_dir_all(TO).unwrap();
            drop(left);
            forget();
        }
        // Two may hold all or half of a chunk, by how it was laid out: what is lacking is said.
        let pairs = [[0, 1], [0, 2], [0, 3]].map(|lost| {
            let left = attached(s, &store, &cut, &lost);
            let ran = recover(s, &named(&left), TO, &["--all"]);
            left.iter().for_each(|member| member.is_untouched(s));
            match ran.code {
                0 => cut.is_whole(Path::new(TO)),
                4 => assert!(ran.stdout.contains("cannot be read"), "{}", ran.stdout),
                _ => {
                    ended(&ran, 3, &[]);
                    let clear = ["no way that brings out the newest state", "2 of its 4 members are missing"];
                    assert!(clear.iter().any(|words| ran.stderr.contains(words)), "{}", ran.stderr);
                    assert!(!Path::new(TO).exists());
                }
            }
            let _ = fs::remove_dir_all(TO);
            drop(left);
            forget();
            ran.code
        });
        assert!(pairs.contains(&3), "{pairs:?}");
    });
}

/// One whose first superblock is gone is needed all the same, and is read as the others are.
#[test]
fn one_without_its_first_superblock_is_read_with_the_others() {
    isolated("raid10::one_without_its_first_superblock_is_read_with_the_others", |s| {
        let store = Store::new(s);
        let cut = cut(s, &store, "raid10", &MEMBERS);
        let left = [
            cut.attach(s, &store, 0),
            cut.attach_with(s, &store, 1, 64 << 10, &[0; 4096]),
            cut.attach(s, &store, 3),
        ];
        let ran = recover(s, &named(&left), TO, &["--all"]);
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        cut.is_whole(Path::new(TO));
        left.iter().for_each(|member| member.is_untouched(s));
    });
}

/// A member fell out, and the others went on: with their transactions, or with their log alone.
#[test]
fn one_that_fell_out_is_never_taken_for_the_newest() {
    isolated("raid10::one_that_fell_out_is_never_taken_for_the_newest", |s| {
        let store = Store::new(s);
        let mirror = Mirror::new(s, &store, "raid10", &MEMBERS);
        let writer = Writer::start(&mirror.node(), Mode::Rollback);
        let until = |more: u64| {
            let version = writer.acknowledged().version + more;
            while writer.acknowledged().version < version {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        };
        let clone = |member: usize, when: &str| {
            store.clone_of(&mirror.images()[member], &format!("{} {when}", MEMBERS[member]))
        };
        until(20);
        mirror.commit();
        until(10);
        let early: Vec<_> = (0..MEMBERS.len()).map(|n| clone(n, "early")).collect();
        until(30);
        let later: Vec<_> = (0..MEMBERS.len()).map(|n| clone(n, "later")).collect();
        mirror.commit();
        until(15);
        let acknowledged = writer.stop();
        fs::File::open(mirror.node()).unwrap().sync_all().unwrap();
        let last: Vec<_> = (0..MEMBERS.len()).map(|n| clone(n, "last")).collect();
        drop(mirror);
        let newest = |images: [&Path; 3], at_least: u64| {
            let left: Vec<_> = images.iter().map(|image| attach(s, &store, image)).collect();
            let ran = recover(s, &named(&left), TO, &[]);
            left.iter().for_each(|member| member.is_untouched(s));
            drop(left);
            forget();
            if ran.code == 0 || ran.code == 4 {
                let version = version_of(&find(Path::new(TO), DATABASE)[0]);
                assert!(version.as_ref().is_ok_and(|v| *v >= at_least), "{version:?}, {at_least}");
                fs::remove_dir_all(TO).unwrap();
            }
            ran
        };
        // Behind by transactions: its like is there, so it is not needed.
        let ran = newest([&last[0], &last[1], &last[2]], acknowledged.version);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        for lags in 0..MEMBERS.len() {
            let images: Vec<_> =
                (0..4).map(|n| if n == lags { early[n].as_path() } else { last[n].as_path() }).collect();
            let left: Vec<_> = images.iter().map(|image| attach(s, &store, image)).collect();
            let ran = recover(s, &named(&left), TO, &[]);
            assert_eq!(ran.code, 0, "{lags} lags: {}", ran.stderr);
            assert!(ran.stderr.contains("it dropped off 1 transaction earlier"), "{}", ran.stderr);
            assert_eq!(version_of(&find(Path::new(TO), DATABASE)[0]), Ok(acknowledged.version));
            fs::remove_dir_all(TO).unwrap();
            drop(left);
            forget();
        }
        // Of the same transaction, and it does not know what was fsynced since.
        for lags in 0..3 {
            let pick = |n: usize| if n == lags { early[n].as_path() } else { later[n].as_path() };
            let ran = newest([pick(0), pick(1), pick(2)], 0);
            assert!(ran.stderr.contains("not of one state"), "{lags}: {}", ran.stderr);
            assert_ne!(ran.code, 1, "{lags}: {}", ran.stderr);
        }
    });
}
