//! Disks that can be pulled and put back, that forget what was not flushed, that have bad sectors. What they are backed by outlives them.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{cache, machine::Machine};

/// What a disk hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Bus {
    Scsi,
    /// The same, with sectors of 4096 bytes.
    Scsi4Kn,
    Usb,
}

/// What a disk does wrong.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Each read that touches one of these places, in bytes, fails.
    Reads(Vec<u64>),
    /// Each write fails.
    Writes,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Disk {
    pub(crate) serial: String,
    pub(crate) image: PathBuf,
    bus: Bus,
    /// The SCSI target, or the USB port.
    port: u32,
    pub(crate) attached: bool,
    read_only: bool,
    /// Everything that is written to it is also kept in the order in which it came.
    logged: bool,
}

impl Disk {
    /// What the guest calls it, as long as it is there.
    pub(crate) fn path(&self) -> String {
        match self.bus {
            Bus::Scsi | Bus::Scsi4Kn => format!("/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_{}", self.serial),
            Bus::Usb => format!("/dev/disk/by-id/usb-QEMU_QEMU_HARDDISK_{}-0:0", self.serial),
        }
    }

    fn id(&self) -> String {
        format!("disk-{}", self.serial)
    }

    fn file(&self) -> String {
        format!("file-{}", self.serial)
    }

    /// Where what is written to it is kept.
    fn log(&self) -> PathBuf {
        self.image.with_extension("log")
    }

    /// The disk as QEMU's nodes, the lowest first. The host outlives every cut, so nothing has to be on its disk; what the guest has
    /// written is with the host at once.
    pub(crate) fn nodes(&self) -> Vec<Value> {
        let file = |name: &str, path: &Path| json!({"node-name": name, "driver": "file", "filename": path.display().to_string(), "cache": {"no-flush": true}});
        let mut nodes = vec![file(&self.file(), &self.image)];
        let mut below = self.file();
        if self.logged {
            let (log, logged) = (format!("log-{}", self.serial), format!("logged-{}", self.serial));
            nodes.push(file(&log, &self.log()));
            nodes.push(json!({"node-name": logged, "driver": "blklogwrites", "file": below, "log": log, "log-sector-size": 512}));
            below = logged;
        }
        nodes.push(self.top(&below));
        nodes
    }

    /// What the guest's disk is, above a node.
    fn top(&self, below: &str) -> Value {
        json!({"node-name": self.id(), "driver": "raw", "read-only": self.read_only, "discard": "unmap", "file": below})
    }

    /// The disk as QEMU's device.
    pub(crate) fn hardware(&self) -> Value {
        let mut device =
            json!({"id": self.id(), "drive": self.id(), "serial": self.serial, "share-rw": true});
        let more = match self.bus {
            Bus::Scsi => json!({"driver": "scsi-hd", "bus": "scsi.0", "scsi-id": self.port}),
            Bus::Scsi4Kn => json!({
                "driver": "scsi-hd", "bus": "scsi.0", "scsi-id": self.port,
                "logical_block_size": 4096, "physical_block_size": 4096
            }),
            Bus::Usb => json!({"driver": "usb-storage", "bus": "usb.0", "port": self.port.to_string()}),
        };
        more.as_object().unwrap().iter().for_each(|(k, v)| device[k] = v.clone());
        device
    }

    /// Notes which disks a kept machine has.
    pub(crate) fn keep(disks: &[Self], place: &Path) {
        fs::write(place.join("disks.json"), serde_json::to_string(disks).unwrap()).unwrap();
    }

    /// The disks of a kept machine, as they are named in `dir`.
    pub(crate) fn kept(place: &Path, dir: &Path) -> Vec<Self> {
        let text = fs::read_to_string(place.join("disks.json")).unwrap();
        let mut disks: Vec<Self> = serde_json::from_str(&text).unwrap();
        for disk in &mut disks {
            disk.image = dir.join(&disk.serial);
        }
        disks
    }
}

impl Machine {
    /// A new, empty disk, attached; its path in the guest.
    pub(crate) fn new_disk(&mut self, serial: &str, bus: Bus, size: u64) -> String {
        let image = self.path(serial);
        File::create(&image).unwrap().set_len(size).unwrap();
        self.add(serial, bus, image, false);
        self.attach(serial)
    }

    /// A disk that has been written to elsewhere, attached.
    pub(crate) fn add_disk(&mut self, serial: &str, bus: Bus, image: &Path) -> String {
        self.add(serial, bus, image.to_owned(), false);
        self.attach(serial)
    }

    fn add(&mut self, serial: &str, bus: Bus, image: PathBuf, read_only: bool) {
        let port = self.free_port(bus);
        let serial = serial.to_owned();
        self.disks.push(Disk { serial, image, bus, port, attached: false, read_only, logged: false });
    }

    fn free_port(&self, bus: Bus) -> u32 {
        let taken = |port: &u32| self.disks.iter().any(|d| d.bus == bus && d.port == *port);
        (1..8).find(|port| !taken(port)).unwrap()
    }

    fn number(&self, serial: &str) -> usize {
        self.disks.iter().position(|d| d.serial == serial).unwrap()
    }

    pub(crate) fn disk(&self, serial: &str) -> &Disk {
        &self.disks[self.number(serial)]
    }

    fn disk_mut(&mut self, serial: &str) -> &mut Disk {
        let at = self.number(serial);
        &mut self.disks[at]
    }

