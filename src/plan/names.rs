//! A boot, or a cable that was out, may have named the disks anew: a plan that is taken up again finds them by what they are.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Error, Value};

use super::Plan;
use crate::{
    host::partition::node_of,
    model::{Device, Identity, Inventory},
};

/// The partitions of a disk whose names follow it: as many as a GPT has by default (UEFI 2.10, 5.3.1).
const PARTITIONS: u32 = 128;

/// What the operator typed stays as it was typed: by that the same command is known again.
const TYPED: &str = "asked";

/// A disk with its name of now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renamed {
    /// What it was called when the plan was made.
    pub was: PathBuf,
    /// What it is called now.
    pub is: PathBuf,
}

impl<S: Serialize + DeserializeOwned> Plan<S> {
    /// Keeps with the plan what the disks are that it names, themselves or by a partition, as far as anything tells them from others.
    #[must_use]
    pub fn naming(mut self, machine: &Inventory) -> Self {
        let is_known = |disk: &Identity| {
            disk.is_numbered() && machine.devices.iter().filter(|d| d.identity().is_same(disk)).count() == 1
        };
        // A path that is no text is refused where the journal is begun.
        let steps = serde_json::to_value(&self.steps).unwrap_or_default();
        let mut found = Vec::new();
        strings(&steps, &mut |text| {
            let disks = machine.by_path(Path::new(text)).into_iter().flat_map(|d| machine.disks_of(d));
            found.extend(disks.map(Device::identity).filter(is_known));
        });
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found.dedup();
        self.devices = found;
        self
    }

    /// The plan with the names that its disks have now, and those that changed. A disk that is not found, or of which there are two, keeps
    /// its name: whoever erases looks at what is there.
    ///
    /// # Errors
    /// The plan cannot be written with them.
    pub fn follow(mut self, machine: &Inventory) -> Result<(Self, Vec<Renamed>), Error> {
        let now = |planned: &Identity| {
            let is = machine.elsewhere(planned)?.path.clone();
            Some(Renamed { was: planned.path.clone(), is })
        };
        let renamed: Vec<Renamed> = self.devices.iter().filter_map(now).collect();
        if renamed.is_empty() {
            return Ok((self, renamed));
        }
        let names = renamed.iter().flat_map(names).collect();
        self.steps = with(&self.steps, &names, machine)?;
        self.devices = with(&self.devices, &names, machine)?;
        Ok((self, renamed))
    }
}

/// Of a disk and its partitions, what they were called and what they are called.
fn names(disk: &Renamed) -> impl Iterator<Item = (String, PathBuf)> + '_ {
    let parts = (1..=PARTITIONS).map(|n| (node_of(&disk.was, n), node_of(&disk.is, n)));
    let all = [(disk.was.clone(), disk.is.clone())].into_iter().chain(parts);
    all.map(|(was, is)| (was.to_string_lossy().into_owned(), is))
}

