//! `mdadm.conf`, edited without touching a byte that is not ours (mdadm.conf(5)): the array is assembled at boot by the name that it says.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    Host,
    files::{self, Doing as _, FileError},
};

/// Where it lies: Debian's place, and that of most others.
const PLACES: [&str; 2] = ["/etc/mdadm/mdadm.conf", "/etc/mdadm.conf"];

/// Where the machine has it, or where this distribution would.
pub fn path(host: &Host) -> PathBuf {
    let [debian, other] = PLACES;
    let is_debian = host.path(debian).exists() || host.path(files::parent(Path::new(debian))).is_dir();
    if is_debian || !host.path(other).exists() && host.path("/etc/debian_version").exists() {
        debian.into()
    } else {
        other.into()
    }
}

fn words(line: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(line).into_owned();
    text.split_whitespace().take_while(|word| !word.starts_with('#')).map(str::to_lowercase).collect()
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|byte| *byte == b'\n')
}

fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

/// A line that stands against `wanted` (`ARRAY /dev/md/NAME metadata=1.2 UUID=...`): another array by that name, or this one by another
/// name. In words, with its number.
pub fn conflict_in(text: &[u8], wanted: &str) -> Option<String> {
    let wanted_words = words(wanted.as_bytes());
    let of = |words: &[String]| -> Option<(String, Option<String>)> {
        let (first, rest) = words.split_first()?;
        // Keywords may be cut short to three letters.
        (first.len() >= 3 && "array".starts_with(first.as_str())).then_some(())?;
        let uuid = rest.iter().find_map(|w| w.strip_prefix("uuid=")).map(digits);
        Some((rest.first()?.clone(), uuid))
    };
    let (device, uuid) = of(&wanted_words)?;
    lines(text).zip(1..).filter(|(line, _)| trimmed(line) != wanted.as_bytes()).find_map(|(line, number)| {
        let (other, of_other) = of(&words(line))?;
        let shown = String::from_utf8_lossy(trimmed(line)).into_owned();
        if of_other == uuid {
            Some(format!("line {number} speaks of this array already: {shown}"))
        } else if short(&other) == short(&device) {
            Some(format!("line {number} gives another array this name: {shown}"))
        } else {
            None
        }
    })
}

fn digits(uuid: &str) -> String {
    uuid.chars().filter(char::is_ascii_hexdigit).collect()
}

/// `/dev/md/NAME` may be written `NAME`.
fn short(device: &str) -> &str {
    device.strip_prefix("/dev/md/").unwrap_or(device)
}

/// `text` with the comment and the line at its end; as it is where the line is there already.
pub fn with(text: &[u8], line: &str, comment: &str) -> Vec<u8> {
    let mut out = text.to_vec();
    if lines(text).any(|l| trimmed(l) == line.as_bytes()) {
        return out;
    }
    if !out.is_empty() && !out.ends_with(b"\n") {
        out.push(b'\n');
    }
    out.extend(format!("# {comment}\n{line}\n").bytes());
    out
}

/// `text` without the line, and without the comment where it stands right above. Every other byte stays.
pub fn without(text: &[u8], line: &str, comment: &str) -> Vec<u8> {
    let comment = format!("# {comment}");
    let mut kept: Vec<&[u8]> = Vec::new();
    for current in lines(text) {
        if trimmed(current) == line.as_bytes() {
            if kept.last().is_some_and(|last| trimmed(last) == comment.as_bytes()) {
                kept.pop();
            }
        } else {
            kept.push(current);
        }
    }
    kept.concat()
}

fn read(host: &Host, path: &Path) -> Result<Vec<u8>, FileError> {
    match std::fs::read(host.path(path)) {
        Ok(bytes) => Ok(bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e).doing("reading", path),
    }
}

/// Does the machine's file hold this very line?
///
/// # Errors
/// It cannot be read.
pub fn has(host: &Host, line: &str) -> Result<bool, FileError> {
    let text = read(host, &path(host))?;
    Ok(lines(&text).any(|l| trimmed(l) == line.as_bytes()))
}

/// As [`conflict_in`], of the machine's file, which it names.
///
/// # Errors
/// It cannot be read.
pub fn conflict(host: &Host, wanted: &str) -> Result<Option<String>, FileError> {
    let path = path(host);
    Ok(conflict_in(&read(host, &path)?, wanted).map(|why| format!("{}: {why}", path.display())))
}

