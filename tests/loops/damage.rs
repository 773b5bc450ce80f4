//! A survivor that is damaged itself, in each place where that hurts: the best possible comes out, and never a file as good that differs
//! from what was committed.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    halves::{Mirror, find, forget, recover},
    sandbox::{Ran, Sandbox, isolated, note},
    store::{Store, hash},
    writer::{Acknowledged, DATABASE, Mode, Writer, content, version_of},
};

/// btrfs keeps its superblock here, and a copy 64 MiB into the device (fs/btrfs/disk-io.h, `btrfs_sb_offset`).
const SUPERBLOCK: u64 = 64 << 10;
const COPY: u64 = 64 << 20;
const TO: &str = "/srv/rescued";
const NODE_SIZE: u64 = 16 << 10;

/// Where the logical addresses of a filesystem are on one of its devices.
struct Chunks(Vec<(u64, u64, u64)>);

impl Chunks {
    /// From what `btrfs inspect-internal dump-tree -t chunk` prints.
    fn parse(dump: &str, devid: &str) -> Self {
        let (mut found, mut logical, mut length) = (Vec::new(), 0, 0);
        for line in dump.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            match words[..] {
                ["item", _, "key", "(FIRST_CHUNK_TREE", "CHUNK_ITEM", at, ..] => {
                    logical = at.trim_end_matches(')').parse().unwrap();
                }
                ["length", bytes, ..] => length = bytes.parse().unwrap(),
                ["stripe", _, "devid", id, "offset", at] if id == devid => {
                    found.push((logical, length, at.parse().unwrap()));
                }
                _ => {}
            }
        }
        assert!(found.len() >= 3, "{dump}");
        Self(found)
    }

    fn physical(&self, address: u64) -> u64 {
        let chunk =
            self.0.iter().find(|(logical, length, _)| (*logical..logical + length).contains(&address));
        let (logical, _, at) = chunk.unwrap_or_else(|| panic!("{address} is in no chunk"));
        at + address - logical
    }
}

/// One half of a mirror as a power cut left it: half of what was committed is in the trees, half in the log alone.
struct Survivor {
    image: PathBuf,
    /// The same half, unmounted in order.
    unmounted: PathBuf,
    /// The database as it was in the end.
    database: Vec<u8>,
    acknowledged: Acknowledged,
    chunks: Chunks,
    /// Every live block of metadata: whose it is, and its logical address.
    blocks: Vec<(String, u64)>,
}

fn survivor(s: &Sandbox, store: &Store) -> Survivor {
    let mut mirror = Mirror::new(s, store, "raid1", &["one", "two"]);
    let writer = Writer::start(&mirror.node(), Mode::Rollback);
    let wait = |version| {
        while writer.acknowledged().version < version {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    wait(40);
    mirror.commit();
    wait(70);
    let acknowledged = writer.stop();
    // The last journal's end is on the disk as well, so that the newest state is the only one.
    fs::File::open(mirror.node()).unwrap().sync_all().unwrap();
    let image = store.clone_of(&mirror.images()[0], "survivor");
    let database = fs::read(mirror.node().join(DATABASE)).unwrap();
    mirror.unmount();
    let unmounted = store.clone_of(&mirror.images()[0], "unmounted");
    drop(mirror);
    let clone = store.clone_of(&image, "survivor to read");
    let device = s.attach_again(&clone);
    let dump = |more: &[&str]| {
        s.tool("btrfs", &[&["inspect-internal", "dump-tree"], more, &[device.name()]].concat())
    };
    let chunks = Chunks::parse(&dump(&["-t", "chunk"]), "1");
    let mut blocks = Vec::new();
    for line in dump(&[]).lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        if let [kind @ ("leaf" | "node"), at, "items" | "level", ..] = words[..] {
            let owner = words.last().unwrap();
            blocks.push((format!("a {kind} of {owner}"), at.parse().unwrap()));
        }
    }
    assert!(blocks.len() >= 14 && blocks.iter().any(|(name, _)| name.contains("TREE_LOG")), "{blocks:?}");
    Survivor { image, unmounted, database, acknowledged, chunks, blocks }
}

/// What came out of a damaged survivor.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// All that was committed, presented as good.
    Whole,
    /// Something, and what may be lacking or wrong in it is said.
    Labelled,
    /// Nothing, and that is said.
    Nothing,
}

