//! What a proof makes of a mirror that is not whole.

use std::sync::Arc;

use super::*;
use crate::{
    backend::mdadm::tests::{MNT, Machine, UUID, recorded},
    exec::{Reply, ScriptedRunner},
    health::samples,
    model::{BackendKind, Level},
};

const MOUNTED: &str =
    "39 25 9:127 / /srv/lightning rw,relatime shared:66 - xfs /dev/md127 rw,attr2,inode64,noquota\n";

fn prove(settled: bool) -> Prove {
    let spec = MirrorSpec {
        backend: BackendKind::Mdadm,
        name: "lightning".into(),
        pool_name: None,
        level: Level::Raid1,
        uuid: UUID.into(),
        filesystem: None,
        pool: None,
        devices: vec!["/dev/sdb".into(), "/dev/sdc".into()],
        mountpoint: MNT.into(),
    };
    Prove { spec, record: "/var/lib/raidguard/journal/one.proof".into(), settled }
}

fn applied(machine: &Machine, step: &Prove) -> (Result<Outcome, StepError>, Option<Proof>) {
    machine.write("/var/lib/raidguard/journal/kept", "");
    let runner = Arc::new(ScriptedRunner::new().on("mdadm", Reply::ok("")));
    let host = Host::captured(machine.root(), runner, samples::now());
    let ran = step.apply(&mut Context { host: &host, watch: &mut () });
    assert_eq!(ran.is_ok(), step.probe(&host).unwrap() == Probe::Done);
    (ran, Proof::load(&host, &step.record).unwrap())
}

/// The other member drops off while the proof reads it: nothing that this plan could still do brings it back.
#[test]
fn a_member_that_is_missing_is_recorded_and_in_nobodys_way() {
    for settled in [true, false] {
        let machine = recorded!("pulled-idle");
        machine.write("/proc/self/mountinfo", MOUNTED);
        let (ran, proof) = applied(&machine, &prove(settled));
        let (notes, proof) = (ran.unwrap().notes.join("; "), proof.unwrap());
        assert!(!proof.is_good());
        let lacks = proof.lacks.join("; ");
        assert!(
            lacks.contains("member 2") && lacks.contains("raidguard replace lightning --old 2"),
            "{lacks}"
        );
        assert!(notes.contains("redundancy is not whole: member 2"), "{notes}");
    }
}

#[test]
fn sectors_that_a_member_lacks_are_recorded_and_in_nobodys_way() {
    let machine = recorded!("healthy");
    machine.write("/sys/class/block/md127/md/dev-sdb/bad_blocks", "2048 8\n");
    let (ran, proof) = applied(&machine, &prove(false));
    let (notes, proof) = (ran.unwrap().notes.join("; "), proof.unwrap());
    assert!(!proof.is_good());
    assert!(proof.lacks.join("; ").contains("member 1 lacks 8 sectors"), "{:?}", proof.lacks);
    assert!(notes.contains("raidguard replace lightning --old 1 --new DEVICE"), "{notes}");
}

/// Every member is there, and the check ends early again and again.
#[test]
fn a_scrub_that_always_ends_early_holds_up_only_what_can_be_put_back() {
    let machine = recorded!("healthy");
    machine.write("/sys/class/block/md127/md/degraded", "1\n");
    let (ran, proof) = applied(&machine, &prove(false));
    assert!(ran.unwrap_err().to_string().contains("ended before everything was read"));
    assert_eq!(proof, None);
    let (ran, proof) = applied(&machine, &prove(true));
    ran.unwrap();
    let proof = proof.unwrap();
    assert!(!proof.is_good() && proof.lacks.join("; ").contains("raidguard scrub lightning"), "{proof:?}");
}

#[test]
fn where_nothing_is_lacking_it_is_good() {
    let (ran, proof) = applied(&recorded!("healthy"), &prove(true));
    ran.unwrap();
    assert!(proof.unwrap().is_good());
}

/// A stopped `repair` puts back what it had begun, but not a UUID that no device has any more.
#[test]
fn the_declaration_of_a_member_that_was_filled_anew_is_not_put_back() {
    let machine = recorded!("healthy");
    let found = crate::backend::of(BackendKind::Mdadm).observe(
        &Host::captured(machine.root(), Arc::new(ScriptedRunner::new()), samples::now()),
        UUID,
        Path::new(MNT),
    );
    let uuid = |n: usize| found.as_ref().unwrap().members[n].uuid.clone().unwrap();
    for (was, kept) in [("of before".to_owned(), true), (uuid(1), false)] {
        let mut mirror = samples::declared();
        (mirror.backend, mirror.uuid) = (BackendKind::Mdadm, UUID.into());
        mirror.filesystem = Some(crate::model::Filesystem {
            kind: crate::model::FilesystemKind::Xfs,
            uuid: "1f624a50-0f62-4fea-8ae9-91647e74e09e".into(),
        });
        mirror.schedule = None;
        mirror.member[0].uuid = uuid(0);
        mirror.member[1].uuid = "declared now".into();
        machine.write(config::PATH, &config::with_mirror(None, &mirror).unwrap());
        let host = Host::captured(machine.root(), Arc::new(ScriptedRunner::new()), samples::now());
        let now = mirror.member[1].clone();
        let step = Redeclare {
            mirror: mirror.name.clone(),
            before: Member { uuid: was, ..now.clone() },
            after: Member { uuid: String::new(), ..now.clone() },
            spec: Some(prove(false).spec),
            device: None,
        };
        step.undo(&mut Context { host: &host, watch: &mut () }).unwrap();
        assert_eq!(step.is(&host, &now).unwrap(), kept);
        assert_eq!(step.is(&host, &step.before).unwrap(), !kept);
    }
}

#[test]
fn a_proof_of_before_it_could_lack_anything_is_still_read() {
    let old: Prove = serde_json::from_str(
        r#"{"spec":{"backend":"btrfs","name":"x","level":"raid1","uuid":"u","devices":[],"mountpoint":"/x"},"record":"/r"}"#,
    )
    .unwrap();
    assert!(!old.settled);
    let proof: Proof = serde_json::from_str(std::str::from_utf8(SAMPLE).unwrap()).unwrap();
    assert!(proof.lacks.is_empty());
}

crate::fuzz::fuzzed!(fuzz_proof, text[SAMPLE], |text| {
    if let Ok(proof) = serde_json::from_str::<Proof>(text) {
        assert!(!(proof.is_good() && proof.scrubs.is_empty()), "never scrubbed, never good");
    }
});

const SAMPLE: &[u8] = br#"{"scrubs":[{"command":"btrfs scrub start","end":"finished","status":null}],"damaged":[{"path":"/srv/x","why":"Input/output error"}]}"#;
