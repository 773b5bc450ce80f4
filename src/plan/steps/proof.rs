//! What ends an exchange or a repair: proof that redundancy is whole, and what raidguard remembers brought up to date.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    fail,
    reach::{mounted_at, must_be_mounted},
    run,
    storage::all_at,
};
use crate::{
    backend::{self, MirrorSpec, ScrubEnd, ScrubReport},
    config::{self, Member},
    exec::{Cmd, Flow, log_change},
    host::{
        Host, declaration, files,
        readable::{self, Damaged},
        state::{State, StateError},
    },
    model::{
        BackendKind, Bytes,
        mirror::{ErrorCounts, MemberState, MirrorState},
        observed::causes,
        record::Mismatches,
        zfs::{ZfsClass, ZfsState, ZfsVdev},
    },
    plan::{Context, Outcome, Probe, Step, StepError, Work},
};

/// Reads every copy of everything, and sees that all is stored as declared on members that are there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prove {
    /// The mirror.
    pub spec: MirrorSpec,
    /// Where what was found is kept.
    pub record: PathBuf,
    /// Whether there is only forward by then: what a proof finds is recorded, whatever it is, and never in the way.
    #[serde(default)]
    pub settled: bool,
}

/// What the proof found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Each scrub, the last one last.
    pub scrubs: Vec<ScrubReport>,
    /// Files that have lost something: no copy of a part of them is good.
    pub damaged: Vec<Damaged>,
    /// Why redundancy is not whole, in words, each with what to do.
    #[serde(default)]
    pub lacks: Vec<String>,
}

/// Writes into the declaration what a member is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Redeclare {
    /// The mirror's name.
    pub mirror: String,
    /// What it was.
    pub before: Member,
    /// What it is; without a UUID, or without a number too, where that is only known once it is a member.
    pub after: Member,
    /// The mirror, to read that from.
    #[serde(default)]
    pub spec: Option<MirrorSpec>,
    /// The device, by which a member without a number is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<PathBuf>,
}

/// Takes what is counted of a new member as known: it starts anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AcceptCounters {
    /// The mirror.
    pub spec: MirrorSpec,
    /// The member.
    pub id: u64,
    /// Its device, by which it is known where its number is only known once it is a member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<PathBuf>,
}

impl Proof {
    /// Reads what a proof found.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load(host: &Host, record: &Path) -> Result<Option<Self>, StepError> {
        let text = host.read_optional(record).map_err(fail("reading", record))?;
        text.map(|t| serde_json::from_str(&t).map_err(fail("understanding", record))).transpose()
    }

    /// Is every block of every member good?
    pub fn is_good(&self) -> bool {
        let read = self.scrubs.last().is_some_and(ScrubReport::is_good);
        read && self.damaged.is_empty() && self.lacks.is_empty()
    }
}

fn interrupted(host: &Host) -> Flow {
    if host.interrupt().is_raised() { Flow::Stop } else { Flow::Continue }
}

impl Prove {
    /// Why redundancy is not whole, and stays so until another command mends it.
    pub fn lacks(&self, state: &MirrorState) -> Vec<String> {
        let name = &self.spec.name;
        let way = |m: &MemberState| format!("raidguard replace {name} --old {} --new DEVICE", m.devid);
        let gone = state.members.iter().filter(|m| m.missing).map(|m| {
            let why = m.missing_because.as_deref().unwrap_or("it is missing");
            let way = way(m);
            format!(
                "member {}: {why}. Plug it in again: raidguard repair {name}; if it is dead: {way}",
                m.devid
            )
        });
        let bad = state.members.iter().filter(|m| !m.missing && m.bad_sectors > 0).map(|m| {
            let (sectors, way) = (m.bad_sectors, way(m));
            format!("member {} lacks {sectors} sectors, which only another device mends: {way}", m.devid)
        });
        gone.chain(bad).collect()
    }

    /// Why else redundancy is not whole.
    fn pending(&self, state: &MirrorState) -> Vec<String> {
        let mut pending = state.drifted(self.spec.level.as_str());
        let filled = state.members.iter().filter(|m| !m.missing && m.replace_target);
        pending.extend(filled.map(|m| format!("member {} is still being filled", m.devid)));
        pending.extend(state.zfs.iter().flat_map(doubts));
        pending
    }

