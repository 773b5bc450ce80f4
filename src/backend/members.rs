//! Members that go and come: what a backend must be able to do for `replace` and `repair`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{BackendError, MirrorSpec, Watcher};
use crate::{
    exec::Cmd,
    host::Host,
    model::{Bytes, Level, mirror::MirrorState},
};

/// One member given up for a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// The filesystem's UUID.
    pub uuid: String,
    /// The member's number, which the new device takes over; of ZFS it gets one of its own.
    pub id: u64,
    /// The device that comes.
    pub new: PathBuf,
    /// Its partition's own UUID, where it is one: a name of it that stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partuuid: Option<String>,
    /// Read from the old member only what no other has.
    pub avoid_old: bool,
}

/// How far an exchange has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExchangeProgress {
    /// What was copied; nothing where there is no news.
    pub copied: Option<Bytes>,
    /// What there is to copy.
    pub total: Bytes,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeEnd {
    /// Everything is on the new device. Blocks that could not be read from any copy are counted.
    Done {
        /// How many.
        unreadable: u64,
    },
    /// Stopped, as asked: the old member is a member still.
    Stopped,
}

/// How work that rewrites what is stored at another level ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LevelEnd {
    /// Everything is at the level.
    Done,
    /// There is no room for another copy of all.
    NoSpace,
    /// Stopped, as asked.
    Stopped,
}

/// What lies on which member, read from a device of the mirror, mounted or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// Each member: its number, and how much of it the filesystem uses, from its start.
    pub members: Vec<(u64, Bytes)>,
    /// Each stretch of space.
    pub pieces: Vec<Piece>,
}

/// A stretch of space that is stored in one way (btrfs: a chunk).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins in the filesystem's own addresses.
    pub start: u64,
    /// Over how many groups of places it is striped; 1 where it is not.
    pub parts: u64,
    /// What it holds and how, in the backend's words: `DATA|RAID1`.
    pub kind: String,
    /// How much of it lies on each place.
    pub length: Bytes,
    /// The places: a member's number, and where on it.
    pub places: Vec<(u64, u64)>,
    /// How many of its members may be gone.
    pub survives: usize,
}

/// Stripes are of this many bytes (kernel: `BTRFS_STRIPE_LEN`).
const STRIPE: u64 = 64 << 10;

impl Piece {
    /// Where one of the filesystem's own addresses lies: each copy's member and place on it.
    pub fn places_of(&self, address: u64) -> Vec<(u64, u64)> {
        let Some(within) = address.checked_sub(self.start).filter(|at| at / self.parts < self.length.0)
        else {
            return Vec::new();
        };
        if self.parts <= 1 {
            return self.places.iter().map(|(id, at)| (*id, at + within)).collect();
        }
        let (stripe, rest) = (within / STRIPE, within % STRIPE);
        let group = usize::try_from(stripe % self.parts).unwrap_or_default();
        let copies = self.places.len() / usize::try_from(self.parts).unwrap_or(1);
        let own = self.places.chunks(copies.max(1)).nth(group).unwrap_or_default();
        own.iter().map(|(id, at)| (*id, at + stripe / self.parts * STRIPE + rest)).collect()
    }
}

impl Layout {
    /// How much of a member is used, from its start: what a device that takes its place must hold.
    pub fn size_of(&self, id: u64) -> Option<Bytes> {
        self.members.iter().find(|(member, _)| *member == id).map(|(_, size)| *size)
    }

    /// The pieces that cannot be read without these members.
    pub fn lost_without<'a>(&'a self, gone: &'a [u64]) -> impl Iterator<Item = &'a Piece> {
        self.pieces
            .iter()
            .filter(|p| p.places.iter().filter(|(id, _)| gone.contains(id)).count() > p.survives)
    }

    /// What is stored on a member below this place.
    pub fn stored_below(&self, id: u64, place: u64) -> Bytes {
        let on = self
            .pieces
            .iter()
            .flat_map(|p| p.places.iter().filter(|(i, _)| *i == id).map(|(_, at)| (*at, p.length.0)));
        Bytes(on.map(|(at, length)| place.saturating_sub(at).min(length)).fold(0, u64::saturating_add))
    }

    /// All that is stored on a member.
    pub fn stored_on(&self, id: u64) -> Bytes {
        self.stored_below(id, u64::MAX)
    }
}

/// What is particular to one kind of mirror when its members change.
pub trait Members {
    /// What lies on which member, read from one that is there.
    ///
    /// # Errors
    /// It could not be read or understood.
    fn layout(&self, host: &Host, device: &Path) -> Result<Layout, BackendError>;

    /// How large the sectors of a device may be for the filesystem to be mounted again with it, in bytes; nothing where that cannot be told.
    ///
    /// # Errors
    /// What the kernel knows could not be read.
    fn largest_sector(
        &self,
        _host: &Host,
        _uuid: &str,
        _members: &[PathBuf],
    ) -> Result<Option<u64>, BackendError> {
        // The sectors of a btrfs, unless it was made with others.
        Ok(Some(4096))
    }

