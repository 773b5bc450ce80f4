//! The kernel's list of mounts, as far as btrfs needs it.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

use super::ParseError;

/// One line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Where it is mounted.
    pub(super) target: PathBuf,
    /// The options of this mount.
    pub(super) options: Vec<String>,
    /// The filesystem's type.
    pub(super) fstype: String,
    /// The device.
    pub(super) source: PathBuf,
    /// The options of the filesystem.
    pub(super) super_options: Vec<String>,
}

/// Reads every line. Paths may hold any byte, so this is no text.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Mount>, ParseError> {
    bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Result<Mount, ParseError> {
    let bad = || ParseError::new("mountinfo", String::from_utf8_lossy(line));
    let mut fields = line.split(|b| *b == b' ');
    let target = fields.nth(4).ok_or_else(bad)?;
    let options = fields.next().ok_or_else(bad)?;
    fields.find(|field| *field == b"-").ok_or_else(bad)?;
    let fstype = fields.next().ok_or_else(bad)?;
    let source = fields.next().ok_or_else(bad)?;
    let super_options = fields.next().ok_or_else(bad)?;
    let list = |field: &[u8]| String::from_utf8_lossy(field).split(',').map(str::to_owned).collect();
    Ok(Mount {
        target: unescape(target).into(),
        options: list(options),
        fstype: String::from_utf8_lossy(fstype).into_owned(),
        source: unescape(source).into(),
        super_options: list(super_options),
    })
}

/// Undoes the kernel's octal escapes (`\040` for a blank). A backslash that starts none is itself.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let escaped = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if *first == b'\\' => {
                Some(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'))
            }
            _ => None,
        };
        out.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn reads_a_recorded_list_with_awkward_names() {
        let mounts =
            parse(include_bytes!("../../../tests/fixtures/btrfs/mountinfo/awkward-names.txt")).unwrap();
        let btrfs: Vec<_> = mounts.iter().filter(|m| m.fstype == "btrfs").collect();
        let targets: Vec<_> = btrfs.iter().map(|m| m.target.as_os_str().as_bytes()).collect();
        for name in [
            &b"/mnt/rg"[..],
            b"/mnt/with space",
            b"/mnt/new\nline",
            b"/mnt/back\\slash",
            b"/mnt/literal\\040",
        ] {
            assert!(targets.contains(&name), "{}", String::from_utf8_lossy(name));
        }
        assert!(targets.iter().any(|t| t.ends_with(&[0xff]) || t.contains(&0xff)));
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
            proptest::prop_assert_eq!(unescape(&escaped).into_vec(), path);
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }

    #[test]
    fn a_line_that_is_cut_is_an_error() {
        assert!(parse(b"73 63 0:40 / /mnt/rg rw,relatime - btrfs\n").is_err());
        assert!(parse(b"73 63 0:40 / /mnt/rg rw,relatime\n").is_err());
    }
}
