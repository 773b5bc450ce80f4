//! A member is given up for a device (mdadm(8), MANAGE MODE). The work is the kernel's: it goes on whatever becomes of this program, and
//! after a reboot.
//!
//! A member that still serves keeps serving until the new device holds all (`--replace`); the place of one that is gone is filled from the
//! others (`--add`).

use std::{path::Path, thread, time::Duration};

use super::{
    observe::number_of,
    scrub::array,
    superblock::Superblock,
    sysfs::{Array, Device},
};
use crate::{
    backend::{BackendError, Exchange, ExchangeEnd, ExchangeProgress, Layout, Piece, Watcher, blocks},
    exec::{Cmd, Flow},
    host::{Host, files::Doing as _},
    model::Bytes,
};

const TICK: Duration = Duration::from_millis(250);
/// After so many looks without any work of the kernel it counts as not begun.
const IDLE: u32 = 240;
/// How often a device is taken out that the kernel has not let go of yet.
const TRIES: u32 = 40;

pub(super) fn add(array: &Path, new: &Path) -> Cmd {
    Cmd::destroy("mdadm").args(["--manage"]).arg(array).arg("--add").arg(new)
}

fn manage(array: &Path) -> Cmd {
    Cmd::change("mdadm").arg("--manage").arg(array)
}

pub(super) fn zero(device: &Path) -> Cmd {
    Cmd::destroy("wipefs").args(["--all", "--types", "linux_raid_member"]).arg(device)
}

fn superblock(host: &Host, device: &Path, uuid: &str) -> Result<Option<Superblock>, BackendError> {
    let found = Superblock::read(&host.path(device)).doing("reading the superblock of", device)?;
    Ok(found.filter(|sb| sb.array == uuid))
}

/// The device's part in an array that has it.
fn part<'a>(host: &Host, array: &'a Array, device: &Path) -> Option<&'a Device> {
    let name = blocks::kernel_name(host, device);
    array.devices.iter().find(|d| d.name == name)
}

/// The member whose place the kernel gives to the next device (`raid1_add_disk`, `raid10_add_disk`); nothing where none is empty.
fn first_empty(array: &Array) -> Option<u64> {
    let fills = |slot: u64, d: &Device| d.slot == Some(slot) && !d.is("faulty") && !d.is("replacement");
    let mut slots = 0..array.state.raid_disks;
    slots.find(|slot| !array.devices.iter().any(|d| fills(*slot, d))).map(number_of)
}

/// Does the new device serve at the old one's place?
pub(super) fn is_exchanged(host: &Host, exchange: &Exchange) -> Result<bool, BackendError> {
    let in_place = |slot: Option<u64>| slot.map(number_of) == Some(exchange.id);
    let said = || superblock(host, &exchange.new, &exchange.uuid);
    Ok(match Array::find(host, &exchange.uuid)?.filter(|array| array.state.runs()) {
        Some(array) => {
            let serves =
                part(host, &array, &exchange.new).is_some_and(|part| part.serves() && in_place(part.slot));
            // Of one that was pulled while it was filled the array tells all there is to know.
            serves && said()?.is_some()
        }
        None => said()?.is_some_and(|sb| sb.serves() && in_place(sb.role.map(u64::from))),
    })
}