impl Survivor {
    /// Rescues from a clone with these bytes at these places; the worst that may come of it is a clear word. Where nothing comes out, an
    /// old state is asked for.
    fn damaged(
        &self,
        s: &Sandbox,
        store: &Store,
        image: &Path,
        places: &[(u64, Vec<u8>)],
    ) -> Result<Outcome, String> {
        match self.rescued(s, store, image, places, &[])? {
            Outcome::Nothing => self.rescued(s, store, image, places, &["--allow-old"]),
            something => Ok(something),
        }
    }

    fn rescued(
        &self,
        s: &Sandbox,
        store: &Store,
        image: &Path,
        places: &[(u64, Vec<u8>)],
        more: &[&str],
    ) -> Result<Outcome, String> {
        let image = store.clone_of(image, "damaged");
        let file = fs::OpenOptions::new().write(true).open(&image).unwrap();
        places.iter().for_each(|(at, bytes)| file.write_all_at(bytes, *at).unwrap());
        file.sync_all().unwrap();
        let before = hash(&image);
        let device = s.attach_again(&image);
        let ran = recover(s, &[device.name()], TO, &[&["--all", "--json"], more].concat());
        let untouched =
            hash(&image) == before && s.tool("blockdev", &["--getro", device.name()]).trim() == "0";
        let outcome = self.judge(&ran, Path::new(TO));
        let _ = fs::remove_dir_all(TO);
        drop(device);
        forget();
        let said = || format!("exit code {}: {}{}", ran.code, ran.stdout, ran.stderr);
        if !untouched {
            return Err(format!("the survivor was changed or left read-only; {}", said()));
        }
        outcome.map_err(|e| format!("{e}; {}", said()))
    }

    /// A block's bytes as they are.
    fn bytes(&self, at: u64, length: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        fs::File::open(&self.image).unwrap().read_exact_at(&mut bytes, at).unwrap();
        bytes
    }
}

impl Survivor {
    fn judge(&self, ran: &Ran, to: &Path) -> Result<Outcome, String> {
        if ran.code == 1 || ran.code == 3 {
            let presented = [DATABASE, "hsm_secret", "RECOVERY.md"].map(|name| find(to, name)).concat();
            let clear = ran.stderr.contains("error:")
                && (ran.stderr.contains("next:") || ran.stderr.contains("clears with:"));
            return match presented.is_empty() && clear {
                true => Ok(Outcome::Nothing),
                false => Err(format!("{presented:?} are there, or it is not clear what to do")),
            };
        }
        let said: Value = serde_json::from_str(&ran.stdout).map_err(|e| e.to_string())?;
        let newest = said["freshness"] == "newest";
        let doubts = said["doubts"].as_array().ok_or("no doubts")?.len();
        let lost: Vec<PathBuf> = said["unreadable"]
            .as_array()
            .ok_or("nothing is said of what cannot be read")?
            .iter()
            .map(|lost| lost["path"].as_str().unwrap_or_default().into())
            .collect();
        let good = newest && doubts == 0 && lost.is_empty();
        if good != (ran.code == 0) || !(ran.code == 0 || ran.code == 4) {
            return Err("the exit code says another thing than the report".to_owned());
        }
        if !newest {
            return if doubts > 0 {
                Ok(Outcome::Labelled)
            } else {
                Err("old, and nobody says why".to_owned())
            };
        }
        self.each_file(&said, to, &lost)?;
        Ok(if good { Outcome::Whole } else { Outcome::Labelled })
    }

