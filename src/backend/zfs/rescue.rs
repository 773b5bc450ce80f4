//! What is left of a pool.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use super::Zfs;
use crate::{
    backend::{
        BackendError,
        rescue::{Mended, Relation, Remains, Rescue, Rung, Survivor},
    },
    exec::Cmd,
    host::Host,
};

fn unbuilt() -> BackendError {
    BackendError::Unsupported { what: "a rescue of ZFS".into(), why: "it is not built yet".into() }
}

pub(super) fn other_half(_: &Host, _: &Path) -> Result<Option<PathBuf>, BackendError> {
    Err(unbuilt())
}

impl Rescue for Zfs {
    fn remains(&self, _: &Host) -> Result<Vec<Remains>, BackendError> {
        Ok(Vec::new())
    }
    fn relate(&self, _: &Host, _: &Survivor, _: &Survivor, _: &[Survivor]) -> Result<Relation, BackendError> {
        Err(unbuilt())
    }
    fn rungs(&self) -> &'static [Rung] {
        &[]
    }
    fn forget_commands(&self, _: &[PathBuf]) -> Vec<Cmd> {
        Vec::new()
    }
    fn mount_commands(&self, _: &str, _: &[Survivor], _: &[PathBuf], _: &Path) -> Vec<Cmd> {
        Vec::new()
    }
    fn extract_command(&self, overlay: &Path, to: &Path) -> Cmd {
        Cmd::probe("zdb").arg(overlay).arg(to)
    }
    fn mend(&self, _: &Host, _: &[Survivor], _: usize, _: &Path) -> Result<Option<Mended>, BackendError> {
        Err(unbuilt())
    }
    fn used(&self, _: &Host, _: &Survivor, _: &[Survivor]) -> Option<Vec<Range<u64>>> {
        None
    }
    fn mounted(&self, _: &Host, _: &str) -> Result<(Vec<PathBuf>, Option<u64>), BackendError> {
        Err(unbuilt())
    }
}
