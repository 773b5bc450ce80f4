//! The picture at one glance.

use std::fmt::Write as _;

use anstyle::Style;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    config::Mirror,
    model::{
        Bytes, Verdict, ago, lossy,
        md::MdState,
        mirror::MirrorState,
        record::Change,
        zfs::{ZfsScan, ZfsScanKind, ZfsScanState, ZfsState},
    },
};

const STRONG: Style = Style::new().bold();
const QUIET: Style = Style::new().dimmed();

/// All that `status` knows of one mirror.
#[derive(Debug, Serialize)]
pub struct StatusReport {
    /// What should be.
    pub declared: Mirror,
    /// What is, where it could be read.
    pub observed: Option<MirrorState>,
    /// What that means.
    pub verdict: Verdict,
    /// Since when the verdict is this, as far as checks have remembered it.
    pub since: Option<Timestamp>,
    /// The newest changes of what is to be said, the last first.
    pub history: Vec<Change>,
    /// Where the node's directory points; nothing where it was not read.
    pub directory: Option<DirectoryStatus>,
    /// The regular jobs.
    pub jobs: Vec<JobReport>,
}

/// A regular job.
#[derive(Debug, Clone, Serialize)]
pub struct JobReport {
    /// `check`, `balance` or `scrub`.
    pub job: &'static str,
    /// When it runs, as in a crontab.
    pub when: String,
    /// The next runs, in the machine's zone.
    pub next: Vec<String>,
    /// When it last ended well.
    pub last: Option<Timestamp>,
    /// Why its last run failed.
    pub failed: Option<String>,
}

/// Where the node's directory leads.
#[derive(Debug, Serialize)]
pub struct DirectoryStatus {
    /// The directory as the node knows it.
    #[serde(serialize_with = "lossy::path")]
    pub directory: std::path::PathBuf,
    /// The symlink's target, where it is one.
    #[serde(serialize_with = "lossy::option")]
    pub points_to: Option<std::path::PathBuf>,
    /// Whether that is the declared place on the mirror.
    pub on_the_mirror: bool,
}

/// Renders the picture.
pub fn status(reports: &[StatusReport], now: Timestamp) -> String {
    let mut out = String::new();
    for report in reports {
        one(&mut out, report, now);
    }
    if reports.is_empty() {
        out.push_str(
            "No mirror is declared. `raidguard devices` shows what there is; `raidguard setup` makes one.\n",
        );
    }
    out
}

/// The work on an array, and how far it is.
fn at_work(md: &MdState) -> Option<String> {
    let action = md.action.as_deref()?;
    let work = match action {
        "resync" => "its members are being made equal",
        "recover" => "a member is being filled",
        "check" => "its members are being compared",
        other => other,
    };
    Some(match &md.progress {
        None => format!("{work}: that waits for other work"),
        Some(p) => {
            let left = p.total.0.saturating_sub(p.done.0);
            let left = p.speed.filter(|speed| speed.0 > 0).map(|speed| left / speed.0);
            let left = left.map_or_else(String::new, |s| format!(", {} min left", s.div_ceil(60)));
            format!("{work}: {} % of {}{left}", p.percent(), p.total)
        }
    })
}

/// The work on a pool, and how full it is.
fn of_pool(pool: &ZfsState) -> Vec<String> {
    let mut lines = Vec::new();
    if pool.is_suspended() {
        lines.push("it has stopped: nothing was asked of it".to_owned());
    }
    let scan = pool.scan.as_ref();
    let far = |scan: &ZfsScan| scan.progress().map_or_else(String::new, |far| format!(": {far}"));
    match scan.map(|scan| (scan.kind, scan.state, far(scan))) {
        Some((ZfsScanKind::Resilver, ZfsScanState::Running, far)) => {
            lines.push(format!("members are being filled{far}"));
        }
        _ if pool.rebuilding => lines.push("members are being filled".to_owned()),
        Some((_, ZfsScanState::Running, far)) => lines.push(format!("it is being scrubbed{far}")),
        Some((_, ZfsScanState::Paused, far)) => lines.push(format!("a scrub is paused{far}")),
        _ => {}
    }
    if let Some(space) = &pool.space {
        let percent = u128::from(space.allocated.0) * 100 / u128::from(space.size.0.max(1));
        lines.push(format!("{percent} % of {} used, every copy counted", space.size));
    }
    lines
}

