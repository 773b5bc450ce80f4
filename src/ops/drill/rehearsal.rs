//! What is rehearsed: as much of the operator's own declaration as means nothing on this machine. Pure.

use crate::{
    config::Config,
    model::{BackendKind, Level, NodeKind, Scheduler},
};

/// What is said where the mirror is an array.
pub(super) const OF_ARRAYS: &str = "Yours is an array of md, and it is rehearsed with btrfs, by the same commands: the kernel, udev and mdadm \
    of this machine would see and keep an array that is made to be thrown away.";
/// Why a drill of a pool is one of btrfs.
pub(super) const OF_POOLS: &str = "Yours is a pool of ZFS, and it is rehearsed with btrfs at a level that survives as much, by the same commands: \
    this machine's own ZFS would see and keep a pool that is made to be thrown away.";

/// The terms of a drill. No path, device, UUID, unit, user or channel of the machine is among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rehearsal {
    /// The mirror's name.
    pub(super) name: String,
    /// Its level.
    pub(super) level: Level,
    /// What kind of node lives on it.
    pub(super) kind: NodeKind,
    /// Whether jobs are installed for cron; nothing else can run them in there.
    pub(super) cron: bool,
    /// Why it is one of btrfs, where the mirror is none.
    pub(super) instead: Option<&'static str>,
    /// Where these come from, for the operator.
    pub(super) says: String,
}

/// The terms for this declaration: those of the first mirror that holds a node, else of the first. `cron_runs`: a cron daemon is on
/// the machine; without one a check would rightly complain.
pub(super) fn rehearsal(config: &Config, cron_runs: bool) -> Rehearsal {
    let Some(mirror) = config.mirror.iter().find(|m| m.node.is_some()).or(config.mirror.first()) else {
        return Rehearsal {
            name: "lightning".to_owned(),
            level: Level::default(),
            kind: NodeKind::CoreLightning,
            cron: cron_runs,
            instead: None,
            says: "No mirror is declared here yet: it is the usual one, raid1 of two disks with a Core Lightning \
                   node."
                .to_owned(),
        };
    };
    let kind = mirror.node.as_ref().map_or(NodeKind::CoreLightning, |node| node.kind);
    let node = match kind {
        NodeKind::CoreLightning => "a Core Lightning node",
        NodeKind::Generic => "a directory of any kind",
    };
    let with = mirror.schedule.as_ref().map(|s| s.with);
    let jobs = match with {
        Some(Scheduler::Cron) if cron_runs => "its jobs in cron",
        Some(Scheduler::Cron) => "no jobs, because cron does not run",
        Some(Scheduler::Systemd) => "no jobs, because there is no systemd in there",
        None => "no jobs",
    };
    let instead = match mirror.backend {
        BackendKind::Btrfs => None,
        BackendKind::Mdadm => Some(OF_ARRAYS),
        BackendKind::Zfs => Some(OF_POOLS),
    };
    Rehearsal {
        name: mirror.name.clone(),
        level: match (mirror.backend, mirror.level.survives()) {
            (BackendKind::Zfs, 1) => Level::Raid1,
            (BackendKind::Zfs, _) => Level::Raid1c3,
            _ => mirror.level,
        },
        kind,
        cron: cron_runs && with == Some(Scheduler::Cron),
        instead,
        says: format!(
            "As your mirror `{}` is declared: {} of {}, {node}, {jobs}. Nothing else is taken from it.{}",
            mirror.name,
            mirror.level,
            mirror.level.min_members(),
            instead.map_or_else(String::new, |why| format!(" {why}"))
        ),
    }
}

impl Rehearsal {
    /// How many disks the mirror is made of. One more stands by.
    pub(super) fn members(&self) -> usize {
        self.level.min_members()
    }

    /// The database that the node works on, within its directory.
    pub(super) fn database(&self) -> &'static str {
        match self.kind {
            NodeKind::CoreLightning => "bitcoin/lightningd.sqlite3",
            NodeKind::Generic => "store.sqlite3",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::ScheduleConfig, health::samples};