    fn scrub(&self, cx: &mut Context<'_>, at: &Path, state: &MirrorState) -> Result<ScrubReport, StepError> {
        let mut again = true;
        loop {
            let (host, watch) = (cx.host, &mut *cx.watch);
            let began = host.now();
            let report = backend::of(self.spec.backend)
                .scrub(host, at, state, &mut |progress| {
                    if let (Some(done), Some(total)) = (progress.bytes_scrubbed, progress.bytes_total) {
                        watch.work(Work { done, total });
                    }
                    interrupted(host)
                })
                .map_err(|e| StepError::failed("the mirror could not be scrubbed", e))?;
            match report.end {
                ScrubEnd::Finished => {
                    // As the schedule's own job would: it need not be run again so soon.
                    let (name, now) = (&self.spec.name, host.now());
                    let kept = State::open(host).and_then(|s| {
                        s.job_ended(name, "scrub", (began, now), None)?;
                        let found = report.mismatched().map(|sectors| Mismatches { sectors, at: now });
                        found.map_or(Ok(()), |found| s.keep_mismatches(name, found))
                    });
                    if let Err(e) = kept {
                        tracing::warn!("this scrub could not be remembered: {}", causes(&e));
                    }
                    return Ok(report);
                }
                ScrubEnd::Stopped => return Err(StepError::interrupted("stopped while scrubbing, as asked")),
                // The end of a killed run's own scrub, or somebody's `btrfs scrub cancel`, may have ended it.
                ScrubEnd::Aborted if again && self.lacks(&mounted_at(host, &self.spec)?.1).is_empty() => {
                    again = false;
                }
                ScrubEnd::Aborted => return Ok(report),
                ScrubEnd::AlreadyRunning => {
                    if interrupted(host) == Flow::Stop {
                        return Err(StepError::interrupted("stopped waiting for another scrub, as asked"));
                    }
                    watch.waiting("waiting until another scrub has ended");
                    std::thread::sleep(std::time::Duration::from_secs(1));
                }
            }
        }
    }

    /// What was found, in words.
    fn notes(&self, proof: &Proof, state: &MirrorState) -> Vec<String> {
        let mut notes = vec![all_at(state, self.spec.level)];
        let end = proof.scrubs.last().map(counted).unwrap_or_default();
        let mended: u64 = proof.scrubs.iter().map(|s| counted(s).corrected).sum();
        if mended > 0 {
            notes.push(format!("{mended} blocks were mended from another copy"));
        }
        if end.uncorrectable > 0 {
            notes.push(format!("{} blocks could not be mended", end.uncorrectable));
        } else if end.superblock > 0 {
            notes.push(format!("{} superblocks are wrong", end.superblock));
        } else if !proof.lacks.is_empty() {
            notes.extend(proof.lacks.iter().map(|lack| format!("redundancy is not whole: {lack}")));
        } else if proof.scrubs.last().is_some_and(|s| s.compared) {
            notes.push(format!("every member was read; {} sectors differ between them", end.mismatched));
        } else {
            notes.push("every copy was read, and every one is good".to_owned());
        }
        notes
    }

    fn damaged(cx: &mut Context<'_>, at: &Path, state: &MirrorState) -> Result<Vec<Damaged>, StepError> {
        cx.watch.waiting("reading every file to name those that are damaged");
        let (host, watch, total) = (cx.host, &mut *cx.watch, state.used);
        let found = readable::unreadable(host, at, &mut |done: Bytes| {
            watch.work(Work { done, total: Bytes(total.0.max(done.0)) });
            interrupted(host)
        })
        .map_err(|e| StepError::failed("the damaged files could not be looked for", e))?;
        if found.stopped {
            return Err(StepError::interrupted("stopped while the damaged files were looked for, as asked"));
        }
        Ok(found.damaged)
    }
}

fn counted(report: &ScrubReport) -> crate::backend::ScrubCounts {
    report.status.as_ref().map(|s| s.counts).unwrap_or_default()
}

impl Step for Prove {
    fn says(&self) -> String {
        format!("prove it: read every copy of everything, and see that all of it is {}", self.spec.level)
    }

