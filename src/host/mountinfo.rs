//! `/proc/self/mountinfo`: what is mounted where, as the kernel says it (proc_pid_mountinfo(5)).

use std::{
    ffi::OsString,
    io,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    Host,
    files::{self, Doing as _, FileError},
};
use crate::model::DevNo;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The device number of files on it. Of btrfs it is an anonymous one, no disk's.
    pub dev: DevNo,
    /// The part of the filesystem that is mounted.
    pub root: PathBuf,
    /// Where.
    pub mountpoint: PathBuf,
    /// Options of this mount.
    pub options: Vec<String>,
    /// The filesystem's type.
    pub fstype: String,
    /// What was mounted: a device path, or whatever the filesystem calls it.
    pub source: PathBuf,
    /// Options of the filesystem.
    pub super_options: Vec<String>,
}

/// Why the mounts could not be read.
#[derive(Debug, thiserror::Error)]
pub enum MountinfoError {
    /// The file cannot be read.
    #[error("the kernel's list of mounts cannot be read")]
    File(#[source] FileError),
    /// A line is not of the documented form.
    #[error("line {line} of the kernel's list of mounts is not of the known form: {text}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// The line.
        text: String,
    },
}

/// Turns the kernel's octal escapes (`\040` blank, `\011` tab, `\012` newline, `\134` backslash) back into bytes.
pub(super) fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] if first == b'\\' => {
                Some((((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'), after))
            }
            _ => None,
        };
        let (byte, after) = escaped.unwrap_or((first, tail));
        out.push(byte);
        rest = after;
    }
    out
}

fn path(text: &[u8]) -> PathBuf {
    OsString::from_vec(unescape(text)).into()
}

fn list(text: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(text).split(',').map(str::to_owned).collect()
}

/// Reads the text of a mountinfo file. Mount points may hold any byte, so it is bytes that are read.
///
/// # Errors
/// A line is not of the documented form.
pub fn parse(bytes: &[u8]) -> Result<Vec<Mount>, MountinfoError> {
    let lines = bytes.split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    lines
        .map(|(number, line)| {
            parse_line(line).ok_or_else(|| MountinfoError::Line {
                line: number + 1,
                text: String::from_utf8_lossy(line).into_owned(),
            })
        })
        .collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ').skip(2);
    let (major, minor) = std::str::from_utf8(fields.next()?).ok()?.split_once(':')?;
    let dev = DevNo { major: major.parse().ok()?, minor: minor.parse().ok()? };
    let (root, mountpoint, options) = (path(fields.next()?), path(fields.next()?), list(fields.next()?));
    // Optional fields, any number, up to a lone hyphen.
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let fstype = String::from_utf8(unescape(fields.next()?)).ok()?;
    let source = path(fields.next()?);
    Some(Mount { dev, root, mountpoint, options, fstype, source, super_options: list(fields.next()?) })
}

/// The mounts that raidguard sees.
///
/// # Errors
/// They cannot be read.
pub fn read(host: &Host) -> Result<Arc<Vec<Mount>>, MountinfoError> {
    let list = "/proc/self/mountinfo";
    host.once(list, || {
        let file = host.path(list);
        let bytes = files::read_regular(&file).doing("reading", &file).map_err(MountinfoError::File)?;
        parse(&bytes)
    })
}

/// The mount that is seen at exactly this path: the last one made there.
pub fn topmost_at<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts.get(place_of_topmost(mounts, path)?)
}

/// Where in the list it is.
pub fn place_of_topmost(mounts: &[Mount], path: &Path) -> Option<usize> {
    // The kernel writes neither a slash at the end nor two in a row, so that bytes can be compared.
    let plain: PathBuf = path.components().collect();
    mounts.iter().rposition(|mount| mount.mountpoint.as_os_str() == plain.as_os_str())
}

/// The mount that a path lies in.
pub fn containing<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    path.ancestors().find_map(|at| topmost_at(mounts, at))
}

