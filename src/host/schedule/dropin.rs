//! The drop-in that ties a node's unit to its mirror.

use std::path::{Path, PathBuf};

use minijinja::context;

use super::{Act, Rendered, ScheduleError, UNITS, fill, is_systemd, systemctl};
use crate::{config::Mirror, host::Host, model::BackendKind};

/// What a drop-in is made of.
#[derive(Debug, Clone, Copy)]
pub struct DropInOf<'a> {
    /// The node's unit.
    pub unit: &'a str,
    /// Where the mirror is mounted.
    pub mountpoint: &'a Path,
    /// The mirror's name.
    pub mirror: &'a str,
    /// What holds the mirror.
    pub backend: BackendKind,
    /// The raidguard that guards the start.
    pub binary: &'a Path,
}

/// The drop-in that ties a unit to a mount and has its start guarded: its path and text.
///
/// # Errors
/// A template is faulty.
pub fn dropin(of: DropInOf<'_>) -> Result<Rendered, ScheduleError> {
    let mountpoint = quoted(&of.mountpoint.to_string_lossy());
    let binary = quoted(&of.binary.to_string_lossy()).replace('$', "$$");
    let mirror = of.mirror;
    let pool = of.backend == BackendKind::Zfs;
    let text =
        fill(include_str!("../../../templates/dropin.conf"), context! { mountpoint, binary, mirror, pool })?;
    let path: PathBuf = Path::new(UNITS).join(format!("{}.d/raidguard.conf", of.unit));
    Ok(Rendered { path, text })
}

/// A name as systemd wants it: with blanks in quotes (systemd.syntax(7)), specifiers doubled (systemd.unit(5)).
pub(super) fn quoted(name: &str) -> String {
    let plain = name.replace('%', "%%");
    if plain.contains(|c: char| c.is_whitespace() || "\"'\\".contains(c)) {
        format!("\"{}\"", plain.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        plain
    }
}

/// Writes the drop-in of every node's unit, where systemd runs, and has systemd read them.
///
/// # Errors
/// One cannot be written, or systemd cannot be told.
pub fn install_dropins(host: &Host, mirrors: &[Mirror], binary: &Path) -> Result<(), ScheduleError> {
    let mut acts = Vec::new();
    for mirror in mirrors {
        if let Some(unit) = mirror.node.as_ref().and_then(|node| node.unit.as_deref()) {
            let (mountpoint, mirror, backend) = (&mirror.mountpoint, &mirror.name, mirror.backend);
            let of = DropInOf { unit, mountpoint, mirror, backend, binary };
            acts.push(Act::Write(dropin(of)?));
        }
    }
    if acts.is_empty() || !is_systemd(host) {
        return Ok(());
    }
    acts.push(Act::Tell(systemctl(&["daemon-reload"])));
    acts.iter().try_for_each(|act| act.apply(host))
}