    fn commands(&self) -> Vec<String> {
        vec![backend::of(self.spec.backend).scrub_command(&self.spec).line()]
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        Ok(if Proof::load(host, &self.record)?.is_some() { Probe::Done } else { Probe::Pending })
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        let (at, state) = must_be_mounted(cx.host, &self.spec)?;
        let mut scrubs = vec![self.scrub(cx, &at, &state)?];
        let read = |scrubs: &[ScrubReport]| scrubs.last().is_some_and(|s| s.end == ScrubEnd::Finished);
        let superblocks = read(&scrubs) && scrubs.iter().any(|s| counted(s).superblock > 0);
        if superblocks {
            // A power cut may come between the writes of two superblocks, and a scrub between those of a commit: the next one writes all.
            run(cx.host, &Cmd::change("touch").arg("--").arg(&at))?;
            files::sync_filesystem(&cx.host.path(&at)).map_err(fail("committing", &at))?;
        }
        if superblocks || read(&scrubs) && scrubs.iter().any(|s| counted(s).corrected > 0) {
            // What was mended is read again.
            scrubs.push(self.scrub(cx, &at, &state)?);
        }
        let lost = scrubs.last().is_some_and(|s| counted(s).uncorrectable > 0);
        let damaged = if lost { Self::damaged(cx, &at, &state)? } else { Vec::new() };
        let (_, state) = mounted_at(cx.host, &self.spec)?;
        let (mut lacks, pending) = (self.lacks(&state), self.pending(&state));
        // A node that is stopped meanwhile must not wait for a proof that cannot be had.
        if !self.settled && lacks.is_empty() {
            if !pending.is_empty() {
                return Err(StepError::wrong(format!("redundancy is not whole: {}", pending.join("; "))));
            }
            if !read(&scrubs) {
                return Err(StepError::wrong("the scrub ended before everything was read")
                    .hint("see in dmesg whether a member failed; then run the same command again"));
            }
        }
        lacks.extend(pending);
        if !read(&scrubs) {
            let name = &self.spec.name;
            lacks.push(format!(
                "the scrub ended before everything was read: see in dmesg whether a member failed; raidguard scrub {name} reads it again"
            ));
        }
        let proof = Proof { scrubs, damaged, lacks };
        let notes = self.notes(&proof, &state);
        if proof.is_good() {
            let seen = state.members.iter().filter_map(|m| Some((m.uuid.clone()?, m.errors?)));
            let seen: Counters = seen.collect();
            let kept = State::open(cx.host).and_then(|s| s.put(&self.spec.name, "proven", &seen));
            if let Err(e) = kept {
                tracing::warn!("the counters could not be remembered: {}", causes(&e));
            }
        }
        let text = serde_json::to_string(&proof).map_err(fail("writing", &self.record))?;
        files::replace(&cx.host.path(&self.record), text.as_bytes(), 0o600)
            .map_err(fail("recording the proof in", &self.record))?;
        Ok(Outcome { notes })
    }

    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        files::remove(&cx.host.path(&self.record)).map_err(fail("removing", &self.record))?;
        Ok(())
    }
}

/// What of a pool is not as it should be, though all of its members serve.
fn doubts(pool: &ZfsState) -> Vec<String> {
    let data = || pool.vdevs.iter().filter(|vdev| vdev.class == ZfsClass::Normal);
    let leaves = data().flat_map(ZfsVdev::leaves).filter(|leaf| leaf.serves() && leaf.state != "ONLINE");
    let doubted = leaves.map(|leaf| format!("ZFS calls {} {}", leaf.name, leaf.state));
    // A member that is made of others is being exchanged.
    let open = data().flat_map(|top| &top.children).filter(|member| !member.children.is_empty());
    doubted.chain(open.map(|member| format!("{} has not ended", member.name))).collect()
}

/// A member by its device, or by its number where no device is told.
fn member_of<'s>(state: &'s MirrorState, device: Option<&Path>, id: &str) -> Option<&'s MemberState> {
    let mut there = state.members.iter().filter(|m| !m.missing);
    match device {
        Some(device) => there.find(|m| m.path.as_deref() == Some(device)),
        None => there.find(|m| m.devid.to_string() == id),
    }
}

impl Redeclare {
    /// What it is, its UUID and its number read where they were not known.
    fn after(&self, host: &Host) -> Result<Member, StepError> {
        let Some(spec) = self.spec.as_ref().filter(|_| self.after.uuid.is_empty()) else {
            return Ok(self.after.clone());
        };
        let (_, state) = mounted_at(host, spec)?;
        let found = member_of(&state, self.device.as_deref(), &self.after.id);
        let (id, uuid) = found
            .and_then(|m| Some((m.devid.to_string(), m.uuid.clone()?)))
            .ok_or_else(|| StepError::wrong("the new member's UUID cannot be read"))?;
        Ok(Member { id, uuid, ..self.after.clone() })
    }

