//! Disks that can be pulled and put back. What they are backed by outlives them.

use std::{fs::File, path::PathBuf};

use serde_json::json;

use crate::machine::Machine;

/// What a disk hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bus {
    Scsi,
    Usb,
}

pub(crate) struct Disk {
    pub(crate) serial: String,
    pub(crate) image: PathBuf,
    bus: Bus,
    pub(crate) attached: bool,
    read_only: bool,
}

impl Disk {
    /// What the guest calls it, as long as it is there.
    pub(crate) fn path(&self) -> String {
        match self.bus {
            Bus::Scsi => format!("/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_{}", self.serial),
            Bus::Usb => format!("/dev/disk/by-id/usb-QEMU_QEMU_HARDDISK_{}-0:0", self.serial),
        }
    }
}

impl Machine {
    /// A new, empty disk, attached; its path in the guest.
    pub(crate) fn new_disk(&mut self, serial: &str, bus: Bus, size: u64) -> String {
        let image = self.path(serial);
        File::create(&image).unwrap().set_len(size).unwrap();
        self.disks.push(Disk { serial: serial.to_owned(), image, bus, attached: false, read_only: false });
        self.attach(serial)
    }

    fn number(&self, serial: &str) -> usize {
        self.disks.iter().position(|d| d.serial == serial).unwrap()
    }

    /// What the guest calls a disk.
    pub(crate) fn device(&self, serial: &str) -> String {
        self.disks[self.number(serial)].path()
    }

    /// Tells QEMU of it.
    pub(crate) fn plug(&mut self, at: usize) {
        let Disk { serial, image, bus, read_only, .. } = &self.disks[at];
        let (id, image) = (format!("disk-{serial}"), image.display().to_string());
        let driver = match bus {
            Bus::Scsi => json!({"driver": "scsi-hd", "bus": "scsi.0"}),
            Bus::Usb => json!({"driver": "usb-storage", "bus": "usb.0"}),
        };
        let mut device = json!({"id": id, "drive": id, "serial": serial, "share-rw": true});
        driver.as_object().unwrap().iter().for_each(|(k, v)| device[k] = v.clone());
        // The host outlives every cut, so nothing has to be on its disk; what the guest has written is with the host at once.
        let node = json!({"node-name": id, "driver": "raw", "read-only": read_only, "discard": "unmap",
            "file": {"driver": "file", "filename": image, "cache": {"no-flush": true}}});
        let nodes = self.monitor().ask("query-named-block-nodes", json!({"flat": true}));
        if !nodes.as_array().unwrap().iter().any(|n| n["node-name"] == id) {
            self.monitor().ask("blockdev-add", node);
        }
        self.monitor().ask("device_add", device);
    }

    /// Plugs it in and waits until udev has named it.
    pub(crate) fn attach(&mut self, serial: &str) -> String {
        let at = self.number(serial);
        self.plug(at);
        self.disks[at].attached = true;
        let path = self.disks[at].path();
        self.ok(&format!("udevadm wait --timeout=300 --settle '{path}'"));
        path
    }

    /// Waits until udev has named every disk that is attached.
    pub(crate) fn settle(&mut self) {
        let attached = self.disks.iter().filter(|d| d.attached);
        let paths: Vec<_> = attached.map(|d| format!("'{}'", d.path())).collect();
        self.ok(&format!("udevadm wait --timeout=300 --settle {}", paths.join(" ")));
    }

    /// Pulls it.
    pub(crate) fn pull(&mut self, serial: &str) {
        let at = self.number(serial);
        let id = format!("disk-{serial}");
        self.monitor().ask("device_del", json!({"id": id}));
        self.monitor().wait_for("DEVICE_DELETED", "device", &id);
        self.disks[at].attached = false;
    }

    /// Pulls it, or puts it back, while the machine is off.
    pub(crate) fn set_attached(&mut self, serial: &str, attached: bool) {
        let at = self.number(serial);
        self.disks[at].attached = attached;
    }

    /// What is on it, as a hash.
    pub(crate) fn hash(&self, serial: &str) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut file = File::open(&self.disks[self.number(serial)].image).unwrap();
        std::io::copy(&mut file, &mut hasher).unwrap();
        hasher.finalize().to_hex().to_string()
    }

    /// Unpacks the programs from a disk that is there for as long as that takes.
    pub(crate) fn install(&mut self) {
        let image = crate::ready::programs().to_owned();
        let serial = "programs".to_owned();
        self.disks.push(Disk { serial, image, bus: Bus::Scsi, attached: false, read_only: true });
        let path = self.attach("programs");
        self.ok(&format!("tar -xf '{path}' -C / --no-overwrite-dir && sync -f /usr/local"));
        self.pull("programs");
        self.disks.pop();
    }
}