    /// Of what is called the newest state, every file is what was committed, or is named as one that cannot be read.
    fn each_file(&self, said: &Value, to: &Path, lost: &[PathBuf]) -> Result<(), String> {
        let node = Path::new("lightning/bitcoin");
        let is_lost = |name: &str| lost.iter().any(|path| node.join(name).starts_with(path));
        let kept = to.join("files").join(node);
        for (name, bytes) in self.committed() {
            match fs::read(kept.join(&name)) {
                Ok(found) if found == bytes => {}
                Ok(_) => return Err(format!("`{name}` differs")),
                Err(_) if is_lost(&name) => {}
                Err(e) => return Err(format!("`{name}` is not there ({e}), and nobody says so")),
            }
        }
        let told = &said["networks"][0]["database"];
        match version_of(&kept.join(DATABASE)) {
            Ok(version) if version == self.acknowledged.version && told["data_version"] == version => Ok(()),
            Err(_) if is_lost(DATABASE) || told["fault"].is_string() => Ok(()),
            other => Err(format!("{other:?} instead of {}, told is {told}", self.acknowledged.version)),
        }
    }

    /// What was committed beside the database.
    fn committed(&self) -> Vec<(String, Vec<u8>)> {
        let fixed = [("hsm_secret", vec![7; 32]), ("emergency.recover", vec![9; 300])];
        let notes = (1..=self.acknowledged.notes).map(|number| (format!("note {number}"), content(number)));
        let replaced = ("replaced".to_owned(), content(self.acknowledged.generation));
        fixed
            .map(|(name, bytes)| (name.to_owned(), bytes))
            .into_iter()
            .chain(notes)
            .chain([replaced])
            .collect()
    }
}

/// How many of each there were.
#[derive(Default)]
struct Counts {
    whole: usize,
    labelled: usize,
    nothing: usize,
    failed: Vec<String>,
}

impl Counts {
    fn add(&mut self, what: &str, outcome: Result<Outcome, String>) {
        match outcome {
            Ok(Outcome::Whole) => self.whole += 1,
            Ok(Outcome::Labelled) => self.labelled += 1,
            Ok(Outcome::Nothing) => self.nothing += 1,
            Err(e) => self.failed.push(format!("{what}: {e}")),
        }
    }

    fn says(&self, what: &str) {
        note(format!(
            "{what}: {} gave all that was committed, {} what could be had, with what it may lack, {} nothing, and it was said",
            self.whole, self.labelled, self.nothing
        ));
        assert!(self.failed.is_empty(), "{} failed:\n{}", self.failed.len(), self.failed.join("\n"));
    }
}

#[test]
fn every_block_of_metadata() {
    isolated("damage::every_block_of_metadata", |s| {
        let store = Store::new(s);
        let survivor = survivor(s, &store);
        let mut counts = Counts::default();
        for (name, address) in &survivor.blocks {
            let at = survivor.chunks.physical(*address);
            let mut flipped = survivor.bytes(at, NODE_SIZE);
            flipped[8000] ^= 0x10;
            for (how, bytes) in [("flipped", flipped), ("zeroed", vec![0; NODE_SIZE as usize])] {
                let outcome = survivor.damaged(s, &store, &survivor.image, &[(at, bytes)]);
                counts.add(&format!("{name} at {address} {how}"), outcome);
            }
        }
        let damaged = survivor.blocks.len();
        counts.says(&format!(
            "each of {damaged} blocks of metadata, a bit flipped in it and then all of it zero"
        ));
    });
}