    /// Does a member serve there that cannot be what it was any more? One of md that was filled anew keeps its new UUID, whatever is put
    /// back.
    fn stays(&self, host: &Host) -> Result<bool, StepError> {
        let md = |spec: &&MirrorSpec| spec.backend == BackendKind::Mdadm;
        let Some(spec) = self.spec.as_ref().filter(md) else { return Ok(false) };
        let (_, state) = mounted_at(host, spec)?;
        let found = member_of(&state, None, &self.before.id);
        Ok(found.and_then(|m| m.uuid.as_ref()).is_some_and(|uuid| *uuid != self.before.uuid))
    }

    fn is(&self, host: &Host, member: &Member) -> Result<bool, StepError> {
        let config =
            declaration::load(host).map_err(|e| StepError::failed("the declaration cannot be read", e))?;
        let mirror = config.mirror.iter().find(|m| m.name == self.mirror);
        Ok(mirror.is_some_and(|m| m.member.contains(member)))
    }

    fn write(&self, host: &Host, was: &Member, member: &Member) -> Result<(), StepError> {
        self.commands().iter().for_each(|c| log_change(c));
        declaration::set_member(host, &self.mirror, &was.id, member)
            .map_err(|e| StepError::failed("the declaration could not be written", e))
    }
}

impl Step for Redeclare {
    fn says(&self) -> String {
        format!("declare {} in {}", self.after, config::PATH)
    }
    fn commands(&self) -> Vec<String> {
        vec![format!("write {}", config::PATH)]
    }
    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        Ok(if self.is(host, &self.after(host)?)? { Probe::Done } else { Probe::Pending })
    }
    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        self.write(cx.host, &self.before, &self.after(cx.host)?)?;
        Ok(Outcome::default())
    }
    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        if self.is(cx.host, &self.before)? || self.stays(cx.host)? {
            return Ok(());
        }
        self.write(cx.host, &self.after(cx.host)?, &self.before)
    }
}

impl Step for AcceptCounters {
    fn says(&self) -> String {
        "begin the count of its errors anew".to_owned()
    }

    fn commands(&self) -> Vec<String> {
        Vec::new()
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        let (_, state) = mounted_at(host, &self.spec)?;
        // Of one that has dropped off nothing is counted.
        if state.mounted && state.members.iter().any(|m| m.missing && m.devid == self.id) {
            return Ok(Probe::Done);
        }
        let Some((uuid, now)) = counters(&state, self) else { return Ok(Probe::Pending) };
        let known = acknowledged(host, &self.spec.name)?.get(&uuid).copied().unwrap_or_default();
        Ok(if known == now { Probe::Done } else { Probe::Pending })
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        let (_, state) = must_be_mounted(cx.host, &self.spec)?;
        let (uuid, now) = counters(&state, self)
            .ok_or_else(|| StepError::wrong("the new member's counters cannot be read"))?;
        let name = &self.spec.name;
        let mut known = acknowledged(cx.host, name)?;
        known.insert(uuid, now);
        State::open(cx.host)
            .and_then(|state| state.durably(|| state.put(name, "acknowledged", &known)))
            .map_err(remembering)?;
        Ok(Outcome::default())
    }

    fn undo(&self, _: &mut Context<'_>) -> Result<(), StepError> {
        Ok(())
    }
}

fn remembering(e: StateError) -> StepError {
    StepError::failed("raidguard's own record could not be read or written", e)
}

type Counters = std::collections::BTreeMap<String, ErrorCounts>;

fn acknowledged(host: &Host, name: &str) -> Result<Counters, StepError> {
    match State::open_existing(host).map_err(remembering)? {
        None => Ok(Counters::new()),
        Some(state) => Ok(state.get(name, "acknowledged").map_err(remembering)?.unwrap_or_default()),
    }
}

fn counters(state: &MirrorState, step: &AcceptCounters) -> Option<(String, ErrorCounts)> {
    let member = member_of(state, step.device.as_deref(), &step.id.to_string())?;
    Some((member.uuid.clone()?, member.errors?))
}

#[cfg(test)]
mod tests;
