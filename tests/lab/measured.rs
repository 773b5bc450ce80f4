//! What each backend costs, side by side on disks of one speed, in ratios. `scripts/bench backends` runs these. No case: they hold nothing to
//! a figure.
//!
//! The disks are in the guest's memory, and are as slow as the guest's own clock has it: so neither the machine that emulates it nor
//! its disks are in a figure.

use std::{fmt::Write as _, fs, path::Path, thread, time::Duration};

use crate::{
    backend::{BTRFS, Backend, MDADM, ZFS},
    machine::Machine,
    steps::{MOUNT, NODE, does, starts_a_node},
};

/// How large each disk is, in MiB.
const SIZE: u64 = 2048;
/// How long a disk takes for a request, in milliseconds, one after the other and none larger than [`REQUEST`]. It keeps nothing in a
/// cache of its own: what is written is on it.
const DELAY: u64 = 4;
/// The largest request, in KiB.
const REQUEST: u64 = 128;
/// The rows of a kilobyte in the database.
const ROWS: u64 = 32 << 10;
/// Where the one disk that all are compared with is mounted.
const PLAIN: &str = "/srv/plain";

/// How many commits are looked at in each state: at their pace that is longer than any filesystem puts off what it has to write. And what
/// is stored beside the database, in MiB.
fn extent() -> (usize, u64) {
    match std::env::var_os("RAIDGUARD_MEASURE_QUICK") {
        None => (1000, 256),
        Some(_) => (50, 16),
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
    /// What is written to each disk for a commit.
    written: Written,
    /// What can be stored, of one disk's size.
    room: f64,
    /// How long what is stored took to be on another disk, in seconds.
    copied: f64,
}

/// Writes to one disk.
#[derive(Clone, Copy)]
struct Written {
    requests: f64,
    bytes: f64,
}

const DRIVER: &str = "/sys/bus/pseudo/drivers/scsi_debug";

/// A machine with two disks that are not slow yet, and their paths.
fn machine(name: &str) -> (Machine, [String; 2]) {
    let mut m = Machine::fresh(name);
    // 0x1000: they have no cache (SDEBUG_OPT_N_WCE).
    m.ok(&format!("modprobe scsi_debug per_host_store=1 dev_size_mb={SIZE} opts=0x1000 delay=0 max_queue=1"));
    let disks = [last(&mut m), plug_in(&mut m)];
    (m, disks)
}

/// One more of them, empty though it may have the memory of one that was taken out.
fn plug_in(m: &mut Machine) -> String {
    m.ok(&format!("echo 1 >{DRIVER}/add_host"));
    let disk = last(m);
    m.ok(&format!("blkdiscard --force --zeroout {disk}; udevadm settle"));
    disk
}

/// The one that came last.
fn last(m: &mut Machine) -> String {
    let said = m.ok(&format!(
        "set -e; sleep 1; udevadm settle; disk=$(ls -d {DRIVER}/adapter*/host*/target*/*/block/* | sort -V | tail -n 1)
        [ \"$(cat $disk/queue/write_cache)\" = 'write through' ]; echo {REQUEST} >$disk/queue/max_sectors_kb
        echo /dev/${{disk##*/}}"
    ));
    said.trim().to_owned()
}

/// Has something done while nobody writes.
fn quietly(m: &mut Machine, script: &str) {
    let writer = |signal: &str| format!("systemctl kill --signal={signal} writer 2>/dev/null || true");
    m.ok(&format!("set -e; {}; sync; sleep 1; {script}; {}", writer("STOP"), writer("CONT")));
}

/// Takes the last one out of the machine: a request that it has not ended has no answer. A write notices it.
fn pull_the_last(m: &mut Machine) {
    quietly(m, &format!("echo -1 >{DRIVER}/add_host"));
    m.ok("sleep 3");
}

/// From now on they are slow: from a request that finds none under way.
fn slow_down(m: &mut Machine) {
    quietly(m, &format!("until echo {} >{DRIVER}/ndelay; do sleep 0.1; done", DELAY * 1_000_000));
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

/// The next commits, as many as are looked at, or until something has ended.
fn commits_while(m: &mut Machine, mut goes_on: impl FnMut(&mut Machine) -> bool) -> Commits {
    let (from, began) = (commits_so_far(m), now(m));
    while goes_on(m) && commits_so_far(m) < from + extent().0 {
        thread::sleep(Duration::from_secs(1));
    }
    let times = m.ok(&format!("tail -n +{} /run/times", from + 1));
    let mut times: Vec<f64> = times.lines().map(|line| line.parse().unwrap()).collect();
    times.sort_by(f64::total_cmp);
    let (commits, took) = (Commits(times), now(m) - began);
    println!(
        "note: {}: {} commits in {took:.0} s, {:.1} / {:.1} ms",
        m.name(),
        commits.0.len(),
        commits.at(0.5) / 1000.0,
        commits.at(0.99) / 1000.0
    );
    commits
}

/// What was written to a disk since the machine began.
fn written(m: &mut Machine, disk: &str) -> Written {
    let said = m.ok(&format!("awk '{{print $5, $7}}' /sys/block/$(basename {disk})/stat"));
    let mut numbers = said.split_whitespace().map(|number| number.parse::<f64>().unwrap());
    let (requests, sectors) = (numbers.next().unwrap(), numbers.next().unwrap());
    Written { requests, bytes: sectors * 512.0 }
}

/// Commits while nothing else goes on, and what each has written to this disk.
fn commits_alone(m: &mut Machine, disk: &str) -> (Commits, Written) {
    // What was written before has settled.
    m.ok("sync; sleep 5");
    let (before, from) = (written(m, disk), commits_so_far(m));
    let commits = commits_while(m, |_| true);
    // What a commit leaves for later is its too.
    m.ok("sync");
    let (after, to) = (written(m, disk), commits_so_far(m));
    let each = |of: fn(Written) -> f64| (of(after) - of(before)) / (to - from) as f64;
    (commits, Written { requests: each(|w| w.requests), bytes: each(|w| w.bytes) })
}

/// What can be stored below a directory, of one disk's size.
fn room(m: &mut Machine, dir: &str) -> f64 {
    let bytes: f64 =
        m.ok(&format!("df --output=avail --block-size=1 {dir} | tail -n 1")).trim().parse().unwrap();
    bytes / (SIZE << 20) as f64
}

fn stores(m: &mut Machine, dir: &str) {
    m.ok(&format!("head -c {}M /dev/urandom >{dir}/much; sync -f {dir}", extent().1));
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
    let (mut m, [one, two]) = machine("measured-plain");
    m.ok(&format!("mkfs.ext4 -q {one}; mkdir -p {PLAIN} /srv/copy; mount {one} {PLAIN}"));
    let room = room(&mut m, PLAIN);
    stores(&mut m, PLAIN);
    let writer = format!("{PLAIN}/node");
    starts_a_writer(&mut m, &writer);
    slow_down(&mut m);
    let (healthy, written) = commits_alone(&mut m, &one);
    stops_the_writer(&mut m, &writer);
    m.ok(&format!(
        "mkfs.ext4 -q {two}; mount {two} /srv/copy; sync; sleep 2; echo 3 >/proc/sys/vm/drop_caches"
    ));
    let began = now(&mut m);
    m.ok(&format!("cp -a {PLAIN}/. /srv/copy/; sync -f /srv/copy"));
    let copied = now(&mut m) - began;
    Figures { healthy, scrubbing: None, degraded: None, rebuilding: None, written, room, copied }
}

/// A mirror of two, as `setup` makes it, with the node's directory on it and nobody at work there.
fn mirrored(name: &str, b: &Backend) -> (Machine, [String; 2]) {
    let (mut m, disks) = machine(name);
    m.ok("modprobe md_mod");
    starts_a_node(&mut m);
    m.copies_at_once();
    let asked =
        ["setup", "--backend", b.name, "--hdd", &disks[0], "--usb", &disks[1], "--lightning-dir", NODE];
    does(&mut m, &[&asked[..], &["--user", "bitcoin", "--scheduler", "none", "--yes"]].concat());
    (b.settle)(&mut m);
    m.ok("systemctl stop lightningd.service");
    (m, disks)
}

/// A mirror of two.
fn of_a_mirror(b: &Backend) -> Figures {
    let (mut m, [one, _]) = mirrored(&format!("measured-{}", b.name), b);
    let room = room(&mut m, MOUNT);
    stores(&mut m, MOUNT);
    let writer = format!("{MOUNT}/node");
    starts_a_writer(&mut m, &writer);
    // As the kernel has it by itself.
    m.ok("limit=/proc/sys/dev/raid/speed_limit_min; [ ! -e $limit ] || echo 1000 >$limit");
    slow_down(&mut m);
    let (healthy, written) = commits_alone(&mut m, &one);

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
    pull_the_last(&mut m);
    let degraded = commits_while(&mut m, |_| true);

    let three = plug_in(&mut m);
    begins(&mut m, &format!("replace --old missing --new {three} --yes"));
    let rebuilding = commits_while(&mut m, is_busy);
    stops_the_writer(&mut m, &writer);
    waits(&mut m);

    pull_the_last(&mut m);
    let four = plug_in(&mut m);
    m.ok("sync; sleep 2; echo 3 >/proc/sys/vm/drop_caches");
    let began = now(&mut m);
    begins(&mut m, &format!("replace --old missing --new {four} --yes"));
    // It did so once before.
    let whole = "journalctl --quiet --unit=work | grep -Ec ': (done|held) .* mounted at .*, whole$'";
    let filled = |m: &mut Machine| m.sh(whole).stdout.trim() == "2";
    while !filled(&mut m) {
        assert!(is_busy(&mut m), "{}", m.ok("journalctl --sync; journalctl --no-pager --unit=work"));
        thread::sleep(Duration::from_millis(500));
    }
    let copied = now(&mut m) - began;
    println!("note: {}: filled in {copied:.1} s", m.name());
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
    row("requests to each disk for a commit", ratio(1.0), &|f| {
        ratio(f.written.requests / plain.written.requests)
    });
    row("bytes to each disk for a commit", ratio(1.0), &|f| ratio(f.written.bytes / plain.written.bytes));
    row("a new disk is filled, the node stopped", ratio(1.0), &|f| ratio(f.copied / plain.copied));
    row("room, of one disk's", format!("{:.2}", plain.room), &|f| format!("{:.2}", f.room));
    let mut m = Machine::fresh("versions");
    let versions = versions(&mut m);
    let heading = "| | one disk with ext4 | btrfs | mdadm with XFS | ZFS |\n|---|---|---|---|---|\n";
    let times = [0.5, 0.99].map(|part| plain.healthy.at(part) / 1000.0);
    tells(
        "backends",
        &format!(
            "{heading}{text}\nBy {versions}; disks of {SIZE} MiB that take {DELAY} ms for a request of up to {REQUEST} KiB, {} MiB stored, \
             {} commits in each state. A commit to the one disk took {:.0} ms / {:.0} ms, {:.0} requests and {:.0} KiB.\n",
            extent().1,
            extent().0,
            times[0],
            times[1],
            plain.written.requests,
            plain.written.bytes / 1024.0
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
    let (mut m, [one, ..]) = mirrored("measured-datasets", &ZFS);
    slow_down(&mut m);
    let mut measured: Vec<(&str, Commits, Written)> = Vec::new();
    for (name, options) in DATASETS {
        m.ok(&format!("zfs create {options} lightning/measured"));
        let dir = format!("{MOUNT}/measured/node");
        starts_a_writer(&mut m, &dir);
        let (commits, written) = commits_alone(&mut m, &one);
        stops_the_writer(&mut m, &dir);
        m.ok("until zfs destroy lightning/measured; do sleep 1; done");
        println!("note: {name}: {:.1} requests and {:.0} bytes a commit", written.requests, written.bytes);
        measured.push((name, commits, written));
    }
    let (_, usual, usually) = &measured[0];
    let mut text = String::from(
        "| dataset | a commit: median / 99th percentile | requests | bytes |\n|---|---|---|---|\n",
    );
    for (name, commits, written) in &measured {
        let (requests, bytes) = (written.requests / usually.requests, written.bytes / usually.bytes);
        writeln!(text, "| {name} | {} | {} | {} |", commits.against(usual), ratio(requests), ratio(bytes))
            .unwrap();
    }
    tells("datasets", &text);
}
