//! Files that must be whole after a power cut: write beside, fsync, rename, fsync the directory.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use nix::libc::{O_NOCTTY, O_NONBLOCK};

/// A failed file operation, with the path it was about.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}", path.display())]
pub struct FileError {
    /// What was being done, as a gerund: `writing`, `renaming`.
    pub doing: &'static str,
    /// To which path.
    pub path: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

/// Names the path in a failed file operation.
pub trait Doing<T> {
    /// Adds what was being done, and to what.
    fn doing(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T, FileError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T, FileError> {
        self.map_err(|source| FileError { doing, path: path.as_ref().to_owned(), source })
    }
}

/// A path as the kernel names it, without symlinks and `..`, also where its end is not there yet: that is how a mount made at it is
/// shown, and found again.
///
/// # Errors
/// What is there of it cannot be read, or does not say where the rest would be.
pub fn real_path(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    let not = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(not(format!("{} leads up from what is not there", path.display())));
    };
    if above.join(name).is_symlink() {
        return Err(not(format!("{} is a symlink to what is not there", path.display())));
    }
    Ok(real_path(above)?.join(name))
}

/// Opens a file as `options` say, if it is a regular one: a FIFO in its place would be waited for without end, and a device may never
/// come to one.
///
/// # Errors
/// It cannot be opened, or is something else.
pub fn open_regular(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let opened = options.custom_flags(O_NONBLOCK | O_NOCTTY).open(path);
    // What is written to and has no reader cannot even be opened so.
    let no_reader = opened.as_ref().is_err_and(|e| e.raw_os_error() == Some(nix::libc::ENXIO));
    let kind = match &opened {
        Ok(file) => file.metadata()?.file_type(),
        Err(_) if no_reader => fs::metadata(path)?.file_type(),
        Err(_) => return opened,
    };
    let what = match kind {
        kind if kind.is_file() => return opened,
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, and must be a regular file")))
}

/// All of a regular file.
///
/// # Errors
/// As [`open_regular`].
pub fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    rest_of(&open_regular(path, OpenOptions::new().read(true))?)
}

/// What is left to read of a short file, in few calls: `/proc` does not say how long its files are, and a check reads many of them.
///
/// # Errors
/// It cannot be read.
pub fn rest_of(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(16 << 10);
    // As it is no bare file, nothing is asked about its length.
    file.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// All of a regular file as text. Bytes that are not UTF-8 are an error.
///
/// # Errors
/// As [`open_regular`].
pub fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read_regular(path)?).map_err(|e| {
        let good = e.utf8_error().valid_up_to();
        io::Error::new(io::ErrorKind::InvalidData, format!("it is no UTF-8 text: byte {} is wrong", good + 1))
    })
}

/// Makes the names in a directory durable.
pub fn sync_dir(dir: &Path) -> Result<(), FileError> {
    File::open(dir).and_then(|d| d.sync_all()).doing("syncing directory", dir)
}

/// Makes all that was written to the filesystem that `path` is on durable, by a commit where it has such (`syncfs(2)`).
pub fn sync_filesystem(path: &Path) -> Result<(), FileError> {
    let dir = File::open(path).doing("opening", path)?;
    nix::unistd::syncfs(&dir).map_err(io::Error::from).doing("syncing the filesystem of", path)
}

/// The directory a path lies in.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Replaces a file's content in one step. An existing file keeps its mode and owner; a new one gets `mode`. Whoever looks sees the
/// old content or the new, also after a power cut.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let dir = parent(path);
    let kept = match fs::metadata(path) {
        Ok(meta) => Some(meta),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e).doing("reading", path),
    };
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    let mut file = tempfile::Builder::new()
        .prefix(&name)
        .suffix(".raidguard-new")
        .permissions(Permissions::from_mode(kept.as_ref().map_or(mode, |m| m.permissions().mode() & 0o7777)))
        .tempfile_in(dir)
        .doing("creating a file in", dir)?;
    file.write_all(content).doing("writing", path)?;
    if let Some(meta) = &kept {
        use std::os::unix::fs::MetadataExt as _;
        chown(file.path(), Some(meta.uid()), Some(meta.gid())).doing("setting the owner of", path)?;
    }
    // The umask may have taken bits away at creation.
    let mode = kept.as_ref().map_or(mode, |m| m.permissions().mode() & 0o7777);
    file.as_file().set_permissions(Permissions::from_mode(mode)).doing("setting the mode of", path)?;
    file.as_file().sync_all().doing("syncing", path)?;
    file.persist(path).map_err(|e| e.error).doing("replacing", path)?;
    sync_dir(dir)
}

