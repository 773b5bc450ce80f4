//! The disks below the members: where they hang, and what they say of their health.

use std::collections::BTreeSet;

use crate::{
    health::case::Case,
    model::{
        Severity,
        observed::{DiskFacts, Smart, SmartFacts, SmartHealth},
    },
};

/// From these on a disk is too hot, in degrees Celsius: drives and sticks, and NVMe, which is made for more.
const HOT: i64 = 60;
const HOT_NVME: i64 = 75;
/// From this share of its life on, in percent, a disk should be exchanged.
const WORN: u64 = 90;
/// USB 3.0, in Mbit/s.
const USB3: u32 = 5000;
/// What the kernel waits for a command where nobody changed it, in seconds.
const KERNEL_TIMEOUT: u64 = 30;

pub(in crate::health) fn judge(case: &mut Case<'_>) {
    let disks = case.observed.disks.get().cloned().unwrap_or_default();
    together(case, &disks);
    for disk in &disks {
        if let Some((device, speed)) = disk.usb.as_ref().filter(|(_, speed)| *speed > 0 && *speed < USB3) {
            let says = format!("member {} hangs on a USB link of {speed} Mbit/s", disk.devid);
            let about = format!("member {}", disk.devid);
            case.add("DEV-USB-SLOW", Severity::Ok, about, says, vec![format!("USB device {device}")]);
        }
    }
    health(case, &disks);
}

/// The USB hub that a device hangs on; nothing where that is the machine's own root hub (`2-1` hangs on one, `2-1.4` on `2-1`).
fn hub(device: &str) -> Option<&str> {
    device.rsplit_once('.').map(|(hub, _)| hub)
}

fn together(case: &mut Case<'_>, disks: &[DiskFacts]) {
    for (index, one) in disks.iter().enumerate() {
        for two in disks.iter().skip(index + 1).filter(|two| two.devid != one.devid) {
            let shared: BTreeSet<_> = one.disks.iter().filter(|d| two.disks.contains(d)).cloned().collect();
            let both = format!("members {} and {}", one.devid, two.devid);
            let usb = |d: &DiskFacts| d.usb.as_ref().map(|(device, _)| device.clone());
            let words = [("DEVID", two.devid.to_string())];
            if !shared.is_empty() {
                let disk = shared.into_iter().collect::<Vec<_>>().join(", ");
                let says = format!("{both} lie on one disk: {disk}");
                case.add_with("MIR-SAME-DISK", Severity::Critical, both, says, Vec::new(), &words);
            } else if let (Some(a), Some(b)) = (usb(one), usb(two)) {
                if a == b {
                    let says = format!("{both} lie behind one USB bridge: {a}");
                    case.add_with("MIR-SAME-DISK", Severity::Critical, both, says, Vec::new(), &words);
                } else if let Some(hub) = hub(&a).filter(|h| hub(&b) == Some(*h)) {
                    let says = format!("{both} hang on one USB hub: {hub}");
                    case.add("MIR-SAME-HUB", Severity::Ok, both, says, Vec::new());
                }
            }
        }
    }
}

fn health(case: &mut Case<'_>, disks: &[DiskFacts]) {
    let answers = &case.observed.smart;
    let failing =
        answers.iter().filter(|s| matches!(s.smart.get(), Some(Smart::Health(h)) if is_failing(h))).count();
    // With as many disks failing as the level survives, one more failure loses data.
    let grave = failing > case.declared.survives();
    let mut no_tool = false;
    for answer in answers {
        let disk = &answer.disk;
        match answer.smart.get() {
            Some(Smart::Health(found)) => {
                let facts = disks.iter().find(|d| d.disks.contains(disk));
                judged(case, disk, found, facts, grave);
            }
            Some(Smart::Unsupported(why)) => {
                let says = format!("{disk} does not speak of its health");
                case.add("DEV-NO-SMART", Severity::Ok, disk, says, vec![why.clone()]);
            }
            Some(Smart::NoTool) => no_tool = true,
            Some(Smart::Asleep) | None => {}
        }
    }
    if no_tool {
        let says = "smartctl is not installed, so the disks' health cannot be asked";
        case.add("DEV-NO-SMARTCTL", Severity::Warning, "", says, Vec::new());
    }
}