/// Carries it out, or takes up one that an interrupted run began.
pub(super) fn exchange(
    host: &Host,
    exchange: &Exchange,
    watch: &mut Watcher<'_, ExchangeProgress>,
) -> Result<ExchangeEnd, BackendError> {
    let now = array(host, &exchange.uuid)?;
    let device = now.state.device.clone();
    if part(host, &now, &exchange.new).is_none_or(|part| part.is("faulty")) {
        clear(host, &now)?;
        if superblock(host, &exchange.new, &exchange.uuid)?.is_some() {
            host.runner().run(&zero(&exchange.new))?;
        }
        if let Some(first) = first_empty(&array(host, &exchange.uuid)?).filter(|first| *first != exchange.id)
        {
            return Err(BackendError::State(format!(
                "member {first} is missing too, and the kernel would fill its place first: exchange that one first"
            )));
        }
        host.runner().run(&add(&device, &exchange.new))?;
    }
    let now = array(host, &exchange.uuid)?;
    let old = now.devices.iter().find(|d| d.serves() && d.slot.map(number_of) == Some(exchange.id));
    if let Some(old) = old.filter(|old| old.path() != exchange.new) {
        let begun = part(host, &now, &exchange.new).is_some_and(|new| new.is("replacement"));
        if !begun {
            let cmd = manage(&device).arg("--replace").arg(old.path()).arg("--with").arg(&exchange.new);
            host.runner().run(&cmd)?;
        }
    }
    if follow(host, exchange, watch)? == Flow::Stop {
        give_up(host, exchange)?;
        return Ok(ExchangeEnd::Stopped);
    }
    // What has given up its place stays beside the array as faulty.
    clear(host, &array(host, &exchange.uuid)?)?;
    Ok(ExchangeEnd::Done { unreadable: 0 })
}

pub(super) fn re_add(array: &Path, device: &Path) -> Cmd {
    Cmd::destroy("mdadm").arg("--manage").arg(array).arg("--re-add").arg(device)
}

/// Takes a member in again: by the bitmap only what was written without it is copied, and where that cannot be, everything.
pub(super) fn take_back(
    host: &Host,
    exchange: &Exchange,
    watch: &mut Watcher<'_, ExchangeProgress>,
) -> Result<ExchangeEnd, BackendError> {
    let now = array(host, &exchange.uuid)?;
    if part(host, &now, &exchange.new).is_none_or(|part| part.is("faulty")) {
        clear(host, &now)?;
        let device = &now.state.device;
        if let Err(e) = host.runner().run(&re_add(device, &exchange.new)) {
            tracing::info!("it cannot be brought up to date by the bitmap: {e}");
            host.runner().run(&add(device, &exchange.new))?;
        }
    }
    Ok(match follow(host, exchange, watch)? {
        Flow::Stop => ExchangeEnd::Stopped,
        Flow::Continue => ExchangeEnd::Done { unreadable: 0 },
    })
}

/// Takes out of the array what failed, and what is gone.
fn clear(host: &Host, array: &Array) -> Result<(), BackendError> {
    for device in &array.devices {
        if device.is("faulty") || !device.is_there(host)? {
            take_out(host, array, device)?;
        }
    }
    Ok(())
}

fn take_out(host: &Host, array: &Array, device: &Device) -> Result<(), BackendError> {
    // A device that is gone has no node by which it could be named.
    let name = if device.is_there(host)? { device.path().into_os_string() } else { "detached".into() };
    if !device.is("faulty") {
        host.runner().run(&manage(&array.state.device).arg("--fail").arg(&name))?;
    }
    patiently(host, &manage(&array.state.device).arg("--remove").arg(&name))
}

/// The kernel lets go of a device a moment after it failed.
fn patiently(host: &Host, cmd: &Cmd) -> Result<(), BackendError> {
    let mut tries = 1;
    loop {
        match host.runner().run(cmd) {
            Ok(_) => return Ok(()),
            Err(_) if tries < TRIES => {
                tries += 1;
                thread::sleep(TICK);
            }
            Err(e) => return Err(e.into()),
        }
    }
}

