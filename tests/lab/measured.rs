//! What each backend costs, side by side on disks of one speed, in ratios. `scripts/bench backends` runs these, and puts what they say
//! into docs/backends.md. No case: they hold nothing to a figure.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{
    backend::{BTRFS, Backend, MDADM, ZFS},
    disks::{Bus, Speed},
    machine::Machine,
    steps::{MOUNT, does, set_up, starts_a_node},
};

/// How large each disk is, in bytes.
const SIZE: u64 = 3 << 30;
/// So slow that what is waited for is the disk, not the emulation: the requests of a hard disk. QEMU lets a tenth of a second's worth pass at
/// once, so only a writer that never rests waits for each of them.
const SPEED: Speed = Speed { bytes: 16 << 20, requests: 120 };
/// The rows of a kilobyte in the database.
const ROWS: u64 = 32 << 10;
/// Where the one disk that all are compared with is mounted.
const PLAIN: &str = "/srv/plain";

/// How long commits are looked at in each state, in seconds of the guest: longer than any filesystem puts off what it has to write. And what
/// is stored beside the database, in bytes.
fn extent() -> (f64, u64) {
    match std::env::var_os("RAIDGUARD_MEASURE_QUICK") {
        None => (40.0, 384 << 20),
        Some(_) => (6.0, 64 << 20),
    }
}

/// How long commits took, in microseconds, the shortest first.
struct Commits(Vec<f64>);

impl Commits {
    fn at(&self, part: f64) -> f64 {
        self.0[((self.0.len() - 1) as f64 * part).round() as usize]
    }

    /// The median and the 99th percentile, as multiples of what a plain disk took.
    fn against(&self, plain: &Self) -> String {
        format!("{} / {}", ratio(self.at(0.5) / plain.at(0.5)), ratio(self.at(0.99) / plain.at(0.99)))
    }
}

fn ratio(ratio: f64) -> String {
    if ratio < 9.95 { format!("{ratio:.1}") } else { format!("{ratio:.0}") }
}

/// One disk, or one mirror.
struct Figures {
    healthy: Commits,
    scrubbing: Option<Commits>,
    degraded: Option<Commits>,
    rebuilding: Option<Commits>,
    /// What is written to each disk for a commit, in bytes.
    written: f64,
    /// What can be stored, of one disk's size.
    room: f64,
    /// How long what is stored took to be on another disk, in seconds. By the clock on the wall: while the guest computes, its own goes
    /// slower than its disks.
    copied: f64,
}

/// A disk that is slow from the start.
fn slow_disk(m: &mut Machine, serial: &str) -> String {
    let path = m.new_disk(serial, Bus::Scsi, SIZE);
    m.slow_down(serial, SPEED);
    path
}

/// Has a writer commit in this directory, and waits for its first commits.
fn starts_a_writer(m: &mut Machine, dir: &str) {
    m.ok(&format!(
        "set -e; rm -f /run/times; install -d {dir}
        systemd-run --quiet --unit=writer /usr/local/bin/standin-node --dir {dir} --times /run/times --rows {ROWS}
        until [ -s /run/times ]; do sleep 0.5; done"
    ));
}

fn stops_the_writer(m: &mut Machine, dir: &str) {
    m.ok(&format!("/usr/local/bin/standin-node --dir {dir} --stop; sync -f {dir}"));
}

fn commits_so_far(m: &mut Machine) -> usize {
    m.ok("wc -l </run/times").trim().parse().unwrap()
}

/// The guest's own time, in seconds.
fn now(m: &mut Machine) -> f64 {
    m.ok("cut -d' ' -f1 /proc/uptime").trim().parse().unwrap()
}