/// The disk's own word, and the bits of NVMe's that mean an end: spare used up, unreliable, read-only (bits 0, 2, 3).
fn is_failing(found: &SmartHealth) -> bool {
    found.passed == Some(false) || found.critical_warning.is_some_and(|bits| bits & 0b1101 != 0)
}

/// By what the record keeps a disk's bad sectors: its serial number, since a boot may give its name to another one. The name only where it
/// tells none, or two tell the same.
pub fn kept_by<'a>(answers: &'a [SmartFacts], disk: &'a str) -> &'a str {
    let serial = |answer: &'a SmartFacts| match answer.smart.get() {
        Some(Smart::Health(found)) => found.serial.as_deref(),
        _ => None,
    };
    let own = answers.iter().find(|answer| answer.disk == disk).and_then(serial);
    let alone = |own: &&str| answers.iter().filter_map(serial).filter(|other| other == own).count() == 1;
    own.filter(alone).unwrap_or(disk)
}

fn judged(case: &mut Case<'_>, disk: &str, found: &SmartHealth, facts: Option<&DiskFacts>, grave: bool) {
    let mut words = vec![("DISK", disk.to_owned())];
    words.extend(facts.map(|f| ("DEVID", f.devid.to_string())));
    if is_failing(found) {
        let severity = if grave { Severity::Critical } else { Severity::Warning };
        let evidence = found.critical_warning.filter(|bits| *bits > 0);
        let evidence = evidence.map(|bits| format!("critical warning {bits:#04x}")).into_iter().collect();
        case.add_with(
            "DEV-FAILING",
            severity,
            disk,
            format!("{disk} says that it is failing"),
            evidence,
            &words,
        );
    }
    let bad = found.bad_sectors();
    let known = case.record.acknowledged_sectors.get(kept_by(&case.observed.smart, disk));
    let known = known.copied().unwrap_or(0);
    if bad > known {
        let named = [
            ("reallocated", found.reallocated),
            ("pending", found.pending),
            ("uncorrectable", found.uncorrectable),
        ];
        let evidence =
            named.into_iter().filter_map(|(name, n)| Some(format!("{} {name}", n.filter(|n| *n > 0)?)));
        let says = format!("{disk} has {} bad sectors more than were acknowledged", bad - known);
        case.add_with("DEV-SECTORS", Severity::Warning, disk, says, evidence.collect(), &words);
    }
    let limit = if disk.starts_with("nvme") { HOT_NVME } else { HOT };
    if let Some(degrees) = found.temperature.filter(|t| *t >= limit) {
        let says = format!("{disk} has {degrees} degrees Celsius");
        case.add_with("DEV-TEMPERATURE", Severity::Warning, disk, says, Vec::new(), &words);
    }
    if let Some(wear) = found.wear.filter(|w| *w >= WORN) {
        let says = format!("{wear} % of the life of {disk} is used up");
        case.add_with("DEV-WEAR", Severity::Warning, disk, says, Vec::new(), &words);
    }
    let Some(facts) = facts.filter(|f| f.rotational == Some(true) && found.ata != Some(false)) else {
        return;
    };
    let timeout = facts.timeout.unwrap_or(KERNEL_TIMEOUT);
    let tries = found.erc_read.filter(|tenths| *tenths > 0);
    // A disk without such a limit may try for two minutes and more.
    if tries.map_or(timeout < 120, |tenths| tenths / 10 >= timeout) {
        let limit = tries.map_or("no limit".to_owned(), |t| format!("a limit of {} s", t / 10));
        let evidence = vec![format!("the disk has {limit}, the kernel waits {timeout} s")];
        case.add_with(
            "DEV-ERC",
            Severity::Warning,
            disk,
            format!("{disk} tries longer than the kernel waits"),
            evidence,
            &words,
        );
    }
}
