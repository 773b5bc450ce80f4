//! A pool of ZFS as its tools show it.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Bytes, lossy};

/// A pool that is imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own, told at a place of its own")]
pub struct ZfsState {
    /// Its name.
    pub name: String,
    /// Its number; older tools do not say it.
    pub guid: Option<u64>,
    /// How redundant it is: `mirror`, `raidz1`, `raidz2`; unknown where no device of it can be read.
    #[serde(default)]
    pub level: Option<String>,
    /// `ONLINE`, `DEGRADED`, `FAULTED`, `UNAVAIL`, `SUSPENDED`, ...
    pub state: String,
    /// The one remark that the tools choose to make, of several that may hold.
    pub remark: Option<String>,
    /// Its vdevs at the top, those of every class.
    pub vdevs: Vec<ZfsVdev>,
    /// The last scrub or resilver, whichever came later; nothing where there was none.
    pub scan: Option<ZfsScan>,
    /// Whether vdevs are being filled in the order in which they lie, without checksums (zpool-attach(8), `-s`).
    pub rebuilding: bool,
    /// Whether there is a checkpoint (zpool-checkpoint(8)): what is freed is kept, and vdevs cannot be exchanged.
    pub checkpoint: bool,
    /// Whether a vdev is being taken out.
    pub removing: bool,
    /// How many places of files are damaged, as far as is known; unknown where the pool does not say.
    pub damaged: Option<u64>,
    /// Its space; unknown where it was not asked for.
    pub space: Option<ZfsSpace>,
    /// Whether it was imported without being written to.
    pub read_only: bool,
}

/// The space of a pool, every copy counted: of a mirror that of one member, of a raidz that of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZfsSpace {
    /// All of it.
    pub size: Bytes,
    /// What is in use.
    pub allocated: Bytes,
    /// What is not; writing gets slow and space is scattered as this goes to its end.
    pub free: Bytes,
}

impl ZfsState {
    /// Has the pool stopped, since too many of its devices have failed? Whoever writes to it waits for ever.
    pub fn is_suspended(&self) -> bool {
        self.state == "SUSPENDED"
    }

    /// Does something run that fills devices which are not whole? Every word may say ONLINE meanwhile.
    pub fn is_filling(&self) -> bool {
        let runs = |scan: &ZfsScan| scan.kind == ZfsScanKind::Resilver && scan.state == ZfsScanState::Running;
        self.rebuilding || self.scan.as_ref().is_some_and(runs)
    }

    /// Every device of the pool.
    pub fn leaves(&self) -> Vec<&ZfsVdev> {
        self.vdevs.iter().flat_map(ZfsVdev::leaves).collect()
    }
}

/// What a vdev is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZfsClass {
    /// Data.
    Normal,
    /// The intent log.
    Log,
    /// Metadata and small blocks.
    Special,
    /// Tables of what is stored once.
    Dedup,
    /// A cache, which may be lost.
    Cache,
    /// What takes the place of one that fails.
    Spare,
}

impl ZfsClass {
    /// Is the pool lost with such a vdev? A log that is lost is lost with what was written last.
    pub fn holds_data(self) -> bool {
        matches!(self, Self::Normal | Self::Log | Self::Special | Self::Dedup)
    }
}

/// A device of a pool, or how several belong together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZfsVdev {
    /// As the tools call it: `mirror-0`, a path, or its number.
    pub name: String,
    /// Its number, where it is known.
    pub guid: Option<u64>,
    /// What it is for.
    pub class: ZfsClass,
    /// Its device node, as ZFS opened it last.
    #[serde(serialize_with = "lossy::option")]
    pub path: Option<PathBuf>,
    /// `ONLINE`, `DEGRADED`, `OFFLINE`, `REMOVED`, `UNAVAIL`, `FAULTED`, ...; of a spare `AVAIL` or `INUSE`.
    pub state: String,
    /// What went wrong since the pool was imported, or the counters were cleared; a spare has none.
    pub errors: Option<ZfsErrors>,
    /// What is wrong with it, in the words of the tools.
    pub why: Option<String>,
    /// Whether it is known to be filled, or to wait for it. At the beginning of a resilver nothing tells which devices it is for.
    pub resilvering: bool,
    /// The smallest write that the pool does and the smallest that the device does well, each as a power of two, where the pool's is
    /// smaller.
    pub ashift: Option<(u64, u64)>,
    /// What it is made of; a device of nothing.
    pub children: Vec<ZfsVdev>,
}

impl ZfsVdev {
    /// Does it serve, whatever it counts?
    pub fn serves(&self) -> bool {
        matches!(self.state.as_str(), "ONLINE" | "DEGRADED")
    }

    /// The devices that it is made of.
    pub fn leaves(&self) -> Vec<&Self> {
        match &self.children[..] {
            [] => vec![self],
            children => children.iter().flat_map(Self::leaves).collect(),
        }
    }

    /// How it keeps what it holds: `single` for a device, else what its name begins with: `mirror`, `raidz2`, `replacing`, `spare`. Nothing
    /// where it is called by its number.
    pub fn level(&self) -> Option<&str> {
        if self.children.is_empty() {
            return Some("single");
        }
        let (level, place) = self.name.rsplit_once('-')?;
        place.bytes().all(|b| b.is_ascii_digit()).then_some(level)
    }
}

/// The counters of one vdev.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZfsErrors {
    /// Reads that failed.
    pub read: u64,
    /// Writes that failed.
    pub write: u64,
    /// Blocks whose checksum was wrong.
    pub checksum: u64,
}

/// What a scan does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZfsScanKind {
    /// It reads everything and mends what is wrong.
    Scrub,
    /// It fills what has come or come back.
    Resilver,
    /// It reads what was found to be wrong (zpool-scrub(8), `-e`).
    ErrorScrub,
}

/// How a scan stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZfsScanState {
    /// It runs.
    Running,
    /// It waits to be taken up again.
    Paused,
    /// It is through.
    Finished,
    /// It was given up.
    Canceled,
}

/// A scrub or a resilver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZfsScan {
    /// Which of them.
    pub kind: ZfsScanKind,
    /// How it stands.
    pub state: ZfsScanState,
    /// When it began, where that is told.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// How far it is, in hundredths of a percent, while it is under way.
    pub done: Option<u64>,
    /// How much there is to look at; older tools round it.
    pub total: Option<Bytes>,
    /// How much was mended or filled; older tools round it.
    pub repaired: Bytes,
    /// What could not be mended; told when it is through.
    pub errors: Option<u64>,
}

impl ZfsScan {
    /// What tells it from another: when it began, or, where older tools do not say that of one that is through, when it ended.
    pub fn known_by(&self) -> Option<Timestamp> {
        self.started.or(self.ended)
    }

    /// How far it is, in words; nothing where it is not under way.
    pub fn progress(&self) -> Option<String> {
        let done = self.done?;
        let total = self.total.map_or_else(String::new, |total| format!(" of {total}"));
        Some(format!("{}.{:02} %{total}", done / 100, done % 100))
    }
}
