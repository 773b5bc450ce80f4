//! What is left of a pool, and how it is imported from overlays: with nothing else, under a name of its own, and read when what was
//! fsynced is in its place.

mod datasets;
pub(in crate::backend::zfs) mod relate;
mod remains;

#[cfg(test)]
mod tests;

use std::{
    fs::{self, File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use self::remains::{enough, imported_as};
use super::{
    Zfs,
    observe::{self, LIMIT, Labelled},
};
use crate::{
    backend::{
        Backend as _, BackendError, blocks,
        rescue::{
            Freshness, Mended, Opened, Opening, PATIENCE, Relation, Remains, Rescue, Run, Rung, Survivor, Way,
        },
    },
    exec::Cmd,
    host::{
        Host,
        files::Doing as _,
        kmsg::{KMSG, Kmsg},
        zfs::{
            Label, Labels, PoolState,
            kstat::{self, SUSPENDED},
        },
    },
    model::Level,
};

/// So long where everything is read to find a state that is whole (`-X`).
const SEARCH: Duration = Duration::from_secs(12 * 3600);
const READ_ONLY: &str = "-o readonly=on";

/// From the one that loses nothing to the last resort: each has what `zpool import` is told beyond what it always is. The first import is
/// one for writing, since the intent log is replayed only then: what it writes goes to the overlays.
const RUNGS: [Rung; 5] = [
    Rung {
        name: "import",
        says: "imported on its own, with all that was fsynced",
        freshness: Freshness::Newest,
        lacks: None,
        when_allowed: false,
        way: Way::Mount(""),
    },
    Rung {
        name: "no-replay",
        says: "imported read-only, without replaying the intent log",
        freshness: Freshness::Old,
        lacks: Some("whatever was fsynced since the last transaction group: 5 seconds and more"),
        when_allowed: true,
        way: Way::Mount(READ_ONLY),
    },
    Rung {
        name: "no-log-device",
        says: "imported without the device that held the intent log",
        freshness: Freshness::Old,
        lacks: Some("whatever was fsynced since the last transaction group: 5 seconds and more"),
        when_allowed: true,
        way: Way::Mount("-m"),
    },
    Rung {
        name: "rewind",
        says: "imported as it was some transaction groups ago",
        freshness: Freshness::Old,
        lacks: Some("the last transaction groups: half a minute and more, and whatever was fsynced in it"),
        when_allowed: true,
        way: Way::Mount("-m -F -o readonly=on"),
    },
    Rung {
        name: "rewind-far",
        says: "imported by whatever older state was found that can be opened",
        freshness: Freshness::Old,
        lacks: Some(
            "everything since then, and nobody can say when that was; and what was freed since may be written over",
        ),
        when_allowed: true,
        way: Way::Mount("-m -F -X -o readonly=on"),
    },
];

impl Rescue for Zfs {
    fn remains(&self, host: &Host) -> Result<Vec<Remains>, BackendError> {
        remains::remains(host)
    }

    fn relate(
        &self,
        host: &Host,
        one: &Survivor,
        newest: &Survivor,
        _: &[Survivor],
    ) -> Result<Relation, BackendError> {
        Ok(relate::relate(&labels(host, &one.path)?, &labels(host, &newest.path)?))
    }

    fn rungs(&self) -> &'static [Rung] {
        &RUNGS
    }

    fn ready(&self, host: &Host) -> Result<(), BackendError> {
        self.supported(host, Level::Mirror)?;
        if host.runner().has("zpool") && host.runner().has("zfs") {
            return Ok(());
        }
        Err(BackendError::Unsupported {
            what: "ZFS".to_owned(),
            why: "its tools are not installed (Debian and Ubuntu: apt-get install zfsutils-linux)".to_owned(),
        })
    }

    fn imports(&self) -> bool {
        true
    }

    fn forget_commands(&self, _: &[PathBuf]) -> Vec<Cmd> {
        Vec::new()
    }

    fn enough(&self, host: &Host, survivors: &[Survivor]) -> Result<Result<(), String>, BackendError> {
        let read = survivors.iter().map(|s| Ok(labels(host, &s.path)?.newest().cloned()));
        let read: Vec<Label> =
            read.collect::<Result<Vec<_>, BackendError>>()?.into_iter().flatten().collect();
        Ok(enough(&read))
    }

    fn keep_away(&self, host: &Host, overlays: &[PathBuf]) -> Result<Vec<File>, BackendError> {
        keep_away(host, overlays)
    }

    fn mount(&self, host: &Host, opening: &Opening<'_>, run: Run<'_>) -> Result<Opened, BackendError> {
        open(host, opening, run)
    }

    fn unmount(&self, host: &Host, opening: &Opening<'_>) -> Result<(), BackendError> {
        let run = |cmd: Cmd| host.runner().run(&cmd);
        if let Err(e) = run(Cmd::change("umount").arg("--recursive").arg(opening.place)) {
            tracing::debug!("{e}");
            let _ = run(Cmd::change("umount").args(["--recursive", "--lazy"]).arg(opening.place));
        }
        match kstat::state(host, opening.name)?.as_deref() {
            None => Ok(()),
            Some(SUSPENDED) => Err(BackendError::State(format!(
                "the pool `{}` has stopped, since what it lies on fails",
                opening.name
            ))),
            Some(_) => Ok(run(export(opening.name)).map(drop)?),
        }
    }

    fn mend(&self, _: &Host, _: &[Survivor], _: usize, _: &Path) -> Result<Option<Mended>, BackendError> {
        Ok(None)
    }

    fn used(&self, _: &Host, _: &Survivor, _: &[Survivor]) -> Option<Vec<Range<u64>>> {
        // Only the pool's own maps tell, and the latest of them lie in its log of them.
        None
    }

    fn mounted(&self, host: &Host, uuid: &str) -> Result<(Vec<PathBuf>, Option<u64>), BackendError> {
        let Some(name) = imported_as(host, uuid, None)? else { return Ok((Vec::new(), None)) };
        let said =
            host.runner().run(&Cmd::probe("zpool").args(["list", "-HpPv", "--", &name]).timeout(LIMIT))?;
        Ok((serving(&said.text()), None))
    }
}

/// Takes a pool away from the kernel, with what is mounted of it.
fn export(name: &str) -> Cmd {
    Cmd::change("zpool").args(["export", "-f", "--", name])
}

/// Imports the pool from these devices and nowhere else, under another name, and mounts nothing.
///
/// By force: what that overrides is that another machine had it last, or that this one was cut off. A device of which that machine still
/// writes the other half is read here as it stands, and nothing reaches it. The name is for the time being, as another pool may have its
/// own one here (`-t`); and at a place of its own, so that whoever mounts all that can be mounted does not cover anything.
fn import(options: &str, pool: &str, destroyed: bool, name: &str, devices: &[PathBuf], place: &Path) -> Cmd {
    let mut cmd = Cmd::change("zpool").args(["import", "-f", "-N", "-o", "cachefile=none"]);
    cmd = cmd.arg("-R").arg(place).args(options.split_whitespace());
    if destroyed {
        cmd = cmd.arg("-D");
    }
    for device in devices {
        cmd = cmd.arg("-d").arg(device);
    }
    let limit = if options.contains("-X") { SEARCH } else { PATIENCE };
    cmd.args(["-t", pool, name]).timeout(limit)
}

fn labels(host: &Host, path: &Path) -> Result<Labels, BackendError> {
    Ok(Labels::read(&host.path(path)).doing("reading the labels of", path)?)
}

/// Imports it, and mounts what holds files. Gives what could not be mounted, in words.
fn open(host: &Host, opening: &Opening<'_>, run: Run<'_>) -> Result<Opened, BackendError> {
    let Opening { place, name, .. } = *opening;
    let first = opening.overlays.first().map(|device| labels(host, device)).transpose()?.unwrap_or_default();
    let label = first.newest().filter(|label| label.pool_guid.is_some());
    let Some((label, pool)) = label.and_then(|label| Some((label, label.pool_guid?.to_string()))) else {
        return Err(BackendError::State("no label of the pool can be read".to_owned()));
    };
    let destroyed = label.state == PoolState::Destroyed;
    // What was replayed is on the overlays, and they may be read-only by now.
    let reads = opening.options.contains(READ_ONLY);
    let once_more = if opening.again && !reads { READ_ONLY } else { "" };
    let kmsg = (!opening.again && !reads).then(|| Kmsg::from_now(host));
    let options = format!("{} {once_more}", opening.options);
    run(&import(&options, &pool, destroyed, name, opening.overlays, place))?;
    let listed = Cmd::probe("zfs").args(["list", "-Hpo", "mountpoint,name", "-t", "filesystem", "-r", "--"]);
    let all = datasets::parse(&run(&listed.arg(name))?.text(), place)?;
    let wanted = datasets::arrange(&all, opening.belongs);
    let none =
        || Cmd::change("mount").args(["-t", "tmpfs", "-o", "size=1m,mode=0700", "raidguard"]).arg(place);
    if !matches!(&wanted[..], [first, ..] if first.at.as_os_str().is_empty()) {
        run(&none())?;
    }
    let (mut left, mut missing, mut mounted, mut failed) = (Vec::new(), Vec::<PathBuf>::new(), false, None);
    for dataset in wanted {
        if missing.iter().any(|above| dataset.at.starts_with(above)) {
            left.push(format!("{} lies below one that cannot be mounted", dataset.name));
            continue;
        }
        let is_base = dataset.at.as_os_str().is_empty();
        let at = if is_base { place.to_owned() } else { place.join(&dataset.at) };
        // In a dataset that is mounted there already it has been made, if it was ever mounted there.
        if let Err(e) = fs::create_dir_all(host.path(&at)) {
            left.push(format!("there is no place to mount {} at: {e}", dataset.name));
            continue;
        }
        let mount = Cmd::change("mount").args(["-t", "zfs", "-o", "ro,zfsutil,nosuid,nodev,noexec"]);
        // The first one replays the intent log.
        match run(&mount.arg(&dataset.name).arg(&at).timeout(PATIENCE)) {
            Ok(_) => mounted = true,
            // Whoever asks anything of a pool that has stopped may wait for ever.
            Err(e) if host.interrupt().is_raised() || has_stopped(host, name) => return Err(e.into()),
            Err(e) => {
                left.push(format!("{} cannot be mounted: {e}", dataset.name));
                failed = Some(e);
                if is_base {
                    run(&none())?;
                } else {
                    missing.push(dataset.at);
                }
            }
        }
    }
    if let Some(e) = failed.filter(|_| !mounted) {
        return Err(e.into());
    }
    let doubt = kmsg.and_then(|kmsg| match kmsg.and_then(|mut kmsg| kmsg.since()) {
        Ok(messages) => not_replayed(&messages, name).map(|said| (Freshness::Old, said)),
        Err(e) => Some((
            Freshness::Unproven,
            format!("whether the intent log was replayed to its end only the kernel says, and {KMSG} cannot be read: {e}"),
        )),
    });
    Ok(Opened { left, doubt })
}

fn has_stopped(host: &Host, name: &str) -> bool {
    matches!(kstat::state(host, name), Ok(Some(state)) if state == SUSPENDED)
}

/// That the intent log of one of the pool's datasets was not replayed to its end: the mount succeeds all the same, and lacks what was
/// fsynced after that (`zil_replay_error` in `module/zfs/zil.c`, since 0.6).
fn not_replayed(messages: &[String], pool: &str) -> Option<String> {
    let of_it = |message: &&String| {
        let (_, rest) = message.split_once("ZFS replay transaction error ")?;
        let (_, rest) = rest.split_once(", dataset ")?;
        let rest = rest.strip_prefix(pool)?;
        rest.starts_with([',', '/']).then_some(())
    };
    let said = messages.iter().find(|message| of_it(message).is_some())?;
    Some(format!("the intent log was not replayed to its end, so what was fsynced last is missing: {said}"))
}

/// Every device of a pool of which the kernel says that it serves, as `zpool list -HpPv` shows them: a line each below the pool's, begun
/// by a tab, with its path first and its state last.
fn serving(text: &str) -> Vec<PathBuf> {
    let line = |line: &str| {
        let mut words = line.strip_prefix('\t')?.split('\t');
        let path = words.next().filter(|path| path.starts_with('/'))?;
        let state = words.rfind(|word| !matches!(*word, "-" | ""))?;
        matches!(state, "ONLINE" | "DEGRADED").then(|| PathBuf::from(path))
    };
    text.lines().filter_map(line).collect()
}

/// Holds every other device that says it is of a pool's and is not used, so that the kernel cannot open it: a pool's description has the
/// path by which each of its devices was opened, and what is found there is taken for a member, and written to. What cannot be held is
/// in use already, and the kernel cannot have it either.
fn keep_away(host: &Host, overlays: &[PathBuf]) -> Result<Vec<File>, BackendError> {
    let ours: Vec<String> = overlays.iter().map(|overlay| blocks::kernel_name(host, overlay)).collect();
    let mut held = Vec::new();
    for (name, _) in blocks::candidate_names(host, |_| false)? {
        let path = blocks::node_of(&name);
        let is_member = || Labels::of_member(&host.path(&path)).is_ok_and(|labels| labels.is_some());
        if ours.contains(&name) || !is_member() {
            continue;
        }
        match OpenOptions::new().read(true).custom_flags(nix::libc::O_EXCL).open(host.path(&path)) {
            Ok(file) => held.push(file),
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {}
            Err(e) => return Err(e).doing("holding", &path).map_err(Into::into),
        }
    }
    Ok(held)
}

/// The device of the same pool that was written to without `device`, which itself was written to without that one. Of a pool that is
/// imported nothing is read: what the kernel has is one.
///
/// # Errors
/// The device, or what there is of devices, cannot be read.
pub(in crate::backend::zfs) fn other_half(
    host: &Host,
    device: &Path,
) -> Result<Option<PathBuf>, BackendError> {
    let own = Labels::of_member(&host.path(device)).doing("reading the labels of", device)?;
    let Some((own, label)) = own.as_ref().and_then(|own| Some((own, own.newest()?))) else { return Ok(None) };
    let (Some(pool), true) = (label.pool_guid, label.txg > 0) else { return Ok(None) };
    let (labelled, _) = observe::labelled(host)?;
    let of_it =
        |l: &&Labelled| l.label.pool_guid == Some(pool) && l.label.txg > 0 && l.label.guid != label.guid;
    let half = labelled.iter().filter(of_it).find(|l| {
        let other = l.seen.superblock.as_ref().ok().and_then(Option::as_ref);
        other.is_some_and(|other| relate::are_apart(own, other))
    });
    Ok(half.map(|half| half.seen.path.clone()))
}