    /// What the guest calls a disk.
    pub(crate) fn device(&self, serial: &str) -> String {
        self.disk(serial).path()
    }

    /// Plugs it in and waits until udev has named it.
    pub(crate) fn attach(&mut self, serial: &str) -> String {
        let disk = self.disk_mut(serial);
        disk.attached = true;
        let (nodes, hardware, path) = (disk.nodes(), disk.hardware(), disk.path());
        let known = self.monitor().ask("query-named-block-nodes", json!({"flat": true}));
        for node in nodes {
            if !known.as_array().unwrap().iter().any(|n| n["node-name"] == node["node-name"]) {
                self.monitor().ask("blockdev-add", node);
            }
        }
        self.monitor().ask("device_add", hardware);
        self.ok(&format!("udevadm wait --timeout=300 --settle '{path}'"));
        path
    }

    /// Waits until udev has named every disk that is attached.
    pub(crate) fn settle(&mut self) {
        let attached = self.disks.iter().filter(|d| d.attached);
        let paths: Vec<_> = attached.map(|d| format!("'{}'", d.path())).collect();
        self.ok(&format!("udevadm wait --timeout=300 --settle {}", paths.join(" ")));
    }

    /// Pulls it, or has it be gone at the next boot.
    pub(crate) fn pull(&mut self, serial: &str) {
        let id = self.disk(serial).id();
        if self.is_running() {
            self.monitor().ask("device_del", json!({"id": id}));
            self.monitor().wait_for("DEVICE_DELETED", "device", &id);
        }
        self.disk_mut(serial).attached = false;
    }

    /// Forgets a disk that is pulled.
    pub(crate) fn forget(&mut self, serial: &str) {
        let at = self.number(serial);
        let disk = self.disks.remove(at);
        assert!(!disk.attached, "{serial} is attached");
        for node in disk.nodes().iter().rev() {
            self.monitor().ask("blockdev-del", json!({"node-name": node["node-name"]}));
        }
    }

    /// Puts it, while it is pulled, where it was not before: it comes back under another name.
    pub(crate) fn move_to_another_port(&mut self, serial: &str) {
        let port = self.free_port(self.disk(serial).bus);
        self.disk_mut(serial).port = port;
    }

    /// Pulls it, or puts it back, while the machine is off.
    pub(crate) fn set_attached(&mut self, serial: &str, attached: bool) {
        self.disk_mut(serial).attached = attached;
    }

    /// From the next start on, everything that is written to it is also kept in order.
    pub(crate) fn log_writes(&mut self, serial: &str) {
        let disk = self.disk_mut(serial);
        disk.logged = true;
        File::create(disk.log()).unwrap();
    }

    /// How much of what is written to it has been kept so far, in bytes.
    pub(crate) fn logged(&self, serial: &str) -> u64 {
        fs::metadata(self.disk(serial).log()).unwrap().len()
    }

    /// What is on it if the power is cut when so much of the log was there. `base` is what was on it before the first of its writes.
    /// What was not flushed by then is lost, or not, as `is_lost` says of each write. False: this instant cannot be told.
    pub(crate) fn as_of(
        &self,
        serial: &str,
        base: &Path,
        logged: u64,
        to: &Path,
        is_lost: impl FnMut() -> bool,
    ) -> bool {
        cache::replay(&self.disk(serial).log(), logged, base, to, is_lost)
    }

    /// From now on the disk has this fault, or none.
    pub(crate) fn set_fault(&mut self, serial: &str, fault: Option<Fault>) {
        let disk = self.disk(serial);
        assert!(!disk.logged, "a disk that is logged has its own nodes");
        let (file, bad) = (disk.file(), format!("bad-{serial}"));
        let below = if fault.is_some() { &bad } else { &file };
        let top = disk.top(below);
        let rule = |event: &str, kind: &str, sector: Option<u64>| {
            let mut rule = json!({"event": event, "iotype": kind, "errno": 5, "once": false});
            if let Some(sector) = sector {
                rule["sector"] = json!(sector);
            }
            rule
        };
        let rules = match &fault {
            None => Vec::new(),
            Some(Fault::Reads(places)) => {
                places.iter().map(|at| rule("read_aio", "read", Some(at / 512))).collect()
            }
            Some(Fault::Writes) => vec![rule("write_aio", "write", None)],
        };
        if fault.is_some() {
            let node = json!({"node-name": bad, "driver": "blkdebug", "image": file, "inject-error": rules});
            self.monitor().ask("blockdev-add", node);
        }
        self.monitor().ask("blockdev-reopen", json!({"options": [top]}));
        if fault.is_none() {
            self.monitor().ask("blockdev-del", json!({"node-name": bad}));
        }
    }

    /// What is on it, as a hash.
    pub(crate) fn hash(&self, serial: &str) -> String {
        hash(&self.disk(serial).image)
    }

    /// Unpacks the programs from a disk that is there for as long as that takes.
    pub(crate) fn install(&mut self) {
        self.add("programs", Bus::Scsi, crate::ready::programs().to_owned(), true);
        let path = self.attach("programs");
        self.ok(&format!("tar -xf '{path}' -C / --no-overwrite-dir && sync -f /usr/local"));
        self.pull("programs");
        self.forget("programs");
    }
}

/// The hash of a file.
pub(crate) fn hash(file: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    std::io::copy(&mut File::open(file).unwrap(), &mut hasher).unwrap();
    hasher.finalize().to_hex().to_string()
}
