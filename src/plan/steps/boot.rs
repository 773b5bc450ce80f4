//! A mirror is made known to what puts it together at a boot: an array in mdadm.conf, a rule of udev, then the initramfs, which has copies
//! of both.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{fail, run};
use crate::{
    exec::{Cmd, log_change},
    host::{Host, files, mdadm_conf, schedule::Rule},
    plan::{Context, Outcome, Probe, Step, StepError, record_of},
};

/// An initramfs is compressed, on slow machines for minutes.
const INITRAMFS_TIMEOUT: Duration = Duration::from_secs(1800);

/// What makes an initramfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Initramfs {
    /// Debian's initramfs-tools.
    UpdateInitramfs,
    /// dracut, which has to be told to take mdadm.conf in.
    Dracut,
}

impl Initramfs {
    /// What this machine has, if any.
    pub fn of(host: &Host) -> Option<Self> {
        if host.runner().has("update-initramfs") {
            Some(Self::UpdateInitramfs)
        } else if host.runner().has("dracut") {
            Some(Self::Dracut)
        } else {
            None
        }
    }

    /// Makes it anew.
    ///
    /// # Errors
    /// The command did not succeed.
    pub fn renew(self, host: &Host) -> Result<(), StepError> {
        run(host, &self.cmd()).map(drop)
    }

    /// The command that does.
    pub fn cmd(self) -> Cmd {
        let cmd = match self {
            Self::UpdateInitramfs => Cmd::change("update-initramfs").arg("-u"),
            Self::Dracut => Cmd::change("dracut").args(["--force", "--mdadmconf"]),
        };
        cmd.timeout(INITRAMFS_TIMEOUT)
    }
}

/// Adds an array to mdadm.conf, by its UUID, has udev keep halves of the mirror apart, and makes the initramfs anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnowArray {
    /// The line; nothing where somebody else has made the array known.
    pub line: Option<String>,
    /// The comment above it.
    pub comment: String,
    /// The file that has the line.
    pub file: PathBuf,
    /// What makes the initramfs, where there is one.
    pub initramfs: Option<Initramfs>,
    /// Where it is kept that the initramfs knows it.
    pub record: PathBuf,
    /// The rule of udev. Plans of before there was one have none.
    #[serde(default)]
    pub rule: Option<Rule>,
}

impl KnowArray {
    /// The rule alone, in the plan of this id: a btrfs needs nothing else, and an array may be known by what somebody else has written.
    pub fn by_rule(rule: Rule, initramfs: Option<Initramfs>, id: &str) -> Self {
        Self {
            line: None,
            comment: String::new(),
            file: rule.path(),
            initramfs: initramfs.filter(|_| rule.is_in_initramfs()),
            record: record_of(id, "initramfs"),
            rule: Some(rule),
        }
    }

    fn tell(&self, host: &Host) -> Result<(), StepError> {
        self.initramfs.map_or(Ok(()), |initramfs| initramfs.renew(host))
    }

    fn is_told(&self, host: &Host) -> bool {
        self.initramfs.is_none() || host.path(&self.record).exists()
    }

    fn has_line(&self, host: &Host) -> Result<Option<bool>, StepError> {
        let has = |line| mdadm_conf::has(host, line).map_err(fail("reading", &self.file));
        self.line.as_deref().map(has).transpose()
    }

    /// What there is to be written, a line each: to mdadm.conf, then to udev's rules.
    fn writes(&self) -> Vec<String> {
        let line = self.line.iter().map(|line| format!("write {}: {line}", self.file.display()));
        line.chain(self.rule.iter().map(|rule| format!("write {}", rule.path().display()))).collect()
    }

    /// The same taken back.
    fn unwrites(&self) -> Vec<String> {
        let line = self.line.iter().map(|_| format!("write {}", self.file.display()));
        line.chain(self.rule.iter().map(|rule| Cmd::change("rm").arg(rule.path()).line())).collect()
    }
}

impl Step for KnowArray {
    fn says(&self) -> String {
        let and = if self.initramfs.is_some() { ", and make the initramfs anew" } else { "" };
        match (&self.line, &self.rule) {
            (Some(_), None) => format!("add the array to {}{and}", self.file.display()),
            (Some(_), Some(_)) => {
                format!("add the array to {}, have udev keep its halves apart{and}", self.file.display())
            }
            (None, rule) => {
                let keeper = rule.as_ref().map_or("udev", Rule::keeper);
                format!("have {keeper} keep the mirror's halves apart{and}")
            }
        }
    }

    fn commands(&self) -> Vec<String> {
        let mut lines = self.writes();
        lines.extend(self.initramfs.map(|initramfs| initramfs.cmd().line()));
        lines
    }

    fn unsays(&self) -> String {
        let line = self.line.iter().map(|_| format!("remove the array from {}", self.file.display()));
        let rule = self.rule.iter().map(|rule| {
            if rule.is_in_initramfs() {
                "remove the mirror's rule of udev".to_owned()
            } else {
                format!("remove {}", rule.path().display())
            }
        });
        line.chain(rule).collect::<Vec<_>>().join(", ")
    }

