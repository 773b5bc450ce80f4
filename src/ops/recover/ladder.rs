//! One way up: overlays, a mount that nobody else sees, work on it, and all of it taken down again with the proof that nothing was
//! written to a survivor.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::halted::{interrupted, standing, until};
use crate::{
    backend::{
        BackendError,
        rescue::{Freshness, Mended, Opening, Rescue, Rung, Survivor, Way},
    },
    exec::{Cmd, CmdError, Flow, Output},
    host::{
        Host,
        apart::apart,
        files,
        lock::RUN_DIR,
        overlay::{self, Choice, Overlay, OverlayError},
    },
    model::{Bytes, observed::causes},
    ops::Trouble,
    plan::{self, Watch as _},
    ui::Console,
};

/// What every way up has in common.
pub(super) struct Scene<'a> {
    pub(super) host: &'a Host,
    pub(super) backend: &'a dyn Rescue,
    /// What lies above the survivors.
    pub(super) choice: Choice,
    /// Where that keeps what it takes.
    pub(super) scratch: &'a Path,
    /// The mirror's UUID.
    pub(super) uuid: &'a str,
    /// How many members are not among those that can be read, and how many there are.
    pub(super) missing: (u64, u64),
    /// Every device that says it belongs to the mirror, read or not.
    pub(super) members: &'a [PathBuf],
    /// Where it belongs, where that is declared.
    pub(super) belongs: Option<&'a Path>,
}

/// How it went.
#[derive(Debug, Clone)]
pub(super) struct Reached {
    /// The transaction that the mount was at, where the kernel says so.
    pub(super) generation: Option<u64>,
    /// What had to be put right on an overlay.
    pub(super) mended: Vec<(PathBuf, Mended)>,
    /// What lay above the survivors.
    pub(super) overlay: String,
    /// Of each survivor: whether it is proven unchanged, and what proves it or speaks against it.
    pub(super) proof: Vec<(PathBuf, bool, String)>,
    /// What a tool complained of on the way.
    pub(super) complaints: Option<String>,
    /// What makes it older than the way promises.
    pub(super) doubt: Option<(Freshness, String)>,
}

/// Why nothing came of it.
pub(super) enum Halt {
    /// This way does not open it; another may.
    Closed(String),
    /// Nothing further is to be tried.
    Stop(Trouble),
}

impl From<Trouble> for Halt {
    fn from(trouble: Trouble) -> Self {
        Self::Stop(trouble)
    }
}

/// What a mount is read with.
pub(super) struct Open<'a> {
    /// Where it is mounted.
    pub(super) place: &'a Path,
    /// What of it could not be mounted, in words.
    pub(super) left: Option<&'a str>,
    overlay: &'a Overlay,
}

impl Open<'_> {
    /// Why what is read from it is not to be trusted; nothing while it is.
    pub(super) fn broken(&self) -> Option<String> {
        match self.overlay.state() {
            Ok(state) => state.broken.map(|broken| broken.to_string()),
            Err(e) => Some(causes(&e)),
        }
    }
}

