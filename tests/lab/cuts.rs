//! The power fails.

use std::{thread, time::Duration};

use crate::{
    backend::{Backend, EXTRA},
    disks::Bus,
    steps::{
        MOUNT, NODE, Random, does, elsewhere, finds, is_at_work, mirrored_and_logged, setup_arguments,
        together_have, unmirrored,
    },
};

/// Power cuts at random instants under the writer. What a disk with a volatile cache had not been told to flush is lost, write by write, by
/// the toss of a coin. Each half alone has the last commit that the node told of.
fn each_half_has_the_last_commit(name: &str, b: &Backend, cuts: usize) {
    let random = Random::new();
    let (mut m, kept) = mirrored_and_logged(name, b);
    let mut members = vec![("one", Bus::Scsi)];
    members.extend(b.enough(("two", Bus::Usb), || (EXTRA, Bus::Scsi)));
    let caches: Vec<_> = members
        .iter()
        .map(|(serial, _)| {
            let at = m.device(serial);
            let kind = m.ok(&format!("cat /sys/block/$(basename $(readlink -f {at}))/queue/write_cache"));
            kind.trim() == "write back"
        })
        .collect();
    assert!(caches.contains(&true), "the kernel flushes neither disk");
    // More than are asked for: one at which the log cannot be told is passed over.
    let instants: Vec<_> = (0..cuts + 3)
        .map(|_| {
            m.commits_past(m.committed() + 2);
            thread::sleep(Duration::from_millis(random.below(1000)));
            m.at_an_instant(|m| {
                (m.committed(), members.iter().map(|(serial, _)| m.logged(serial)).collect::<Vec<_>>())
            })
        })
        .collect();
    m.cut();
    let mut rescue = elsewhere(name);
    let mut done = 0;
    for (last, logged) in instants {
        let images: Vec<_> =
            members.iter().map(|(serial, _)| rescue.path(&format!("{serial}-alone"))).collect();
        let made = (0..members.len()).all(|i| {
            let (serial, lost) = (members[i].0, || caches[i] && random.below(2) == 0);
            m.as_of(serial, &kept.join(serial), logged[i], &images[i], lost)
        });
        if !made || done == cuts {
            continue;
        }
        let survivors: Vec<_> =
            members.iter().zip(&images).map(|(member, image)| (member.1, image.as_path())).collect();
        for half in &survivors[..2] {
            println!("note: cut {done}, {} alone, or what is enough with it", half.1.display());
            together_have(&mut rescue, b, &b.enough(*half, || survivors[2]), last);
        }
        done += 1;
    }
    assert_eq!(done, cuts);
}

pub(crate) fn each_half_has_the_last_commit_after_a_power_cut(b: &Backend) {
    each_half_has_the_last_commit("each_half_has_the_last_commit_after_a_power_cut", b, 2);
}

pub(crate) fn each_half_has_the_last_commit_after_each_of_20_power_cuts(b: &Backend) {
    each_half_has_the_last_commit("each_half_has_the_last_commit_after_each_of_20_power_cuts", b, 20);
}

/// A boot after it was cut in a step whose changes are halfway there: taken up again, and taken back.
pub(crate) fn setup_is_taken_up_after_a_power_cut(b: &Backend) {
    cut_in_setup("setup_is_taken_up_after_a_power_cut", b, 9, "--resume");
}

pub(crate) fn setup_is_taken_back_after_a_power_cut(b: &Backend) {
    cut_in_setup("setup_is_taken_back_after_a_power_cut", b, 13, "--rollback");
}

pub(crate) fn setup_is_taken_up_or_back_after_a_power_cut_in_each_step(b: &Backend) {
    // One that failed late need not begin from the start again.
    let mut step = std::env::var("RAIDGUARD_TEST_STEP").map_or(1, |step| step.parse().unwrap());
    for way in ["--resume", "--rollback"].iter().cycle().skip((step + 1) % 2) {
        println!("note: step {step}, then {way}");
        let steps = cut_in_setup("setup_is_taken_up_or_back_after_a_power_cut_in_each_step", b, step, way);
        step += 1;
        if step > steps {
            break;
        }
    }
}

/// The power is cut while `setup` takes this step, or the one in which it is by then; after a boot it is completed, or taken back.
fn cut_in_setup(name: &str, b: &Backend, step: usize, way: &str) -> usize {
    let random = Random::new();
    let mut m = unmirrored(&format!("{name}-{}-{step}", b.title()), b);
    let asked = setup_arguments(&m, b);
    let seen = m.console_since(0).len();
    m.begin_raidguard(&asked.iter().map(String::as_str).collect::<Vec<_>>());
    // What it says before the first step; then a line for each that is done, or is found to be so.
    let before = ["done", "held"].map(|word| match step {
        1 => "\n".to_owned(),
        _ => format!("{word} {:>2}/", step - 1),
    });
    m.console_says(seen, &before);
    thread::sleep(Duration::from_millis(random.below(400)));
    m.cut();
    let last = m.committed();
    let done = m.console_since(seen);
    let is_step = |line: &&str| line.starts_with("done") || line.starts_with("held");
    let done = done.lines().rev().find(is_step).unwrap_or_default().to_owned();
    println!("note: cut after {done}");
    m.boot();
    m.settle();
    let ran = m.raidguard(&["setup", way, "--yes"]);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    // Cut before anything was recorded, or after everything was done.
    let nothing = ran.code == 3 && said.contains("there is no setup");
    let complete = ran.code == 3 && said.contains("all its steps are done");
    // The boot has started the node on the mirror before `setup` did.
    let forward = way == "--rollback" && said.contains("old state");
    println!("note: {way} ends with {}: {}", ran.code, said.lines().last().unwrap_or_default());
    if !(ran.code == 0 || nothing || complete || forward) {
        let guard = m.raidguard(&["guard"]);
        let journal = m.sh("journalctl --no-pager --boot --lines=30 --unit=lightningd.service").stdout;
        panic!("{}: {said}\nguard: {} {}\n{journal}", ran.code, guard.code, guard.stderr);
    }
    let moved = if forward {
        does(&mut m, &["setup", "--resume", "--yes"]);
        true
    } else if way == "--resume" && nothing {
        does(&mut m, &asked.iter().map(String::as_str).collect::<Vec<_>>());
        true
    } else {
        way == "--resume" || complete
    };
    assert_eq!(m.sh("systemctl start lightningd.service").code, 0);
    assert!(m.database_version() >= last, "a commit is lost");
    if moved {
        is_at_work(&mut m, b);
        (b.settle)(&mut m);
        finds(&mut m, 0, &[]);
    } else {
        m.commits_past(m.committed());
        let kind = m.ok(&format!("stat --format=%F {NODE}; findmnt --noheadings {MOUNT} || true; grep -c {MOUNT} /etc/fstab || true; grep -c ^ARRAY /etc/mdadm/mdadm.conf || true; ls -d /sys/block/md* || true; ls -d {} || true; ls /proc/spl/kstat/zfs | grep lightning || true", b.rule));
        assert_eq!(kind.trim(), "directory\n0\n0", "{kind}");
    }
    // `done  7/17 ...`
    let of = done.split('/').nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    of.unwrap_or(step + 1)
}
