//! A copy of a machine's whole state, so that two ways on can be tried from the same instant.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::sandbox::{OWN, Sandbox};

const MIRROR: &str = "/srv/lightning";

pub(crate) struct Saved {
    dir: PathBuf,
    images: Vec<PathBuf>,
    mounted: bool,
    immutable: bool,
}

impl Drop for Saved {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn ran(tool: &str, args: &[&str]) -> String {
    let out = Command::new(tool).args(args).output().unwrap_or_else(|e| panic!("{tool}: {e}"));
    assert!(out.status.success(), "{tool} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// The holes stay: what was never written costs nothing.
fn copy_sparse(from: &Path, to: &Path) {
    ran("cp", &["--sparse=always", from.to_str().unwrap(), to.to_str().unwrap()]);
}

/// The mirror takes no writes while this lives. One that stayed frozen would outlive the test, and its mount.
pub(crate) struct Frozen;

impl Frozen {
    pub(crate) fn new() -> Self {
        ran("fsfreeze", &["--freeze", MIRROR]);
        Self
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").args(["--unfreeze", MIRROR]).status();
    }
}

impl Saved {
    pub(crate) fn of(s: &Sandbox) -> Self {
        let dir = tempfile::tempdir_in(s.scratch()).unwrap().keep();
        let mounted = s.mounts().contains(&format!(" {MIRROR} "));
        for name in OWN {
            ran("cp", &["-a", "--one-file-system", &format!("/{name}"), dir.to_str().unwrap()]);
        }
        nix::unistd::sync();
        let frozen = mounted.then(Frozen::new);
        let images = s.images();
        for image in &images {
            copy_sparse(image, &dir.join(image.file_name().unwrap()));
        }
        drop(frozen);
        // What stands below the mount is seen where nothing is mounted on it.
        let below = s.scratch().join("below");
        fs::create_dir_all(&below).unwrap();
        let none: Option<&str> = None;
        nix::mount::mount(Some("/srv"), &below, none, nix::mount::MsFlags::MS_BIND, none).unwrap();
        let flags = Command::new("lsattr").args(["-d", "--"]).arg(below.join("lightning")).output().unwrap();
        nix::mount::umount(&below).unwrap();
        let immutable = String::from_utf8_lossy(&flags.stdout).split(' ').next().unwrap().contains('i');
        Self { dir, images, mounted, immutable }
    }

    /// Puts everything as it was when it was saved.
    pub(crate) fn restore(&self, s: &Sandbox) {
        s.reset();
        for name in OWN {
            for entry in fs::read_dir(format!("/{name}")).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.is_symlink() {
                    fs::remove_dir_all(&path).unwrap();
                } else {
                    fs::remove_file(&path).unwrap();
                }
            }
            ran("cp", &["-a", &format!("{}/{name}/.", self.dir.display()), &format!("/{name}")]);
        }
        for image in &self.images {
            let saved = fs::File::open(self.dir.join(image.file_name().unwrap())).unwrap();
            let target = fs::OpenOptions::new().write(true).open(image).unwrap();
            let mut block = vec![0; 1 << 20];
            let mut at = 0;
            while let Ok(data) = nix::unistd::lseek(&saved, at, nix::unistd::Whence::SeekData) {
                let read = saved.read_at(&mut block, u64::try_from(data).unwrap()).unwrap();
                target.write_all_at(&block[..read], u64::try_from(data).unwrap()).unwrap();
                at = data + i64::try_from(read).unwrap();
            }
            target.sync_all().unwrap();
        }
        for device in [s.one(), s.two()] {
            ran("blockdev", &["--flushbufs", device]);
        }
        if self.immutable {
            // Below the mount, where it stands.
            ran("chattr", &["+i", MIRROR]);
        }
        if self.mounted {
            ran("btrfs", &["device", "scan", s.one(), s.two()]);
            ran("mount", &[MIRROR]);
        }
    }
}
