//! Finding nodes on a filesystem of which nothing is known: by the files that make one.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
};

use crate::host::copy::listed;

/// Directories of networks, below a node's base directory (Core Lightning: bitcoin/chainparams.c).
const NETWORKS: [&str; 8] =
    ["bitcoin", "testnet", "testnet4", "signet", "regtest", "liquid", "liquid-regtest", "litecoin"];
/// Any of these makes a directory a network's.
const MARKS: [&str; 3] = ["lightningd.sqlite3", "hsm_secret", "emergency.recover"];
/// What may lie beside those.
const BESIDE: [&str; 3] = ["lightningd.sqlite3-journal", "lightningd.sqlite3-wal", "config"];
/// What raidguard makes for a look, and deletes again.
const OWN: &str = ".raidguard-";

/// One network's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// It, relative to where the search began.
    pub directory: PathBuf,
    /// The node's base directory: the one above, where this one has a network's name.
    pub base: PathBuf,
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Every network's directory.
    pub places: Vec<Place>,
    /// Every file that makes a node what it is, relative to where the search began.
    pub files: BTreeSet<PathBuf>,
    /// Directories that could not be read, with the reason: a node may be in one of them.
    pub unread: Vec<(PathBuf, String)>,
}

/// Is it a directory of raidguard's own, with an old or a passing state in it?
pub fn is_own(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(OWN))
}

/// Does a file of this name belong to what makes a node, where it lies in a node's directory? The rest is logs, gossip and sockets.
fn makes_a_node(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let stem = ["-journal", "-wal"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
    MARKS.contains(&name)
        || has_ending(stem, "sqlite3")
        || name.starts_with("hsm_secret")
        || name.starts_with("emergency.recover")
        || name == "config"
        || name == "config.setconfig"
        || has_ending(name, "conf")
        || has_ending(name, "pem")
        || has_ending(name, "macaroon")
        || name == "backup.lock"
        || name == "scb.tmp"
}

fn has_ending(name: &str, ending: &str) -> bool {
    Path::new(name).extension().is_some_and(|e| e == ending)
}

/// Looks for nodes below `root`; no symlink is followed, and other subvolumes are entered. `go_on` is asked at each directory.
///
/// # Errors
/// `root` itself cannot be read, or `go_on` said no.
pub fn find(root: &Path, go_on: &mut dyn FnMut() -> bool) -> io::Result<Found> {
    let mut found = Found::default();
    let mut bases = BTreeSet::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(inside) = waiting.pop() {
        if !go_on() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let (entries, broken) = read(&root.join(&inside));
        match broken {
            Some(e) if inside.as_os_str().is_empty() && entries.is_empty() => return Err(e),
            Some(e) => found.unread.push((inside.clone(), e.to_string())),
            None => {}
        }
        let files: Vec<&OsString> = entries.iter().filter(|(_, dir)| !dir).map(|(name, _)| name).collect();
        if files.iter().any(|name| MARKS.iter().any(|mark| name == mark)) {
            let is_network = inside.file_name().is_some_and(|name| NETWORKS.iter().any(|n| name == *n));
            let base = inside.parent().filter(|_| is_network).unwrap_or(&inside).to_owned();
            let takes = files.iter().filter(|name| makes_a_node(name)).map(|name| inside.join(name));
            found.files.extend(takes);
            bases.insert(base.clone());
            found.places.push(Place { directory: inside.clone(), base });
        }
        let below = entries.into_iter().filter(|(_, dir)| *dir).map(|(name, _)| inside.join(name));
        waiting.extend(below.filter(|path| !is_own(path)));
    }
    for base in bases {
        // The network's directory is done already where it is its own base.
        let own = |name: &OsString| makes_a_node(name).then(|| base.join(name));
        let (entries, _) = read(&root.join(&base));
        found.files.extend(entries.iter().filter(|(_, dir)| !dir).filter_map(|(name, _)| own(name)));
    }
    found.places.sort_by(|a, b| a.directory.cmp(&b.directory));
    Ok(found)
}

/// Names in a directory, and which of them are directories. Where it cannot be read to its end, those that a node would have there are
/// tried by their names: another part of the directory leads to them.
fn read(dir: &Path) -> (Vec<(OsString, bool)>, Option<io::Error>) {
    let (mut names, broken) = listed(dir);
    if broken.is_some() {
        let known = MARKS.iter().chain(&BESIDE).chain(&NETWORKS).map(OsString::from);
        names.extend(known.filter(|name| dir.join(name).symlink_metadata().is_ok()));
    }
    // One that cannot be looked at is taken for a file: copying it will say why it cannot be read.
    let is_dir = |name: &OsString| dir.join(name).symlink_metadata().is_ok_and(|meta| meta.is_dir());
    (names.into_iter().map(|name| (name.clone(), is_dir(&name))).collect(), broken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn made(files: &[&str]) -> (tempfile::TempDir, Found) {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let found = find(dir.path(), &mut || true).unwrap();
        (dir, found)
    }

    fn text(paths: impl IntoIterator<Item = PathBuf>) -> Vec<String> {
        paths.into_iter().map(|p| p.display().to_string()).collect()
    }

    #[test]
    fn a_node_is_found_with_what_makes_it() {
        let (_dir, found) = made(&[
            "lightning/config",
            "lightning/lightningd-bitcoin.pid",
            "lightning/bitcoin/lightningd.sqlite3",
            "lightning/bitcoin/lightningd.sqlite3-journal",
            "lightning/bitcoin/hsm_secret",
            "lightning/bitcoin/emergency.recover",
            "lightning/bitcoin/gossip_store",
            "lightning/bitcoin/ca-key.pem",
            "lightning/regtest/hsm_secret",
            "photos/one.jpg",
            ".raidguard-deep/bitcoin/lightningd.sqlite3",
        ]);
        let places: Vec<_> = found.places.iter().map(|p| p.directory.display().to_string()).collect();
        assert_eq!(places, ["lightning/bitcoin", "lightning/regtest"]);
        assert!(found.places.iter().all(|p| p.base == Path::new("lightning")));
        assert_eq!(
            text(found.files),
            [
                "lightning/bitcoin/ca-key.pem",
                "lightning/bitcoin/emergency.recover",
                "lightning/bitcoin/hsm_secret",
                "lightning/bitcoin/lightningd.sqlite3",
                "lightning/bitcoin/lightningd.sqlite3-journal",
                "lightning/config",
                "lightning/regtest/hsm_secret",
            ]
        );
    }

    #[test]
    fn a_networks_own_directory_may_lie_at_the_top_or_have_another_name() {
        let (_dir, found) =
            made(&["lightningd.sqlite3", "config", "deep/er/mine/hsm_secret", "deep/er/config"]);
        let bases: Vec<_> = found.places.iter().map(|p| p.base.display().to_string()).collect();
        assert_eq!(bases, ["", "deep/er/mine"]);
        assert_eq!(text(found.files), ["config", "deep/er/mine/hsm_secret", "lightningd.sqlite3"]);
    }

    #[test]
    fn nothing_is_found_where_nothing_is_and_it_can_be_stopped() {
        let (dir, found) = made(&["a/b/c"]);
        assert_eq!(found, Found::default());
        assert!(find(dir.path(), &mut || false).is_err());
        assert!(find(&dir.path().join("gone"), &mut || true).is_err());
    }
}