#[test]
fn superblocks_and_content() {
    isolated("damage::superblocks_and_content", |s| {
        let store = Store::new(s);
        let survivor = survivor(s, &store);
        let (cut, unmounted) = (&survivor.image, &survivor.unmounted);
        let zero = |at| (at, vec![0; 4096]);
        // The copy knows nothing of what was fsynced since the last transaction.
        let first = survivor.damaged(s, &store, cut, &[zero(SUPERBLOCK)]);
        assert_eq!(first, Ok(Outcome::Labelled));
        let first = survivor.damaged(s, &store, unmounted, &[zero(SUPERBLOCK)]);
        assert!(matches!(first, Ok(Outcome::Whole | Outcome::Labelled)), "{first:?}");
        let second = survivor.damaged(s, &store, cut, &[zero(COPY)]);
        assert_eq!(second, Ok(Outcome::Whole));
        let both = survivor.damaged(s, &store, cut, &[zero(SUPERBLOCK), zero(COPY)]);
        assert_eq!(both, Ok(Outcome::Nothing));

        // A file that cannot be read is named, and all others come out.
        let mut counts = Counts::default();
        let largest = (1..=survivor.acknowledged.notes).map(content).max_by_key(Vec::len).unwrap();
        let pages = [0, 3, survivor.database.len() / 4096 / 2];
        let pages = pages.map(|page| survivor.database[page * 4096..(page + 1) * 4096].to_vec());
        for (what, block) in [
            ("a note", &largest[..4096]),
            ("a page", &pages[0]),
            ("a page", &pages[1]),
            ("a page", &pages[2]),
        ] {
            let places = crate::check::places_in(cut, block);
            assert!(!places.is_empty(), "{what} is nowhere");
            let places: Vec<_> = places.into_iter().map(|at| (at, vec![0x5a; 4096])).collect();
            let outcome = survivor.damaged(s, &store, cut, &places);
            assert_eq!(outcome, Ok(Outcome::Labelled), "{what}");
            counts.add(what, outcome);
        }
        counts.says("a block of a file's content");
    });
}

/// A copy on a disk that is a little too small: the kernel does not mount it in any way, and all of it is there.
#[test]
fn what_nothing_mounts_is_read_out_and_labelled() {
    isolated("damage::what_nothing_mounts_is_read_out_and_labelled", |s| {
        let store = Store::new(s);
        let survivor = survivor(s, &store);
        let image = store.clone_of(&survivor.image, "cut short");
        let file = fs::OpenOptions::new().write(true).open(&image).unwrap();
        file.set_len(file.metadata().unwrap().len() - (1 << 20)).unwrap();
        let before = hash(&image);
        let device = s.attach_again(&image);
        let newest = recover(s, &[device.name()], TO, &["--all"]);
        assert_eq!(survivor.judge(&newest, Path::new(TO)), Ok(Outcome::Nothing), "{}", newest.stderr);
        assert!(newest.stderr.contains("--allow-old"), "{}", newest.stderr);
        let ran = recover(s, &[device.name()], TO, &["--all", "--json", "--allow-old"]);
        assert_eq!(
            survivor.judge(&ran, Path::new(TO)),
            Ok(Outcome::Labelled),
            "{}{}",
            ran.stdout,
            ran.stderr
        );
        let said: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!((&said["way"]["name"], &said["freshness"]), (&"restore".into(), &"old".into()));
        let tried: Vec<_> =
            said["tried"].as_array().unwrap().iter().map(|t| t["way"].as_str().unwrap()).collect();
        assert_eq!(tried, ["degraded", "backup-root", "no-log", "no-log-backup-root", "all"]);
        let doubts = said["doubts"].to_string();
        assert!(doubts.contains("fsynced") && doubts.contains("checks no content"), "{doubts}");
        // The files of the last transaction, and nothing that says a node may start from them.
        let kept = Path::new(TO).join("files/lightning/bitcoin");
        assert_eq!(fs::read(kept.join("hsm_secret")).unwrap(), [7; 32]);
        assert_eq!(fs::read(kept.join("emergency.recover")).unwrap(), [9; 300]);
        let old = version_of(&kept.join(DATABASE)).unwrap();
        assert!(old < survivor.acknowledged.version, "{old}: the log was not read");
        let page = fs::read_to_string(format!("{TO}/RECOVERY.md")).unwrap();
        assert!(page.contains("do NOT start a node") && page.contains("btrfs restore"), "{page}");
        assert!(hash(&image) == before, "the survivor was changed");
        drop(device);
        forget();
    });
}
