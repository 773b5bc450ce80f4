//! Asks every source about a mirror, each on a thread of its own and within its time. No verdict is made here.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use super::{deep, rule};
use crate::{
    backend,
    config::{Mirror, Node, SECRETS_PATH},
    host::{
        Host, below, disks, fstab,
        patience::{Asked, Askers},
        schedule,
        secrets::{self, SecretsError},
        smart,
    },
    model::{
        BackendKind, Observed, Record, Seen,
        mirror::MirrorState,
        observed::{
            ChannelFacts, Claim, DiskFacts, JobFacts, MountFacts, NodeFacts, ScrubRecord, Smart, SmartFacts,
            StrayProcess, causes,
        },
    },
    node,
};

/// How long one source may take. What the kernel answers, it answers at once; a disk may have to wake up.
const LIMIT: Duration = Duration::from_secs(10);

/// Among how many the question about all processes is divided: as many as ask at once ([`Askers`]).
const SHARES: u32 = 2;

/// Why nothing is read that lies on a mirror which has stopped.
const STOPPED: &str = "the mirror has stopped, and whoever reads from it may wait for ever";

/// A source that is being asked.
struct Source<T>(Asked<Seen<T>>);

fn ask<T: Send + 'static, E: std::error::Error>(
    askers: &Askers,
    question: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Source<T> {
    Source(askers.ask(move || Seen::of(question())))
}

impl<T> Source<T> {
    fn answer(self, host: &Host) -> Seen<T> {
        self.answer_within(LIMIT, host)
    }

    fn answer_within(self, limit: Duration, host: &Host) -> Seen<T> {
        self.0.wait(limit, host.interrupt()).unwrap_or_else(|e| Seen::Failed(e.to_string()))
    }
}

fn nothing() -> Observed {
    Observed {
        storage: Seen::Skipped,
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
    }
}

/// What is asked about one mirror.
struct OfMirror {
    storage: Option<Source<MirrorState>>,
    mount: Source<MountFacts>,
    scrub: Source<Option<ScrubRecord>>,
    jobs: Source<JobFacts>,
    node: Option<Source<NodeFacts>>,
}

impl OfMirror {
    fn ask(
        askers: &Askers,
        host: &Host,
        all: &Arc<[Mirror]>,
        mirror: &Mirror,
        mount: Source<MountFacts>,
        stopped: bool,
    ) -> Self {
        let backend = backend::of(mirror.backend);
        let own = || (host.clone(), mirror.clone());
        let storage = {
            let (host, mirror) = own();
            ask(askers, move || backend.observe(&host, &mirror.uuid, &mirror.mountpoint))
        };
        let scrub = {
            let (host, mirror) = own();
            ask(askers, move || backend.scrub_record(&host, &mirror.uuid))
        };
        let jobs = {
            let ((host, mirror), all) = (own(), Arc::clone(all));
            ask(askers, move || {
                let other = |e: &dyn std::error::Error| std::io::Error::other(causes(&e));
                let ruled = rule::is_wanted(&host, mirror.backend, &mirror.uuid).map_err(|e| other(&e))?;
                let mut facts = schedule::facts(&host, &all, &mirror, ruled).map_err(|e| other(&e))?;
                if mirror.schedule.is_some() {
                    facts.doubled.extend(backend.doubled(&host, &mirror).map_err(|e| other(&e))?);
                }
                Ok::<_, std::io::Error>(facts)
            })
        };
        let node = mirror.node.clone().filter(|_| !stopped).map(|node| {
            let (host, mirror) = own();
            ask(askers, move || node::facts(&host, &node, &mirror.mountpoint))
        });
        Self { storage: Some(storage), mount, scrub, jobs, node }
    }
}

/// All questions about the declared mirrors but for the databases, which are another matter. What is the same for all of them is asked
/// once.
pub(super) struct Asking {
    askers: Askers,
    host: Host,
    mirrors: Arc<[Mirror]>,
    processes: Vec<Source<Vec<Vec<StrayProcess>>>>,
    claims: HashMap<BackendKind, Source<BTreeMap<String, Vec<Claim>>>>,
    channels: Source<ChannelFacts>,
    each: Vec<OfMirror>,
    stopped: Vec<bool>,
}

/// Whether a mirror has stopped; one of which that cannot be read is found to be unreadable otherwise.
fn has_stopped(host: &Host, mirror: &Mirror) -> bool {
    backend::of(mirror.backend).has_stopped(host, &mirror.mountpoint).unwrap_or_default()
}

