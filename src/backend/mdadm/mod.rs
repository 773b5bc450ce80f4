//! md, the kernel's software RAID, with XFS or ext4 on it. It has no checksums: that members differ can be seen, which of them is right
//! cannot.

mod apart;
mod exchange;
mod filesystem;
mod observe;
mod rescue;
mod scrub;
mod shares;
mod superblock;
mod sysfs;

#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use self::{superblock::Superblock, sysfs::Array};
use super::{
    Backend, BackendError, BalanceReport, Exchange, ExchangeEnd, ExchangeProgress, Layout, Made, Members,
    MirrorSpec, ParseError, ScrubProgress, ScrubReport, Watcher,
};
use crate::{
    exec::Cmd,
    host::{Host, files::Doing as _, fstab},
    model::{
        Filesystem, FilesystemKind, Level,
        mirror::MirrorState,
        observed::{Claim, ScrubRecord},
    },
};

/// Mirrors of md, managed by mdadm.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mdadm;

/// The path under which mdadm and udev make an array of this name known.
fn named(spec: &MirrorSpec) -> PathBuf {
    Path::new("/dev/md").join(&spec.name)
}

/// A UUID as mdadm writes it: four words of eight digits.
pub fn mdadm_uuid(uuid: &str) -> String {
    let digits: Vec<char> = uuid.chars().filter(char::is_ascii_hexdigit).collect();
    let words = digits.chunks(8).map(|word| word.iter().collect::<String>());
    words.collect::<Vec<_>>().join(":")
}

/// The line of mdadm.conf(5) that makes an array known.
pub fn conf_line(name: &str, uuid: &str) -> String {
    format!("ARRAY /dev/md/{name} metadata=1.2 UUID={}", mdadm_uuid(uuid))
}

fn level(level: Level) -> &'static str {
    if level == Level::Raid10 { "--level=10" } else { "--level=1" }
}

/// The array of these members, as mdadm(8) assembles it: also with a member missing.
fn assemble(spec: &MirrorSpec, devices: &[PathBuf]) -> Cmd {
    let uuid = format!("--uuid={}", mdadm_uuid(&spec.uuid));
    Cmd::change("mdadm").args(["--assemble", "--run", &uuid]).arg(named(spec)).args(devices)
}

impl Backend for Mdadm {
    fn tools(&self) -> &[&'static str] {
        &["mdadm", "wipefs", "mount", "umount"]
    }

