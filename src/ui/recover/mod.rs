//! A rescue as people and programs are told of it: before, after, and in the file that lies beside what came out.

use std::{fmt::Write as _, path::PathBuf};

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

use crate::{
    backend::rescue::Freshness,
    model::{BackendKind, Bytes, lossy, quote::printable},
    node::secret::SecretKind,
};

const STRONG: Style = Style::new().bold();
const QUIET: Style = Style::new().dimmed();
const TEMPLATE: &str = include_str!("../../../templates/recovery.md");

/// What a rescue brought out.
#[derive(Debug, Clone, Serialize)]
pub struct RecoveryReport {
    /// When it began.
    pub at: Timestamp,
    /// The directory that holds it.
    #[serde(serialize_with = "lossy::path")]
    pub to: PathBuf,
    /// From which mirror.
    pub mirror: MirrorReport,
    /// Its members that could still be read.
    pub survivors: Vec<SurvivorReport>,
    /// What lay above them.
    pub overlay: String,
    /// How they were opened.
    pub way: WayReport,
    /// What was tried before and did not open them.
    pub tried: Vec<TriedReport>,
    /// How new it is.
    pub freshness: Freshness,
    /// Everything that speaks against it being whole and the newest.
    pub doubts: Vec<String>,
    /// Each network's directory that was found.
    pub networks: Vec<NetworkReport>,
    /// Every file that came out whole.
    pub files: Vec<FileReport>,
    /// What could not be read.
    pub unreadable: Vec<UnreadableReport>,
    /// What to do next.
    pub next: Vec<String>,
}

/// A mirror, by what its members say.
#[derive(Debug, Clone, Serialize)]
pub struct MirrorReport {
    /// What holds it.
    pub backend: BackendKind,
    /// Its UUID.
    pub uuid: String,
    /// Its label.
    pub label: String,
    /// Its name, where it is declared on this machine.
    pub name: Option<String>,
    /// How many members it had.
    pub members: u64,
}

/// A member that could still be read.
#[derive(Debug, Clone, Serialize)]
pub struct SurvivorReport {
    /// The device.
    #[serde(serialize_with = "lossy::path")]
    pub device: PathBuf,
    /// Its model.
    pub model: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its size.
    pub size: Bytes,
    /// The member's number.
    pub devid: u64,
    /// The last transaction that reached it.
    pub generation: u64,
    /// When its files were last changed, where that can be told.
    pub changed: Option<Timestamp>,
    /// What is wrong with its superblocks.
    pub faults: Vec<String>,
    /// What of its data it does not hold, where it says so itself.
    pub lacks: Option<String>,
    /// Those with the same hold the same.
    #[serde(skip)]
    pub share: u64,
    /// Whether it was read.
    pub used: bool,
    /// Why not.
    pub left_out: Option<String>,
    /// Whether it is proven that nothing was written to it; null where it was not touched.
    pub unchanged: Option<bool>,
    /// What proves that, or speaks against it.
    pub proof: Option<String>,
}

/// How survivors were opened.
#[derive(Debug, Clone, Serialize)]
pub struct WayReport {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub says: &'static str,
    /// What may be lacking.
    pub lacks: Option<&'static str>,
}

/// A way that did not open them.
#[derive(Debug, Clone, Serialize)]
pub struct TriedReport {
    /// Its name.
    pub way: &'static str,
    /// Why not.
    pub why: String,
}

/// One network's directory.
#[derive(Debug, Clone, Serialize)]
pub struct NetworkReport {
    /// It, within what came out.
    #[serde(serialize_with = "lossy::path")]
    pub directory: PathBuf,
    /// The node's base directory, likewise.
    #[serde(serialize_with = "lossy::path")]
    pub base: PathBuf,
    /// Its database.
    pub database: Option<DatabaseReport>,
    /// Its secret.
    pub secret: Option<SecretReport>,
    /// Whether `emergency.recover` is there.
    pub emergency_recover: bool,
}

/// A database.
#[derive(Debug, Clone, Serialize)]
pub struct DatabaseReport {
    /// Why it is not sound; null where it is.
    pub fault: Option<String>,
    /// Core Lightning's count of committed transactions.
    pub data_version: Option<i64>,
    /// The version of its tables.
    pub schema_version: Option<i64>,
    /// The node's public key.
    pub node_id: Option<String>,
    /// A rollback journal takes commits back; this is the count without that.
    pub without_journal: Option<i64>,
    /// The newest count that was ever seen on this machine, where it is known.
    pub ledger: Option<LedgerReport>,
    /// How it stands to that.
    pub against_ledger: AgainstLedger,
    /// Another copy of the same database came out that is newer.
    pub superseded: bool,
}

