//! The files as they are written, and that there is never more than one set of them.

use std::{os::unix::fs::symlink, sync::Arc};

use super::*;
use crate::{
    config::{Member, ScheduleConfig},
    exec::{Reply, ScriptedRunner},
    model::{BackendKind, Bytes, Level},
};

fn mirror(name: &str) -> Mirror {
    let member =
        |id: &str| Member { id: id.into(), uuid: id.into(), model: None, serial: None, size: Bytes::gib(2) };
    Mirror {
        name: name.into(),
        backend: BackendKind::Btrfs,
        level: Level::Raid1,
        uuid: "u".into(),
        mountpoint: Path::new("/srv").join(name),
        filesystem: None,
        member: vec![member("1"), member("2")],
        node: None,
        schedule: Some(ScheduleConfig::standard(Scheduler::Cron, BackendKind::Btrfs).unwrap()),
    }
}

const BINARY: &str = "/usr/local/bin/raidguard";

#[test]
fn the_crontab_has_one_check_and_each_mirrors_jobs() {
    let files = render(Scheduler::Cron, &[mirror("lightning"), mirror("second")], Path::new(BINARY)).unwrap();
    insta::assert_snapshot!(files[0].text, @r#"
    # Written by raidguard; `raidguard schedule install` writes it anew, `raidguard schedule remove` takes it away.
    # The times are in /etc/raidguard/raidguard.toml.
    SHELL=/bin/sh
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

    # cron mails whatever a job prints. A check tells by itself, so only what went wrong with it is printed; another job, when it failed.
    */15 * * * * root out=$(/usr/local/bin/raidguard check --notify --catch-up 2>&1 >/dev/null) || [ -z "$out" ] || printf '\%s\n' "$out"
    30 3 * * * root out=$(/usr/local/bin/raidguard check --deep --notify 2>&1 >/dev/null) || [ -z "$out" ] || printf '\%s\n' "$out"
    0 0 * * * root out=$(/usr/local/bin/raidguard balance lightning 2>&1) || [ -z "$out" ] || printf '\%s\n' "$out"
    0 0 * * 0 root out=$(/usr/local/bin/raidguard scrub lightning 2>&1) || [ -z "$out" ] || printf '\%s\n' "$out"
    0 0 * * * root out=$(/usr/local/bin/raidguard balance second 2>&1) || [ -z "$out" ] || printf '\%s\n' "$out"
    0 0 * * 0 root out=$(/usr/local/bin/raidguard scrub second 2>&1) || [ -z "$out" ] || printf '\%s\n' "$out"
    "#);
    assert!(files[0].text.ends_with("\"$out\"\n"), "cron ignores a last line without a newline");
}

#[test]
fn a_unit_and_its_timer_say_the_same() {
    let files = render(Scheduler::Systemd, &[mirror("lightning")], Path::new(BINARY)).unwrap();
    let names: Vec<_> = files.iter().map(|f| f.path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "raidguard-check.service",
            "raidguard-check.timer",
            "raidguard-deep.service",
            "raidguard-deep.timer",
            "raidguard-balance-lightning.service",
            "raidguard-balance-lightning.timer",
            "raidguard-scrub-lightning.service",
            "raidguard-scrub-lightning.timer",
        ]
    );
    insta::assert_snapshot!(files[4].text, @r"
    # Written by raidguard; `raidguard schedule install` writes it anew.
    [Unit]
    Description=raidguard: balance of the mirror lightning
    Documentation=man:raidguard(8)

    [Service]
    Type=oneshot
    ExecStart=/usr/local/bin/raidguard balance lightning
    Nice=10
    IOSchedulingClass=idle
    ");
    insta::assert_snapshot!(files[5].text, @r"
    # Written by raidguard; `raidguard schedule install` writes it anew.
    [Unit]
    Description=raidguard: balance of the mirror lightning

    [Timer]
    OnCalendar=*-*-* 0:0:00
    Persistent=true
    RandomizedDelaySec=300

    [Install]
    WantedBy=timers.target
    ");
    assert!(files[0].text.contains("SuccessExitStatus=1 2 3\n"));
}

#[test]
fn one_set_replaces_the_other_and_all_go_away() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("run/systemd/system")).unwrap();
    let runner = Arc::new(ScriptedRunner::new().on("systemctl", Reply::ok("")));
    let host = Host::captured(
        dir.path(),
        Arc::clone(&runner) as Arc<dyn crate::exec::Runner>,
        jiff::Timestamp::UNIX_EPOCH,
    );
    let (mirrors, binary) = ([mirror("lightning")], Path::new(BINARY));
    let links = dir.path().join("etc/systemd/system/timers.target.wants");
    for with in [Scheduler::Cron, Scheduler::Systemd, Scheduler::Cron] {
        install(&host, with, &mirrors, binary).unwrap();
        if with == Scheduler::Systemd {
            // The power may be cut between the files and systemd's links.
            assert!(!is_installed(&host, with, &mirrors, binary).unwrap());
            fs::create_dir(&links).unwrap();
            for timer in timers(&render(with, &mirrors, binary).unwrap()) {
                symlink(format!("../{timer}"), links.join(timer)).unwrap();
            }
            install(&host, with, &mirrors, binary).unwrap();
        }
        assert!(is_installed(&host, with, &mirrors, binary).unwrap(), "{with}");
        assert_eq!(present(&host).unwrap().len(), if with == Scheduler::Cron { 1 } else { 8 });
    }
    fs::write(dir.path().join("etc/cron.d/raidguard"), "altered\n").unwrap();
    assert!(!is_installed(&host, Scheduler::Cron, &mirrors, binary).unwrap());
    remove(&host).unwrap();
    assert!(present(&host).unwrap().is_empty());
    assert_eq!(runner.calls().len(), 6, "{:?}", runner.calls());
    assert_eq!(detect(&host).unwrap(), Scheduler::Systemd);
}

#[test]
fn a_mount_point_with_blanks_is_quoted_for_systemd() {
    let of = |backend, unit, mountpoint: &'static str| {
        let (mountpoint, binary) = (Path::new(mountpoint), Path::new("/usr/bin/raidguard"));
        dropin(DropInOf { unit, mountpoint, mirror: "lightning", backend, binary }).unwrap()
    };
    let plain = of(BackendKind::Btrfs, "lightningd.service", "/srv/lightning");
    assert_eq!(plain.path, Path::new("/etc/systemd/system/lightningd.service.d/raidguard.conf"));
    assert!(plain.text.contains("\nRequiresMountsFor=/srv/lightning\n"), "{}", plain.text);
    assert!(plain.text.ends_with("\nExecStartPre=+/usr/bin/raidguard guard lightning\n"), "{}", plain.text);
    let odd = of(BackendKind::Mdadm, "x.service", "/srv/my 100% \"dir\"");
    assert!(odd.text.contains("RequiresMountsFor=\"/srv/my 100%% \\\"dir\\\"\"\n"), "{}", odd.text);
    let pool = of(BackendKind::Zfs, "lightningd.service", "/srv/lightning");
    insta::assert_snapshot!(pool.text, @r"
    # Written by raidguard: the node starts only with its mirror mounted, on the newest database, and with the right secret.
    # `raidguard guard --override REASON` lets it start all the same.
    [Unit]
    RequiresMountsFor=/srv/lightning
    # ZFS mounts by itself, not by a unit that systemd knows beforehand.
    Wants=zfs-mount.service
    After=zfs-mount.service

    [Service]
    ExecStartPre=+/usr/bin/raidguard guard lightning
    ");
}
