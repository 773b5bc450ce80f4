//! What the cases have to know of a backend: everything else they ask of each in the same words.

use crate::{machine::Machine, steps::MOUNT};

pub(crate) struct Backend {
    pub(crate) name: &'static str,
    /// What the node's files lie on, as findmnt calls it.
    pub(crate) filesystem: &'static str,
    /// The finding of a member that was pulled while the mirror is mounted.
    pub(crate) pulled: &'static str,
    /// A boot without a member mounts the mirror all the same.
    pub(crate) boots_degraded: bool,
    /// Mounts what this one member alone has, to be written to.
    pub(crate) mount_alone: fn(&mut Machine, device: &str),
    /// Has the kernel let go of the members, when nothing is mounted.
    pub(crate) let_go: fn(&mut Machine),
}

pub(crate) const BTRFS: Backend = Backend {
    name: "btrfs",
    filesystem: "btrfs",
    pulled: "MIR-PULLED",
    boots_degraded: false,
    mount_alone: |m, device| {
        m.ok(&format!("mount -o degraded {device} {MOUNT}"));
    },
    let_go: |m| {
        m.ok("btrfs device scan --forget");
    },
};