/// The newest state that was ever seen.
#[derive(Debug, Clone, Serialize)]
pub struct LedgerReport {
    /// Its count.
    pub data_version: i64,
    /// When it was seen.
    pub at: Timestamp,
}

/// How a database stands to the newest state ever seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgainstLedger {
    /// There is nothing to compare with.
    Unknown,
    /// It is at least as new.
    NotOlder,
    /// It is older.
    Older,
    /// It is another node's.
    OtherNode,
}

/// A secret. What it holds is never told.
#[derive(Debug, Clone, Serialize)]
pub struct SecretReport {
    /// Its kind, where it is one.
    pub kind: Option<SecretKind>,
    /// Its length in bytes.
    pub size: u64,
    /// Its mode, in octal.
    pub mode: String,
    /// What is wrong with it.
    pub fault: Option<String>,
}

/// A file that came out.
#[derive(Debug, Clone, Serialize)]
pub struct FileReport {
    /// It, within the directory.
    #[serde(serialize_with = "lossy::path")]
    pub path: PathBuf,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256; null for another name of a file, and for one that is nearly all holes.
    pub sha256: Option<String>,
}

/// Something that could not be read.
#[derive(Debug, Clone, Serialize)]
pub struct UnreadableReport {
    /// Its path on the mirror.
    #[serde(serialize_with = "lossy::path")]
    pub path: PathBuf,
    /// Why.
    pub why: String,
    /// What could be read of it lies here.
    #[serde(serialize_with = "lossy::option")]
    pub salvaged: Option<PathBuf>,
    /// How many of its bytes are lost; null where that is not known.
    pub lost: Option<u64>,
}

impl Freshness {
    /// It in a few words.
    pub fn says(self) -> &'static str {
        match self {
            Self::Newest => "the newest state: the last commit that was acknowledged is in it",
            Self::Unproven => "NOT PROVEN to be the newest state",
            Self::Old => "an OLD state, or one of which nobody knows how old it is",
        }
    }

    fn style(self) -> Style {
        let colour = match self {
            Self::Newest => AnsiColor::Green,
            Self::Unproven => AnsiColor::Yellow,
            Self::Old => AnsiColor::Red,
        };
        colour.on_default().bold()
    }
}

impl SurvivorReport {
    fn line(&self) -> String {
        let or = |text: &Option<String>, none: &str| text.clone().unwrap_or_else(|| none.to_owned());
        let changed =
            self.changed.map_or_else(String::new, |at| format!(", changed {}", at.strftime("%F %T UTC")));
        printable(&format!(
            "{}  {}  {}  {}  member {}, generation {}{changed}",
            self.device.display(),
            self.size,
            or(&self.model, "no model name"),
            self.serial.as_ref().map_or_else(|| "no serial number".to_owned(), |s| format!("serial {s}")),
            self.devid,
            self.generation,
        ))
    }
}

/// The survivors, as the operator is shown them before anything is done.
pub fn survivors(mirror: &MirrorReport, survivors: &[SurvivorReport]) -> String {
    let mut out = String::new();
    let own = [mirror.name.as_deref().unwrap_or_default(), &mirror.label, &mirror.uuid];
    let name = own.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
    let _ = writeln!(
        out,
        "{STRONG}{} `{}`{STRONG:#}, {} of {} members can be read:",
        mirror.backend,
        printable(name),
        survivors.len(),
        mirror.members
    );
    for survivor in survivors {
        let mark = if survivor.used { "*" } else { " " };
        let _ = writeln!(out, "  {mark} {STRONG}{}{STRONG:#}", survivor.line());
        for fault in survivor.faults.iter().chain(&survivor.lacks).chain(&survivor.left_out) {
            let _ = writeln!(out, "      {QUIET}{}{QUIET:#}", printable(fault));
        }
    }
    out
}

impl RecoveryReport {
    /// Is it whole, and the newest?
    pub fn is_good(&self) -> bool {
        self.freshness == Freshness::Newest && self.doubts.is_empty() && self.unreadable.is_empty()
    }

