//! `/etc/raidguard/raidguard.toml`: what should be. Written by setup, edited by people; a key that nothing reads is an error.

mod edit;
mod notify;

use std::{fmt, path::PathBuf};

pub use edit::{Left, with_member, with_mirror, without_mirror};
pub use notify::{Notify, SECRETS_PATH, Secrets, parse_secrets};

use serde::{Deserialize, Serialize};

use crate::model::{
    BackendKind, Bytes, Filesystem, Level, NodeControl, NodeKind, Schedule, Scheduler, node::unit_name,
};

/// Where it lies.
pub const PATH: &str = "/etc/raidguard/raidguard.toml";

/// The whole declaration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Each mirror.
    #[serde(default)]
    pub mirror: Vec<Mirror>,
    /// How the operator is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Notify>,
}

/// One declared mirror.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// Its name.
    pub name: String,
    /// What holds it.
    pub backend: BackendKind,
    /// Its level.
    pub level: Level,
    /// Its UUID, in lower case: btrfs's filesystem, md's array; of ZFS the pool's number, in decimal.
    pub uuid: String,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// The filesystem on it, where it is none itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<Filesystem>,
    /// Its members.
    pub member: Vec<Member>,
    /// The node that lives on it.
    pub node: Option<Node>,
    /// Its regular jobs.
    pub schedule: Option<ScheduleConfig>,
}

impl Mirror {
    /// How many of its members may fail, whichever they are.
    pub fn survives(&self) -> usize {
        self.backend.survives(self.level, self.member.len())
    }

    /// The UUID by which its filesystem is mounted.
    pub fn filesystem_uuid(&self) -> &str {
        self.filesystem.as_ref().map_or(&self.uuid, |filesystem| &filesystem.uuid)
    }
}

/// One declared member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The backend's number of it: btrfs's devid; of md its place in the array, from 1; ZFS's number of the vdev.
    pub id: String,
    /// The backend's own UUID of it.
    pub uuid: String,
    /// The disk's model.
    pub model: Option<String>,
    /// The disk's serial number.
    pub serial: Option<String>,
    /// Its size in bytes.
    pub size: Bytes,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id.as_str() {
            "" => f.write_str("the new member (")?,
            id => write!(f, "member {id} (")?,
        }
        if let Some(model) = &self.model {
            write!(f, "{model}, ")?;
        }
        if let Some(serial) = &self.serial {
            write!(f, "serial {serial}, ")?;
        }
        write!(f, "{})", self.size)
    }
}

/// A node's directory on a mirror.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// What is known about it.
    pub kind: NodeKind,
    /// The directory as the node knows it: a symlink.
    pub directory: PathBuf,
    /// Where that leads, inside the mount.
    pub data: PathBuf,
    /// Who the data were given to, where that was asked for.
    pub user: Option<String>,
    /// Its systemd unit, by its whole name.
    #[serde(default, deserialize_with = "whole_name")]
    pub unit: Option<String>,
    /// The command that stops it, where no unit does: an argument vector.
    pub stop: Option<Vec<String>>,
    /// The command that starts it.
    pub start: Option<Vec<String>>,
}

/// A unit as it was declared, also by hand or by a raidguard that took the name as typed.
fn whole_name<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.map(|unit| unit_name(&unit)))
}

impl Node {
    /// How the node is stopped and started; nothing where it is not managed.
    pub fn control(&self) -> Option<NodeControl> {
        match (&self.unit, &self.stop, &self.start) {
            (Some(unit), _, _) => Some(NodeControl::Systemd { unit: unit.clone() }),
            (None, Some(stop), Some(start)) => {
                Some(NodeControl::Commands { stop: stop.clone(), start: start.clone() })
            }
            _ => None,
        }
    }

    /// As it is declared with this way to stop and start it.
    #[must_use]
    pub fn with_control(mut self, control: Option<&NodeControl>) -> Self {
        (self.unit, self.stop, self.start) = match control {
            None => (None, None, None),
            Some(NodeControl::Systemd { unit }) => (Some(unit.clone()), None, None),
            Some(NodeControl::Commands { stop, start }) => (None, Some(stop.clone()), Some(start.clone())),
        };
        self
    }
}

/// The regular jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// What runs them.
    pub with: Scheduler,
    /// When `raidguard check` runs.
    pub check: Schedule,
    /// When `raidguard check --deep` runs.
    pub deep: Schedule,
    /// When `raidguard balance` runs; nothing for a mirror that has no balance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<Schedule>,
    /// When `raidguard scrub` runs.
    pub scrub: Schedule,
}

/// Why a declaration is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The text is not what raidguard knows.
    #[error("{path} line {line}: {message}")]
    Text {
        /// The file.
        path: &'static str,
        /// The line, from 1.
        line: usize,
        /// What is wrong, with what would be right.
        message: String,
    },
    /// A value makes no sense.
    #[error("{PATH}: {0}")]
    Value(String),
}