fn one(out: &mut String, report: &StatusReport, now: Timestamp) {
    let Mirror { name, level, backend, mountpoint, member, .. } = &report.declared;
    let style = super::style_of(report.verdict.level);
    let since = report.since.map_or_else(String::new, |at| format!(" since {at:.0} ({})", ago(now, at)));
    let _ = writeln!(
        out,
        "{STRONG}{name}{STRONG:#}  {style}{}{style:#}{since}  {backend} {level} at {}",
        report.verdict.level,
        mountpoint.display()
    );
    for (index, declared) in member.iter().enumerate() {
        let seen = report
            .observed
            .as_ref()
            .and_then(|o| o.members.iter().find(|m| m.devid.to_string() == declared.id));
        let branch = if index + 1 == member.len() { "└─" } else { "├─" };
        let state = match seen {
            Some(m) if m.missing => "MISSING".to_owned(),
            Some(m) if m.replace_target => "being filled".to_owned(),
            Some(m) => match &m.errors {
                Some(e) if e.is_clean() => "no errors".to_owned(),
                Some(e) => {
                    let errors = e.named().into_iter().filter(|(_, n)| *n > 0);
                    errors.map(|(kind, n)| format!("{n} {kind} errors")).collect::<Vec<_>>().join(", ")
                }
                None => "errors unknown".to_owned(),
            },
            None => "not seen".to_owned(),
        };
        let path =
            seen.and_then(|m| m.path.as_ref()).map_or_else(|| "-".to_owned(), |p| p.display().to_string());
        let _ = writeln!(
            out,
            "{branch} {path}  {}  {}  {}  {state}",
            declared.size,
            declared.model.as_deref().unwrap_or("no model name"),
            declared.serial.as_deref().map_or_else(|| "no serial".to_owned(), |s| format!("serial {s}")),
        );
    }
    let label = |text: &str| format!("{QUIET}{text:<11}{QUIET:#}");
    if let Some(state) = &report.observed {
        let profiles: Vec<String> =
            state.profiles.iter().map(|p| format!("{} {}", p.kind, p.profile)).collect();
        let pool =
            state.zfs.as_ref().map(|pool| pool.level.clone().unwrap_or_else(|| "of an unknown level".into()));
        let levels = state.md.as_ref().map(|md| md.level.clone()).or(pool);
        let levels = levels.unwrap_or_else(|| profiles.join(", "));
        let redundancy = match report.verdict.may_fail {
            None => "cannot be told".to_owned(),
            Some(0) => format!("none: no member may fail ({levels})"),
            Some(1) => format!("any one member may fail ({levels})"),
            Some(n) => format!("any {n} members may fail ({levels})"),
        };
        let _ = writeln!(out, "{} {redundancy}", label("redundancy"));
        if let Some(work) = state.md.as_ref().and_then(at_work) {
            let _ = writeln!(out, "{} {work}", label("array"));
        }
        for line in state.zfs.iter().flat_map(of_pool) {
            let _ = writeln!(out, "{} {line}", label("pool"));
        }
        let free = state.free.map_or_else(|| "free space unknown".to_owned(), |f: Bytes| format!("{f} free"));
        if !state.has_stopped() {
            let _ = writeln!(out, "{} {} used, {free}", label("space"), state.used);
        }
    }
    if let Some(directory) = &report.directory {
        let leads = match &directory.points_to {
            Some(to) if directory.on_the_mirror => format!("→ {}", to.display()),
            Some(to) => format!("→ {}, which is NOT the declared place", to.display()),
            None => "is NOT a symlink into the mirror".to_owned(),
        };
        let _ = writeln!(out, "{} {} {leads}", label("node"), directory.directory.display());
    }
    for JobReport { job, next, last, failed, .. } in &report.jobs {
        let last = match (last, failed) {
            (_, Some(_)) => "failed".to_owned(),
            (Some(at), None) => ago(now, *at),
            (None, None) => "not yet".to_owned(),
        };
        let next = next.first().map_or("never".to_owned(), |next| format!("next {next}"));
        let _ = writeln!(out, "{} {next}, last {last}", label(job));
    }
    for finding in &report.verdict.findings {
        let style = super::style_of(finding.severity);
        let since = finding.since.filter(|since| *since < now);
        let since = since.map_or_else(String::new, |at| format!(" ({})", ago(now, at)));
        let _ = writeln!(out, "{style}{}{style:#} {}{since}", finding.code, super::printable(&finding.says));
    }
    if report.verdict.faults().next().is_some() {
        let _ = writeln!(out, "{QUIET}What to do about it: raidguard check{QUIET:#}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        health::{judge, samples},
        model::{Observed, Seen},
    };

    fn report(change: impl FnOnce(&mut MirrorState)) -> StatusReport {
        let (_, mut observed, _) = samples::healthy();
        observed.storage.get_mut().map(change);
        of(&observed)
    }

    fn of(observed: &Observed) -> StatusReport {
        let (declared, _, record) = samples::healthy();
        StatusReport {
            verdict: judge(&declared, observed, &Seen::Read(record), samples::now()),
            observed: observed.storage.get().cloned(),
            since: Some(samples::hours_ago(50)),
            history: Vec::new(),
            declared,
            directory: Some(DirectoryStatus {
                directory: "/home/bitcoin/.lightning".into(),
                points_to: Some("/srv/lightning/lightning".into()),
                on_the_mirror: true,
            }),
            jobs: vec![JobReport {
                job: "check",
                when: "*/15 * * * *".into(),
                next: vec!["2026-11-23 15:15 UTC".into()],
                last: Some(samples::hours_ago(3)),
                failed: None,
            }],
        }
    }

    fn plain(report: StatusReport) -> String {
        anstream::adapter::strip_str(&status(&[report], samples::now())).to_string()
    }

    #[test]
    fn a_healthy_mirror() {
        insta::assert_snapshot!(plain(report(|_| {})), @r"
        lightning  ok since 2026-11-21T10:00:00Z (2 days ago)  btrfs raid1 at /srv/lightning
        ├─ /dev/sdb  32 GiB  Example Disk  serial E1  no errors
        └─ /dev/sdc  32 GiB  Example Disk  serial E2  no errors
        redundancy  any one member may fail (data raid1, metadata raid1, system raid1)
        space       400 MiB used, 30 GiB free
        node        /home/bitcoin/.lightning → /srv/lightning/lightning
        check       next 2026-11-23 15:15 UTC, last 3 hours ago
        ");
    }

    #[test]
    fn a_member_that_is_gone() {
        insta::assert_snapshot!(plain(report(|state| state.members[1].missing = true)), @r"
        lightning  critical since 2026-11-21T10:00:00Z (2 days ago)  btrfs raid1 at /srv/lightning
        ├─ /dev/sdb  32 GiB  Example Disk  serial E1  no errors
        └─ /dev/sdc  32 GiB  Example Disk  serial E2  MISSING
        redundancy  none: no member may fail (data raid1, metadata raid1, system raid1)
        space       400 MiB used, 30 GiB free
        node        /home/bitcoin/.lightning → /srv/lightning/lightning
        check       next 2026-11-23 15:15 UTC, last 3 hours ago
        MIR-MISSING 1 of 2 members is missing; no more may fail
        What to do about it: raidguard check
        ");
    }

    #[test]
    fn chunks_on_one_member_only() {
        insta::assert_snapshot!(plain(report(|state| state.profiles[0].profile = "single".into())), @r"
        lightning  critical since 2026-11-21T10:00:00Z (2 days ago)  btrfs raid1 at /srv/lightning
        ├─ /dev/sdb  32 GiB  Example Disk  serial E1  no errors
        └─ /dev/sdc  32 GiB  Example Disk  serial E2  no errors
        redundancy  none: no member may fail (data single, metadata raid1, system raid1)
        space       400 MiB used, 30 GiB free
        node        /home/bitcoin/.lightning → /srv/lightning/lightning
        check       next 2026-11-23 15:15 UTC, last 3 hours ago
        MIR-PROFILE part of mirror lightning exists on one member only
        What to do about it: raidguard check
        ");
    }

    #[test]
    fn an_array_whose_member_is_filled() {
        let filled = |state: &mut MirrorState| {
            state.profiles.clear();
            state.members[1].replace_target = true;
            state.md = Some(MdState {
                device: "/dev/md127".into(),
                metadata: "1.2".into(),
                state: "active".into(),
                level: "raid1".into(),
                raid_disks: 2,
                degraded: Some(1),
                action: Some("recover".into()),
                progress: Some(crate::model::md::MdProgress {
                    done: Bytes::gib(8),
                    total: Bytes::gib(32),
                    speed: Some(Bytes::mib(100)),
                }),
                mismatches: Some(0),
                policy: Some("bitmap".into()),
            });
        };
        insta::assert_snapshot!(plain(report(filled)), @r"
        lightning  critical since 2026-11-21T10:00:00Z (2 days ago)  btrfs raid1 at /srv/lightning
        ├─ /dev/sdb  32 GiB  Example Disk  serial E1  no errors
        └─ /dev/sdc  32 GiB  Example Disk  serial E2  being filled
        redundancy  none: no member may fail (raid1)
        array       a member is being filled: 25 % of 32 GiB, 5 min left
        space       400 MiB used, 30 GiB free
        node        /home/bitcoin/.lightning → /srv/lightning/lightning
        check       next 2026-11-23 15:15 UTC, last 3 hours ago
        MIR-REBUILDING 1 of 2 members is not whole yet; no more may fail
        What to do about it: raidguard check
        ");
    }

    #[test]
    fn a_pool_whose_member_is_filled() {
        let text = include_str!("../../tests/fixtures/zfs/2.3.9/resilvering/status-tree.json");
        let mut pool = crate::backend::zfs::json::parse_status(text).unwrap().remove(0);
        pool.vdevs[0].children[1].resilvering = true;
        pool.space = Some(crate::model::zfs::ZfsSpace {
            size: Bytes::gib(32),
            allocated: Bytes::gib(8),
            free: Bytes::gib(24),
        });
        let (mut declared, mut observed, record) = samples::healthy();
        declared.backend = crate::model::BackendKind::Zfs;
        declared.level = crate::model::Level::Mirror;
        let seen = crate::backend::zfs::as_mirror(pool, &declared.mountpoint);
        declared.uuid.clone_from(&seen.uuid);
        for (declared, seen) in declared.member.iter_mut().zip(&seen.members) {
            (declared.id, declared.uuid) = (seen.devid.to_string(), seen.devid.to_string());
        }
        observed.mount.get_mut().unwrap().lines.clear();
        observed.storage = Seen::Read(MirrorState { free: Some(Bytes::gib(24)), ..seen });
        let mut report = of(&observed);
        report.verdict = judge(&declared, &observed, &Seen::Read(record), samples::now());
        report.declared = declared;
        insta::assert_snapshot!(plain(report), @r"
        lightning  critical since 2026-11-21T10:00:00Z (2 days ago)  zfs mirror at /srv/lightning
        ├─ /dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_one-part1  32 GiB  Example Disk  serial E1  no errors
        └─ /dev/disk/by-id/usb-QEMU_QEMU_HARDDISK_two-0:0-part1  32 GiB  Example Disk  serial E2  being filled
        redundancy  none: no member may fail (mirror)
        pool        members are being filled: 0.00 % of 91.2 MiB
        pool        25 % of 32 GiB used, every copy counted
        space       0 B used, 24 GiB free
        node        /home/bitcoin/.lightning → /srv/lightning/lightning
        check       next 2026-11-23 15:15 UTC, last 3 hours ago
        MIR-REBUILDING 1 of 2 members is not whole yet; no more may fail
        What to do about it: raidguard check
        ");
    }

    #[test]
    fn nothing_is_said_of_a_pool_that_was_not_asked() {
        let (mut declared, mut observed, record) = samples::healthy();
        declared.backend = crate::model::BackendKind::Zfs;
        let text = include_str!("../../tests/fixtures/zfs/2.3.9/suspended/status-tree.json");
        let mut pool = crate::backend::zfs::json::parse_status(text).unwrap().remove(0);
        pool.vdevs.clear();
        let seen = crate::backend::zfs::as_mirror(pool, &declared.mountpoint);
        declared.uuid.clone_from(&seen.uuid);
        observed.storage = Seen::Read(seen);
        observed.node = Seen::Failed("it has stopped".into());
        observed.mount.get_mut().unwrap().lines.clear();
        let verdict = judge(&declared, &observed, &Seen::Read(record), samples::now());
        let checked = [super::super::check::Checked {
            declared: &declared,
            observed: &observed,
            record: None,
            verdict: &verdict,
        }];
        let line = super::super::nagios::nagios(&checked);
        assert!(!line.contains("lightning_used") && line.contains("MIR-SUSPENDED"), "{line}");
        let metrics = super::super::prometheus::prometheus(&checked, samples::now());
        assert!(!metrics.contains("raidguard_used_bytes"), "{metrics}");
        let report = StatusReport { verdict, declared, directory: None, ..of(&observed) };
        insta::assert_snapshot!(plain(report), @r"
        lightning  critical since 2026-11-21T10:00:00Z (2 days ago)  zfs raid1 at /srv/lightning
        ├─ -  32 GiB  Example Disk  serial E1  not seen
        └─ -  32 GiB  Example Disk  serial E2  not seen
        redundancy  cannot be told
        pool        it has stopped: nothing was asked of it
        check       next 2026-11-23 15:15 UTC, last 3 hours ago
        MIR-SUSPENDED the pool of mirror lightning has stopped: whatever is written to it waits
        OBS-FAILED the node's directory could not be read
        What to do about it: raidguard check
        ");
    }

    #[test]
    fn a_mirror_that_is_not_mounted() {
        let gone = |state: &mut MirrorState| {
            state.mounted = false;
            state.profiles.clear();
        };
        insta::assert_snapshot!(plain(report(gone)), @r"
        lightning  critical since 2026-11-21T10:00:00Z (2 days ago)  btrfs raid1 at /srv/lightning
        ├─ /dev/sdb  32 GiB  Example Disk  serial E1  no errors
        └─ /dev/sdc  32 GiB  Example Disk  serial E2  no errors
        redundancy  cannot be told
        space       400 MiB used, 30 GiB free
        node        /home/bitcoin/.lightning → /srv/lightning/lightning
        check       next 2026-11-23 15:15 UTC, last 3 hours ago
        MNT-ABSENT mirror lightning is not mounted at /srv/lightning
        What to do about it: raidguard check
        ");
    }

    #[test]
    fn nothing_could_be_read() {
        let (_, mut observed, _) = samples::healthy();
        observed.storage = Seen::Failed("permission denied".into());
        insta::assert_snapshot!(plain(of(&observed)), @r"
        lightning  unknown since 2026-11-21T10:00:00Z (2 days ago)  btrfs raid1 at /srv/lightning
        ├─ -  32 GiB  Example Disk  serial E1  not seen
        └─ -  32 GiB  Example Disk  serial E2  not seen
        node        /home/bitcoin/.lightning → /srv/lightning/lightning
        check       next 2026-11-23 15:15 UTC, last 3 hours ago
        OBS-FAILED the mirror could not be read
        What to do about it: raidguard check
        ");
    }
}