    fn undo_commands(&self) -> Vec<String> {
        let mut lines = self.unwrites();
        lines.extend(self.initramfs.map(|initramfs| initramfs.cmd().line()));
        lines
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        let ruled = match &self.rule {
            Some(rule) => rule.is_there(host).map_err(fail("reading", rule.path()))?,
            None => true,
        };
        let known = self.has_line(host)?.unwrap_or(true) && ruled;
        Ok(if known && self.is_told(host) { Probe::Done } else { Probe::Pending })
    }

    fn probe_undone(&self, host: &Host) -> Result<Probe, StepError> {
        let told = self.initramfs.is_some() && host.path(&self.record).exists();
        let ruled = self.rule.as_ref().is_some_and(|rule| host.path(rule.path()).exists());
        let known = self.has_line(host)?.unwrap_or(false) || ruled;
        Ok(if known || told { Probe::Pending } else { Probe::Done })
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        if let Some(line) = &self.line {
            log_change(&format!("write {}: {line}", self.file.display()));
            mdadm_conf::add(cx.host, line, &self.comment).map_err(fail("changing", &self.file))?;
        }
        if let Some(rule) = &self.rule {
            rule.write(cx.host).map_err(fail("writing", rule.path()))?;
        }
        self.tell(cx.host)?;
        files::replace(&cx.host.path(&self.record), b"told\n", 0o600)
            .map_err(fail("recording that the initramfs knows it in", &self.record))?;
        Ok(Outcome::default())
    }

    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        let ruled = self.rule.as_ref().is_some_and(|rule| cx.host.path(rule.path()).exists());
        let known = self.has_line(cx.host)?.unwrap_or(false) || ruled || cx.host.path(&self.record).exists();
        if let Some(line) = &self.line {
            log_change(&format!("write {}", self.file.display()));
            mdadm_conf::remove(cx.host, line, &self.comment).map_err(fail("changing", &self.file))?;
        }
        if let Some(rule) = &self.rule {
            rule.remove(cx.host).map_err(fail("removing", rule.path()))?;
        }
        if known {
            self.tell(cx.host)?;
        }
        files::remove(&cx.host.path(&self.record)).map_err(fail("removing", &self.record))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use super::*;
    use crate::exec::{Reply, ScriptedRunner};

    const UUID: &str = "3aaa0122-294f-5372-918d-05fe88b0b1b5";
    const RULE: &str = "etc/udev/rules.d/62-raidguard-lightning.rules";

    fn step(line: bool) -> KnowArray {
        KnowArray {
            line: line.then(|| crate::backend::mdadm::conf_line("lightning", UUID)),
            comment: "lightning mirror, written by raidguard".to_owned(),
            file: "/etc/mdadm.conf".into(),
            initramfs: Some(Initramfs::UpdateInitramfs),
            record: "/var/lib/raidguard/journal/one.initramfs".into(),
            rule: Some(Rule {
                backend: crate::model::BackendKind::Mdadm,
                mirror: "lightning".to_owned(),
                uuid: UUID.to_owned(),
                binary: "/usr/local/sbin/raidguard".into(),
            }),
        }
    }

    #[test]
    fn the_array_is_known_and_its_halves_are_kept_apart_and_all_of_it_goes_again() {
        for line in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("var/lib/raidguard/journal")).unwrap();
            let renew = Initramfs::UpdateInitramfs.cmd().line();
            let runner = Arc::new(ScriptedRunner::new().on(&renew, Reply::ok("")));
            let host = Host::captured(dir.path(), runner.clone(), jiff::Timestamp::UNIX_EPOCH);
            let step = step(line);
            assert_eq!(step.probe(&host).unwrap(), Probe::Pending);
            assert_eq!(step.probe_undone(&host).unwrap(), Probe::Done);
            step.apply(&mut Context { host: &host, watch: &mut () }).unwrap();
            assert_eq!(step.probe(&host).unwrap(), Probe::Done);
            assert_eq!(step.probe_undone(&host).unwrap(), Probe::Pending);
            assert_eq!(dir.path().join("etc/mdadm.conf").exists(), line);
            // A rule of another version is written anew.
            fs::write(dir.path().join(RULE), "# another\n").unwrap();
            assert_eq!(step.probe(&host).unwrap(), Probe::Pending);
            step.undo(&mut Context { host: &host, watch: &mut () }).unwrap();
            assert_eq!(step.probe_undone(&host).unwrap(), Probe::Done);
            assert!(!dir.path().join(RULE).exists() && !dir.path().join("etc/mdadm.conf").exists());
            let ran: Vec<_> = runner.calls().into_iter().map(|(_, line)| line).collect();
            assert_eq!(ran, [&*renew, &*renew], "once when it is known, once when it is not any more");
        }
    }

    #[test]
    fn a_plan_of_before_there_was_a_rule_is_still_read() {
        let old =
            r#"{"line":"ARRAY x","comment":"c","file":"/etc/mdadm.conf","initramfs":null,"record":"/r"}"#;
        let read: KnowArray = serde_json::from_str(old).unwrap();
        assert_eq!((read.line.as_deref(), read.rule), (Some("ARRAY x"), None));
    }
}
