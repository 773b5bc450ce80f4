//! The declared mirrors, and what they look like now.

use super::Trouble;
use crate::{
    backend,
    config::Mirror,
    health::{self, Verdict},
    host::{Host, declaration},
    model::mirror::Observation,
};

/// Every declared mirror.
///
/// # Errors
/// The declaration cannot be read.
pub(super) fn declared(host: &Host) -> Result<Vec<Mirror>, Trouble> {
    let config = declaration::load(host).map_err(|e| Trouble::failed("the declaration cannot be read", e))?;
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
}

/// Looks at a mirror and judges it. What cannot be read becomes a finding.
pub(super) fn judge(host: &Host, mirror: Mirror) -> Judged {
    let result = backend::of(mirror.backend).observe(host, &mirror.uuid, &mirror.mountpoint);
    let observed = match result {
        Ok(state) => Observation::of(Ok(state)),
        Err(e) => Observation::of(Err(&e)),
    };
    let verdict = health::judge(&mirror, &observed);
    Judged { mirror, observed, verdict }
}
