//! Small files are read ahead of the copy: otherwise it waits for the device once for each of them.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use nix::fcntl::OFlag;

use super::content::{WINDOW, announce, open_to_read};

/// How many files it may be ahead: as many requests as one device takes at a time.
const FILES: usize = 8;

/// Goes ahead on a thread of its own, and only ever advises: what it cannot read the copy will find out.
pub(super) struct Scout(SyncSender<PathBuf>);

impl Scout {
    /// Has a scout while `work` runs.
    pub(super) fn with<T>(work: impl FnOnce(Self) -> T) -> T {
        let (send, receive) = sync_channel(FILES);
        thread::scope(|scope| {
            scope.spawn(move || look(receive));
            work(Self(send))
        })
    }

    /// Each name of a directory in turn, the files behind it announced to the kernel.
    pub(super) fn ahead_of<'a, N: AsRef<Path>>(
        &'a self,
        dir: &'a Path,
        names: &'a [N],
    ) -> impl Iterator<Item = &'a N> {
        let tell = |name: &N| drop(self.0.try_send(dir.join(name)));
        names.iter().take(FILES).for_each(tell);
        names.iter().enumerate().map(move |(index, name)| {
            names.get(index + FILES).into_iter().for_each(tell);
            name
        })
    }
}

fn look(receive: Receiver<PathBuf>) {
    for path in receive {
        // Opening a device may do something to it.
        let Some(meta) = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file) else { continue };
        if let Ok(file) = open_to_read(&path, OFlag::empty()) {
            announce(&file, 0, meta.len().min(2 * WINDOW as u64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<String> = (10..40).map(|n| n.to_string()).collect();
        for name in &names {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let came: Vec<String> = Scout::with(|scout| scout.ahead_of(dir.path(), &names).cloned().collect());
        assert_eq!(came, names);
        let none: Vec<String> = Vec::new();
        assert_eq!(Scout::with(|scout| scout.ahead_of(Path::new("/none"), &none).count()), 0);
    }
}