/// The next commits, for as long as they are looked at, or until something has ended.
fn commits_while(m: &mut Machine, mut goes_on: impl FnMut(&mut Machine) -> bool) -> Commits {
    let (from, began) = (commits_so_far(m), now(m));
    while goes_on(m) && now(m) < began + extent().0 {
        thread::sleep(Duration::from_millis(500));
    }
    let times = m.ok(&format!("tail -n +{} /run/times", from + 1));
    let mut times: Vec<f64> = times.lines().map(|line| line.parse().unwrap()).collect();
    assert!(times.len() > 20, "only {} commits", times.len());
    times.sort_by(f64::total_cmp);
    Commits(times)
}

/// How much was written to a disk since the machine began, in bytes.
fn written(m: &mut Machine, serial: &str) -> f64 {
    let device = m.device(serial);
    let sectors = m.ok(&format!("awk '{{print $7}}' /sys/block/$(basename $(readlink -f {device}))/stat"));
    sectors.trim().parse::<f64>().unwrap() * 512.0
}

/// Commits while nothing else goes on, and what each has written to this disk.
fn commits_alone(m: &mut Machine, serial: &str) -> (Commits, f64) {
    // What was written before has settled.
    m.ok("sync; sleep 5");
    let (before, from) = (written(m, serial), commits_so_far(m));
    let commits = commits_while(m, |_| true);
    // What a commit leaves for later is its too.
    m.ok("sync");
    let (after, to) = (written(m, serial), commits_so_far(m));
    (commits, (after - before) / (to - from) as f64)
}

/// What can be stored below a directory, of one disk's size.
fn room(m: &mut Machine, dir: &str) -> f64 {
    let bytes: f64 =
        m.ok(&format!("df --output=avail --block-size=1 {dir} | tail -n 1")).trim().parse().unwrap();
    bytes / SIZE as f64
}

fn stores(m: &mut Machine, dir: &str) {
    m.ok(&format!("head -c {} /dev/urandom >{dir}/much; sync -f {dir}", extent().1));
}

/// Has raidguard do this in the background.
fn begins(m: &mut Machine, words: &str) {
    m.ok(&format!(
        "systemctl reset-failed work 2>/dev/null; systemd-run --quiet --unit=work raidguard {words}"
    ));
}

/// Whether it is still at it.
fn is_busy(m: &mut Machine) -> bool {
    let state = m.sh("systemctl is-active work").stdout;
    assert!(!state.contains("failed"), "{}", m.ok("journalctl --sync; journalctl --no-pager --unit=work"));
    state.trim() != "inactive"
}

fn waits(m: &mut Machine) {
    while is_busy(m) {
        thread::sleep(Duration::from_millis(500));
    }
}

/// One disk with ext4.
fn of_a_plain_disk() -> Figures {
    let mut m = Machine::fresh("measured-plain");
    let one = m.new_disk("one", Bus::Scsi, SIZE);
    m.ok(&format!("mkfs.ext4 -q {one}; mkdir -p {PLAIN} /srv/copy; mount {one} {PLAIN}"));
    let room = room(&mut m, PLAIN);
    stores(&mut m, PLAIN);
    let writer = format!("{PLAIN}/node");
    starts_a_writer(&mut m, &writer);
    m.slow_down("one", SPEED);
    let (healthy, written) = commits_alone(&mut m, "one");
    stops_the_writer(&mut m, &writer);
    let two = slow_disk(&mut m, "two");
    m.ok(&format!(
        "mkfs.ext4 -q {two}; mount {two} /srv/copy; sync; sleep 2; echo 3 >/proc/sys/vm/drop_caches"
    ));
    let began = Instant::now();
    m.ok(&format!("cp -a {PLAIN}/. /srv/copy/; sync -f /srv/copy"));
    let copied = began.elapsed().as_secs_f64();
    Figures { healthy, scrubbing: None, degraded: None, rebuilding: None, written, room, copied }
}