impl ScheduleConfig {
    /// The documented times: check every quarter of an hour, the databases at half past three, balance at midnight, scrub on Sundays.
    ///
    /// # Errors
    /// None in practice: the expressions are constants, and a test reads them.
    pub fn standard(with: Scheduler, of: BackendKind) -> Result<Self, crate::model::ScheduleError> {
        Ok(Self {
            with,
            check: "*/15 * * * *".parse()?,
            deep: "30 3 * * *".parse()?,
            balance: of.has_balance().then(|| "0 0 * * *".parse()).transpose()?,
            scrub: "0 0 * * 0".parse()?,
        })
    }
}

/// Is this a name for a mirror?
///
/// # Errors
/// It is not, and what would be.
pub fn check_name(name: &str) -> Result<(), ConfigError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    let ok = !name.is_empty() && name.len() <= 32 && name.bytes().all(plain) && !name.starts_with(['-', '_']);
    if ok {
        Ok(())
    } else {
        Err(ConfigError::Value(format!(
            "`{name}` is no name for a mirror: use up to 32 of a to z, 0 to 9, - and _"
        )))
    }
}

/// Reads a declaration.
///
/// # Errors
/// A key is not known, a value makes no sense; with the line.
pub fn parse(text: &str) -> Result<Config, ConfigError> {
    let config: Config = toml::from_str(text).map_err(|e| unreadable(PATH, text, &e))?;
    if let Some(notify) = &config.notify {
        notify.check()?;
    }
    for (index, mirror) in config.mirror.iter().enumerate() {
        check_name(&mirror.name)?;
        let bad = |what: &str| Err(ConfigError::Value(format!("mirror `{}`: {what}", mirror.name)));
        if config.mirror.iter().take(index).any(|other| other.name == mirror.name) {
            return bad("the name is given twice");
        }
        if !mirror.mountpoint.is_absolute() || mirror.mountpoint.parent().is_none() {
            return bad("the mount point must be an absolute path, and not `/`");
        }
        if mirror.member.len() < mirror.level.min_members() {
            return bad("it has fewer members than its level needs");
        }
        if !mirror.backend.levels().contains(&mirror.level) {
            return bad(&format!("{} has no level {}", mirror.backend, mirror.level));
        }
        match mirror.schedule.as_ref().map(|schedule| schedule.balance.is_some()) {
            Some(false) if mirror.backend.has_balance() => return bad("its schedule has no `balance`"),
            Some(true) if !mirror.backend.has_balance() => {
                return bad(&format!("{} has no balance to be scheduled", mirror.backend));
            }
            _ => {}
        }
        match (mirror.backend, &mirror.filesystem) {
            (BackendKind::Btrfs | BackendKind::Zfs, Some(_)) => {
                return bad(&format!("{} is a filesystem itself, and holds no other", mirror.backend));
            }
            (BackendKind::Mdadm, None) => return bad("the filesystem on the array is not declared"),
            _ => {}
        }
        if let Some(node) = &mirror.node {
            if node.stop.is_some() != node.start.is_some() || (node.unit.is_some() && node.stop.is_some()) {
                return bad("a node has either a unit, or both a stop and a start command, or none of them");
            }
        }
        let twice =
            |m: &Member| mirror.member.iter().filter(|o| o.id == m.id || o.uuid == m.uuid).count() > 1;
        if mirror.member.iter().any(twice) {
            return bad("two members have the same id or UUID");
        }
    }
    Ok(config)
}

/// How the operator is told, where that can be made out though the rest makes no sense: where it is no TOML as a whole, the section is
/// read by itself, from its heading to the next.
pub fn notify_of(text: &str) -> Option<Notify> {
    let read = |text: &str| -> Option<Notify> {
        let mut table: toml::Table = toml::from_str(text).ok()?;
        let notify: Notify = table.remove("notify")?.try_into().ok()?;
        notify.check().is_ok().then_some(notify)
    };
    read(text).or_else(|| {
        let mut lines = text.split_inclusive('\n').skip_while(|line| line.trim() != "[notify]");
        let heading = lines.next()?;
        let rest = lines.take_while(|line| !line.trim_start().starts_with('['));
        read(&std::iter::once(heading).chain(rest).collect::<String>())
    })
}

