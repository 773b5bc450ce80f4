//! A member is exchanged, grown, and the level restored.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    fail,
    reach::{mounted_at, must_be_mounted},
    run,
    storage::backend_failed,
};
use crate::{
    backend::{self, BackendError, Exchange, ExchangeEnd, LevelEnd, MirrorSpec},
    exec::{Cmd, Flow},
    host::{Host, files, inventory},
    model::{BackendKind, Identity},
    plan::{Context, Outcome, Probe, Step, StepError, Work},
};

/// What was typed, so that the same command is known again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The member that goes, as it was named.
    pub old: Option<String>,
    /// The device that comes, as it was named.
    pub new: PathBuf,
}

/// Exchanges a member for a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplaceMember {
    /// The mirror.
    pub spec: MirrorSpec,
    /// Where it will be mounted then, as the plan has it.
    pub at: PathBuf,
    /// What is exchanged.
    pub exchange: Exchange,
    /// The old member in words.
    pub old: String,
    /// Its device, where it is there: what says on it that it is the member is erased afterwards.
    pub old_device: Option<Identity>,
    /// The device that comes.
    pub new: Identity,
    /// What was typed.
    pub asked: Asked,
}

/// Takes a member in again that was away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReturnMember {
    /// The mirror.
    pub spec: MirrorSpec,
    /// The member, and the device that it is.
    pub exchange: Exchange,
    /// That device.
    pub device: Identity,
}

/// Lets the filesystem use all of a larger device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GrowMember {
    /// The mirror.
    pub spec: MirrorSpec,
    /// Where it will be mounted then, as the plan has it.
    pub at: PathBuf,
    /// The member.
    pub exchange: Exchange,
}

/// Stores again at the declared level what is not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestoreLevel {
    /// The mirror.
    pub spec: MirrorSpec,
    /// Where it will be mounted then, as the plan has it.
    pub at: PathBuf,
}

/// Erases a half whose state is given up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Discard {
    /// The half.
    pub device: Identity,
    /// The mirror.
    pub spec: MirrorSpec,
    /// Where it is kept that it was erased: it will hold a member of this very mirror again.
    pub record: PathBuf,
}

fn flow(host: &Host) -> Flow {
    if host.interrupt().is_raised() { Flow::Stop } else { Flow::Continue }
}

impl ReplaceMember {
    /// Has it been exchanged?
    ///
    /// # Errors
    /// The device cannot be read.
    pub fn is_done(&self, host: &Host) -> Result<bool, BackendError> {
        backend::of(self.spec.backend).is_exchanged(host, &self.exchange)
    }

    /// What is left to be erased on the old device, once the new one has its place.
    fn remains(&self, host: &Host) -> Vec<Cmd> {
        let Some(old) = &self.old_device else { return Vec::new() };
        backend::of(self.spec.backend).retire_commands(host, &self.exchange, &old.path)
    }

    /// Erases it, where it is the same device still.
    fn retire(&self, host: &Host) -> Result<(), StepError> {
        let cmds = self.remains(host);
        let Some(old) = self.old_device.as_ref().filter(|_| !cmds.is_empty()) else { return Ok(()) };
        let there = inventory::identify(host, &old.path)
            .map_err(|e| StepError::failed("the devices cannot be read again", e))?;
        if let Some(difference) = there.and_then(|there| old.difference(&there)) {
            let path = old.path.display();
            return Err(StepError::refused(format!("{path} is not the old member any more: {difference}")));
        }
        cmds.iter().try_for_each(|cmd| run(host, cmd).map(drop)).map_err(|e| {
            e.hint(format!(
                "if {} cannot be written to, unplug it: it is no member any more; then run the same command again",
                old.path.display()
            ))
        })
    }

    fn failed(&self, e: BackendError) -> StepError {
        let told = e.to_string();
        let fails = matches!(e, BackendError::NewDevice { .. });
        let error =
            StepError::failed(format!("{} could not be exchanged; it is a member still", self.old), e);
        if told.contains("No space left") {
            return error.hint(
                "too little of the members is in no chunk: `raidguard balance` gives half-empty chunks back; where that is not enough, \
                 move away what else is on the mirror and balance again; then run the same command again",
            );
        }
        if fails && self.spec.backend == BackendKind::Zfs {
            return error.hint("name another device, or run the same command again when this one is sound");
        }
        if fails {
            return error.hint(format!(
                "name another device, or run the same command again when this one is sound. The kernel counts writes that failed on it on the \
                 old one too: raidguard repair {} reads all of it. While the new one still says that it is being filled, the kernel mounts \
                 nothing of the mirror beside it: erase it before the next boot (wipefs --all --types btrfs {})",
                self.spec.name,
                self.new.path.display()
            ));
        }
        error.hint("see in dmesg which device failed; where it is the new one, name another")
    }
}