/// A mirror of two, as `setup` makes it.
fn of_a_mirror(b: &Backend) -> Figures {
    let mut m = Machine::fresh(&format!("measured-{}", b.name));
    m.ok("modprobe md_mod");
    for serial in ["one", "two"] {
        m.new_disk(serial, Bus::Scsi, SIZE);
    }
    starts_a_node(&mut m);
    m.copies_at_once();
    set_up(&mut m, b, &[]);
    m.ok("systemctl stop lightningd.service; systemctl list-timers --no-legend 'raidguard-*' | awk '{print $(NF-1)}' | xargs systemctl stop");
    let room = room(&mut m, MOUNT);
    stores(&mut m, MOUNT);
    let writer = format!("{MOUNT}/node");
    starts_a_writer(&mut m, &writer);
    // As the kernel has it by itself.
    m.ok("limit=/proc/sys/dev/raid/speed_limit_min; [ ! -e $limit ] || echo 1000 >$limit");
    ["one", "two"].iter().for_each(|serial| m.slow_down(serial, SPEED));
    let (healthy, written) = commits_alone(&mut m, "one");

    begins(&mut m, "scrub");
    let scrubbing = commits_while(&mut m, |m| {
        if !is_busy(m) {
            begins(m, "scrub");
        }
        true
    });
    stops_the_writer(&mut m, &writer);
    waits(&mut m);

    starts_a_writer(&mut m, &writer);
    m.pull("two");
    // It is noticed by a write.
    m.ok("sleep 3");
    let degraded = commits_while(&mut m, |_| true);
    let kept = tempfile::tempdir().unwrap();
    m.keep(kept.path());
    let goes_on = |name: &str| {
        let mut m = Machine::resumed(&format!("measured-{}-{name}", b.name), kept.path(), &[]);
        m.slow_down("one", SPEED);
        m
    };

    let mut m = goes_on("rebuilding");
    let three = slow_disk(&mut m, "three");
    begins(&mut m, &format!("replace --old missing --new {three} --yes"));
    let rebuilding = commits_while(&mut m, is_busy);
    drop(m);

    let mut m = goes_on("filled");
    stops_the_writer(&mut m, &writer);
    let three = slow_disk(&mut m, "three");
    m.ok("sync; sleep 2; echo 3 >/proc/sys/vm/drop_caches");
    let began = Instant::now();
    begins(&mut m, &format!("replace --old missing --new {three} --yes"));
    let filled = |m: &mut Machine| {
        m.sh("journalctl --quiet --unit=work | grep -q 'see that the mirror is mounted at .*, whole$'").code
            == 0
    };
    while !filled(&mut m) {
        assert!(is_busy(&mut m), "{}", m.ok("journalctl --sync; journalctl --no-pager --unit=work"));
        thread::sleep(Duration::from_millis(500));
    }
    let copied = began.elapsed().as_secs_f64();
    Figures {
        healthy,
        scrubbing: Some(scrubbing),
        degraded: Some(degraded),
        rebuilding: Some(rebuilding),
        written,
        room,
        copied,
    }
}

/// What `name` is kept as, for the script that asked.
fn tells(name: &str, text: &str) {
    println!("{text}");
    if let Some(dir) = std::env::var_os("RAIDGUARD_MEASURED") {
        fs::write(Path::new(&dir).join(name), text).unwrap();
    }
}

/// Which versions were measured.
fn versions(m: &mut Machine) -> String {
    m.ok("echo \"Linux $(uname -r), $(btrfs --version | head -n 1), mdadm $(dpkg-query -Wf '${Version}' mdadm), \
         ZFS $(modinfo -F version zfs), SQLite $(sqlite3 --version | cut -d' ' -f1)\"")
        .trim()
        .to_owned()
}