impl Asking {
    /// Begins to ask.
    pub(super) fn begin(host: &Host, mirrors: &Arc<[Mirror]>) -> Self {
        let askers = Askers::default();
        let host = host.at_a_glance();
        let stopped: Vec<bool> = mirrors.iter().map(|mirror| has_stopped(&host, mirror)).collect();
        let serving = mirrors.iter().zip(&stopped).filter(|(_, stopped)| !**stopped);
        let nodes: Vec<Node> = serving.filter_map(|(mirror, _)| mirror.node.clone()).collect();
        // What waits for the kernel or for disks goes first, then what takes longest, to all who ask.
        let mounts = mirrors.iter().map(|mirror| {
            let (host, mirror) = (host.clone(), mirror.clone());
            ask(&askers, move || mount(&host, &mirror))
        });
        let mounts: Vec<_> = mounts.collect();
        let mut claims = HashMap::new();
        for kind in mirrors.iter().map(|mirror| mirror.backend) {
            claims.entry(kind).or_insert_with(|| {
                let host = host.clone();
                ask(&askers, move || backend::of(kind).claims(&host))
            });
        }
        let shares = if nodes.is_empty() { 0 } else { SHARES };
        let processes = (0..shares).map(|first| {
            let (host, nodes) = (host.clone(), nodes.clone());
            ask(&askers, move || node::strays(&host, &nodes, node::Share { first, of: SHARES }))
        });
        let processes = processes.collect();
        let each = mirrors.iter().zip(mounts).zip(&stopped);
        let each =
            each.map(|((one, mount), stopped)| OfMirror::ask(&askers, &host, mirrors, one, mount, *stopped));
        let each = each.collect();
        let channels = {
            let host = host.clone();
            ask(&askers, move || channels(&host))
        };
        Self { askers, host, mirrors: Arc::clone(mirrors), processes, claims, channels, each, stopped }
    }

    /// What is seen of each mirror, in their order.
    pub(super) fn answers(self) -> Vec<Observed> {
        let Self { askers, host, mirrors, processes, claims, channels, each, stopped } = self;
        // Whatever depends on an answer is asked before the next is waited for: one that hangs must not keep another from its turn.
        let storage = each.into_iter().map(|mut asked| {
            let storage = asked.storage.take().map_or(Seen::Skipped, |asked| asked.answer(&host));
            let disks = ask_disks(&askers, &host, storage.get());
            (asked, storage, disks)
        });
        let storage: Vec<_> = storage.collect();
        let disks = storage.into_iter().map(|(asked, storage, disks)| {
            let disks = disks.map_or(Seen::Skipped, |asked| asked.answer(&host));
            let smart = ask_smart(&askers, &host, disks.get());
            (asked, storage, disks, smart)
        });
        let disks: Vec<_> = disks.collect();
        let claims: HashMap<_, _> =
            claims.into_iter().map(|(kind, asked)| (kind, asked.answer(&host))).collect();
        let channels = channels.answer(&host);
        let mut processes = EachNodes::of(processes.into_iter().map(|asked| asked.answer(&host)));
        let seen = disks.into_iter().zip(mirrors.iter().zip(stopped));
        let seen = seen.map(|((asked, storage, disks, smart), (mirror, stopped))| {
            let unread = mirror.node.is_some() && stopped;
            let own = |all: &BTreeMap<String, Vec<Claim>>| all.get(&mirror.uuid).cloned().unwrap_or_default();
            Observed {
                storage,
                claims: claims.get(&mirror.backend).map_or(Seen::Skipped, |all| all.as_seen(own)),
                mount: asked.mount.answer(&host),
                scrub: asked.scrub.answer(&host),
                disks,
                smart: smart.into_iter().map(|(disk, asked)| of_disk(&host, disk, asked)).collect(),
                node: match asked.node {
                    Some(asked) => asked.answer(&host),
                    None if unread => Seen::Failed(STOPPED.to_owned()),
                    None => Seen::Skipped,
                },
                processes: match &mirror.node {
                    Some(_) if unread => Seen::Failed(STOPPED.to_owned()),
                    Some(_) => processes.next(),
                    None => Seen::Skipped,
                },
                users: Seen::Skipped,
                jobs: asked.jobs.answer(&host),
                databases: Seen::Skipped,
                channels: channels.clone(),
            }
        });
        seen.collect()
    }
}

fn of_disk(host: &Host, disk: String, asked: Option<Source<Smart>>) -> SmartFacts {
    SmartFacts { disk, smart: asked.map_or(Seen::Skipped, |asked| asked.answer(host)) }
}

/// The processes on the files of each mirror's node, in the order of the mirrors.
enum EachNodes {
    Read(std::vec::IntoIter<Vec<StrayProcess>>),
    Not(Seen<Vec<StrayProcess>>),
}

impl EachNodes {
    /// From the shares of the processes: one that could not be read leaves the whole unknown.
    fn of(shares: impl Iterator<Item = Seen<Vec<Vec<StrayProcess>>>>) -> Self {
        let mut whole: Option<Vec<Vec<StrayProcess>>> = None;
        for share in shares {
            match (share, &mut whole) {
                (Seen::Read(each), None) => whole = Some(each),
                (Seen::Read(each), Some(whole)) => {
                    whole.iter_mut().zip(each).for_each(|(all, more)| all.extend(more));
                }
                (Seen::Failed(why), _) => return Self::Not(Seen::Failed(why)),
                (Seen::Skipped, _) => return Self::Not(Seen::Skipped),
            }
        }
        whole.map_or(Self::Not(Seen::Skipped), |all| Self::Read(all.into_iter()))
    }

