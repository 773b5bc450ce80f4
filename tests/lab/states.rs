//! What is wrong under systemd and udev, one thing at a time: made, found under its code and nothing beside it, put right, found no more.

use std::fs;

use crate::{
    backend::Backend,
    disks::Bus,
    machine::{Machine, copy},
    steps::{MOUNT, faults, finds, is_at_work, mirrored},
};

/// What is wrong; how it is made; how it is put right; what a check then finds, its exit code first.
type State = (&'static str, &'static str, &'static str, i64, &'static [&'static str]);

/// What can be wrong on any mirror.
const STATES: &[State] = &[
    (
        "the unit is not tied to the mirror",
        "mv /etc/systemd/system/lightningd.service.d/raidguard.conf /root/; systemctl daemon-reload",
        "mv /root/raidguard.conf /etc/systemd/system/lightningd.service.d/; systemctl daemon-reload",
        1,
        &["SCH-DROPIN"],
    ),
    (
        "a timer was stopped",
        "systemctl disable --now raidguard-scrub-lightning.timer",
        "systemctl enable --now raidguard-scrub-lightning.timer",
        1,
        &["SCH-IDLE"],
    ),
    (
        "a timer is gone",
        "cp -a /etc/systemd/system/raidguard-deep.timer /root/; rm /etc/systemd/system/raidguard-deep.timer; systemctl daemon-reload",
        "cp -a /root/raidguard-deep.timer /etc/systemd/system/; systemctl daemon-reload; systemctl start raidguard-deep.timer",
        1,
        &["SCH-MISSING"],
    ),
    (
        "a timer says something else",
        "sed -i.was 's/^OnCalendar=.*/OnCalendar=yearly/' /etc/systemd/system/raidguard-scrub-lightning.timer; systemctl daemon-reload",
        "mv /etc/systemd/system/raidguard-scrub-lightning.timer.was /etc/systemd/system/raidguard-scrub-lightning.timer; systemctl daemon-reload",
        1,
        &["SCH-ALTERED"],
    ),
    (
        "cron does it too",
        "echo '0 0 * * 0 root /usr/local/sbin/raidguard scrub lightning' >/etc/cron.d/raidguard",
        "rm /etc/cron.d/raidguard",
        1,
        &["SCH-DOUBLE"],
    ),
    ("nothing keeps its halves apart", "mv @rule /root/rule", "mv /root/rule @rule", 1, &["SCH-UDEV"]),
    (
        "it is mounted read-only",
        "systemctl stop lightningd.service; mount -o remount,ro /srv/lightning",
        "mount -o remount,rw /srv/lightning; systemctl start lightningd.service",
        2,
        &["MIR-READONLY"],
    ),
    (
        "it is not mounted",
        "systemctl stop lightningd.service; umount /srv/lightning",
        "@mount; systemctl start lightningd.service",
        2,
        &["MNT-ABSENT"],
    ),
    (
        "files lie below the mount point",
        "systemctl stop lightningd.service; umount /srv/lightning; chattr -i /srv/lightning; touch /srv/lightning/stray; @mount; systemctl start lightningd.service",
        "systemctl stop lightningd.service; umount /srv/lightning; rm /srv/lightning/stray; chattr +i /srv/lightning; @mount; systemctl start lightningd.service",
        2,
        &["MNT-HIDDEN"],
    ),
    (
        "the link is gone",
        "systemctl stop lightningd.service; mv /home/bitcoin/.lightning /home/bitcoin/.lightning.away",
        "mv /home/bitcoin/.lightning.away /home/bitcoin/.lightning; systemctl start lightningd.service",
        2,
        &["DIR-LINK"],
    ),
    (
        "somebody else owns the directory",
        "systemctl stop lightningd.service; chown root: /srv/lightning/lightning",
        "chown bitcoin: /srv/lightning/lightning; systemctl start lightningd.service",
        1,
        &["DIR-OWNER"],
    ),
    (
        "everybody can look into the directory",
        "chmod o+rx /srv/lightning/lightning",
        "chmod o-rx /srv/lightning/lightning",
        1,
        &["DIR-MODE"],
    ),
    (
        "the secret can be read",
        "chmod 0644 /srv/lightning/lightning/bitcoin/hsm_secret",
        "chmod 0400 /srv/lightning/lightning/bitcoin/hsm_secret",
        1,
        &["NODE-SECRET-MODE"],
    ),
    (
        "the secret is cut short",
        "cp -a /srv/lightning/lightning/bitcoin/hsm_secret /root/; truncate -s 7 /srv/lightning/lightning/bitcoin/hsm_secret",
        "cp -a /root/hsm_secret /srv/lightning/lightning/bitcoin/",
        2,
        &["NODE-SECRET"],
    ),
    (
        "the database is gone",
        "systemctl stop lightningd.service; mv /srv/lightning/lightning/bitcoin/lightningd.sqlite3 /root/",
        "mv /root/lightningd.sqlite3 /srv/lightning/lightning/bitcoin/; systemctl start lightningd.service",
        2,
        &["NODE-DATABASE-MISSING"],
    ),
    (
        "the secrets' file can be read",
        "echo 'webhook = \"http://127.0.0.1:9/\"' >/etc/raidguard/secrets.toml; chmod 0644 /etc/raidguard/secrets.toml",
        "rm /etc/raidguard/secrets.toml",
        1,
        &["NTF-SECRETS"],
    ),
];

/// What can be wrong where fstab mounts it.
const OF_FSTAB: &[State] = &[(
    "fstab does not know it",
    "cp /etc/fstab /root/; sed -i '/srv.lightning/d' /etc/fstab; systemctl daemon-reload",
    "cp /root/fstab /etc/; systemctl daemon-reload",
    1,
    &["MNT-FSTAB"],
)];

const OF_BTRFS: &[State] = &[
    (
        "fstab names a device",
        "cp /etc/fstab /root/; sed -i 's#^UUID=[^ ]* /srv/lightning#/dev/sda /srv/lightning#' /etc/fstab; systemctl daemon-reload",
        "cp /root/fstab /etc/; systemctl daemon-reload",
        1,
        &["MNT-FSTAB-DEVICE"],
    ),
    (
        "fstab mounts it degraded",
        "cp /etc/fstab /root/; sed -i 's#autodefrag#autodefrag,degraded#' /etc/fstab; systemctl daemon-reload",
        "cp /root/fstab /etc/; systemctl daemon-reload",
        2,
        &["MNT-FSTAB-DEGRADED"],
    ),
    (
        "what is written to the directory has no checksums",
        "chattr +C /srv/lightning/lightning/bitcoin",
        "chattr -C /srv/lightning/lightning/bitcoin",
        1,
        &["DIR-NOCOW"],
    ),
    (
        "there is hardly any room",
        LEAVES_LITTLE,
        "rm /srv/lightning/full; sync -f /srv/lightning; btrfs balance start -dusage=0 /srv/lightning",
        1,
        &["SPC-FREE", "SPC-UNALLOCATED"],
    ),
];

/// A twentieth of it is left.
const LEAVES_LITTLE: &str = "set -- $(df --output=avail,size -BM /srv/lightning | tail -1 | tr -d M); \
    fallocate -l $(($1 - $2 / 20))M /srv/lightning/full";

const OF_MD: &[State] = &[
    (
        "fstab names a device",
        "cp /etc/fstab /root/; sed -i 's#^UUID=[^ ]* /srv/lightning#/dev/md127 /srv/lightning#' /etc/fstab; systemctl daemon-reload",
        "cp /root/fstab /etc/; systemctl daemon-reload",
        1,
        &["MNT-FSTAB-DEVICE"],
    ),
    ("there is hardly any room", LEAVES_LITTLE, "rm /srv/lightning/full", 1, &["SPC-FREE"]),
    (
        "the array has no bitmap",
        "mdadm --grow --bitmap=none /dev/md/lightning",
        "mdadm --grow --bitmap=internal /dev/md/lightning",
        1,
        &["MIR-NO-BITMAP"],
    ),
    (
        "a member was given up",
        "mdadm /dev/md/lightning --fail $(readlink -f /dev/disk/by-id/usb-*two*)",
        "mdadm /dev/md/lightning --remove failed --re-add $(readlink -f /dev/disk/by-id/usb-*two*); mdadm --wait /dev/md/lightning || true",
        2,
        &["MIR-MISSING"],
    ),
    (
        "a member was taken out",
        "mdadm /dev/md/lightning --fail $(readlink -f /dev/disk/by-id/usb-*two*) --remove failed",
        "mdadm /dev/md/lightning --re-add $(readlink -f /dev/disk/by-id/usb-*two*); mdadm --wait /dev/md/lightning || true",
        2,
        &["MIR-MISSING"],
    ),
    (
        "the array may not be written to",
        "systemctl stop lightningd.service; umount /srv/lightning; mdadm --readonly /dev/md/lightning; mount -o ro /srv/lightning",
        "umount /srv/lightning; mdadm --readwrite /dev/md/lightning; systemctl start lightningd.service",
        2,
        &["MIR-READONLY"],
    ),
    (
        "the array is not started",
        "systemctl stop lightningd.service; umount /srv/lightning; udevadm settle; mdadm --stop /dev/md/lightning",
        "mdadm --assemble --scan; udevadm settle; systemctl start lightningd.service",
        2,
        &["MIR-INACTIVE", "MNT-ABSENT"],
    ),
];

const OF_ZFS: &[State] = &[
    (
        "no boot imports it",
        "systemctl disable zfs-import-cache.service",
        "systemctl enable zfs-import-cache.service",
        1,
        &["MNT-BOOT"],
    ),
    (
        "a boot does not know it",
        "zpool set cachefile=none lightning",
        "zpool set cachefile=/etc/zfs/zpool.cache lightning",
        1,
        &["MNT-BOOT"],
    ),
    (
        "fstab mounts something there too",
        "cp /etc/fstab /root/; echo 'none /srv/lightning tmpfs noauto 0 0' >>/etc/fstab; systemctl daemon-reload",
        "cp /root/fstab /etc/; systemctl daemon-reload",
        1,
        &["MNT-FSTAB-OTHER"],
    ),
    (
        "a member was taken out of use",
        "zpool offline lightning $(find -L /dev/disk/by-partuuid -samefile /dev/disk/by-id/usb-*two*-part1)",
        "zpool online lightning $(find -L /dev/disk/by-partuuid -samefile /dev/disk/by-id/usb-*two*-part1); zpool wait -t resilver lightning",
        2,
        &["MIR-MISSING"],
    ),
    (
        "there is a checkpoint",
        "zpool checkpoint lightning",
        "zpool checkpoint --discard --wait lightning",
        1,
        &["MIR-CHECKPOINT"],
    ),
    (
        "it is not imported",
        "systemctl stop lightningd.service; zpool export lightning",
        "zpool import lightning; systemctl start lightningd.service",
        2,
        &["MIR-INACTIVE", "MNT-ABSENT", "MNT-BOOT"],
    ),
];

pub(crate) fn each_thing_that_is_wrong_is_found(b: &Backend) {
    let mut m = mirrored("each_thing_that_is_wrong_is_found", b);
    let mut wrong = Vec::new();
    let own = match b.name {
        "btrfs" => [OF_FSTAB, OF_BTRFS],
        "mdadm" => [OF_FSTAB, OF_MD],
        _ => [OF_ZFS, &[]],
    };
    for (what, make, mend, code, codes) in STATES.iter().chain(own.into_iter().flatten()) {
        println!("note: {what}");
        let [make, mend] =
            [make, mend].map(|script| script.replace("@rule", b.rule).replace("@mount", b.mount));
        m.ok(&format!("set -e; {make}"));
        let expected = (*code, codes.iter().map(ToString::to_string).collect());
        let found = faults(&mut m);
        if found != expected {
            wrong.push(format!("{what}: {found:?}"));
        }
        // Time in the guest goes by what is done there: so many starts are too quick for systemd.
        let mended = m.sh(&format!("set -e; systemctl reset-failed lightningd.service; {mend}"));
        let mut why = || m.sh("journalctl --no-pager --lines=20 --unit=lightningd.service").stdout;
        assert_eq!(mended.code, 0, "{what}: {}{}", mended.stderr, why());
    }
    a_clone_is_found(&mut m, &mut wrong);
    assert!(wrong.is_empty(), "{wrong:#?}");
    finds(&mut m, 0, &[]);
    is_at_work(&mut m, b);
}

/// A disk that says that it is one that is there.
fn a_clone_is_found(m: &mut Machine, wrong: &mut Vec<String>) {
    let clone = m.path("clone");
    m.ok(&format!("sync -f {MOUNT}"));
    copy(&m.disk("two").image, &clone);
    m.add_disk("clone", Bus::Scsi, &clone);
    let found = faults(m);
    if !(found.0 == 2 && found.1.contains("MIR-CLONE")) {
        wrong.push(format!("a clone: {found:?}"));
    }
    m.pull("clone");
    m.forget("clone");
    fs::remove_file(clone).unwrap();
}