    /// It as JSON.
    ///
    /// # Errors
    /// It has no form in JSON.
    pub fn json(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Numbered<'r> {
            schema: u32,
            #[serde(flatten)]
            report: &'r RecoveryReport,
        }
        Ok(format!("{:#}\n", serde_json::to_value(Numbered { schema: 1, report: self })?))
    }

    /// It on a terminal: short, the next step last.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let style = self.freshness.style();
        let _ = writeln!(
            out,
            "{STRONG}{} files{STRONG:#} are in {}: {style}{}{style:#}",
            self.files.len(),
            printable(&self.to.display().to_string()),
            self.freshness.says()
        );
        for network in &self.networks {
            let _ = writeln!(out, "  {}", printable(&network.line()));
        }
        for doubt in &self.doubts {
            let _ = writeln!(out, "  {style}!{style:#} {}", printable(doubt));
        }
        for lost in &self.unreadable {
            let _ = writeln!(out, "  {style}!{style:#} {}", printable(&lost.line()));
        }
        for survivor in self.survivors.iter().filter_map(|s| s.proof.as_ref()) {
            let _ = writeln!(out, "  {QUIET}{}{QUIET:#}", printable(survivor));
        }
        for step in &self.next {
            let _ = writeln!(out, "{STRONG}next:{STRONG:#} {}", printable(step));
        }
        out
    }

    /// The file that lies beside what came out.
    ///
    /// # Errors
    /// The template does not fit, which a test would have found.
    pub fn page(&self) -> Result<String, minijinja::Error> {
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.add_filter("line", |text: String| printable(&text));
        environment.render_str(
            TEMPLATE,
            minijinja::context! {
                r => minijinja::Value::from_serialize(self),
                at => self.at.strftime("%F %T UTC").to_string(),
                freshness => self.freshness.says(),
                survivors => self.survivors.iter().map(SurvivorReport::line).collect::<Vec<_>>(),
                networks => self.networks.iter().map(NetworkReport::line).collect::<Vec<_>>(),
                unreadable => self.unreadable.iter().map(UnreadableReport::line).collect::<Vec<_>>(),
            },
        )
    }
}

impl NetworkReport {
    fn line(&self) -> String {
        let database = match &self.database {
            None => "no database".to_owned(),
            Some(database) => database.line(),
        };
        let secret = match &self.secret {
            None => "no hsm_secret".to_owned(),
            Some(SecretReport { fault: Some(fault), .. }) => format!("hsm_secret: {fault}"),
            Some(SecretReport { kind: Some(kind), .. }) => format!("hsm_secret: {}", kind.says()),
            Some(_) => "hsm_secret".to_owned(),
        };
        let emergency = if self.emergency_recover { "emergency.recover" } else { "no emergency.recover" };
        format!("{}: {database}; {secret}; {emergency}", self.directory.display())
    }
}

impl DatabaseReport {
    fn line(&self) -> String {
        if let Some(fault) = &self.fault {
            return format!("database NOT SOUND: {fault}");
        }
        let mut text = "database sound".to_owned();
        if let Some(version) = self.data_version {
            let _ = write!(text, ", data_version {version}");
        }
        match (&self.ledger, self.against_ledger) {
            (Some(ledger), AgainstLedger::Older) => {
                let _ = write!(
                    text,
                    ", OLDER than {} seen on {}",
                    ledger.data_version,
                    ledger.at.strftime("%F %T UTC")
                );
            }
            (Some(ledger), AgainstLedger::NotOlder) => {
                let _ = write!(text, " (newest ever seen: {})", ledger.data_version);
            }
            (_, AgainstLedger::OtherNode) => text.push_str(", of another node than was seen here"),
            _ => text.push_str(" (this machine has no record to compare with)"),
        }
        if self.superseded {
            text.push_str(", an older copy: never start from it");
        }
        text
    }
}

impl UnreadableReport {
    fn line(&self) -> String {
        let mut text = format!("{} cannot be read: {}", self.path.display(), self.why);
        if let (Some(salvaged), lost) = (&self.salvaged, self.lost) {
            let lost = lost.map_or_else(String::new, |bytes| format!(", {bytes} bytes of it are lost"));
            let _ = write!(text, "; what could be read is in {}{lost}", salvaged.display());
        }
        text
    }
}

#[cfg(test)]
pub(super) mod tests;
