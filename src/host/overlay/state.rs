//! Whether what is read from an overlay can be trusted.

use std::{fs, os::unix::fs::MetadataExt as _};

use super::{Broken, FULL_BELOW, Overlay, OverlayError, block, build::free, dm, fuse, record::Object};
use crate::host::{
    files::Doing as _,
    zfs::kstat::{self, SUSPENDED},
};

/// How an overlay does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Bytes of scratch space used.
    pub used: u64,
    /// Bytes of scratch space that may be used.
    pub limit: u64,
    /// Bytes free on the scratch filesystem.
    pub free: u64,
    /// Why nothing that is or was read from it is to be trusted; `None`: all is well. It never becomes well again.
    pub broken: Option<Broken>,
}

impl Overlay {
    /// How much scratch space it uses, and whether what was read from it can be trusted. To be asked after each file and at the end.
    ///
    /// # Errors
    /// That cannot be told; then it cannot be trusted either.
    pub fn state(&self) -> Result<State, OverlayError> {
        let dir = self.host.path(&self.scratch);
        let mut used = 0;
        for entry in fs::read_dir(&dir).doing("reading", &dir)? {
            used += entry.and_then(|e| e.metadata()).doing("reading", &dir)?.blocks() * 512;
        }
        let free = free(&self.host, &self.scratch)?;
        if let Some(broken) = self.looks_broken(used, free)? {
            let _ = self.broken.set(broken);
        }
        Ok(State { used, limit: self.limit, free, broken: self.broken.get().cloned() })
    }

    fn looks_broken(&self, used: u64, free: u64) -> Result<Option<Broken>, OverlayError> {
        if free < FULL_BELOW {
            return Ok(Some(Broken::Full { scratch: self.scratch.clone(), free }));
        }
        if used > self.limit {
            return Ok(Some(Broken::Limit { used, limit: self.limit }));
        }
        for (survivor, _) in &self.survivors {
            if block::attribute(&self.host, &survivor.kname, "ro")?.is_none() {
                return Ok(Some(Broken::Gone(survivor.device.clone())));
            }
            if !block::is_read_only(&self.host, &survivor.kname)? {
                return Ok(Some(Broken::Writable(survivor.device.clone())));
            }
        }
        for object in self.keeper.iter().flat_map(|k| &k.record.objects) {
            let broken = match object {
                Object::Loop { backing } if block::loops_over(&self.host, backing)?.is_empty() => {
                    Some(Broken::Gone(backing.clone()))
                }
                Object::Daemon { pidfile, .. } if fuse::daemons(&self.host, pidfile)?.is_empty() => {
                    Some(Broken::Daemon)
                }
                Object::Snapshot { name } => dm::status(&self.host, name)?,
                Object::Joined { name } if !dm::exists(&self.host, name)? => {
                    Some(Broken::Gone(dm::path(name)))
                }
                Object::Pool { name } if kstat::state(&self.host, name)?.as_deref() == Some(SUSPENDED) => {
                    Some(Broken::Pool(name.clone()))
                }
                _ => None,
            };
            if broken.is_some() {
                return Ok(broken);
            }
        }
        Ok(None)
    }
}