/// Opens `survivors` by `rung`, has `work` read them, and takes everything down. `extracted` is where a way without a mount puts files.
///
/// # Errors
/// This way does not open them, or nothing further is to be tried. Everything is taken down then too.
pub(super) fn reach<T: Send>(
    scene: &Scene<'_>,
    survivors: &[Survivor],
    rung: &Rung,
    extracted: Option<&Path>,
    console: &mut Console,
    work: impl FnOnce(&Open<'_>, &mut Console) -> Result<T, Halt> + Send,
) -> Result<(T, Reached), Halt> {
    let host = scene.host;
    let paths: Vec<PathBuf> = survivors.iter().map(|s| s.path.clone()).collect();
    let used: Option<Vec<_>> =
        survivors.iter().map(|survivor| scene.backend.used(host, survivor, survivors)).collect();
    let request = overlay::Request {
        choice: scene.choice,
        survivors: &paths,
        scratch: scene.scratch,
        limit: None,
        used: used.as_deref(),
    };
    let mut watch = |now: overlay::Work| {
        if let overlay::Work::Copying { done, total } = now {
            console.work(plan::Work { done: Bytes(done), total: Bytes(total) });
        }
        if host.interrupt().is_raised() { Flow::Stop } else { Flow::Continue }
    };
    // An array that udev has made of them holds them, and is mounted nowhere.
    forget(scene, &paths);
    let mut overlay = overlay::open(host, &request, &mut watch).map_err(no_overlay)?;
    let mut reached = Reached {
        generation: None,
        mended: Vec::new(),
        overlay: overlay.kind().to_string(),
        proof: Vec::new(),
        complaints: None,
        doubt: None,
    };
    tracing::info!("{}: {}", overlay.kind(), overlay.why());
    let result = on(scene, survivors, rung, extracted, &mut overlay, &mut reached, console, work);
    let devices = overlay.devices().to_vec();
    let value = match (result, overlay.close(&|| forget(scene, &devices))) {
        (result, Ok(proof)) => {
            let told = |s: &overlay::Untouched| (s.device.clone(), s.objection().is_none(), s.to_string());
            reached.proof = proof.survivors.iter().map(told).collect();
            result?
        }
        (Ok(value), Err(e)) => {
            let why = format!(
                "not proven to be unchanged, and stays read-only {}: the overlay could not be taken down: {}",
                until(&e),
                causes(&e)
            );
            reached.proof = paths
                .iter()
                .map(|path| (path.clone(), false, format!("{} is {why}", path.display())))
                .collect();
            value
        }
        (Err(halt), Err(e)) => return Err(standing(halt, e, host.interrupt().is_raised()).into()),
    };
    Ok((value, reached))
}

#[allow(clippy::too_many_arguments, reason = "the inner half of `reach`")]
fn on<T: Send>(
    scene: &Scene<'_>,
    survivors: &[Survivor],
    rung: &Rung,
    extracted: Option<&Path>,
    overlay: &mut Overlay,
    reached: &mut Reached,
    console: &mut Console,
    work: impl FnOnce(&Open<'_>, &mut Console) -> Result<T, Halt> + Send,
) -> Result<T, Halt> {
    let host = scene.host;
    for (index, (survivor, device)) in survivors.iter().zip(overlay.devices()).enumerate() {
        match scene.backend.mend(host, survivors, index, device) {
            Ok(done) => reached.mended.extend(done.map(|done| (survivor.path.clone(), done))),
            Err(e) => return Err(Halt::Closed(format!("{}: {}", survivor.path.display(), causes(&e)))),
        }
    }
    forget(scene, scene.members);
    match (rung.way, extracted) {
        (Way::Mount(options), _) => {
            if let Some(striped) = scene.backend.shares(survivors).map_err(Halt::Closed)? {
                let devices = overlay.devices().to_vec();
                overlay.join(&striped, &|| forget(scene, &devices)).map_err(no_overlay)?;
            }
            // Always the same, so that a run removes what a killed one left; there is one rescue at a time.
            let place = Path::new(RUN_DIR).join("rescued");
            let real = host.path(&place);
            files::create_dirs(&real, 0o700)
                .map_err(|e| Trouble::failed("no place to mount at could be made", e))?;
            let done = apart_mounts(scene, options, survivors, overlay, &place, reached, console, work);
            let _ = fs::remove_dir(&real);
            done
        }
        (Way::Extract, Some(to)) => {
            let [device] = overlay.devices() else {
                return Err(Halt::Closed("it reads one survivor only; name it with --from".to_owned()));
            };
            if scene.members.len() > 1 {
                return Err(Halt::Closed(
                    "it would mix in other devices of the same mirror that are connected; detach them"
                        .to_owned(),
                ));
            }
            let Some(extract) = scene.backend.extract_command(device, to) else {
                return Err(Halt::Closed("there is no tool that reads the files without a mount".to_owned()));
            };
            files::create_dirs(to, 0o700)
                .map_err(|e| Trouble::failed("no place for the files could be made", e))?;
            match run(host, &extract) {
                Ok(output) => {
                    let said = output.errors().trim().to_owned();
                    reached.complaints = (!said.is_empty()).then_some(said);
                }
                Err(e) => return Err(Halt::Closed(e.to_string())),
            }
            work(&Open { place: to, left: None, overlay }, console)
        }
        (Way::Extract, None) => Err(Halt::Closed("there is no place for the files".to_owned())),
    }
}

/// Mounts twice: what a mount must write (the replay of the log) is written by the first, and what is only read is read faster.
#[allow(clippy::too_many_arguments, reason = "what both mounts have in common")]
fn apart_mounts<T: Send>(
    scene: &Scene<'_>,
    options: &str,
    survivors: &[Survivor],
    overlay: &mut Overlay,
    place: &Path,
    reached: &mut Reached,
    console: &mut Console,
    work: impl FnOnce(&Open<'_>, &mut Console) -> Result<T, Halt> + Send,
) -> Result<T, Halt> {
    let no_namespace = |e| Halt::Stop(Trouble::failed("no mount namespace of its own could be had", e));
    let nothing = |_: &Open<'_>, _: &mut Console| Ok(());
    let name = named(scene, overlay)?;
    let belongs = scene.belongs;
    let first = Opening { options, survivors, overlays: &[], place, name: &name, belongs, again: false };
    let open = Opening { overlays: overlay.mountable(), ..first };
    apart(|| mounted(scene, &open, overlay, reached, console, nothing)).map_err(no_namespace)??;
    forget(scene, scene.members);
    forget(scene, overlay.devices());
    overlay.settle().map_err(no_overlay)?;
    let name = named(scene, overlay)?;
    let open = Opening { overlays: overlay.mountable(), name: &name, again: true, ..first };
    apart(|| mounted(scene, &open, overlay, reached, console, work)).map_err(no_namespace)?
}

/// Under which name the kernel is given it, where it must be; written down, so that it is taken away whatever happens.
fn named(scene: &Scene<'_>, overlay: &mut Overlay) -> Result<String, Halt> {
    if scene.backend.imports() { overlay.pool().map_err(no_overlay) } else { Ok(String::new()) }
}

/// One of the two mounts.
fn mounted<T>(
    scene: &Scene<'_>,
    opening: &Opening<'_>,
    overlay: &Overlay,
    reached: &mut Reached,
    console: &mut Console,
    work: impl FnOnce(&Open<'_>, &mut Console) -> Result<T, Halt>,
) -> Result<T, Halt> {
    let (host, place) = (scene.host, opening.place);
    let closed = |e: &BackendError| {
        let open = Open { place, left: None, overlay };
        match open.broken() {
            Some(broken) => broken_trouble(&broken).into(),
            None if host.interrupt().is_raised() => interrupted().into(),
            None => Halt::Closed(causes(e)),
        }
    };
    let _away = scene.backend.keep_away(host, overlay.devices()).map_err(|e| closed(&e))?;
    let done = match scene.backend.mount(host, opening, &mut |cmd| run(host, cmd)) {
        Ok(opened) => {
            let left = (!opened.left.is_empty()).then(|| opened.left.join("; "));
            reached.doubt = opened.doubt.or(reached.doubt.take());
            let open = Open { place: &host.path(place), left: left.as_deref(), overlay };
            let done = watched(scene, overlay, reached).and_then(|()| work(&open, console));
            reached.complaints = left.or(reached.complaints.take());
            done
        }
        // Nothing is mounted; what was imported has to go.
        Err(e) if !scene.backend.imports() => return Err(closed(&e)),
        Err(e) => Err(closed(&e)),
    };
    if let Err(e) = scene.backend.unmount(host, opening) {
        tracing::warn!("{}", causes(&e));
    }
    done
}

/// Is it really these overlays that are mounted, and nothing else?
fn watched(scene: &Scene<'_>, overlay: &Overlay, reached: &mut Reached) -> Result<(), Halt> {
    let host = scene.host;
    let (devices, generation) = scene
        .backend
        .mounted(host, scene.uuid)
        .map_err(|e| Trouble::failed("it cannot be told what the kernel has mounted", e))?;
    reached.generation = generation;
    let real = |device: &PathBuf| fs::canonicalize(host.path(device)).unwrap_or_else(|_| device.clone());
    let ours: Vec<PathBuf> = overlay.devices().iter().map(real).collect();
    match devices.iter().find(|device| !ours.contains(&real(device))) {
        None => Ok(()),
        Some(other) => Err(Halt::Stop(
            Trouble::failed(
                format!("the kernel has taken {} into the mount, which is no overlay", other.display()),
                io::Error::other("something else told the kernel of it at the same time"),
            )
            .hint("detach the members that are not to be read, or stop what scans for devices, and run it again"),
        )),
    }
}

/// What was asked for and could not be had is no fault of the survivor.
fn no_overlay(e: OverlayError) -> Halt {
    match e {
        OverlayError::Stopped => interrupted().into(),
        OverlayError::NoJoin(_) => Halt::Stop(Trouble::refused(
            causes(&e),
            "run it on a system that has device-mapper and dmsetup: any live system of a distribution has both",
        )),
        OverlayError::Unavailable { .. } => Halt::Stop(Trouble::refused(
            causes(&e),
            "choose another with --overlay, or install what is missing (qemu-storage-daemon, dmsetup)",
        )),
        OverlayError::NoRoom { .. } | OverlayError::Scratch { .. } => Halt::Stop(Trouble::refused(
            causes(&e),
            "name a directory with more room, on a disk that is no survivor, with --scratch",
        )),
        OverlayError::Taken { .. } | OverlayError::Device { .. } => {
            Halt::Stop(Trouble::refused(causes(&e), "see what uses it: raidguard devices; then run it again"))
        }
        other => Halt::Stop(
            Trouble::failed("nothing could be laid above the survivors, so none of them was opened", other)
                .hint("try another kind: --overlay fuse, or --overlay image with a --scratch directory that has room"),
        ),
    }
}

/// What was read until now is not to be trusted.
pub(super) fn broken_trouble(why: &str) -> Trouble {
    Trouble::failed(
        "what lies above the survivors gave out, so nothing that was read is presented",
        io::Error::other(why.to_owned()),
    )
    .hint("nothing was written to a survivor")
    .hint("name a directory with more room with --scratch, and run it again")
}

fn forget(scene: &Scene<'_>, devices: &[PathBuf]) {
    let cmds = scene.backend.forget(scene.host, devices).unwrap_or_else(|e| {
        tracing::warn!("{}", causes(&e));
        Vec::new()
    });
    for cmd in cmds {
        // A kernel without that (before 5.1) has nothing to be told by either; what it mounted is looked at afterwards.
        if let Err(e) = scene.host.runner().run(&cmd) {
            tracing::debug!("{e}");
        }
    }
}

/// Runs a command; stops it when the operator asks.
fn run(host: &Host, cmd: &Cmd) -> Result<Output, CmdError> {
    let mut tick = || if host.interrupt().is_raised() { Flow::Stop } else { Flow::Continue };
    host.runner().run_watched(cmd, &mut tick)
}