    fn tools_to_make(&self, on: Option<FilesystemKind>) -> Vec<&'static str> {
        on.map(filesystem::tool).into_iter().collect()
    }

    fn packages(&self) -> &'static str {
        "mdadm xfsprogs e2fsprogs"
    }

    fn supported(&self, host: &Host, level: Level) -> Result<(), BackendError> {
        let module = if level == Level::Raid10 { "raid10" } else { "raid1" };
        let known = || -> Result<bool, BackendError> {
            let text = host.read_optional("/proc/mdstat").doing("reading", "/proc/mdstat")?;
            Ok(text.as_deref().is_some_and(|text| has_personality(text, module)))
        };
        if known()? {
            return Ok(());
        }
        let loaded = host.runner().run(&Cmd::change("modprobe").arg(module));
        if known()? {
            return Ok(());
        }
        let why = loaded.err().map_or_else(String::new, |e| format!(" ({e})"));
        Err(BackendError::Unsupported {
            what: format!("md's {module}"),
            why: format!("the kernel does not have it, as built in or as a module{why}"),
        })
    }

    fn create_commands(&self, spec: &MirrorSpec) -> Vec<Cmd> {
        let count = format!("--raid-devices={}", spec.devices.len());
        let uuid = format!("--uuid={}", mdadm_uuid(&spec.uuid));
        let name = format!("--name={}", spec.name);
        // The bitmap is named, because with --run newer versions make none otherwise; never --assume-clean, which would call members
        // equal that are not.
        let array = Cmd::destroy("mdadm")
            .arg("--create")
            .arg(named(spec))
            .args(["--run", level(spec.level), &count, "--metadata=1.2", "--bitmap=internal", &name, &uuid])
            .args(&spec.devices);
        let on = spec.filesystem.iter().map(|on| filesystem::make(spec, on, named(spec)));
        std::iter::once(array).chain(on).collect()
    }

    fn made(&self, host: &Host, spec: &MirrorSpec) -> Result<Made, BackendError> {
        let (mut lacking, mut slots, mut ours) = (Vec::new(), BTreeSet::new(), 0_usize);
        let mut whole = false;
        for device in &spec.devices {
            let found = Superblock::read(&host.path(device)).doing("reading the superblock of", device)?;
            let Some(sb) = found.filter(|sb| sb.array == spec.uuid) else {
                lacking.push(format!("{} does not belong to it", device.display()));
                continue;
            };
            ours += 1;
            let count = sb.raid_disks as usize;
            if count != spec.devices.len() {
                lacking.push(format!("{} says that it has {count} members", device.display()));
            }
            slots.extend(sb.role);
            let on = filesystem::on(&host.path(device), &sb).doing("reading the filesystem on", device)?;
            whole |= on.is_some() && on == spec.filesystem;
        }
        Ok(if ours == 0 {
            Made::No
        } else if whole {
            // It was made after all members were: one that does not say so now was lost since, which is no reason to make it anew.
            Made::Complete
        } else if !lacking.is_empty() {
            Made::Partial(lacking.join("; "))
        } else if slots.len() != spec.devices.len() {
            Made::Partial("two devices say that they are the same member".to_owned())
        } else {
            Made::Partial("there is no filesystem on it".to_owned())
        })
    }

    fn unmaking(&self, spec: &MirrorSpec) -> Vec<Cmd> {
        spec.devices.iter().map(|device| exchange::zero(device)).collect()
    }

    fn unmake_commands(&self, host: &Host, spec: &MirrorSpec) -> Result<Vec<Cmd>, BackendError> {
        let array = Array::find(host, &spec.uuid)?;
        let ours = |array: &Array| array.devices.iter().any(|d| spec.devices.contains(&d.path()));
        let mut cmds = Vec::new();
        if let Some(array) = array.filter(ours) {
            cmds.push(stop(&array.state.device));
        }
        for device in &spec.devices {
            let found = Superblock::read(&host.path(device)).doing("reading the superblock of", device)?;
            if found.is_some_and(|sb| sb.array == spec.uuid) {
                cmds.push(exchange::zero(device));
            }
        }
        Ok(cmds)
    }

    fn fstab_entry(&self, spec: &MirrorSpec) -> Option<fstab::Entry> {
        let on = spec
            .filesystem
            .clone()
            .unwrap_or(Filesystem { kind: FilesystemKind::default(), uuid: spec.uuid.clone() });
        Some(fstab::array_entry(&on, &spec.mountpoint))
    }

    fn has_snapshots(&self) -> bool {
        false
    }

    fn observe(&self, host: &Host, uuid: &str, mountpoint: &Path) -> Result<MirrorState, BackendError> {
        observe::observe(host, uuid, mountpoint)
    }

    fn uuid_at(&self, host: &Host, mountpoint: &Path) -> Result<Option<String>, BackendError> {
        observe::uuid_at(host, mountpoint)
    }

    fn filesystem(&self, host: &Host, state: &MirrorState) -> Result<Option<Filesystem>, BackendError> {
        for path in state.members.iter().filter(|m| !m.missing).filter_map(|m| m.path.as_ref()) {
            let sb = Superblock::read(&host.path(path)).doing("reading the superblock of", path)?;
            let Some(sb) = sb.filter(Superblock::serves) else { continue };
            let found = filesystem::on(&host.path(path), &sb).doing("reading the filesystem on", path)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn claims(&self, host: &Host) -> Result<BTreeMap<String, Vec<Claim>>, BackendError> {
        observe::claims(host)
    }

    /// md keeps none: what a check has found is forgotten at the next one, and when it was nobody knows.
    fn other_half(&self, host: &Host, device: &Path) -> Result<Option<PathBuf>, BackendError> {
        apart::other_half(host, device)
    }

    fn scrub_record(&self, _: &Host, _: &str) -> Result<Option<ScrubRecord>, BackendError> {
        Ok(None)
    }

    fn rescue(&self) -> &dyn super::rescue::Rescue {
        self
    }

    fn take_snapshot(&self, _: &Host, _: &Path, _: &Path, _: &Path) -> Result<PathBuf, BackendError> {
        let (what, why) = ("a snapshot".to_owned(), "an array has none".to_owned());
        Err(BackendError::Unsupported { what, why })
    }

    fn drop_snapshot(&self, _: &Host, _: &Path, _: &Path) -> Result<(), BackendError> {
        Ok(())
    }

    fn balance(
        &self,
        _: &Host,
        _: &Path,
        _: &MirrorState,
        _: &mut Watcher<'_, ()>,
    ) -> Result<BalanceReport, BackendError> {
        Ok(BalanceReport::without_chunks("a mirror of mdadm"))
    }

    fn scrub_command(&self, spec: &MirrorSpec) -> Cmd {
        scrub::command(&named(spec))
    }

    fn scrub(
        &self,
        host: &Host,
        _: &Path,
        state: &MirrorState,
        watch: &mut Watcher<'_, ScrubProgress>,
    ) -> Result<ScrubReport, BackendError> {
        scrub::scrub(host, state, watch)
    }
}

/// Ends an array; what is on its members stays.
fn stop(array: &Path) -> Cmd {
    Cmd::change("mdadm").arg("--stop").arg(array)
}

/// `Personalities : [raid1] [raid10]`, the first line of `/proc/mdstat`.
fn has_personality(mdstat: &str, name: &str) -> bool {
    let line = mdstat.lines().find(|line| line.starts_with("Personalities"));
    line.is_some_and(|line| line.contains(&format!("[{name}]")))
}

impl Members for Mdadm {
    fn layout(&self, host: &Host, device: &Path) -> Result<Layout, BackendError> {
        let found = Superblock::read(&host.path(device)).doing("reading the superblock of", device)?;
        let sb = found.ok_or_else(|| ParseError::new("md superblock", "there is none"))?;
        Ok(exchange::layout(&sb))
    }

    fn largest_sector(
        &self,
        host: &Host,
        uuid: &str,
        members: &[PathBuf],
    ) -> Result<Option<u64>, BackendError> {
        let array = Array::find(host, uuid)?.filter(|array| array.state.runs());
        let array = array.and_then(|array| filesystem::begins(&host.path(&array.state.device), 0));
        // Of a raid10 not every member has its beginning.
        let said = |device: &PathBuf| {
            let device = host.path(device);
            let sb = Superblock::read(&device).ok().flatten().filter(|sb| sb.array == uuid && sb.serves())?;
            filesystem::begins(&device, sb.data_offset)
        };
        let start = array.or_else(|| members.iter().find_map(said));
        Ok(start.and_then(|start| filesystem::smallest_write(&start)))
    }

    fn is_assembled_when_made(&self) -> bool {
        true
    }

    fn degrades_a_mount(&self) -> bool {
        false
    }

    fn assembling(&self, spec: &MirrorSpec, devices: &[PathBuf]) -> Vec<Cmd> {
        vec![assemble(spec, devices)]
    }

    fn assemble_commands(
        &self,
        host: &Host,
        spec: &MirrorSpec,
        devices: &[PathBuf],
    ) -> Result<Vec<Cmd>, BackendError> {
        Ok(match Array::find(host, &spec.uuid)? {
            Some(array) if array.state.runs() => Vec::new(),
            // udev collects the devices of an array as they come, and does not start it while one is missing.
            Some(array) => vec![stop(&array.state.device), assemble(spec, devices)],
            None => vec![assemble(spec, devices)],
        })
    }

    fn exchange_command(&self, spec: &MirrorSpec, exchange: &Exchange, _: &Path) -> Cmd {
        exchange::add(&named(spec), &exchange.new)
    }

    fn is_exchanged(&self, host: &Host, exchange: &Exchange) -> Result<bool, BackendError> {
        exchange::is_exchanged(host, exchange)
    }

    fn exchange(
        &self,
        host: &Host,
        exchange: &Exchange,
        _: &Path,
        watch: &mut Watcher<'_, ExchangeProgress>,
    ) -> Result<ExchangeEnd, BackendError> {
        exchange::exchange(host, exchange, watch)
    }

    fn return_commands(&self, spec: &MirrorSpec, exchange: &Exchange) -> Vec<Cmd> {
        vec![exchange::re_add(&named(spec), &exchange.new)]
    }

    fn take_back(
        &self,
        host: &Host,
        exchange: &Exchange,
        watch: &mut Watcher<'_, ExchangeProgress>,
    ) -> Result<ExchangeEnd, BackendError> {
        exchange::take_back(host, exchange, watch)
    }

    fn give_up_exchange(
        &self,
        host: &Host,
        exchange: &Exchange,
        _: Option<&Path>,
    ) -> Result<(), BackendError> {
        exchange::give_up(host, exchange)
    }

    /// An array is copied whole, however full what lies on it is.
    fn exchange_is_tight(&self, _: &MirrorState, _: Level) -> Option<String> {
        None
    }

    fn retire_commands(&self, host: &Host, exchange: &Exchange, old: &Path) -> Vec<Cmd> {
        exchange::retire(host, exchange, old)
    }
}