/// Devices that are swap, from `/proc/swaps` (proc(5)); no such file means no swap.
///
/// # Errors
/// The file cannot be read.
pub fn swaps(host: &Host) -> Result<Vec<PathBuf>, FileError> {
    let file = host.path("/proc/swaps");
    match files::read_regular(&file) {
        Ok(bytes) => Ok(parse_swaps(&bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e).doing("reading", &file),
    }
}

/// Reads `/proc/swaps`: a header, then a line an area that begins with its escaped path.
fn parse_swaps(bytes: &[u8]) -> Vec<PathBuf> {
    let first = |line: &[u8]| path(line.split(|b| b" \t".contains(b)).next().unwrap_or_default());
    bytes.split(|b| *b == b'\n').skip(1).filter(|line| !line.is_empty()).map(first).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt as _;

    const RECORDED: &[u8] = include_bytes!("../../tests/fixtures/proc/mountinfo.txt");

    #[test]
    fn the_recorded_list_is_read_whole() {
        let mounts = parse(RECORDED).unwrap();
        assert_eq!(mounts.len(), RECORDED.iter().filter(|b| **b == b'\n').count());
        assert!(mounts.iter().any(|m| m.fstype == "btrfs"));
        assert!(
            mounts.iter().any(|m| m.mountpoint.as_os_str().as_bytes().contains(&b' ')),
            "a blank in a name"
        );
        assert!(
            mounts.iter().any(|m| m.mountpoint.as_os_str().as_bytes().contains(&b'\n')),
            "a newline in a name"
        );
        assert!(mounts.iter().any(|m| m.mountpoint.to_str().is_none()), "a name that is not UTF-8");
        assert!(mounts.iter().all(|m| m.mountpoint.is_absolute()));
    }

    #[test]
    fn awkward_names_are_read_as_they_are() {
        let recorded = include_bytes!("../../tests/fixtures/btrfs/mountinfo/awkward-names.txt");
        let mounts = parse(recorded).unwrap();
        let btrfs: Vec<_> = mounts.iter().filter(|m| m.fstype == "btrfs").collect();
        let places: Vec<_> = btrfs.iter().map(|m| m.mountpoint.as_os_str().as_bytes()).collect();
        for name in [
            &b"/mnt/rg"[..],
            b"/mnt/with space",
            b"/mnt/new\nline",
            b"/mnt/back\\slash",
            b"/mnt/literal\\040",
        ] {
            assert!(places.contains(&name), "{}", String::from_utf8_lossy(name));
        }
        assert!(places.iter().any(|place| place.contains(&0xff)));
        assert!(btrfs.iter().all(|m| m.source.starts_with("/dev") && m.super_options.contains(&"rw".into())));
    }

    proptest::proptest! {
        #[test]
        fn escapes_are_undone(path in proptest::collection::vec(1_u8.., 1..40)) {
            let escape = |b: &u8| match b {
                b' ' | b'\t' | b'\n' | b'\\' | b'#' => format!("\\{b:03o}").into_bytes(),
                other => vec![*other],
            };
            let escaped: Vec<u8> = path.iter().flat_map(escape).collect();
            proptest::prop_assert_eq!(unescape(&escaped), path);
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }

    #[test]
    fn what_only_looks_like_an_escape_is_itself() {
        for text in [&b"\\+12"[..], b"\\777", b"\\04", b"\\"] {
            assert_eq!(unescape(text), text);
        }
    }

    #[test]
    fn a_line_is_read_to_its_fields() {
        let line =
            br"36 35 98:0 /mnt1 /mnt\040two rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue";
        let mount = parse(line).unwrap().pop().unwrap();
        assert_eq!(mount.dev, DevNo { major: 98, minor: 0 });
        assert_eq!(mount.mountpoint, Path::new("/mnt two"));
        assert_eq!((mount.fstype.as_str(), mount.source.to_str()), ("ext3", Some("/dev/root")));
        assert_eq!(mount.super_options, ["rw", "errors=continue"]);
    }

    #[test]
    fn a_line_of_another_form_is_an_error_with_its_number() {
        for bad in [
            "x",
            "1 2 3 / / rw - ext4 a b",
            "1 2 8:1 / /mnt rw ext4 /dev/sda1 rw",
            "73 63 0:40 / /mnt/rg rw - btrfs",
        ] {
            let text = format!("36 35 98:0 / / rw - ext4 /dev/root rw\n{bad}\n");
            assert!(matches!(parse(text.as_bytes()), Err(MountinfoError::Line { line: 2, .. })), "{bad}");
        }
    }

    #[test]
    fn the_last_mount_at_a_path_is_the_one_seen() {
        let text = "1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / /srv rw - ext4 /dev/b rw\n3 2 0:3 / /srv rw - ext4 /dev/c rw\n";
        let mounts = parse(text.as_bytes()).unwrap();
        assert_eq!(topmost_at(&mounts, Path::new("/srv")).unwrap().source, Path::new("/dev/c"));
        assert_eq!(containing(&mounts, Path::new("/srv/x/y")).unwrap().source, Path::new("/dev/c"));
        assert_eq!(containing(&mounts, Path::new("/srvx")).unwrap().source, Path::new("/dev/a"));
        assert!(topmost_at(&mounts, Path::new("/srv/x")).is_none());
    }

    #[test]
    fn swaps_are_read_from_recorded_lists() {
        assert_eq!(parse_swaps(include_bytes!("../../tests/fixtures/proc/swaps-on.txt")).len(), 1);
        assert!(parse_swaps(include_bytes!("../../tests/fixtures/proc/swaps-off.txt")).is_empty());
    }

    crate::fuzz::fuzzed!(fuzz_mountinfo, bytes [
        RECORDED,
        include_bytes!("../../tests/fixtures/btrfs/mountinfo/awkward-names.txt"),
    ], |bytes| {
        if let Ok(mounts) = parse(bytes) {
            let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
            assert_eq!(mounts.len(), lines.count(), "a line was left out");
        }
    });

    crate::fuzz::fuzzed!(fuzz_swaps, bytes [
        include_bytes!("../../tests/fixtures/proc/swaps-on.txt"),
        include_bytes!("../../tests/fixtures/proc/swaps-off.txt"),
    ], |bytes| {
        parse_swaps(bytes);
    });
}