    fn next(&mut self) -> Seen<Vec<StrayProcess>> {
        match self {
            Self::Read(each) => each.next().map_or_else(|| Seen::Failed("not asked".to_owned()), Seen::Read),
            Self::Not(why) => why.clone(),
        }
    }
}

/// What the guard needs, and no more: a node is waiting for it.
pub(super) fn observe_for_start(host: &Host, mirror: &Mirror, record: &Record) -> Observed {
    let askers = Askers::default();
    let host = host.at_a_glance();
    let backend = backend::of(mirror.backend);
    let storage = {
        let (host, mirror) = (host.clone(), mirror.clone());
        ask(&askers, move || backend.observe(&host, &mirror.uuid, &mirror.mountpoint))
    };
    let ask_claims = || {
        let host = host.clone();
        ask(&askers, move || backend.claims(&host))
    };
    let own = |all: &BTreeMap<String, Vec<Claim>>| all.get(&mirror.uuid).cloned().unwrap_or_default();
    // The kernel starts one of two halves of an array that were each written to alone; of a btrfs neither is mounted.
    let asked = (mirror.backend == BackendKind::Mdadm).then(ask_claims);
    let claims = |asked: Option<Source<_>>, storage: &Seen<MirrorState>| {
        let absent = storage.get().is_some_and(|state| !state.mounted);
        let asked = asked.or_else(|| absent.then(ask_claims));
        asked.map_or(Seen::Skipped, |c| c.answer(&host).as_seen(own))
    };
    // Of one that has stopped nothing else matters.
    let Some(node) = mirror.node.clone().filter(|_| !has_stopped(&host, mirror)) else {
        let storage = storage.answer(&host);
        return Observed { claims: claims(asked, &storage), storage, ..nothing() };
    };
    let facts = {
        let (host, node, mountpoint) = (host.clone(), node.clone(), mirror.mountpoint.clone());
        ask(&askers, move || node::facts(&host, &node, &mountpoint))
    };
    let processes = {
        let (host, node) = (host.clone(), node.clone());
        ask(&askers, move || node::strays(&host, &[node], node::Share::ALL))
    };
    let users = {
        let (host, data) = (host.clone(), node.data.clone());
        ask(&askers, move || node::find_nodes(&host, &data).map(|nodes| nodes.users()))
    };
    let storage = storage.answer(&host);
    let mut observed = Observed {
        claims: claims(asked, &storage),
        storage,
        node: facts.answer(&host),
        users: users.answer(&host),
        processes: EachNodes::of(std::iter::once(processes.answer(&host))).next(),
        ..nothing()
    };
    if observed.node.get().is_some_and(|facts| facts.on_mirror) {
        let (asked, of, record) = (host.clone(), mirror.clone(), record.clone());
        let limit = {
            let of = of.clone();
            ask(&askers, move || deep::patience(&of, LIMIT))
        };
        observed.databases = match limit.answer(&host) {
            Seen::Read(limit) => {
                ask(&askers, move || deep::versions(&asked, &of, &record)).answer_within(limit, &host)
            }
            Seen::Failed(why) => Seen::Failed(why),
            Seen::Skipped => Seen::Skipped,
        };
    }
    observed
}

fn mount(host: &Host, mirror: &Mirror) -> Result<MountFacts, std::io::Error> {
    let other = |e: &dyn std::error::Error| std::io::Error::other(causes(e));
    let lines =
        fstab::lines_for(host, &mirror.mountpoint, mirror.filesystem_uuid()).map_err(|e| other(&e))?;
    let mut facts = MountFacts { lines, ..MountFacts::default() };
    facts.boot = backend::of(mirror.backend).boot_faults(host, &mirror.uuid)?;
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

/// The disks that the members lie on.
fn ask_disks(askers: &Askers, host: &Host, state: Option<&MirrorState>) -> Option<Source<Vec<DiskFacts>>> {
    let present = state?.members.iter().filter(|m| !m.missing);
    let members: Vec<(u64, PathBuf)> = present.filter_map(|m| Some((m.devid, m.path.clone()?))).collect();
    let host = host.clone();
    Some(ask(askers, move || {
        let attached = members.iter().map(|(devid, path)| disks::attachment(&host, *devid, path));
        attached.collect::<Result<Vec<_>, _>>()
    }))
}

/// Each disk, once, with the question for its health where it has one to speak of.
fn ask_smart(
    askers: &Askers,
    host: &Host,
    attached: Option<&Vec<DiskFacts>>,
) -> Vec<(String, Option<Source<Smart>>)> {
    let mut names: Vec<String> = attached.into_iter().flatten().flat_map(|d| d.disks.clone()).collect();
    names.sort();
    names.dedup();
    let question = |disk: &str| {
        let (host, disk) = (host.clone(), disk.to_owned());
        ask(askers, move || smart::ask(&host, &disk))
    };
    let asked = |disk: String| {
        let question = disks::speaks_of_health(&disk).then(|| question(&disk));
        (disk, question)
    };
    names.into_iter().map(asked).collect()
}

#[cfg(test)]
#[path = "observe_tests.rs"]
mod tests;