impl Step for ReplaceMember {
    fn says(&self) -> String {
        format!("exchange {} for {}", self.old, self.new.path.display())
    }

    fn commands(&self) -> Vec<String> {
        vec![backend::of(self.spec.backend).exchange_command(&self.spec, &self.exchange, &self.at).line()]
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        let done = self.is_done(host).map_err(backend_failed)? && self.remains(host).is_empty();
        Ok(if done { Probe::Done } else { Probe::Pending })
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        if self.is_done(cx.host).map_err(backend_failed)? {
            self.retire(cx.host)?;
            return Ok(Outcome::note("what was left on the old device was erased"));
        }
        let (at, _) = must_be_mounted(cx.host, &self.spec)?;
        let (host, watch) = (cx.host, &mut *cx.watch);
        let mut told = |progress: &backend::ExchangeProgress| {
            if let Some(done) = progress.copied {
                watch.work(Work { done, total: progress.total });
            }
            flow(host)
        };
        let end = backend::of(self.spec.backend).exchange(host, &self.exchange, &at, &mut told);
        let end = end.map_err(|e| self.failed(e))?;
        if end != ExchangeEnd::Stopped {
            self.retire(host)?;
        }
        match end {
            ExchangeEnd::Done { unreadable: 0 } => Ok(Outcome::default()),
            ExchangeEnd::Done { unreadable } => {
                Ok(Outcome::note(format!("{unreadable} blocks could not be read from any member")))
            }
            ExchangeEnd::Stopped => {
                Err(StepError::interrupted(format!("stopped, as asked: {} is a member still", self.old)))
            }
        }
    }

    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        // A new device that is gone cannot be asked; the kernel gives up what it has not ended.
        let there = cx.host.path(&self.new.path).exists();
        if there && self.is_done(cx.host).map_err(backend_failed)? {
            return Err(StepError::refused(format!(
                "{} is the member now: there is nothing to go back to",
                self.new.path.display()
            )));
        }
        let (at, _) = mounted_at(cx.host, &self.spec)?;
        backend::of(self.spec.backend)
            .give_up_exchange(cx.host, &self.exchange, at.as_deref())
            .map_err(|e| StepError::failed("the exchange could not be taken back", e))
    }

    fn erases(&self) -> &[Identity] {
        std::slice::from_ref(&self.new)
    }
}

impl Step for ReturnMember {
    fn says(&self) -> String {
        format!("take member {} ({}) in again", self.exchange.id, self.device.path.display())
    }

    fn commands(&self) -> Vec<String> {
        let cmds = backend::of(self.spec.backend).return_commands(&self.spec, &self.exchange);
        cmds.iter().map(Cmd::line).collect()
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        let done = backend::of(self.spec.backend).is_returned(host, &self.exchange);
        Ok(if done.map_err(backend_failed)? { Probe::Done } else { Probe::Pending })
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        let (host, watch) = (cx.host, &mut *cx.watch);
        let mut told = |progress: &backend::ExchangeProgress| {
            if let Some(done) = progress.copied {
                watch.work(Work { done, total: progress.total });
            }
            flow(host)
        };
        let end = backend::of(self.spec.backend).take_back(host, &self.exchange, &mut told).map_err(|e| {
            StepError::failed(format!("{} could not be taken in again", self.device.path.display()), e)
                .hint("see in dmesg whether it fails; if it does: raidguard replace")
        })?;
        match end {
            ExchangeEnd::Done { .. } => Ok(Outcome::default()),
            ExchangeEnd::Stopped => Err(StepError::interrupted(
                "stopped waiting, as asked; the kernel goes on to bring the member up to date",
            )),
        }
    }

    fn undo(&self, _: &mut Context<'_>) -> Result<(), StepError> {
        // What the kernel has begun to bring up to date is nothing worse than it was.
        Ok(())
    }

    fn erases(&self) -> &[Identity] {
        std::slice::from_ref(&self.device)
    }
}

