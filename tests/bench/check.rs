//! For `scripts/bench check`. `peak PROGRAM ARGUMENT...` prints the highest resident memory of a program in KiB. `mirrors DIRECTORY
//! COUNT` makes a captured tree of so many mirrors, each with a node, and prints how many milliseconds a whole check of them takes:
//! observe, judge, print.

#![allow(clippy::indexing_slicing, reason = "it may fail loudly")]
#![allow(clippy::print_stdout, reason = "its output is the measurement")]
#![allow(clippy::disallowed_methods, reason = "it measures a program by starting it")]

use std::{
    env,
    ffi::OsString,
    fmt::Write as _,
    fs::{self, File},
    os::unix::fs::{FileExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use nix::sys::resource::{UsageWho, getrusage};
use raidguard::{
    exec::ScriptedRunner,
    host::Host,
    ops::check::{Format, Options, check},
    ui::Console,
};

/// Monday, 23 November 2026, 12:00 UTC.
const NOW: i64 = 1_795_435_200;

fn main() -> ExitCode {
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    let done = match args.iter().map(|a| a.to_string_lossy()).collect::<Vec<_>>().as_slice() {
        [what, program, rest @ ..] if what == "peak" => peak(program, rest.iter().map(AsRef::as_ref)),
        [what, tree, count] if what == "mirrors" => mirrors(Path::new(tree.as_ref()), count),
        _ => Err(anyhow::anyhow!("usage: check-bench peak PROGRAM ARGUMENT... | mirrors DIRECTORY COUNT")),
    };
    match done {
        Ok(figure) => {
            println!("{figure}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            println!("check-bench: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn peak<'a>(program: &str, args: impl Iterator<Item = &'a str>) -> Result<String> {
    let status = Command::new(program).args(args).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "{program}: {status}");
    Ok(getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss().to_string())
}

fn mirrors(tree: &Path, count: &str) -> Result<String> {
    let count: usize = count.parse()?;
    let _ = fs::remove_dir_all(tree);
    let tree = {
        fs::create_dir_all(tree)?;
        Tree(fs::canonicalize(tree)?)
    };
    tree.fill(count)?;
    let out = tree.0.join("answer.json");
    let options = Options { format: Format::Json, output: Some(out.clone()), ..Options::default() };
    let now = Timestamp::from_second(NOW)?;
    let host = Host::captured(&tree.0, Arc::new(ScriptedRunner::new()), now);
    let began = Instant::now();
    let level = check(&host, &options, &mut Console::default())?;
    let took = began.elapsed();
    let answer: serde_json::Value = serde_json::from_slice(&fs::read(&out)?)?;
    let answered = answer["mirrors"].as_array().context("no mirrors in the answer")?;
    ensure!(answered.len() == count, "{} of {count} mirrors", answered.len());
    // Nothing is mounted in a captured tree, so what is on the mirror seems to lie below it. Nothing else may be wrong.
    for one in answered {
        let faults = one["findings"].as_array().into_iter().flatten().filter(|f| f["severity"] != "ok");
        let codes: Vec<_> = faults.filter_map(|f| f["code"].as_str()).collect();
        ensure!(codes == ["MNT-HIDDEN"], "{codes:?} of {one}");
    }
    ensure!(level == 2, "exit code {level}");
    Ok(format!("{:.1}", took.as_secs_f64() * 1000.0))
}

struct Tree(PathBuf);

impl Tree {
    fn write(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<()> {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().context("a path")?)?;
        Ok(fs::write(path, content)?)
    }

    fn fill(&self, count: usize) -> Result<()> {
        for dir in ["sys/fs/btrfs/features", "sys/class/block", "dev", "etc", "proc"] {
            fs::create_dir_all(self.0.join(dir))?;
        }
        let (mut declared, mut fstab) = (String::new(), String::new());
        let mut mounts = "63 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n".to_owned();
        for n in 0..count {
            self.mirror(n)?;
            let (uuid, place) = (uuid(n, 0), format!("/srv/m{n}"));
            let _ = write!(
                declared,
                "[[mirror]]\nname = \"m{n}\"\nbackend = \"btrfs\"\nlevel = \"raid1\"\nuuid = \"{uuid}\"\nmountpoint = \"{place}\"\n"
            );
            for devid in [1, 2] {
                let member = self::uuid(n, devid);
                let _ = write!(
                    declared,
                    "[[mirror.member]]\nid = \"{devid}\"\nuuid = \"{member}\"\nsize = 536870912\n"
                );
            }
            let _ = write!(
                declared,
                "[mirror.node]\nkind = \"core-lightning\"\ndirectory = \"/home/n{n}/.lightning\"\ndata = \"{place}/lightning\"\n"
            );
            let _ = writeln!(fstab, "UUID={uuid} {place} btrfs defaults,autodefrag,nofail 0 0");
            let _ = writeln!(
                mounts,
                "{} 63 0:{} / {place} rw,relatime - btrfs /dev/d{n}a rw,space_cache=v2",
                n + 100,
                n + 40
            );
        }
        self.write("etc/raidguard/raidguard.toml", declared)?;
        self.write("etc/fstab", fstab)?;
        self.write("proc/self/mountinfo", mounts)?;
        // As many processes as a busy machine has.
        for pid in 1..=200 {
            let process = format!("proc/{}", pid + 100_000);
            self.write(format!("{process}/comm"), "worker\n")?;
            fs::create_dir_all(self.0.join(&process).join("fd"))?;
            for fd in 0..10 {
                symlink("/dev/null", self.0.join(&process).join(format!("fd/{fd}")))?;
            }
            symlink("/", self.0.join(&process).join("cwd"))?;
            symlink("/usr/bin/worker", self.0.join(&process).join("exe"))?;
        }
        Ok(())
    }

    fn mirror(&self, n: usize) -> Result<()> {
        let sys = format!("sys/fs/btrfs/{}", uuid(n, 0));
        for kind in ["data", "metadata", "system"] {
            self.write(format!("{sys}/allocation/{kind}/raid1/total_bytes"), "67108864\n")?;
            self.write(format!("{sys}/allocation/{kind}/raid1/used_bytes"), "16384\n")?;
        }
        self.write(format!("{sys}/exclusive_operation"), "none\n")?;
        for (devid, letter) in [(1, 'a'), (2, 'b')] {
            let info = format!("{sys}/devinfo/{devid}");
            for (file, value) in [("missing", "0"), ("writeable", "1"), ("replace_target", "0")] {
                self.write(format!("{info}/{file}"), format!("{value}\n"))?;
            }
            let stats = "write_errs 0\nread_errs 0\nflush_errs 0\ncorruption_errs 0\ngeneration_errs 0\n";
            self.write(format!("{info}/error_stats"), stats)?;
            let name = format!("d{n}{letter}");
            self.write(format!("sys/class/block/{name}/size"), "1048576\n")?;
            self.write(format!("{sys}/devices/{name}"), "")?;
            superblock(&self.0.join("dev").join(&name), n, devid)?;
        }
        let began = NOW - 86_400;
        let line = |devid: u64| {
            format!(
                "{}:{devid}|data_extents_scrubbed:1|tree_extents_scrubbed:1|data_bytes_scrubbed:65536|tree_bytes_scrubbed:65536|\
                 read_errors:0|csum_errors:0|verify_errors:0|no_csum:0|csum_discards:0|super_errors:0|malloc_errors:0|\
                 uncorrectable_errors:0|corrected_errors:0|last_physical:0|t_start:{began}|t_resumed:0|duration:1|canceled:0|finished:1\n",
                uuid(n, 0)
            )
        };
        let status = format!("scrub status:1\n{}{}", line(1), line(2));
        self.write(format!("var/lib/btrfs/scrub.status.{}", uuid(n, 0)), status)?;
        let data = format!("srv/m{n}/lightning");
        // The first page of an SQLite database of one page.
        let mut page = vec![0; 4096];
        page[..16].copy_from_slice(b"SQLite format 3\0");
        (page[16], page[18], page[19], page[21], page[22], page[23]) = (16, 1, 1, 64, 32, 32);
        page[31] = 1;
        self.write(format!("{data}/bitcoin/lightningd.sqlite3"), page)?;
        self.write(format!("{data}/bitcoin/hsm_secret"), [7; 32])?;
        let mode = |path: String, mode| {
            fs::set_permissions(self.0.join(path), fs::Permissions::from_mode(mode)).context("setting a mode")
        };
        mode(data.clone(), 0o700)?;
        mode(format!("{data}/bitcoin/hsm_secret"), 0o400)?;
        fs::create_dir_all(self.0.join(format!("home/n{n}")))?;
        symlink(self.0.join(&data), self.0.join(format!("home/n{n}/.lightning")))?;
        Ok(())
    }
}

/// The UUID of a mirror, or of one of its members.
fn uuid(n: usize, member: u64) -> String {
    format!("25e3e740-8cd1-4cc7-{member:04x}-{n:012x}")
}

/// CRC-32C (RFC 3720 appendix B.4), a bit at a time.
fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |sum: u32| if sum & 1 == 0 { sum >> 1 } else { (sum >> 1) ^ 0x82f6_3b78 };
    !bytes.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum, _| bit(sum)))
}

/// A device of a member: nothing but its superblock (kernel: `include/uapi/linux/btrfs_tree.h`).
fn superblock(path: &Path, n: usize, devid: u64) -> Result<()> {
    let mut block = [0_u8; 4096];
    let id = |text: String| u128::from_str_radix(&text.replace('-', ""), 16).map(u128::to_be_bytes);
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x20, &id(uuid(n, 0))?);
    put(0x30, &65_536_u64.to_le_bytes());
    put(0x40, b"_BHRfS_M");
    put(0x48, &38_u64.to_le_bytes());
    put(0x88, &2_u64.to_le_bytes());
    put(0xc9, &devid.to_le_bytes());
    put(0xd1, &536_870_912_u64.to_le_bytes());
    put(0xd9, &129_171_456_u64.to_le_bytes());
    put(0x10b, &id(uuid(n, devid))?);
    let sum = crc32c(&block[32..]).to_le_bytes();
    block[..4].copy_from_slice(&sum);
    Ok(File::create(path)?.write_all_at(&block, 65_536)?)
}
