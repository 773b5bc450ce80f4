//! A rollback of what cannot be mounted any more.

use std::sync::Arc;

use super::*;
use crate::{
    backend::btrfs::tests::Machine,
    config,
    exec::{Reply, ScriptedRunner},
    health::samples,
    model::mirror::MirrorState,
    plan::steps::StopNode,
};

const HOLD: &str = "/run/systemd/system/lightningd.service.d/raidguard-hold.conf";

/// The declared mirror, mounted nowhere, with these of its members here.
fn machine(members: &[u64]) -> (Machine, config::Mirror) {
    let (mirror, machine) = (samples::declared(), Machine::bare());
    machine.write("etc/raidguard/raidguard.toml", config::with_mirror(None, &mirror).unwrap());
    machine.write(HOLD.trim_start_matches('/'), "");
    for devid in members {
        machine.member(*devid);
    }
    (machine, mirror)
}

fn steps(mirror: &config::Mirror) -> (MountInPlace, StopNode) {
    let node = mirror.node.as_ref().unwrap();
    let seen = MirrorState::unseen(&mirror.uuid, &mirror.mountpoint);
    let place = MountInPlace {
        spec: MirrorSpec::of(mirror, &seen, vec!["/dev/loop0".into(), "/dev/loop1".into()]),
        anew: true,
        from: Some(mirror.mountpoint.clone()),
        record: "/var/lib/raidguard/journal/one.unmounted".into(),
    };
    let stop = StopNode {
        control: node.control().unwrap(),
        directory: node.directory.clone(),
        data: node.data.clone(),
        patience: 1,
        backwards: true,
    };
    (place, stop)
}

/// Puts both steps back, and tells what was run.
fn put_back(members: &[u64]) -> (Machine, Vec<String>) {
    let (machine, mirror) = machine(members);
    let runner = Arc::new(
        ScriptedRunner::new()
            .on("btrfs device scan", Reply::ok(""))
            .on("mount", Reply::ok(""))
            .on("systemctl", Reply::ok("")),
    );
    let host = machine.host_with(Arc::clone(&runner));
    let (place, stop) = steps(&mirror);
    let mut cx = Context { host: &host, watch: &mut () };
    place.undo(&mut cx).unwrap();
    stop.undo(&mut cx).unwrap();
    (machine, runner.calls().into_iter().map(|(_, line)| line).collect())
}

#[test]
fn without_a_member_the_mirror_stays_unmounted_and_the_node_is_released_only() {
    let (machine, ran) = put_back(&[1]);
    assert_eq!(ran, ["systemctl daemon-reload"]);
    assert!(!machine.host().path(HOLD).exists());
}

#[test]
fn with_every_member_it_is_mounted_and_the_node_started() {
    let (machine, ran) = put_back(&[1, 2]);
    assert!(ran.contains(&"mount /srv/lightning".to_owned()), "{ran:?}");
    assert_eq!(ran.last().unwrap(), "systemctl start -- lightningd.service");
    assert!(!machine.host().path(HOLD).exists());
}

/// udev looks at it for a moment, and somebody has pressed Ctrl-C, which is why it is put back.
#[test]
fn who_asked_to_stop_still_has_the_private_place_unmounted() {
    let (machine, mirror) = machine(&[1]);
    machine.write(
        "proc/self/mountinfo",
        "40 1 0:50 / /run/raidguard/mirrors/lightning rw - btrfs /dev/loop0 rw\n",
    );
    machine.write("run/raidguard/mirrors/kept", "");
    let runner = Arc::new(ScriptedRunner::new().on("umount", Reply::ok("")).fail_at(0));
    let host = machine.host_with(Arc::clone(&runner));
    host.interrupt().raise();
    leave_private(&host, &steps(&mirror).0.spec).unwrap();
    assert_eq!(runner.calls().len(), 2);
}
