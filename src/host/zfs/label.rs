//! The description in a label: whose the device is (OpenZFS: `spa_config_generate` and `vdev_config_generate` in `module/zfs`, their
//! names in `include/sys/fs/zfs.h`).

use super::{Fault, is_sealed, nvlist::List};

/// A pool's state as a device of it says (OpenZFS: `pool_state_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolState {
    /// In use, or it was when its machine went down.
    Active,
    /// Exported.
    Exported,
    /// Destroyed: it can still be imported.
    Destroyed,
    /// The device is a spare, of whichever pool.
    Spare,
    /// The device is a cache.
    Cache,
    /// Of a number that is not known here.
    Other(u64),
}

impl PoolState {
    fn of(number: u64) -> Self {
        match number {
            0 => Self::Active,
            1 => Self::Exported,
            2 => Self::Destroyed,
            3 => Self::Spare,
            4 => Self::Cache,
            other => Self::Other(other),
        }
    }
}

/// What a device says of itself and its pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The number of the device.
    pub guid: u64,
    /// The state of the pool.
    pub state: PoolState,
    /// The pool's name; a spare has none.
    pub pool: Option<String>,
    /// The pool's number.
    pub pool_guid: Option<u64>,
    /// The transaction group in which the description was written; 0 where the device is not, or not any more, of the pool.
    pub txg: u64,
    /// The number of the vdev at the top that the device belongs to.
    pub top_guid: Option<u64>,
    /// How many vdevs the pool has at the top.
    pub tops: Option<u64>,
    /// The machine's number, where it has one (spl(4), spl_hostid).
    pub hostid: Option<u64>,
    /// The machine's name.
    pub hostname: Option<String>,
    /// What was written as the pool's comment.
    pub comment: Option<String>,
    /// The vdev at the top that the device belongs to.
    pub tree: Option<Vdev>,
    /// Features without which the pool cannot be read.
    pub features: Vec<String>,
}

/// A vdev: a device, or how several belong together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a pair of its own in the label")]
pub struct Vdev {
    /// `disk`, `file`, `mirror`, `raidz`, `replacing`, `spare`, ...
    pub kind: String,
    /// Its place among its siblings.
    pub id: u64,
    /// Its number.
    pub guid: u64,
    /// By which path it was opened last.
    pub path: Option<String>,
    /// The smallest write, as a power of two; only of a vdev at the top.
    pub ashift: Option<u64>,
    /// How much of it is used, in bytes: each label's, and what is not a multiple of the rest is not; only of a vdev at the top.
    pub asize: Option<u64>,
    /// The size of the pieces that it is divided into, as a power of two; only of a vdev at the top.
    pub metaslab_shift: Option<u64>,
    /// How many of its devices may fail, of a raidz.
    pub parity: Option<u64>,
    /// Whether it is a whole disk, which ZFS has partitioned.
    pub whole_disk: bool,
    /// Whether it holds the intent log.
    pub is_log: bool,
    /// Whether it was taken offline.
    pub offline: bool,
    /// Whether it was given up.
    pub faulted: bool,
    /// Whether it is worse than it should be.
    pub degraded: bool,
    /// Whether it was pulled.
    pub removed: bool,
    /// Whether it was not there when the pool was imported.
    pub absent: bool,
    /// The transaction group in which it began to be filled, while it is.
    pub filling: Option<u64>,
    /// What it is made of.
    pub children: Vec<Vdev>,
}

impl Vdev {
    fn of(list: &List) -> Result<Self, Fault> {
        let is = |name: &str| Ok::<_, Fault>(list.number(name)?.is_some_and(|n| n != 0));
        Ok(Self {
            kind: list.text("type")?.ok_or(Fault("a vdev in its description has no kind"))?,
            id: list.number("id")?.ok_or(Fault("a vdev in its description has no place"))?,
            guid: list.number("guid")?.ok_or(Fault("a vdev in its description has no number"))?,
            path: list.text("path")?,
            ashift: list.number("ashift")?,
            asize: list.number("asize")?,
            metaslab_shift: list.number("metaslab_shift")?,
            parity: list.number("nparity")?,
            whole_disk: is("whole_disk")?,
            is_log: is("is_log")?,
            offline: is("offline")?,
            faulted: is("faulted")?,
            degraded: is("degraded")?,
            removed: is("removed")?,
            absent: is("not_present")?,
            filling: list.number("resilver_txg")?,
            children: list.lists("children")?.iter().map(Self::of).collect::<Result<_, _>>()?,
        })
    }

    /// It, if it is of this number, or what of it is.
    pub fn find(&self, guid: u64) -> Option<&Self> {
        if self.guid == guid {
            return Some(self);
        }
        self.children.iter().find_map(|child| child.find(guid))
    }

    /// Was it left out when this was written, of what the pool writes?
    pub fn is_out(&self) -> bool {
        self.offline || self.faulted || self.removed || self.absent
    }

    /// What the vdev of this number is a direct part of: it, or what of it is.
    pub fn above(&self, guid: u64) -> Option<&Self> {
        if self.children.iter().any(|child| child.guid == guid) {
            return Some(self);
        }
        self.children.iter().find_map(|child| child.above(guid))
    }

    /// The devices that it is made of.
    pub fn leaves(&self) -> Vec<&Self> {
        match &self.children[..] {
            [] => vec![self],
            children => children.iter().flat_map(Self::leaves).collect(),
        }
    }
}

/// Does a packed list begin here, as a label has it: XDR, of version 0, with no name twice?
pub(super) fn begins(bytes: &[u8]) -> bool {
    matches!(bytes, [1, 0 | 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, ..])
}

impl Label {
    /// Reads the area of the description, which stands at this place of the device. `None` where none begins there.
    ///
    /// # Errors
    /// It cannot be understood, or its checksum is wrong.
    pub(super) fn parse(area: &[u8], at: u64) -> Result<Option<Self>, Fault> {
        if !begins(area) {
            return Ok(None);
        }
        let list = List::unpack(area)?;
        let label = Self {
            guid: list.number("guid")?.ok_or(Fault("its description has no number of the device"))?,
            state: PoolState::of(list.number("state")?.ok_or(Fault("its description has no state"))?),
            pool: list.text("name")?,
            pool_guid: list.number("pool_guid")?,
            txg: list.number("txg")?.unwrap_or_default(),
            top_guid: list.number("top_guid")?,
            tops: list.number("vdev_children")?,
            hostid: list.number("hostid")?,
            hostname: list.text("hostname")?,
            comment: list.text("comment")?,
            tree: list.list("vdev_tree")?.map(Vdev::of).transpose()?,
            features: list.list("features_for_read")?.map(List::flags).unwrap_or_default(),
        };
        if !is_sealed(area, at) {
            return Err(Fault("its checksum is wrong"));
        }
        Ok(Some(label))
    }
}
