//! A copy-on-write layer over survivors that are read-only meanwhile: a rescue replays the log tree and writes, and not a byte of a
//! survivor changes.
//!
//! The order around it, for whoever uses it: [`clear_leftovers`]; [`open`], on a thread of the machine's own mount namespace and never
//! inside [`apart`](super::apart::apart) (a daemon must not be in the namespace that holds its own filesystem mounted); have the
//! filesystem forget the survivors; mount [`Overlay::devices`] inside `apart`, so that its log is replayed, and unmount;
//! [`Overlay::settle`]; mount again, read, ask [`Overlay::state`] whether what was read can be trusted, unmount; [`Overlay::close`].
//!
//! A caller looks at the interrupt flag and returns: dropping an [`Overlay`] takes everything down.

mod block;
mod build;
mod choose;
mod dm;
mod error;
mod fuse;
mod image;
mod pool;
mod proof;
mod qcow2;
mod record;
mod state;
mod stray;
mod undo;

#[cfg(test)]
mod machine;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    fs::{DirBuilder, File},
    ops::Range,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use nix::fcntl::Flock;
use serde::{Deserialize, Serialize};

use self::{
    block::Survivor,
    build::{Build, canonical, free, unused},
    record::{Keeper, Object},
};
use super::{Host, files::Doing as _};
use crate::exec::Flow;

pub use error::{Broken, OverlayError};
pub use proof::{Counted, Look, Proof, Stretch, Untouched};
pub use record::RESCUE_DIR;
pub use state::State;
pub use stray::Passing;

/// Where scratch files go unless another place is named: on disk, kept over a reboot, not a memory filesystem.
pub const SCRATCH: &str = "/var/tmp";
/// What is left free on the scratch filesystem when an overlay is opened.
pub const KEEP_FREE: u64 = 64 << 20;
/// Less free than this and the overlay counts as full: filesystems refuse writes before they have nothing at all.
pub const FULL_BELOW: u64 = 16 << 20;
/// How often something is done with devices that somebody else takes meanwhile.
const TRIES: u32 = 5;
/// What the private scratch directory's name begins with.
const PREFIX: &str = "raidguard-rescue-";

/// Which kind is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Choice {
    /// The best that the machine has.
    #[default]
    Auto,
    /// [`Kind::Dm`].
    Dm,
    /// [`Kind::Fuse`].
    Fuse,
    /// [`Kind::Image`].
    Image,
}

/// How the layer is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A device-mapper snapshot.
    Dm,
    /// A qcow2 file that QEMU exports through FUSE.
    Fuse,
    /// A copy of the survivor.
    Image,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dm => "device-mapper snapshot",
            Self::Fuse => "QEMU overlay through FUSE",
            Self::Image => "image copy",
        })
    }
}

/// What an overlay is wanted for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Which kind.
    pub choice: Choice,
    /// The devices that must not change. None of them may be in use.
    pub survivors: &'a [PathBuf],
    /// An existing directory for scratch files: [`SCRATCH`], or what the operator named.
    pub scratch: &'a Path,
    /// How many bytes of it may be used; `None`: all but [`KEEP_FREE`].
    pub limit: Option<u64>,
    /// Which bytes of each survivor matter, in the survivors' order, for an image copy; `None`: all.
    pub used: Option<&'a [Vec<Range<u64>>]>,
}

/// What survivors hold by turns: a chunk of the first, one of the second, and around again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Striped {
    /// How long a turn is, in bytes.
    pub chunk: u64,
    /// How long all of it is, in bytes: whole turns of each.
    pub length: u64,
    /// Each survivor by its number in the request, and where on it that begins, in bytes.
    pub parts: Vec<(usize, u64)>,
}

/// What goes on while an overlay is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// The next part is about to be made.
    Making,
    /// The survivors are copied.
    Copying {
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
}

/// A writable layer over survivors. Taken down when it is dropped.
#[derive(Debug)]
pub struct Overlay {
    host: Host,
    keeper: Option<Keeper>,
    kind: Kind,
    why: String,
    scratch: PathBuf,
    limit: u64,
    survivors: Vec<(Survivor, Look)>,
    devices: Vec<PathBuf>,
    /// What had been written to the devices when they were made.
    counted: Vec<Option<Counted>>,
    joined: Option<PathBuf>,
    broken: OnceLock<Broken>,
    held: Option<Flock<File>>,
}

