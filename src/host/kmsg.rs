//! What the kernel says while something is done: `/dev/kmsg` (Documentation/ABI/testing/dev-kmsg).

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
};

use nix::libc::{EPIPE, O_NONBLOCK};

use super::Host;

/// Where they are read.
pub const KMSG: &str = "/dev/kmsg";
/// A read gives one record, which must fit (`PRINTKRB_RECORD_MAX` in `kernel/printk/internal.h` is less).
const RECORD: usize = 8 << 10;
/// A kernel that talks without end is not listened to without end.
const RECORDS: usize = 100_000;

/// The kernel's messages from an instant on.
#[derive(Debug)]
pub struct Kmsg(File);

impl Kmsg {
    /// From now on.
    ///
    /// # Errors
    /// It cannot be read: this is not root, or a container.
    pub fn from_now(host: &Host) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(host.path(KMSG))?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self(file))
    }

    /// The messages that came since then, or since this was last asked.
    ///
    /// # Errors
    /// It cannot be read any more, or some were written over by later ones.
    pub fn since(&mut self) -> io::Result<Vec<String>> {
        let mut said = Vec::new();
        let mut record = [0; RECORD];
        for _ in 0..RECORDS {
            match self.0.read(&mut record) {
                Ok(0) => break,
                Ok(length) => {
                    let text = String::from_utf8_lossy(record.get(..length).unwrap_or_default());
                    said.extend(messages(&text).map(str::to_owned));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.raw_os_error() == Some(EPIPE) => {
                    return Err(io::Error::new(e.kind(), "messages were written over by later ones"));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(said)
    }
}

/// What is said in records: `4,812,51409,-;WARNING: ...`, and below it, after a space each, what it is about.
fn messages(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).filter_map(|line| {
        let (_, message) = line.split_once(';')?;
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _, sync::Arc};

    use super::*;

    const SAID: &[u8] =
        b"6,811,51400,-;sd 6:0:0:0: [sda] Attached SCSI disk\n SUBSYSTEM=scsi\n DEVICE=+scsi:6:0:0:0\n\
        4,812,51409,-,caller=T7;WARNING: a; b\nno record\n";

    #[test]
    fn what_was_said_since() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("dev")).unwrap();
        let file = dir.path().join("dev/kmsg");
        let host = Host::captured(
            dir.path(),
            Arc::new(crate::exec::ScriptedRunner::new()),
            jiff::Timestamp::UNIX_EPOCH,
        );
        assert!(Kmsg::from_now(&host).is_err());
        fs::write(&file, "6,1,1,-;before\n").unwrap();
        let mut kmsg = Kmsg::from_now(&host).unwrap();
        assert!(kmsg.since().unwrap().is_empty());
        OpenOptions::new().append(true).open(&file).unwrap().write_all(SAID).unwrap();
        assert_eq!(kmsg.since().unwrap(), ["sd 6:0:0:0: [sda] Attached SCSI disk", "WARNING: a; b"]);
        assert!(kmsg.since().unwrap().is_empty());
    }

    crate::fuzz::fuzzed!(fuzz_kmsg, text[SAID], |text| {
        for message in messages(text) {
            assert!(text.contains(message) && !message.contains('\n'));
        }
    });
}
