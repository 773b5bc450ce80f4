//! What every case begins with: the image, a machine that has just booted, and the programs that are tried.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use crate::programs::{build_standin, built, untold};

const UNUSED: Duration = Duration::from_secs(3 * 60 * 60);

/// The image's directory. `scripts/lab build` makes it where it is missing, and says where it is.
pub(crate) fn image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| made_by(Command::new("scripts/lab").arg("build")))
}

/// The program as it is installed.
fn released() -> PathBuf {
    let builds = built("").join("..");
    made_by(untold(Command::new("scripts/build").env("CARGO_TARGET_DIR", fs::canonicalize(builds).unwrap())))
}

/// What a script has made: it says at its end where that is.
fn made_by(script: &mut Command) -> PathBuf {
    let script = script.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit());
    let output = script.output().unwrap();
    assert!(output.status.success(), "{script:?} did not succeed");
    String::from_utf8(output.stdout).unwrap().lines().last().unwrap().into()
}

/// Something that is made once and kept in `dir` for as long as its key is the same. Those that nobody has used for some hours go.
pub(crate) fn kept(dir: &Path, name: &str, key: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let place = dir.join(format!("{name}-{key}"));
    let lock = File::create(dir.join(format!("{name}.lock"))).unwrap();
    // Of two that need it, the second waits for the first. Closing the file ends the lock.
    let _lock =
        nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).map_err(|(_, e)| e).unwrap();
    if !place.exists() {
        let part = dir.join(format!("{name}.part"));
        let _ = fs::remove_dir_all(&part);
        fs::create_dir(&part).unwrap();
        make(&part);
        fs::rename(&part, &place).unwrap();
    }
    // A directory's time is when something in it was last made or used.
    fs::write(place.join("used"), "").unwrap();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let others =
            entry.file_name().to_string_lossy().starts_with(&format!("{name}-")) && entry.path() != place;
        let used = fs::metadata(entry.path().join("used")).and_then(|m| m.modified());
        if others && used.is_ok_and(|at| at.elapsed().is_ok_and(|t| t > UNUSED)) {
            fs::remove_dir_all(entry.path()).unwrap();
        }
    }
    place
}

/// raidguard and the stand-in node.
struct Programs {
    /// A tar archive, which the guest unpacks from a disk.
    archive: PathBuf,
    /// What they are, as a hash.
    key: String,
}

fn made() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        build_standin();
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lab");
        fs::create_dir_all(&dir).unwrap();
        // Others may be at the same, or have a machine unpack what they made: it is put in place whole.
        let own = tempfile::tempdir_in(&dir).unwrap();
        let mut hash = blake3::Hasher::new();
        for (from, place) in
            [(released(), "usr/local/sbin"), (built("examples/standin-node"), "usr/local/bin")]
        {
            let to = own.path().join(place);
            fs::create_dir_all(&to).unwrap();
            let to = to.join(from.file_name().unwrap());
            succeed(Command::new("strip").arg("-o").args([&to, &from]));
            hash.update(&fs::read(&to).unwrap());
        }
        let part = own.path().join("programs.tar");
        let mut tar = Command::new("tar");
        tar.args(["--owner=0", "--group=0", "-cf"]).arg(&part).arg("-C").args([own.path(), Path::new("usr")]);
        succeed(&mut tar);
        let archive = dir.join("programs.tar");
        fs::rename(&part, &archive).unwrap();
        Programs { archive, key: hash.finalize().to_hex()[..16].to_owned() }
    })
}

pub(crate) fn programs() -> &'static Path {
    &made().archive
}

/// By what a machine with the programs must be made anew.
pub(crate) fn programs_key() -> &'static str {
    &made().key
}

#[track_caller]
pub(crate) fn succeed(cmd: &mut Command) {
    let output = cmd.output().unwrap();
    assert!(output.status.success(), "{cmd:?}: {}", String::from_utf8_lossy(&output.stderr));
}