/// Puts a layer over each survivor. `watch` is told how it goes and may stop it. When it fails, all that was made is taken down again.
///
/// # Errors
/// The machine cannot have the kind asked for; a survivor is in use, no block device, or cannot be made read-only; there is too little
/// scratch space; a command failed; it was stopped.
pub fn open(
    host: &Host,
    request: &Request<'_>,
    watch: &mut dyn FnMut(Work) -> Flow,
) -> Result<Overlay, OverlayError> {
    let (kind, why) = choose::choose(host, request.choice)?;
    // Of two that open one survivor, the second must find it free or taken, not on the way.
    let alone = record::alone(host)?;
    let survivors = request
        .survivors
        .iter()
        .map(|device| {
            unused(host, device)?;
            Survivor::find(host, device)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let scratch = canonical(host, request.scratch)?;
    for said in stray::clear(host, &alone, &scratch)? {
        tracing::info!("{said}, left by an earlier rescue");
    }
    let free = free(host, &scratch)?;
    let room = free.saturating_sub(KEEP_FREE).min(request.limit.unwrap_or(u64::MAX));
    if room < FULL_BELOW {
        return Err(OverlayError::NoRoom { scratch, needed: FULL_BELOW, room });
    }

    let keeper = Keeper::new(host, &alone, kind, survivors.iter().map(Survivor::frozen).collect())?;
    drop(alone);
    let scratch = scratch.join(format!("{PREFIX}{}", keeper.id));
    let mut overlay = Overlay {
        host: host.clone(),
        keeper: Some(keeper),
        kind,
        why,
        scratch,
        limit: room,
        survivors: Vec::new(),
        devices: Vec::new(),
        counted: Vec::new(),
        joined: None,
        broken: OnceLock::new(),
        held: None,
    };
    match overlay.build(request, &survivors, watch) {
        Ok(()) => Ok(overlay),
        // Dropping it takes down what there is so far.
        Err(e) => Err(e),
    }
}

/// Takes down what dead runs left, and says what that was. Those of live runs are let alone.
///
/// # Errors
/// Something is still in use, or cannot be undone; the rest of that rescue stays for a later run.
pub fn clear_leftovers(host: &Host) -> Result<Vec<String>, OverlayError> {
    let alone = record::alone(host)?;
    let (mut said, mut failed) = (Vec::new(), None);
    for keeper in record::dead(host, &alone)? {
        let mut keeper = match keeper {
            Ok(keeper) => keeper,
            Err(e) => {
                failed = Some(e);
                continue;
            }
        };
        tracing::info!(
            "clearing what a rescue by process {} (started at {:?}) left",
            keeper.record.pid,
            keeper.record.started
        );
        match undo::take_down(host, &mut keeper) {
            Ok(words) => said.extend(words),
            Err(e) => failed = Some(e),
        }
    }
    said.extend(stray::clear(host, &alone, Path::new(SCRATCH))?);
    failed.map_or(Ok(said), Err)
}

impl Overlay {
    fn build(
        &mut self,
        request: &Request<'_>,
        survivors: &[Survivor],
        watch: &mut dyn FnMut(Work) -> Flow,
    ) -> Result<(), OverlayError> {
        let Some(keeper) = &mut self.keeper else { return Ok(()) };
        let host = &self.host;
        let mut build = Build { host, keeper, scratch: self.scratch.clone(), room: self.limit, watch };
        for survivor in survivors {
            build.go_on()?;
            survivor.freeze(host)?;
            self.survivors.push((survivor.clone(), proof::look(host, survivor)?));
        }
        build.note(Object::Directory { path: self.scratch.clone() })?;
        let scratch = host.path(&self.scratch);
        DirBuilder::new().mode(0o700).create(&scratch).doing("creating directory", &scratch)?;
        self.held = Some(stray::hold(&scratch)?);
        self.devices = match self.kind {
            Kind::Dm => dm::build(&mut build, survivors)?,
            Kind::Fuse => fuse::build(&mut build, survivors)?,
            Kind::Image => image::build(&mut build, survivors, request.used)?,
        };
        let counts = self.devices.iter().map(|device| proof::count(host, &block::kname_of(device)));
        self.counted = counts.collect::<Result<_, _>>()?;
        Ok(())
    }

    /// How it is made.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Why it is made that way.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// The writable devices, in the order of the survivors.
    pub fn devices(&self) -> &[PathBuf] {
        &self.devices
    }

    /// Lays one device above those of the survivors, which holds what they hold by turns. `free` is run before each attempt: it has whoever
    /// took one of them meanwhile let go of it.
    ///
    /// # Errors
    /// The machine has no device-mapper, or a device stays taken.
    pub fn join(&mut self, striped: &Striped, free: &dyn Fn()) -> Result<(), OverlayError> {
        let Some(keeper) = &mut self.keeper else { return Ok(()) };
        self.joined = Some(dm::join(&self.host, keeper, &self.devices, striped, free)?);
        Ok(())
    }

    /// What is mounted: the devices of the survivors, or the one that was laid above them.
    pub fn mountable(&self) -> &[PathBuf] {
        self.joined.as_ref().map_or(&self.devices, std::slice::from_ref)
    }

    /// The name under which a pool of ZFS may be imported from the devices: no other has it. It is taken away with them.
    ///
    /// # Errors
    /// It could not be written down.
    pub fn pool(&mut self) -> Result<String, OverlayError> {
        let Some(keeper) = &mut self.keeper else { return Ok(String::new()) };
        let name = format!("raidguard-{}", keeper.id);
        let object = Object::Pool { name: name.clone() };
        // It goes before anything that was made since.
        if keeper.record.objects.last() != Some(&object) {
            keeper.note(&self.host, object)?;
        }
        Ok(name)
    }

    /// From now on the devices are only read; then a QEMU overlay is read several times as fast, and where nothing was written to it, it is
    /// left out altogether. They must not be mounted meanwhile, and may be others afterwards: a filesystem that has a log to replay is
    /// mounted once before, and unmounted.
    ///
    /// # Errors
    /// A command failed.
    pub fn settle(&mut self) -> Result<(), OverlayError> {
        match self.kind {
            // What lies above them has them open for writing.
            Kind::Fuse if self.joined.is_some() => Ok(()),
            Kind::Fuse => {
                let Some(keeper) = &mut self.keeper else { return Ok(()) };
                let (survivors, devices) = (&mut self.survivors, &self.devices);
                if let Some(through) =
                    fuse::see_through(&self.host, keeper, survivors, devices, &self.counted)?
                {
                    self.devices = through;
                    return Ok(());
                }
                self.devices.iter().try_for_each(|device| block::only_read(&self.host, device))
            }
            Kind::Dm | Kind::Image => Ok(()),
        }
    }

    /// What speaks for the survivors being unchanged, as it is now.
    pub fn proof(&self) -> Proof {
        let look = |(survivor, before): &(Survivor, Look)| Untouched {
            device: survivor.device.clone(),
            before: before.clone(),
            after: proof::look(&self.host, survivor).map_err(|e| e.to_string()),
        };
        Proof { survivors: self.survivors.iter().map(look).collect() }
    }

    /// Takes it down and says what proves that the survivors are unchanged. Its devices must not be mounted any more. `free` is run before
    /// each attempt: it has whoever took one of them meanwhile let go of it, as udev does that makes an array of what it sees.
    ///
    /// # Errors
    /// Something is still in use or cannot be undone: it stays, with its record, until [`clear_leftovers`] in a later run.
    pub fn close(mut self, free: &dyn Fn()) -> Result<Proof, OverlayError> {
        let Some(mut keeper) = self.keeper.take() else { return Ok(self.proof()) };
        // What is above the survivors goes first: then nothing can write to them any more, and they are still read-only.
        let mut tries = 1;
        loop {
            free();
            match undo::take_down_above(&self.host, &mut keeper) {
                Ok(()) => break,
                Err(OverlayError::Cmd(e)) if tries < TRIES => tracing::debug!("{e}"),
                Err(e) => return Err(e),
            }
            tries += 1;
        }
        let proof = self.proof();
        undo::take_down(&self.host, &mut keeper)?;
        Ok(proof)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            if let Err(e) = undo::take_down(&self.host, &mut keeper) {
                tracing::error!("the overlay could not be taken down, a later run will: {e}");
            }
        }
    }
}
