//! The declared mirrors, and what they look like now.

use super::Trouble;
use crate::{
    backend,
    config::{self, Mirror},
    health::{self, Verdict},
    host::Host,
    model::{
        DevNo, Identity,
        mirror::{Declared, DeclaredMember, Observation},
        refusal::Claimed,
    },
};

/// Every declared mirror.
///
/// # Errors
/// The declaration cannot be read.
pub(super) fn declared(host: &Host) -> Result<Vec<Mirror>, Trouble> {
    let config = config::load(host).map_err(|e| Trouble::failed("the declaration cannot be read", e))?;
    Ok(config.mirror)
}

/// The mirror named, or the only one.
///
/// # Errors
/// There is none of that name, or a name is needed.
pub(super) fn named(host: &Host, name: Option<&str>) -> Result<Mirror, Trouble> {
    let mut mirrors = declared(host)?;
    let names = mirrors.iter().map(|m| m.name.clone()).collect::<Vec<_>>().join(", ");
    match name {
        _ if mirrors.is_empty() => Err(Trouble::refused(
            "no mirror is declared in /etc/raidguard/raidguard.toml",
            "raidguard setup makes one",
        )),
        Some(name) => mirrors
            .into_iter()
            .find(|m| m.name == name)
            .ok_or_else(|| Trouble::Usage(format!("no mirror `{name}` is declared; there is: {names}"))),
        None if mirrors.len() > 1 => Err(Trouble::Usage(format!("name one of the mirrors: {names}"))),
        None => mirrors.pop().ok_or_else(|| Trouble::Usage("no mirror is declared".to_owned())),
    }
}

/// A mirror with what is seen of it and what that means.
#[derive(Debug)]
pub(super) struct Judged {
    /// What should be.
    pub(super) mirror: Mirror,
    /// What is.
    pub(super) observed: Observation,
    /// What that means.
    pub(super) verdict: Verdict,
    /// The declaration as the judge saw it.
    pub(super) declared: Declared,
}

/// Looks at a mirror and judges it. What cannot be read becomes a finding.
pub(super) fn judge(host: &Host, mirror: Mirror) -> Judged {
    let result = backend::of(mirror.backend).observe(host, &mirror.uuid, &mirror.mountpoint);
    let observed = match result {
        Ok(state) => Observation::of(Ok(state)),
        Err(e) => Observation::of(Err(&e)),
    };
    let declared = Declared {
        name: mirror.name.clone(),
        level: mirror.level,
        uuid: mirror.uuid.clone(),
        mountpoint: mirror.mountpoint.clone(),
        members: mirror
            .member
            .iter()
            .map(|m| DeclaredMember {
                id: m.id.clone(),
                uuid: m.uuid.clone(),
                model: m.model.clone(),
                serial: m.serial.clone(),
                size: m.size,
            })
            .collect(),
    };
    let verdict = health::judge(&declared, &observed);
    Judged { mirror, observed, verdict, declared }
}

/// The declared members, as far as the declaration knows their disks.
///
/// # Errors
/// The declaration cannot be read.
pub(super) fn claimed(host: &Host) -> Result<Vec<Claimed>, Trouble> {
    let mirrors = declared(host)?;
    let members = mirrors.iter().flat_map(|mirror| mirror.member.iter().map(move |m| (mirror, m)));
    Ok(members
        .map(|(mirror, m)| Claimed {
            identity: Identity {
                path: std::path::PathBuf::new(),
                dev: DevNo { major: 0, minor: 0 },
                size: m.size,
                model: m.model.clone(),
                serial: m.serial.clone(),
                wwn: None,
                partuuid: None,
            },
            mirror: mirror.uuid.clone(),
        })
        .collect())
}
