//! Disks that go while the machine runs, and come back.

use std::fs;

use crate::{
    backend::Backend,
    disks::Bus,
    machine::Machine,
    steps::{
        MOUNT, after_a_cut_alone_has_all, boots_without, does, faults, finds, is_at_work, is_critical,
        is_rescued, mirrored, setup_arguments, unmirrored,
    },
};

/// Takes one message and says that it has it.
const HOOK: &str = r#"
cat >/etc/systemd/system/hook.socket <<'UNIT'
[Socket]
ListenStream=127.0.0.1:8088
Accept=yes
UNIT
cat >/etc/systemd/system/hook@.service <<'UNIT'
[Service]
ExecStart=/root/hook
StandardInput=socket
StandardOutput=socket
UNIT
cat >/root/hook <<'HOOK'
#!/bin/bash
while read -r line; do
  line=${line%$'\r'}
  [[ $line ]] || break
  [[ ${line,,} != content-length:* ]] || length=${line#*: }
done
IFS= read -r -N "$length" body
printf '%s\n' "$body" >>/run/told
printf 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
HOOK
chmod 755 /root/hook
systemctl daemon-reload
"#;

/// Setup, then an orderly boot: mirror mounted, node on it, timers active, check ok.
pub(crate) fn a_mirror_is_there_again_after_a_boot(b: &Backend) {
    let mut m = mirrored("a_mirror_is_there_again_after_a_boot", b);
    finds(&mut m, 0, &[]);
    let before = m.committed();
    assert_eq!(m.reboot(), "running");
    assert!(m.database_version() >= before);
    is_at_work(&mut m, b);
    let timers = m.ok("systemctl list-timers --all --no-legend 'raidguard-*'");
    assert_eq!(timers.lines().count(), b.jobs, "{timers}");
    (b.settle)(&mut m);
    does(&mut m, &["check", "--deep"]);
    finds(&mut m, 0, &[]);
}

/// The next check of the schedule tells of it, to a webhook.
fn the_schedule_tells(m: &mut Machine, b: &Backend) {
    m.ok(HOOK);
    let secrets = "webhook = \"http://127.0.0.1:8088/hook\"";
    m.ok(&format!("umask 077; echo '{secrets}' >/etc/raidguard/secrets.toml; systemctl start hook.socket"));
    m.ok("systemctl stop lightningd.service");
    m.ok(&format!("sync -f {MOUNT}"));
    m.pull("two");
    // Shortly before the next quarter of an hour, and then it goes by itself.
    m.ok("date --set=\"@$(( ($(date +%s) / 900 + 1) * 900 - 3 ))\"");
    let told = m.ok("until [ -s /run/told ]; do sleep 0.2; done; cat /run/told");
    let codes = [b.pulled, b.noticed];
    assert!(told.contains("\"critical\"") && codes.iter().any(|code| told.contains(code)), "{told}");
    let (code, found) = faults(m);
    assert!(code == 2 && codes.iter().any(|code| found.contains(*code)), "{code} {found:?}");
}

pub(crate) fn a_member_pulled_while_idle_is_told_by_the_next_check_of_a_timer(b: &Backend) {
    let mut m = mirrored("a_member_pulled_while_idle_is_told_by_the_next_check_of_a_timer", b);
    the_schedule_tells(&mut m, b);
}

pub(crate) fn a_member_pulled_while_idle_is_told_by_the_next_check_of_cron(b: &Backend) {
    let mut m = unmirrored("a_member_pulled_while_idle_is_told_by_the_next_check_of_cron", b);
    let mut asked = setup_arguments(&m, b);
    let scheduler = asked.iter().position(|word| word == "systemd").unwrap();
    "cron".clone_into(&mut asked[scheduler]);
    does(&mut m, &asked.iter().map(String::as_str).collect::<Vec<_>>());
    the_schedule_tells(&mut m, b);
}

/// The node goes on, nothing acknowledged is lost, the machine boots without the member, a third disk takes its place, and alone has it all.
pub(crate) fn a_member_pulled_under_load_is_replaced_and_no_commit_is_lost(b: &Backend) {
    let mut m = mirrored("a_member_pulled_under_load_is_replaced_and_no_commit_is_lost", b);
    is_at_work(&mut m, b);
    m.pull("two");
    m.commits_past(m.committed() + 20);
    is_at_work(&mut m, b);
    is_critical(&mut m, &[b.pulled]);
    m.cut();
    let before = m.hash("one");
    boots_without(&mut m, b, "two");
    if !b.boots_degraded {
        let last = m.committed();
        is_rescued(&mut m, b, &["one"], last);
        m.ok("sync -f /root");
        assert_eq!(m.hash("one"), before, "the survivor is not as it was");
    }
    m.new_disk("three", Bus::Scsi, b.size);
    let new = m.device("three");
    does(&mut m, &["replace", "--new", &new, "--yes"]);
    // It did not run before, so `replace` has not started it.
    m.ok("systemctl start lightningd.service");
    is_at_work(&mut m, b);
    finds(&mut m, 0, &[]);
    after_a_cut_alone_has_all(&mut m, b, "a_member_pulled_under_load", Bus::Scsi, "three");
}

/// It comes back in another port, under another name; `repair` makes it a member again, and afterwards it alone has every commit.
pub(crate) fn a_member_that_comes_back_elsewhere_is_made_one_again(b: &Backend) {
    let mut m = mirrored("a_member_that_comes_back_elsewhere_is_made_one_again", b);
    let name = m.ok("readlink -f /dev/disk/by-id/usb-*two*");
    m.pull("two");
    m.commits_past(m.committed() + 10);
    m.move_to_another_port("two");
    m.attach("two");
    let now = m.ok("readlink -f /dev/disk/by-id/usb-*two*");
    assert_ne!(name, now, "it has another name");
    is_critical(&mut m, &[]);
    does(&mut m, &["repair", "--yes"]);
    is_at_work(&mut m, b);
    // What the kernel counted while it was away.
    does(&mut m, &["check", "--acknowledge"]);
    finds(&mut m, 0, &[]);
    after_a_cut_alone_has_all(&mut m, b, "a_member_that_comes_back", Bus::Usb, "two");
}

/// It was cleared elsewhere: it has the serial number that is declared, and nothing else of the member.
pub(crate) fn the_disk_of_a_member_comes_again_empty(b: &Backend) {
    let mut m = mirrored("the_disk_of_a_member_comes_again_empty", b);
    m.pull("two");
    m.commits_past(m.committed() + 10);
    let cleared = fs::File::options().write(true).open(&m.disk("two").image).unwrap();
    cleared.set_len(0).and_then(|()| cleared.set_len(b.size)).unwrap();
    let two = m.attach("two");
    is_critical(&mut m, &[]);
    does(&mut m, &["replace", "--old", "missing", "--new", &two, "--yes"]);
    is_at_work(&mut m, b);
    finds(&mut m, 0, &[]);
    after_a_cut_alone_has_all(&mut m, b, "the_disk_of_a_member", Bus::Usb, "two");
}