fn follow(
    host: &Host,
    exchange: &Exchange,
    watch: &mut Watcher<'_, ExchangeProgress>,
) -> Result<Flow, BackendError> {
    let (mut idle, mut total) = (0, Bytes(0));
    loop {
        if is_exchanged(host, exchange)? {
            return Ok(Flow::Continue);
        }
        let now = array(host, &exchange.uuid)?;
        let state = |why: &str| BackendError::State(format!("{} {why}", exchange.new.display()));
        let new = part(host, &now, &exchange.new).ok_or_else(|| state("was taken out of the array"))?;
        if new.is("faulty") {
            return Err(state("failed while it was filled"));
        }
        idle = if now.state.action.is_some() { 0 } else { idle + 1 };
        if idle > IDLE {
            return Err(state("is not being filled: the kernel does not begin"));
        }
        let progress = now.state.progress.filter(|_| now.state.is_catching_up());
        total = progress.map_or(total, |p| p.total);
        if watch(&ExchangeProgress { copied: progress.map(|p| p.done), total }) == Flow::Stop {
            return Ok(Flow::Stop);
        }
        thread::sleep(TICK);
    }
}

/// Takes the new device out again, where it does not serve yet, with what that left on it.
pub(super) fn give_up(host: &Host, exchange: &Exchange) -> Result<(), BackendError> {
    if let Some(now) = Array::find(host, &exchange.uuid)?.filter(|array| array.state.runs()) {
        if let Some(new) = part(host, &now, &exchange.new) {
            if new.serves() {
                return stays(&now, new, exchange);
            }
            take_out(host, &now, new)?;
        }
    }
    // A device that is gone has nothing on it that could be erased.
    if host.path(&exchange.new).exists() && superblock(host, &exchange.new, &exchange.uuid)?.is_some() {
        host.runner().run(&zero(&exchange.new))?;
    }
    Ok(())
}

/// A device that serves is not taken out: what it holds may be the only other copy. At another place than its own it is another member.
fn stays(array: &Array, new: &Device, exchange: &Exchange) -> Result<(), BackendError> {
    let place = new.slot.map(number_of).filter(|place| *place != exchange.id);
    place.map_or(Ok(()), |place| {
        let (path, array) = (exchange.new.display(), array.state.device.display());
        Err(BackendError::State(format!(
            "{path} serves as member {place}, and not as member {}, since the kernel fills the first empty place. To take it out: mdadm \
             --manage {array} --fail {path}; mdadm --manage {array} --remove {path}; then run the same command again",
            exchange.id
        )))
    })
}

/// What still says on the old device that it is a member, once it is out of the array.
pub(super) fn retire(host: &Host, exchange: &Exchange, old: &Path) -> Vec<Cmd> {
    if *old == *exchange.new {
        return Vec::new();
    }
    let in_use = Array::find(host, &exchange.uuid);
    let in_use = in_use.is_ok_and(|array| array.is_some_and(|array| part(host, &array, old).is_some()));
    // One that was exchanged because it fails, or is gone, may have nothing more to say.
    match superblock(host, old, &exchange.uuid) {
        Ok(Some(_)) if !in_use => vec![zero(old)],
        _ => Vec::new(),
    }
}

/// What lies on which member. Every member of a raid1 holds all; a raid10 of four in two pairs, each with a half.
pub(super) fn layout(sb: &Superblock) -> Layout {
    let disks = u64::from(sb.raid_disks);
    let places = |slots: std::ops::Range<u64>| slots.map(|slot| (number_of(slot), sb.data_offset)).collect();
    let piece = |start, slots: std::ops::Range<u64>| Piece {
        start,
        parts: 1,
        kind: if sb.level == 1 { "raid1" } else { "raid10" }.to_owned(),
        length: Bytes(sb.size),
        survives: usize::try_from(slots.end - slots.start).unwrap_or(1).saturating_sub(1),
        places: places(slots),
    };
    let pieces = if sb.level == 1 {
        vec![piece(0, 0..disks)]
    } else {
        (0..disks / 2).map(|pair| piece(pair * sb.size, pair * 2..pair * 2 + 2)).collect()
    };
    let needed = Bytes(sb.data_offset.saturating_add(sb.size));
    Layout { members: (0..disks).map(|slot| (number_of(slot), needed)).collect(), pieces }
}