impl Step for GrowMember {
    fn says(&self) -> String {
        format!("let the filesystem use all of {}", self.exchange.new.display())
    }

    fn commands(&self) -> Vec<String> {
        backend::of(self.spec.backend).grow_commands(&self.exchange, &self.at).iter().map(Cmd::line).collect()
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        let grown = backend::of(self.spec.backend).is_grown(host, &self.exchange).map_err(backend_failed)?;
        Ok(if grown { Probe::Done } else { Probe::Pending })
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        let (at, _) = must_be_mounted(cx.host, &self.spec)?;
        for cmd in backend::of(self.spec.backend).grow_commands(&self.exchange, &at) {
            run(cx.host, &cmd)?;
        }
        Ok(Outcome::default())
    }

    fn undo(&self, _: &mut Context<'_>) -> Result<(), StepError> {
        // The exchange before it is not taken back either.
        Ok(())
    }
}

impl Step for RestoreLevel {
    fn says(&self) -> String {
        format!("store as {} again what is not", self.spec.level)
    }

    fn commands(&self) -> Vec<String> {
        let cmd = backend::of(self.spec.backend).restore_level_command(self.spec.level, &self.at);
        cmd.iter().map(Cmd::line).collect()
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        let (at, state) = mounted_at(host, &self.spec)?;
        let busy = state.exclusive_operation.as_deref().is_some_and(|op| op.starts_with("balance"));
        let whole = state.drifted(self.spec.level.as_str()).is_empty();
        Ok(if at.is_some() && whole && !busy { Probe::Done } else { Probe::Pending })
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        let (at, state) = must_be_mounted(cx.host, &self.spec)?;
        let was = state.drifted(self.spec.level.as_str());
        cx.watch.waiting(&format!("storing as {}: {}", self.spec.level, was.join(", ")));
        let host = cx.host;
        let end = backend::of(self.spec.backend)
            .restore_level(host, &state, self.spec.level, &at, &mut |&()| flow(host))
            .map_err(|e| StepError::failed("what is stored could not be rewritten; nothing is lost", e))?;
        match end {
            LevelEnd::Done => Ok(Outcome { notes: was.iter().map(|w| format!("it was {w}")).collect() }),
            LevelEnd::Stopped => Err(StepError::interrupted("stopped while rewriting, as asked")),
            LevelEnd::NoSpace => {
                Err(StepError::wrong(format!("there is no room to store all of it as {}", self.spec.level))
                    .hint("free some space on the mirror, then run the same command again"))
            }
        }
    }

    fn undo(&self, _: &mut Context<'_>) -> Result<(), StepError> {
        Ok(())
    }
}

impl Step for Discard {
    fn says(&self) -> String {
        format!("give up the state on {}: erase it", self.device.path.display())
    }

    fn commands(&self) -> Vec<String> {
        let (mut cmds, spec) = self.forgetting();
        cmds.extend(backend::of(self.spec.backend).discarding(&spec, &self.device));
        cmds.iter().map(Cmd::line).collect()
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        Ok(if host.path(&self.record).exists() { Probe::Done } else { Probe::Pending })
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        for cmd in self.cmds(cx.host)? {
            run(cx.host, &cmd)?;
        }
        files::replace(&cx.host.path(&self.record), b"erased\n", 0o600)
            .map_err(fail("recording that it was erased in", &self.record))?;
        Ok(Outcome::default())
    }

    fn undo(&self, _: &mut Context<'_>) -> Result<(), StepError> {
        // Said beforehand, with the serial number typed: what was given up does not come back.
        Ok(())
    }

    fn erases(&self) -> &[Identity] {
        std::slice::from_ref(&self.device)
    }
}

impl Discard {
    /// The kernel is made to forget it; then it is erased as if the mirror were made of it alone.
    fn forgetting(&self) -> (Vec<Cmd>, MirrorSpec) {
        let devices = vec![self.device.path.clone()];
        let cmds = backend::of(self.spec.backend).rescue().forget_commands(&devices);
        (cmds, MirrorSpec { devices, ..self.spec.clone() })
    }

    fn cmds(&self, host: &Host) -> Result<Vec<Cmd>, StepError> {
        let (mut cmds, spec) = self.forgetting();
        let erase = backend::of(self.spec.backend).discard_commands(host, &spec, &self.device);
        cmds.extend(erase.map_err(backend_failed)?);
        Ok(cmds)
    }
}
