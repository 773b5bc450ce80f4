//! What every case begins with: the image, a machine that has just booted, and the programs that are tried.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::{
    machine::Machine,
    programs::{build_standin, built},
};

/// The image's directory. `scripts/lab build` makes it where it is missing, and says where it is.
pub(crate) fn image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let output = Command::new("scripts/lab")
            .arg("build")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stderr(std::process::Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "the lab cannot be built");
        String::from_utf8(output.stdout).unwrap().lines().last().unwrap().into()
    })
}

/// A machine that has just booted, stopped: `root.qcow2` and `state`. Made once for each QEMU and each way of starting it.
pub(crate) fn booted(key: &str) -> PathBuf {
    let place = image().join(format!("booted-{key}"));
    let lock = File::create(image().join("lock")).unwrap();
    // Of two that need it, the second waits for the first. Closing the file ends the lock.
    let _lock =
        nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).map_err(|(_, e)| e).unwrap();
    if !place.exists() {
        let part = image().join("booted.part");
        let _ = fs::remove_dir_all(&part);
        fs::create_dir(&part).unwrap();
        Machine::boot_to_keep(&part);
        fs::rename(&part, &place).unwrap();
    }
    place
}

/// raidguard and the stand-in node as a tar archive, which the guest unpacks from a disk.
pub(crate) fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        build_standin();
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lab");
        let tree = dir.join("tree");
        for (program, place) in [("raidguard", "usr/local/sbin"), ("examples/standin-node", "usr/local/bin")]
        {
            let (from, to) = (built(program), tree.join(place));
            fs::create_dir_all(&to).unwrap();
            let to = to.join(from.file_name().unwrap());
            succeed(Command::new("strip").arg("-o").args([&to, &from]));
        }
        let archive = dir.join("programs.tar");
        succeed(
            Command::new("tar")
                .args(["--owner=0", "--group=0", "-cf"])
                .arg(&archive)
                .arg("-C")
                .args([&tree, Path::new("usr")]),
        );
        archive
    })
}

#[track_caller]
pub(crate) fn succeed(cmd: &mut Command) {
    let output = cmd.output().unwrap();
    assert!(output.status.success(), "{cmd:?}: {}", String::from_utf8_lossy(&output.stderr));
}