    fn of(change: impl Fn(&mut Config), cron_runs: bool) -> Rehearsal {
        let mut config = Config { mirror: vec![samples::declared()], notify: None };
        config.mirror[0].name = "vault".into();
        change(&mut config);
        rehearsal(&config, cron_runs)
    }

    #[test]
    fn name_level_kind_and_cron_are_the_operators() {
        let taken = of(
            |c| {
                c.mirror[0].level = Level::Raid1c3;
                c.mirror[0].node.as_mut().unwrap().kind = NodeKind::Generic;
            },
            true,
        );
        assert_eq!(
            (taken.name.as_str(), taken.level, taken.kind),
            ("vault", Level::Raid1c3, NodeKind::Generic)
        );
        assert!(taken.cron);
        assert_eq!((taken.members(), taken.database()), (3, "store.sqlite3"));
        assert_eq!(
            taken.says,
            "As your mirror `vault` is declared: raid1c3 of 3, a directory of any kind, its jobs in cron. Nothing else is taken from it."
        );
    }

    #[test]
    fn nothing_that_lies_on_the_machine_is_taken() {
        let mirror = samples::declared();
        let said = format!("{:?}", of(|_| {}, true));
        let node = mirror.node.unwrap();
        let mut own = vec![mirror.uuid, mirror.mountpoint.display().to_string()];
        own.extend(mirror.member.iter().flat_map(|m| [m.uuid.clone(), m.serial.clone().unwrap()]));
        own.extend([node.directory, node.data].map(|path| path.display().to_string()));
        own.extend([node.unit, node.user].into_iter().flatten());
        for word in own {
            assert!(!said.contains(&word), "{word} is in {said}");
        }
    }

    #[test]
    fn jobs_only_where_something_like_cron_could_run_them() {
        let systemd = |c: &mut Config| {
            c.mirror[0].schedule =
                Some(ScheduleConfig::standard(Scheduler::Systemd, BackendKind::Btrfs).unwrap());
        };
        assert!(!of(systemd, true).cron);
        assert!(!of(|_| {}, false).cron);
        assert!(!of(|c| c.mirror[0].schedule = None, true).cron);
    }

    #[test]
    fn an_array_is_rehearsed_with_btrfs_and_that_is_said() {
        let array = |c: &mut Config| {
            (c.mirror[0].backend, c.mirror[0].level) = (BackendKind::Mdadm, Level::Raid10);
        };
        let taken = of(array, true);
        assert!(taken.instead == Some(OF_ARRAYS) && taken.says.ends_with(OF_ARRAYS), "{}", taken.says);
        assert_eq!((taken.level, taken.members()), (Level::Raid10, 4));
        assert_eq!(of(|_| {}, true).instead, None);
        for (level, rehearsed) in
            [(Level::Mirror, Level::Raid1), (Level::Raidz1, Level::Raid1), (Level::Raidz2, Level::Raid1c3)]
        {
            let pool = of(|c| (c.mirror[0].backend, c.mirror[0].level) = (BackendKind::Zfs, level), true);
            assert_eq!((pool.level, pool.instead), (rehearsed, Some(OF_POOLS)));
        }
    }

    #[test]
    fn the_mirror_with_the_node_is_the_one() {
        let mut other = samples::declared();
        (other.name, other.node) = ("photos".into(), None);
        let taken = of(|c| c.mirror.insert(0, other.clone()), true);
        assert_eq!(taken.name, "vault");
        assert_eq!(of(|c| c.mirror = vec![other.clone()], true).name, "photos");
    }

    #[test]
    fn without_a_declaration_it_is_the_usual() {
        let usual = rehearsal(&Config::default(), false);
        assert_eq!((usual.name.as_str(), usual.level, usual.cron), ("lightning", Level::Raid1, false));
        assert_eq!(usual.database(), "bitcoin/lightningd.sqlite3");
    }
}
