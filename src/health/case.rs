//! What the rules judge, and how they say what they find.

use jiff::Timestamp;

use super::findings;
use crate::{
    config::{Member, Mirror},
    model::{
        BackendKind, Finding, Observed, Record, Severity, Source, Zone,
        mirror::{MemberState, MirrorState},
        quote::shell_quote,
    },
};

/// One mirror: what should be, what is, what was, and the findings so far.
pub(super) struct Case<'a> {
    pub(super) declared: &'a Mirror,
    pub(super) observed: &'a Observed,
    pub(super) record: &'a Record,
    pub(super) now: Timestamp,
    pub(super) findings: Vec<Finding>,
}

impl Case<'_> {
    /// Local time, by which jobs run.
    pub(super) fn zone(&self) -> Zone {
        self.observed.jobs.get().map(|jobs| jobs.zone.clone()).unwrap_or_default()
    }

    /// A finding, with its remedy from the table made concrete.
    pub(super) fn add(
        &mut self,
        code: &'static str,
        severity: Severity,
        about: impl Into<String>,
        says: impl Into<String>,
        evidence: Vec<String>,
    ) {
        self.add_with(code, severity, about, says, evidence, &[]);
    }

    /// As [`Case::add`]; the remedy also has these words filled in.
    pub(super) fn add_with(
        &mut self,
        code: &'static str,
        severity: Severity,
        about: impl Into<String>,
        says: impl Into<String>,
        evidence: Vec<String>,
        words: &[(&str, String)],
    ) {
        let entry = findings::find(code);
        let remedy = self.fill(entry.map_or("", |e| e.remedy_for(self.declared.backend)), words);
        let source = entry.map_or(Source::Record, |e| e.source);
        self.findings.push(Finding {
            code: code.to_owned(),
            severity,
            about: about.into(),
            says: says.into(),
            evidence,
            remedy,
            source,
            since: None,
        });
    }

    /// Something could not be read.
    pub(super) fn unread(
        &mut self,
        source: Source,
        about: &str,
        says: impl Into<String>,
        evidence: Vec<String>,
    ) {
        let about = format!("{}{}{about}", source.as_str(), if about.is_empty() { "" } else { ": " });
        self.add("OBS-FAILED", Severity::Unknown, about, says, evidence);
        self.read_from(source);
    }

    /// The last finding was read from another source than its code usually is.
    pub(super) fn read_from(&mut self, source: Source) {
        if let Some(last) = self.findings.last_mut() {
            last.source = source;
        }
    }

    /// What the mirror's pool is called.
    fn pool(&self) -> String {
        let pool = self.state().and_then(|state| state.zfs.as_ref());
        pool.map_or_else(|| self.declared.name.clone(), |pool| pool.name.clone())
    }

    /// In one pass: a mount point may be called NAME.
    fn fill(&self, remedy: &str, words: &[(&str, String)]) -> String {
        let quoted = |path: &std::path::Path| shell_quote(path.as_os_str()).into_owned();
        let node = self.declared.node.as_ref();
        let place = |path: Option<&std::path::PathBuf>| path.map(|p| quoted(p)).unwrap_or_default();
        let mountpoint = &self.declared.mountpoint;
        let common = [
            ("MOUNTPOINT", quoted(mountpoint)),
            ("PARENT", quoted(mountpoint.parent().unwrap_or(mountpoint))),
            ("LEVEL", self.declared.level.as_str().to_owned()),
            ("NAME", self.declared.name.clone()),
            ("POOL", self.pool()),
            ("FSUUID", self.declared.filesystem_uuid().to_owned()),
            ("DIRECTORY", place(node.map(|n| &n.directory))),
            ("DATA", place(node.map(|n| &n.data))),
        ];
        // The longer of two words that begin alike, and only whole ones.
        let known: Vec<_> = words.iter().chain(&common).filter(|(_, value)| !value.is_empty()).collect();
        let mut out = String::new();
        let mut rest = remedy;
        while let Some(at) = rest.find(|c: char| c.is_ascii_uppercase()) {
            let (before, from) = rest.split_at(at);
            let end = from.find(|c: char| !(c.is_ascii_uppercase() || c == '-')).unwrap_or(from.len());
            let (word, after) = from.split_at(end);
            let glued = before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
            out.push_str(before);
            match known.iter().find(|(name, _)| *name == word && !glued) {
                Some((_, value)) => out.push_str(value),
                None => out.push_str(word),
            }
            rest = after;
        }
        out.push_str(rest);
        out
    }

    /// What was seen of the mirror, if it could be.
    pub(super) fn state(&self) -> Option<&MirrorState> {
        self.observed.storage.get()
    }
}

/// A member's number and device, as remedies name them.
pub(super) fn words_for(member: &MemberState) -> Vec<(&'static str, String)> {
    let path = member.path.as_ref().map(|p| shell_quote(p.as_os_str()).into_owned());
    vec![("DEVID", member.devid.to_string()), ("DEVICE", path.unwrap_or_default())]
}

/// A member as findings name it.
pub(super) fn name_of(member: &MemberState) -> String {
    match &member.path {
        Some(path) => format!("member {} ({})", member.devid, path.display()),
        None => format!("member {}", member.devid),
    }
}

/// What tells how new the state is that a member holds.
pub(super) const fn age_word(kind: BackendKind) -> &'static str {
    match kind {
        BackendKind::Btrfs => "last commit",
        BackendKind::Mdadm => "count of events",
        BackendKind::Zfs => "last transaction group",
    }
}

/// Is it the declared one, as far as can be told?
pub(super) fn is_declared_as(member: &MemberState, declared: &Member) -> bool {
    let same_uuid = member.uuid.as_ref().is_none_or(|uuid| uuid.eq_ignore_ascii_case(&declared.uuid));
    member.devid.to_string() == declared.id && same_uuid
}