fn unreadable(path: &'static str, text: &str, e: &toml::de::Error) -> ConfigError {
    let at = e.span().map_or(0, |span| span.start);
    let line = text.get(..at).unwrap_or_default().matches('\n').count() + 1;
    ConfigError::Text { path, line, message: e.message().to_owned() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{edit::block, *};

    pub(super) fn mirror(name: &str) -> Mirror {
        let member = |id: &str| Member {
            id: id.to_owned(),
            uuid: format!("9b668d84-53e5-4efa-af0c-0fae0fd02f7{id}"),
            model: Some("Example Disk".to_owned()),
            serial: None,
            size: Bytes(32_010_928_128),
        };
        Mirror {
            name: name.to_owned(),
            backend: BackendKind::Btrfs,
            level: Level::Raid1,
            uuid: "1f624a50-0f62-4fea-8ae9-91647e74e09e".to_owned(),
            mountpoint: Path::new("/srv").join(name),
            filesystem: None,
            member: vec![member("1"), member("2")],
            node: Some(Node {
                kind: NodeKind::CoreLightning,
                directory: "/home/bitcoin/.lightning".into(),
                data: Path::new("/srv").join(name).join("lightning"),
                user: None,
                unit: Some("lightningd.service".to_owned()),
                stop: None,
                start: None,
            }),
            schedule: Some(ScheduleConfig::standard(Scheduler::Systemd, BackendKind::Btrfs).unwrap()),
        }
    }

    #[test]
    fn a_node_has_one_way_to_be_stopped_and_started() {
        let node = mirror("lightning").node.unwrap();
        assert_eq!(node.control(), Some(NodeControl::Systemd { unit: "lightningd.service".to_owned() }));
        let commands = NodeControl::Commands { stop: vec!["a".into()], start: vec!["b".into()] };
        let node = node.with_control(Some(&commands));
        assert_eq!((node.control(), &node.unit), (Some(commands), &None));
        let good = block(&Mirror { node: Some(node), ..mirror("lightning") }).unwrap();
        parse(&good).unwrap();
        for bad in
            [good.replacen("start = [\"b\"]\n", "", 1), good.replacen("stop = ", "unit = \"x\"\nstop = ", 1)]
        {
            assert_ne!(bad, good);
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_unit_is_known_by_its_whole_name() {
        let text = block(&mirror("lightning")).unwrap();
        let short = text.replace("lightningd.service", "lightningd");
        assert_ne!(short, text);
        assert_eq!(parse(&short).unwrap(), parse(&text).unwrap());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let text = block(&mirror("lightning")).unwrap().replace("level = ", "levle = ");
        let error = parse(&text).unwrap_err();
        assert!(matches!(&error, ConfigError::Text { message, .. } if message.contains("levle")), "{error}");
        let text = "\n\n[[mirrors]]\n";
        assert!(matches!(parse(text), Err(ConfigError::Text { line: 3, .. })), "{:?}", parse(text));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let good = block(&mirror("lightning")).unwrap();
        for (from, to) in [
            ("name = \"lightning\"", "name = \"../x\""),
            ("/srv/lightning\"", "/\""),
            ("id = \"2\"", "id = \"1\""),
            ("raid1\"", "raid1c3\""),
            ("0 0 * * 0", "0 0 1 * 0"),
            ("size = 32010928128", "size = -1"),
        ] {
            let text = good.replacen(from, to, 1);
            assert_ne!(text, good, "{from}");
            assert!(parse(&text).is_err(), "{to}");
        }
    }

    #[test]
    fn who_is_told_is_known_though_the_rest_is_garbage() {
        let section = "[notify]\nmail = \"op@example.org\" # me\ncommand = [\"/bin/x\"]\n";
        let expected = parse(section).unwrap().notify;
        assert!(expected.is_some());
        for text in [
            format!("[[mirror]]\nname = \"x\n{section}"),
            format!("{section}\n[[mirror]]\nname = = 1\n"),
            format!("\u{fffd}\u{fffd}\n  {section}[mirror\n"),
            format!("[[mirror]]\nnaem = 1\n{section}"),
        ] {
            assert!(parse(&text).is_err(), "{text}");
            assert_eq!(notify_of(&text), expected, "{text}");
        }
        for text in ["", "[notify", "[notify]\nmail = = 1\n", "[notify]\nmial = \"x\"\n", "garbage"] {
            assert_eq!(notify_of(text), None, "{text}");
        }
    }

    crate::fuzz::fuzzed!(fuzz_declaration, text [
        br#"[[mirror]]
name = "lightning"
backend = "btrfs"
level = "raid1"
uuid = "1f624a50-0f62-4fea-8ae9-91647e74e09e"
mountpoint = "/srv/lightning"
member = [{ id = "1", uuid = "a", size = 32010928128 }, { id = "2", uuid = "b", model = "x", size = 1 }]
[mirror.node]
kind = "core-lightning"
directory = "/home/bitcoin/.lightning"
data = "/srv/lightning/lightning"
unit = "lightningd.service"
[mirror.schedule]
with = "cron"
check = "*/15 * * * *"
deep = "30 3 * * *"
balance = "0 0 * * *"
scrub = "0 0 * * 0"
[notify]
mail = "root"
command = ["/bin/x", "y"]
remind_hours = 24
"#,
    ], |text| {
        if let Ok(config) = parse(text) {
            for mirror in &config.mirror {
                assert!(check_name(&mirror.name).is_ok() && mirror.mountpoint.is_absolute(), "{mirror:?}");
                let _ = without_mirror(text, &mirror.name);
            }
        }
        let _ = notify_of(text);
    });
}