/// Removes a file, durably. Says whether there was one.
pub fn remove(path: &Path) -> Result<bool, FileError> {
    match fs::remove_file(path) {
        Ok(()) => sync_dir(parent(path)).map(|()| true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).doing("removing", path),
    }
}

/// Creates a directory and its parents with `mode`, durably. Returns those it had to make, outermost first.
pub fn create_dirs(path: &Path, mode: u32) -> Result<Vec<PathBuf>, FileError> {
    let mut missing: Vec<PathBuf> = Vec::new();
    let mut at = path;
    loop {
        match fs::metadata(at) {
            Ok(meta) if meta.is_dir() => break,
            Ok(_) => {
                return Err(io::Error::from(io::ErrorKind::NotADirectory)).doing("creating directory", at);
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => missing.push(at.to_owned()),
            Err(e) => return Err(e).doing("reading", at),
        }
        match at.parent() {
            Some(up) => at = up,
            None => break,
        }
    }
    missing.reverse();
    for dir in &missing {
        match fs::DirBuilder::new().mode(mode).create(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(e).doing("creating directory", dir);
            }
            _ => {}
        }
        fs::set_permissions(dir, Permissions::from_mode(mode)).doing("setting the mode of", dir)?;
        sync_dir(parent(dir))?;
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_keeps_its_mode_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fstab");
        replace(&path, b"one", 0o644).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        replace(&path, b"two", 0o644).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn made_directories_are_named_outermost_first() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        assert_eq!(create_dirs(&deep, 0o755).unwrap(), [dir.path().join("a"), deep.clone()]);
        assert!(create_dirs(&deep, 0o755).unwrap().is_empty());
        fs::write(dir.path().join("f"), "").unwrap();
        assert!(create_dirs(&dir.path().join("f/x"), 0o755).is_err());
    }

    #[test]
    fn a_path_is_named_as_the_kernel_does_as_far_as_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let top = fs::canonicalize(dir.path()).unwrap();
        let place = |name: &str| top.join(name);
        create_dirs(&place("data/srv"), 0o755).unwrap();
        fs::write(place("file"), "").unwrap();
        std::os::unix::fs::symlink("data/srv", place("srv")).unwrap();
        std::os::unix::fs::symlink("none", place("dangling")).unwrap();
        for (typed, real) in [
            ("srv", "data/srv"),
            ("srv/", "data/srv"),
            ("srv/x", "data/srv/x"),
            ("srv/x/./y/", "data/srv/x/y"),
            ("srv/../x", "data/x"),
            ("data/../x", "x"),
        ] {
            assert_eq!(real_path(&place(typed)).unwrap(), place(real), "{typed}");
        }
        for (typed, why) in [
            ("x/../y", "x/.. leads up from what is not there"),
            ("dangling", "dangling is a symlink to what is not there"),
            ("dangling/", "dangling/ is a symlink to what is not there"),
            ("dangling/x", "dangling is a symlink to what is not there"),
            ("file/x", "Not a directory"),
        ] {
            let said = real_path(&place(typed)).unwrap_err().to_string();
            assert!(said.contains(why), "{typed}: {said}");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_named_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        fs::write(place("plain"), "text").unwrap();
        std::os::unix::fs::symlink("plain", place("link")).unwrap();
        assert_eq!(read_text(&place("link")).unwrap(), "text");
        nix::unistd::mkfifo(&place("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(place("socket")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", place("device")).unwrap();
        for (name, what) in
            [("fifo", "a FIFO"), ("socket", "a socket"), ("device", "a device"), (".", "a directory")]
        {
            let said =
                |options: &mut OpenOptions| open_regular(&place(name), options).unwrap_err().to_string();
            let expected = format!("it is {what}, and must be a regular file");
            assert_eq!(said(OpenOptions::new().read(true)), expected);
            if name != "." {
                assert_eq!(said(OpenOptions::new().append(true)), expected);
                assert_eq!(said(OpenOptions::new().read(true).write(true)), expected);
            }
            assert!(read_regular(&place(name)).is_err());
        }
        fs::write(place("bytes"), b"text \xff").unwrap();
        assert_eq!(
            read_text(&place("bytes")).unwrap_err().to_string(),
            "it is no UTF-8 text: byte 6 is wrong"
        );
        assert_eq!(read_text(&place("nothing")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn removing_twice_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, "").unwrap();
        assert!(remove(&path).unwrap());
        assert!(!remove(&path).unwrap());
    }
}