fn edit(host: &Host, change: impl Fn(&[u8]) -> Vec<u8>) -> Result<(), FileError> {
    let path = path(host);
    let before = read(host, &path)?;
    let after = change(&before);
    if after == before {
        return Ok(());
    }
    let real = host.path(&path);
    let real = std::fs::canonicalize(&real).unwrap_or(real);
    files::create_dirs(files::parent(&real), 0o755)?;
    if !before.is_empty() {
        let stamp = host.now().strftime("%Y%m%d-%H%M%S");
        let backup = host.path(format!("{}.raidguard-backup-{stamp}", path.display()));
        // Two edits within a second: the older backup is the one worth keeping.
        if !backup.exists() {
            files::replace(&backup, &before, 0o644)?;
        }
    }
    if after.is_empty() { files::remove(&real).map(drop) } else { files::replace(&real, &after, 0o644) }
}

/// Adds the line below its comment, keeping a backup of the file beside it. Nothing is written where it is there already.
///
/// # Errors
/// The file cannot be read or written; it is then as it was.
pub fn add(host: &Host, line: &str, comment: &str) -> Result<(), FileError> {
    edit(host, |text| with(text, line, comment))
}

/// Removes the line and its comment, keeping a backup.
///
/// # Errors
/// The file cannot be read or written; it is then as it was.
pub fn remove(host: &Host, line: &str, comment: &str) -> Result<(), FileError> {
    edit(host, |text| without(text, line, comment))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    const LINE: &str = "ARRAY /dev/md/lightning metadata=1.2 UUID=3aaa0122:294f5372:918d05fe:88b0b1b5";
    const COMMENT: &str = "lightning mirror, written by raidguard";
    /// As Debian installs it, but for most of its comments.
    const DEBIAN: &str =
        "# mdadm.conf\n\nHOMEHOST <system>\nMAILADDR root\n\n# definitions of existing MD arrays\n";

    #[test]
    fn lines_that_stand_against_it() {
        for (other, expected) in [
            ("", None),
            (LINE, None),
            (DEBIAN, None),
            ("ARRAY /dev/md0 UUID=00000000:294f5372:918d05fe:88b0b1b5\n", None),
            ("#ARRAY /dev/md/lightning UUID=0\n", None),
            (
                "ARRAY /dev/md/lightning UUID=00000000:294f5372:918d05fe:88b0b1b5\n",
                Some("gives another array this name"),
            ),
            ("arr lightning name=x:y # mine\n", Some("gives another array this name")),
            (
                "MAILADDR root\nARRAY <ignore> UUID=3AAA0122:294f5372:918d05fe:88b0b1b5\n",
                Some("line 2 speaks of this array"),
            ),
            ("ARRAY /dev/md7 uuid=3aaa0122294f5372918d05fe88b0b1b5\n", Some("line 1 speaks of this array")),
        ] {
            let found = conflict_in(other.as_bytes(), LINE);
            assert_eq!(found.is_some(), expected.is_some(), "{other}: {found:?}");
            assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()), "{other}");
        }
    }

    #[test]
    fn the_machines_file_is_edited_and_put_back_with_a_backup() {
        let dir = tempfile::tempdir().unwrap();
        let runner = std::sync::Arc::new(crate::exec::ScriptedRunner::new());
        let host = Host::captured(dir.path(), runner, jiff::Timestamp::UNIX_EPOCH);
        fs::create_dir_all(dir.path().join("etc/mdadm")).unwrap();
        let file = dir.path().join("etc/mdadm/mdadm.conf");
        fs::write(&file, DEBIAN).unwrap();
        add(&host, LINE, COMMENT).unwrap();
        add(&host, LINE, COMMENT).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{DEBIAN}# {COMMENT}\n{LINE}\n"));
        assert!(has(&host, LINE).unwrap());
        let backup = dir.path().join("etc/mdadm/mdadm.conf.raidguard-backup-19700101-000000");
        assert_eq!(fs::read_to_string(backup).unwrap(), DEBIAN);
        remove(&host, LINE, COMMENT).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), DEBIAN);
        assert!(!has(&host, LINE).unwrap());
    }

    #[test]
    fn a_file_that_was_not_there_goes_again() {
        let dir = tempfile::tempdir().unwrap();
        let runner = std::sync::Arc::new(crate::exec::ScriptedRunner::new());
        let host = Host::captured(dir.path(), runner, jiff::Timestamp::UNIX_EPOCH);
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        add(&host, LINE, COMMENT).unwrap();
        let file = dir.path().join("etc/mdadm.conf");
        assert!(file.exists());
        remove(&host, LINE, COMMENT).unwrap();
        assert!(!file.exists());
    }

    proptest! {
        #[test]
        fn adding_and_removing_leaves_every_byte(lines in prop::collection::vec("[ -~\t\u{e9}]{0,40}", 0..12)) {
            let text = lines.iter().map(|l| format!("{l}\n")).collect::<String>().into_bytes();
            let added = with(&text, LINE, COMMENT);
            prop_assert!(added.starts_with(&text));
            prop_assert_eq!(without(&added, LINE, COMMENT), text);
        }
    }
}
