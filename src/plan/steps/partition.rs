//! A new partition in the free space of a disk.

use std::{
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::run;
use crate::{
    exec::Cmd,
    host::{
        Host,
        partition::{self, Slot, Table, node_of},
        schedule::has_udev,
    },
    model::Identity,
    plan::{Context, Outcome, Probe, Step, StepError},
};

/// How often and how long the device node and its name are waited for: udev, where it runs, makes them a moment after the kernel knows it.
const LOOKS: u32 = 100;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// Where each look is a command, they come further and further apart, up to this.
const LONGEST: Duration = Duration::from_secs(1);

/// Makes a partition. Its place, number and UUID were chosen beforehand, so that it can be known again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakePartition {
    /// The disk.
    pub disk: Identity,
    /// Where on it.
    pub slot: Slot,
    /// The disk is empty and gets its table too.
    pub fresh: bool,
    /// The partition's own UUID, in lower case.
    pub uuid: String,
    /// The partition's name.
    pub name: String,
}

fn reading(e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StepError {
    StepError::failed("the disk's partitions cannot be read", e)
}

impl MakePartition {
    fn path(&self) -> PathBuf {
        node_of(&self.disk.path, self.slot.number)
    }

    /// Has it a device node, and where udev runs the name that stays?
    fn is_named(&self, host: &Host) -> bool {
        let link = Path::new("/dev/disk/by-partuuid").join(&self.uuid);
        host.path(self.path()).exists() && (!has_udev(host) || host.path(link).exists())
    }

    fn table(&self, host: &Host) -> Result<Option<Table>, StepError> {
        partition::read(host, &self.disk.path).map_err(reading)
    }

    /// Is the partition in the table, as it was planned?
    fn is_in(&self, table: Option<&Table>) -> Result<bool, String> {
        let Some(found) = table.and_then(|t| t.by_uuid(&self.uuid)) else { return Ok(false) };
        let at = (found.number, found.start, found.sectors);
        if at == (self.slot.number, self.slot.start, self.slot.sectors) {
            Ok(true)
        } else {
            Err(format!(
                "the partition {} on {} is not as it was planned",
                self.uuid,
                self.disk.path.display()
            ))
        }
    }

    /// Has the kernel forget it. udev looks at a partition whenever what was on it has changed, and the kernel forgets none that is open.
    /// Whoever asked to stop wants just this put back, so it is waited for all the same.
    fn forget(&self, host: &Host) -> Result<(), StepError> {
        let cmd = partition::forget_command(&self.disk.path, &self.slot);
        let (mut waited, mut pause) = (Duration::ZERO, BETWEEN_LOOKS);
        while waited < BETWEEN_LOOKS * LOOKS {
            match host.runner().run(&cmd) {
                Ok(_) => return Ok(()),
                Err(e) => tracing::debug!("{e}; it is tried again"),
            }
            thread::sleep(pause);
            waited += pause;
            pause = (pause * 2).min(LONGEST);
        }
        run(host, &cmd).map(drop)
    }

    fn make(&self) -> Cmd {
        partition::make_command(&self.disk.path, &self.slot, self.fresh, &self.uuid, &self.name)
    }
}

impl Step for MakePartition {
    fn says(&self) -> String {
        let table = if self.fresh { ", with a new GPT" } else { "" };
        format!(
            "make the partition {} of {} in the free space of {}{table}",
            self.path().display(),
            self.slot.size(),
            self.disk.path.display()
        )
    }

    fn commands(&self) -> Vec<String> {
        vec![self.make().line(), partition::tell_command(&self.disk.path, &self.slot).line()]
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        Ok(match self.is_in(self.table(host)?.as_ref()) {
            Err(why) => Probe::Blocked(why),
            Ok(true)
                if partition::is_known(host, &self.disk.path, &self.slot).map_err(reading)?
                    && self.is_named(host) =>
            {
                Probe::Done
            }
            Ok(_) => Probe::Pending,
        })
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        let table = self.table(cx.host)?;
        if !self.is_in(table.as_ref()).map_err(StepError::refused)? {
            let free = table
                .as_ref()
                .map_or(self.fresh, |t| t.has_free(&self.slot) && (!self.fresh || t.partitions.is_empty()));
            if !free {
                return Err(StepError::refused(format!(
                    "the partition table of {} has changed since the plan was made",
                    self.disk.path.display()
                ))
                .hint("put back what was begun with --rollback, and plan anew"));
            }
            run(cx.host, &self.make())?;
        }
        run(cx.host, &partition::tell_command(&self.disk.path, &self.slot))?;
        for _ in 0..LOOKS {
            if self.is_named(cx.host) {
                break;
            }
            thread::sleep(BETWEEN_LOOKS);
        }
        Ok(Outcome::default())
    }

    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        if !cx.host.path(&self.disk.path).exists() {
            // Whoever plugs it in again finds the partition, and can erase it.
            tracing::warn!("{} is gone, with the partition on it", self.disk.path.display());
            return Ok(());
        }
        let table = self.table(cx.host)?;
        let last = table.as_ref().is_some_and(|t| t.partitions.iter().all(|p| p.uuid == self.uuid));
        let there = self.is_in(table.as_ref()).map_err(StepError::refused)?;
        let known = partition::is_known(cx.host, &self.disk.path, &self.slot).map_err(reading)?;
        let disk = &self.disk.path;
        if known && there {
            self.forget(cx.host)?;
        }
        if there {
            run(cx.host, &partition::delete_command(disk, &self.slot))?;
        }
        if self.fresh && last {
            run(cx.host, &partition::erase_table_command(disk))?;
        }
        Ok(())
    }

    fn erases(&self) -> &[Identity] {
        std::slice::from_ref(&self.disk)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        exec::{Reply, ScriptedRunner},
        health::samples,
        model::inventory::sample,
    };

    /// udev holds it for a moment, and somebody has pressed Ctrl-C, which is why it is put back.
    #[test]
    fn who_asked_to_stop_still_has_the_partition_put_back() {
        let runner = Arc::new(ScriptedRunner::new().on("partx", Reply::ok("")).fail_at(0).fail_at(1));
        let dir = tempfile::tempdir().unwrap();
        let host = Host::captured(dir.path(), Arc::clone(&runner) as _, samples::now());
        host.interrupt().raise();
        let step = MakePartition {
            disk: sample("sdd", 48, &[]).identity(),
            slot: Slot { number: 1, start: 2048, sectors: 2048, sector: 512 },
            fresh: true,
            uuid: "uuid".into(),
            name: "lightning".into(),
        };
        step.forget(&host).unwrap();
        assert_eq!(runner.calls().len(), 3);
    }
}
