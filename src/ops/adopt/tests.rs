//! What is decided, from facts alone.

use super::*;
use crate::{health::samples, plan::Step as _};

fn request() -> Request {
    Request {
        mountpoint: "/srv/lightning".into(),
        name: "lightning".into(),
        directory: None,
        node: NodeChoice::None,
        scheduler: SchedulerChoice::None,
    }
}

fn facts() -> Facts {
    let (mirror, observed, _) = samples::healthy();
    Facts {
        kind: mirror.backend,
        uuid: mirror.uuid,
        state: observed.storage.get().cloned().unwrap(),
        filesystem: None,
        inventory: Inventory::default(),
        declared: Vec::new(),
        unfinished: Vec::new(),
        node: None,
        unit: None,
        idle: None,
        with: Ok(None),
        rule: None,
        initramfs: None,
        systemd: false,
        binary: "/usr/bin/raidguard".into(),
        now: samples::now(),
    }
}

#[test]
fn a_whole_mirror_is_declared() {
    let plan = decide(&request(), &facts()).unwrap();
    let says: Vec<_> = plan.steps.iter().map(Action::says).collect();
    assert_eq!(says, ["declare the mirror `lightning` in /etc/raidguard/raidguard.toml"]);
}

#[test]
fn beside_what_was_interrupted_nothing_is_adopted() {
    let cases = [
        ("adopt", "raidguard adopt --resume, or raidguard adopt --rollback"),
        ("setup", "raidguard setup --resume, or raidguard setup --rollback"),
        ("replace", "run the same command again: it goes on, or puts back what it had done"),
        ("repair", "run the same command again: it goes on, or puts back what it had done"),
    ];
    for (verb, clears) in cases {
        let unfinished = vec![(verb.to_owned(), "second".to_owned())];
        let blockers = decide(&request(), &Facts { unfinished, ..facts() }).unwrap_err();
        let says = format!("`raidguard {verb}` of `second` was interrupted and has not ended");
        assert_eq!(blockers, [Blocker::new(says, clears)]);
    }
}
