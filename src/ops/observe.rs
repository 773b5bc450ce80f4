//! Asks every source about a mirror, each on a thread of its own and within its time. No verdict is made here.

use std::{path::PathBuf, time::Duration};

use super::deep;
use crate::{
    backend,
    config::{Mirror, SECRETS_PATH},
    host::{
        Host, below, disks, fstab, patience,
        patience::Asked,
        schedule,
        secrets::{self, SecretsError},
        smart,
    },
    model::{
        Observed, Record, Seen,
        mirror::MirrorState,
        observed::{ChannelFacts, DiskFacts, MountFacts, SmartFacts, causes},
    },
    node,
};

/// How long one source may take. What the kernel answers, it answers at once; a disk may have to wake up.
const LIMIT: Duration = Duration::from_secs(10);

/// A source that is being asked.
struct Source<T>(Asked<Seen<T>>);

fn ask<T: Send + 'static, E: std::error::Error>(
    question: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Source<T> {
    Source(patience::ask(move || Seen::of(question())))
}

impl<T> Source<T> {
    fn answer(self) -> Seen<T> {
        self.0.wait(LIMIT).unwrap_or_else(|e| Seen::Failed(e.to_string()))
    }
}

/// All that is seen of a mirror; the databases are another matter. `all` are the declared mirrors, whose jobs share their files.
pub(super) fn observe(host: &Host, all: &[Mirror], mirror: &Mirror) -> Observed {
    let backend = backend::of(mirror.backend);
    let own = || (host.clone(), mirror.clone());
    let storage = {
        let (host, mirror) = own();
        ask(move || backend.observe(&host, &mirror.uuid, &mirror.mountpoint))
    };
    let claims = {
        let (host, mirror) = own();
        ask(move || backend.claims(&host, &mirror.uuid))
    };
    let mount = {
        let (host, mirror) = own();
        ask(move || mount(&host, &mirror))
    };
    let scrub = {
        let (host, mirror) = own();
        ask(move || backend.scrub_record(&host, &mirror.uuid))
    };
    let jobs = {
        let ((host, mirror), all) = (own(), all.to_vec());
        ask(move || schedule::facts(&host, &all, &mirror))
    };
    let channels = {
        let host = host.clone();
        ask(move || channels(&host))
    };
    let node_facts = mirror.node.clone().map(|node| {
        let (host, mirror) = own();
        ask(move || node::facts(&host, &node, &mirror.mountpoint))
    });
    let processes = mirror.node.clone().map(|node| {
        let host = host.clone();
        ask(move || node::strays(&host, &node))
    });
    let storage = storage.answer();
    let (disks, smart) = below_members(host, storage.get());
    Observed {
        storage,
        claims: claims.answer(),
        mount: mount.answer(),
        scrub: scrub.answer(),
        disks,
        smart,
        node: node_facts.map_or(Seen::Skipped, Source::answer),
        processes: processes.map_or(Seen::Skipped, Source::answer),
        users: Seen::Skipped,
        jobs: jobs.answer(),
        databases: Seen::Skipped,
        channels: channels.answer(),
    }
}

/// What the guard needs, and no more: a node is waiting for it.
pub(super) fn observe_for_start(host: &Host, mirror: &Mirror, record: &Record) -> Observed {
    let backend = backend::of(mirror.backend);
    let storage = {
        let (host, mirror) = (host.clone(), mirror.clone());
        ask(move || backend.observe(&host, &mirror.uuid, &mirror.mountpoint))
    };
    let mut observed = Observed {
        storage: storage.answer(),
        claims: Seen::Skipped,
        mount: Seen::Skipped,
        scrub: Seen::Skipped,
        disks: Seen::Skipped,
        smart: Vec::new(),
        node: Seen::Skipped,
        processes: Seen::Skipped,
        users: Seen::Skipped,
        jobs: Seen::Skipped,
        databases: Seen::Skipped,
        channels: Seen::Skipped,
    };
    let Some(node) = mirror.node.clone() else { return observed };
    let facts = {
        let (host, node, mountpoint) = (host.clone(), node.clone(), mirror.mountpoint.clone());
        ask(move || node::facts(&host, &node, &mountpoint))
    };
    let processes = {
        let (host, node) = (host.clone(), node.clone());
        ask(move || node::strays(&host, &node))
    };
    let users = {
        let (host, data) = (host.clone(), node.data.clone());
        ask(move || node::find_running(&host, &data, None).map(|running| running.users()))
    };
    observed.node = facts.answer();
    observed.users = users.answer();
    observed.processes = processes.answer();
    if observed.node.get().is_some_and(|facts| facts.on_mirror) {
        let (mirror, record) = (mirror.clone(), record.clone());
        observed.databases = ask(move || deep::versions(&mirror, &record)).answer();
    }
    observed
}

fn mount(host: &Host, mirror: &Mirror) -> Result<MountFacts, std::io::Error> {
    let other = |e: &dyn std::error::Error| std::io::Error::other(causes(e));
    let lines = fstab::lines_for(host, &mirror.mountpoint, &mirror.uuid).map_err(|e| other(&e))?;
    let mut facts = MountFacts { lines, ..MountFacts::default() };
    let mounts = crate::host::mountinfo::read(host).map_err(|e| other(&e))?;
    if crate::host::mountinfo::topmost_at(&mounts, &mirror.mountpoint).is_some() {
        below::hidden(host, &mirror.mountpoint, &mut facts).map_err(|e| other(&e))?;
    }
    Ok(facts)
}

fn channels(host: &Host) -> Result<ChannelFacts, SecretsError> {
    match secrets::load(host) {
        Ok(_) => Ok(ChannelFacts::default()),
        // Only root may look, and that is as it should be.
        Err(e @ SecretsError::File(_)) => Err(e),
        Err(e) => Ok(ChannelFacts { secrets: Some(format!("{SECRETS_PATH}: {}", causes(&e))) }),
    }
}

/// The disks that the members lie on: all asked at once, each within its time.
fn below_members(host: &Host, state: Option<&MirrorState>) -> (Seen<Vec<DiskFacts>>, Vec<SmartFacts>) {
    let Some(state) = state else { return (Seen::Skipped, Vec::new()) };
    let members: Vec<(u64, PathBuf)> = state
        .members
        .iter()
        .filter(|m| !m.missing)
        .filter_map(|m| Some((m.devid, m.path.clone()?)))
        .collect();
    let attached = {
        let host = host.clone();
        ask(move || {
            members
                .iter()
                .map(|(devid, path)| disks::attachment(&host, *devid, path))
                .collect::<Result<Vec<_>, _>>()
        })
    };
    let attached = attached.answer();
    let mut names: Vec<String> = attached.get().into_iter().flatten().flat_map(|d| d.disks.clone()).collect();
    names.sort();
    names.dedup();
    let asked: Vec<_> = names
        .into_iter()
        .map(|disk| {
            let question = disks::speaks_of_health(&disk).then(|| {
                let (host, disk) = (host.clone(), disk.clone());
                ask(move || smart::ask(&host, &disk))
            });
            (disk, question)
        })
        .collect();
    let smart = asked
        .into_iter()
        .map(|(disk, question)| SmartFacts { disk, smart: question.map_or(Seen::Skipped, Source::answer) });
    let smart = smart.collect();
    (attached, smart)
}