#[test]
#[ignore = "measures: scripts/bench backends"]
fn the_backends_side_by_side() {
    let plain = of_a_plain_disk();
    let mirrors = [&BTRFS, &MDADM, &ZFS].map(of_a_mirror);
    let mut text = String::new();
    let mut row = |what: &str, one: String, figure: &dyn Fn(&Figures) -> String| {
        let cells: Vec<String> = mirrors.iter().map(figure).collect();
        writeln!(text, "| {what} | {one} | {} |", cells.join(" | ")).unwrap();
    };
    let against = |commits: Option<&Commits>| commits.unwrap().against(&plain.healthy);
    row("a commit: median / 99th percentile", plain.healthy.against(&plain.healthy), &|f| {
        f.healthy.against(&plain.healthy)
    });
    row("... with a member missing", String::new(), &|f| against(f.degraded.as_ref()));
    row("... while a scrub runs", String::new(), &|f| against(f.scrubbing.as_ref()));
    row("... while a new disk is filled", String::new(), &|f| against(f.rebuilding.as_ref()));
    row("written to each disk for a commit", ratio(1.0), &|f| ratio(f.written / plain.written));
    row("a new disk is filled, the node stopped", ratio(1.0), &|f| ratio(f.copied / plain.copied));
    row("room, of one disk's", format!("{:.2}", plain.room), &|f| format!("{:.2}", f.room));
    let mut m = Machine::fresh("versions");
    let versions = versions(&mut m);
    let heading = "| | one disk with ext4 | btrfs | mdadm with XFS | ZFS |\n|---|---|---|---|---|\n";
    let times = [0.5, 0.99].map(|part| plain.healthy.at(part) / 1000.0);
    tells(
        "backends",
        &format!(
            "{heading}{text}\nBy {versions}; disks of {} MiB/s and {} requests a second, {} MiB stored, {} s in each state. \
             A commit to the one disk took {:.0} ms / {:.0} ms.\n",
            SPEED.bytes >> 20,
            SPEED.requests,
            extent().1 >> 20,
            extent().0,
            times[0],
            times[1]
        ),
    );
}

/// What `setup` gives the dataset, and what else it could give it.
const DATASETS: [(&str, &str); 9] = [
    ("as `setup` makes it", ""),
    ("recordsize=4K", "-o recordsize=4K"),
    ("recordsize=8K", "-o recordsize=8K"),
    ("recordsize=32K", "-o recordsize=32K"),
    ("recordsize=128K", "-o recordsize=128K"),
    ("compression=off", "-o compression=off"),
    ("atime=on", "-o atime=on"),
    ("xattr=on", "-o xattr=on"),
    ("logbias=throughput", "-o logbias=throughput"),
];

#[test]
#[ignore = "measures: scripts/bench backends"]
fn the_properties_of_a_dataset() {
    let b = &ZFS;
    let mut m = Machine::fresh("measured-datasets");
    for serial in ["one", "two"] {
        m.new_disk(serial, Bus::Scsi, SIZE);
    }
    starts_a_node(&mut m);
    set_up(&mut m, b, &[]);
    m.ok("systemctl stop lightningd.service");
    ["one", "two"].iter().for_each(|serial| m.slow_down(serial, SPEED));
    does(&mut m, &["check"]);
    let mut measured: Vec<(&str, Commits, f64)> = Vec::new();
    for (name, options) in DATASETS {
        m.ok(&format!("zfs create {options} lightning/measured"));
        let dir = format!("{MOUNT}/measured/node");
        starts_a_writer(&mut m, &dir);
        let (commits, written) = commits_alone(&mut m, "one");
        stops_the_writer(&mut m, &dir);
        m.ok("until zfs destroy lightning/measured; do sleep 1; done");
        println!("note: {name}: {} {} us, {written} bytes", commits.at(0.5), commits.at(0.99));
        measured.push((name, commits, written));
    }
    let (_, usual, usually) = &measured[0];
    let mut text = String::from(
        "| dataset | a commit: median / 99th percentile | written to each disk |\n|---|---|---|\n",
    );
    for (name, commits, written) in &measured {
        writeln!(text, "| {name} | {} | {} |", commits.against(usual), ratio(written / usually)).unwrap();
    }
    tells("datasets", &text);
}