    /// Tells the kernel of the mirror's members that are there: where there is no udev nobody else does.
    fn assembling(&self, spec: &MirrorSpec, devices: &[PathBuf]) -> Vec<Cmd>;

    /// What of [`Members::assembling`] is still to be run.
    ///
    /// # Errors
    /// What the kernel knows could not be read.
    fn assemble_commands(
        &self,
        _host: &Host,
        spec: &MirrorSpec,
        devices: &[PathBuf],
    ) -> Result<Vec<Cmd>, BackendError> {
        Ok(self.assembling(spec, devices))
    }

    /// Whether the kernel knows the members right after the mirror was made.
    fn is_assembled_when_made(&self) -> bool;

    /// Whether a mirror with a member missing needs a mount of its own kind, which must not be where the node looks for it.
    fn degrades_a_mount(&self) -> bool;

    /// Begins the exchange and waits for its end.
    fn exchange_command(&self, spec: &MirrorSpec, exchange: &Exchange, at: &Path) -> Cmd;

    /// Has the new device taken the old one's place? By its own superblock: also where nothing is mounted.
    ///
    /// # Errors
    /// The device cannot be read.
    fn is_exchanged(&self, host: &Host, exchange: &Exchange) -> Result<bool, BackendError>;

    /// Carries the exchange out, from wherever the kernel is with it, or until `watch` says stop: it is then taken back.
    ///
    /// # Errors
    /// It could not be begun, or ended without the new device in place.
    fn exchange(
        &self,
        host: &Host,
        exchange: &Exchange,
        at: &Path,
        watch: &mut Watcher<'_, ExchangeProgress>,
    ) -> Result<ExchangeEnd, BackendError>;

    /// Takes a member in again that was away, while the mirror runs; nothing where it must be mounted anew for that.
    fn return_commands(&self, spec: &MirrorSpec, exchange: &Exchange) -> Vec<Cmd>;

    /// Does the member serve again, with everything that it should hold?
    ///
    /// # Errors
    /// It cannot be read.
    fn is_returned(&self, host: &Host, exchange: &Exchange) -> Result<bool, BackendError> {
        self.is_exchanged(host, exchange)
    }

    /// Carries that out, from wherever the kernel is with it, or until `watch` says stop: the kernel then goes on alone.
    ///
    /// # Errors
    /// It could not be begun, or the member does not serve.
    fn take_back(
        &self,
        host: &Host,
        exchange: &Exchange,
        watch: &mut Watcher<'_, ExchangeProgress>,
    ) -> Result<ExchangeEnd, BackendError>;

    /// Whether a member has a number and a UUID by which it is known only once it is one.
    fn numbers_anew(&self) -> bool {
        false
    }

    /// Has a mirror go on that stopped when too few of its members answered; nothing where none ever waits for them.
    fn waking(&self, _spec: &MirrorSpec) -> Option<Cmd> {
        None
    }

    /// Carries that out.
    ///
    /// # Errors
    /// It does not go on.
    fn wake(&self, _host: &Host, _spec: &MirrorSpec) -> Result<(), BackendError> {
        Ok(())
    }

    /// Why the kernel may refuse to begin an exchange in a mirror of this level that is as full as this one; nothing where there is room,
    /// or where that cannot be told.
    fn exchange_is_tight(&self, state: &MirrorState, level: Level) -> Option<String>;

    /// Takes back an exchange that has not ended, and what it left on the new device. `at` is where the mirror is mounted, if it is.
    ///
    /// # Errors
    /// It could not be taken back.
    fn give_up_exchange(
        &self,
        host: &Host,
        exchange: &Exchange,
        at: Option<&Path>,
    ) -> Result<(), BackendError>;

    /// Erases what still says on the old device that it is the member, after the exchange; nothing where nothing does. The kernel erases
    /// it itself, but not where the command that waited for it was killed.
    fn retire_commands(&self, host: &Host, exchange: &Exchange, old: &Path) -> Vec<Cmd>;

    /// Lets the filesystem use all of the member's device; nothing where it is not made larger.
    ///
    /// An array keeps its size, since the smallest member counts; and a pool that grew onto a larger device could no longer be given a
    /// smaller one.
    fn grow_commands(&self, _exchange: &Exchange, _at: &Path) -> Vec<Cmd> {
        Vec::new()
    }

    /// Does it?
    ///
    /// # Errors
    /// The device cannot be read.
    fn is_grown(&self, _host: &Host, _exchange: &Exchange) -> Result<bool, BackendError> {
        Ok(true)
    }

    /// Rewrites what is stored at another level; nothing where nothing ever is.
    fn restore_level_command(&self, _level: Level, _at: &Path) -> Option<Cmd> {
        None
    }

    /// Carries that out, from wherever the kernel is with it, or until `watch` says stop.
    ///
    /// # Errors
    /// It failed for an unforeseen reason.
    fn restore_level(
        &self,
        _host: &Host,
        _state: &MirrorState,
        _level: Level,
        _at: &Path,
        _watch: &mut Watcher<'_, ()>,
    ) -> Result<LevelEnd, BackendError> {
        Ok(LevelEnd::Done)
    }
}