fn strings(value: &Value, each: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => each(text),
        Value::Array(values) => values.iter().for_each(|v| strings(v, each)),
        Value::Object(fields) => fields.values().for_each(|v| strings(v, each)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The same with other names, all of them at once: two disks may have changed theirs with each other.
fn with<T: Serialize + DeserializeOwned>(
    what: &T,
    names: &BTreeMap<String, PathBuf>,
    machine: &Inventory,
) -> Result<T, Error> {
    let mut value = serde_json::to_value(what)?;
    rename(&mut value, names, machine)?;
    serde_json::from_value(value)
}

fn rename(value: &mut Value, names: &BTreeMap<String, PathBuf>, machine: &Inventory) -> Result<(), Error> {
    match value {
        Value::String(text) => {
            if let Some(is) = names.get(text) {
                *value = serde_json::to_value(is)?;
            }
        }
        Value::Array(values) => values.iter_mut().try_for_each(|v| rename(v, names, machine))?,
        Value::Object(fields) => {
            let is = fields.get("path").and_then(Value::as_str).and_then(|path| names.get(path));
            // An identity: its number is that of the name.
            if let (Some(number), Some(device)) =
                (fields.get_mut("dev").filter(|dev| dev.is_object()), is.and_then(|is| machine.by_path(is)))
            {
                *number = serde_json::to_value(device.dev)?;
            }
            let mut inner = fields.iter_mut().filter(|(key, _)| *key != TYPED);
            inner.try_for_each(|(_, v)| rename(v, names, machine))?;
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::model::{DevNo, inventory::sample};

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Named {
        device: Identity,
        parts: Vec<PathBuf>,
        says: String,
        asked: PathBuf,
    }

    fn disk(kname: &str, minor: u32, serial: Option<&str>) -> Device {
        Device { serial: serial.map(str::to_owned), ..sample(kname, minor, &[]) }
    }

    fn machine(devices: &[Device]) -> Inventory {
        Inventory { devices: devices.to_vec() }
    }

    fn plan(machine: &Inventory, steps: &[&str]) -> Plan<Named> {
        let step = |name: &&str| {
            let path = PathBuf::from(format!("/dev/{name}"));
            Named {
                device: machine.by_path(&path).unwrap().identity(),
                parts: vec![node_of(&path, 1), "/dev/disk/by-partuuid/x".into()],
                says: format!("erase {}", path.display()),
                asked: path,
            }
        };
        let steps = steps.iter().map(step).collect();
        Plan::new("setup", "lightning", jiff::Timestamp::UNIX_EPOCH, steps).naming(machine)
    }

    fn renamed(list: &[(&str, &str)]) -> Vec<Renamed> {
        let path = |name: &str| PathBuf::from(format!("/dev/{name}"));
        list.iter().map(|(was, is)| Renamed { was: path(was), is: path(is) }).collect()
    }

    #[test]
    fn two_disks_that_changed_names_are_each_found() {
        let before = machine(&[disk("sdb", 16, Some("one")), disk("sdc", 32, Some("two"))]);
        let after = machine(&[disk("sdb", 16, Some("two")), disk("sdc", 32, Some("one"))]);
        let (plan, list) = plan(&before, &["sdb", "sdc"]).follow(&after).unwrap();
        assert_eq!(list, renamed(&[("sdb", "sdc"), ("sdc", "sdb")]));
        let [first, second] = &plan.steps[..] else { panic!("{plan:?}") };
        assert_eq!(first.device, after.devices[1].identity());
        assert_eq!(first.device.dev, Some(DevNo { major: 8, minor: 32 }));
        assert_eq!(first.parts, [Path::new("/dev/sdc1"), Path::new("/dev/disk/by-partuuid/x")]);
        assert_eq!(first.asked, Path::new("/dev/sdb"), "as it was typed");
        assert_eq!(second.device, after.devices[0].identity());
        assert_eq!(second.parts[0], Path::new("/dev/sdb1"));
        assert_eq!(plan.devices, [after.devices[1].identity(), after.devices[0].identity()]);
    }

    #[test]
    fn partitions_are_named_as_their_disk_has_it() {
        let before = machine(&[disk("sdb", 16, Some("one"))]);
        let after = machine(&[disk("nvme0n1", 0, Some("one"))]);
        let (plan, _) = plan(&before, &["sdb"]).follow(&after).unwrap();
        assert_eq!(plan.steps[0].parts[0], Path::new("/dev/nvme0n1p1"));
    }

    #[test]
    fn a_partition_brings_its_disk_with_it() {
        let mut part = sample("sdb1", 17, &["sdb"]);
        part.partuuid = Some("x".to_owned());
        let before = machine(&[disk("sdb", 16, Some("one")), part.clone()]);
        let plan = plan(&before, &["sdb1"]);
        assert_eq!(plan.devices, [before.devices[0].identity()]);
        let moved = Device { path: "/dev/sdd1".into(), dev: DevNo { major: 8, minor: 49 }, ..part };
        let after = machine(&[disk("sdd", 48, Some("one")), moved.clone()]);
        let (plan, _) = plan.follow(&after).unwrap();
        assert_eq!(plan.steps[0].device, moved.identity());
    }

    #[test]
    fn what_cannot_be_told_apart_keeps_its_name() {
        let twins = [disk("sdb", 16, Some("one")), disk("sdc", 32, Some("one"))];
        let nameless = [disk("sdb", 16, None)];
        let gone = [disk("sdb", 16, Some("one"))];
        let other = disk("sdd", 48, Some("one"));
        for (before, after) in [
            // One of two with the same number is away: the other one is not it.
            (&twins[..], &[twins[1].clone()][..]),
            (&nameless[..], &[disk("sdc", 32, None)][..]),
            (&gone[..], &[disk("sdb", 16, Some("two"))][..]),
            // It is where it was, and another one says the same of itself.
            (&gone[..], &[gone[0].clone(), other.clone()][..]),
            (&gone[..], &[twins[1].clone(), other][..]),
        ] {
            let plan = plan(&machine(before), &["sdb"]);
            let named: Vec<_> = before.iter().map(|d| d.kname.as_str()).collect();
            let (followed, list) = plan.clone().follow(&machine(after)).unwrap();
            assert_eq!((followed, list), (plan, Vec::new()), "{named:?}");
        }
    }
}
