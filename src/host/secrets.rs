//! `/etc/raidguard/secrets.toml` on the machine: used only while it is root's alone.

use std::{fs, io, os::unix::fs::MetadataExt as _};

use super::{
    Host,
    files::{Doing as _, FileError},
};
use crate::config::{self, ConfigError, SECRETS_PATH, Secrets};

/// Why the secrets are not used.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// What is in it makes no sense.
    #[error(transparent)]
    Text(#[from] ConfigError),
    /// Others than its owner may use it.
    #[error("{SECRETS_PATH} has the mode {0:04o}; it must be 0600")]
    Open(u32),
    /// It belongs to somebody else.
    #[error("{SECRETS_PATH} belongs to uid {0}; it must be root's")]
    Owner(u32),
}

/// The machine's secrets; none where there is no file.
///
/// # Errors
/// It is open to others, somebody else's, not readable, or makes no sense.
pub fn load(host: &Host) -> Result<Secrets, SecretsError> {
    let path = host.path(SECRETS_PATH);
    let meta = match fs::metadata(&path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Secrets::default()),
        Err(e) => return Err(e).doing("reading", &path).map_err(Into::into),
    };
    if meta.mode() & 0o077 != 0 {
        return Err(SecretsError::Open(meta.mode() & 0o7777));
    }
    // Whoever runs raidguard must be its owner: that is root, but for a captured tree.
    if meta.uid() != nix::unistd::geteuid().as_raw() {
        return Err(SecretsError::Owner(meta.uid()));
    }
    Ok(config::parse_secrets(&host.read(SECRETS_PATH).doing("reading", &path)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::ScriptedRunner;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn secrets_that_others_may_read_are_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::captured(
            dir.path(),
            std::sync::Arc::new(ScriptedRunner::new()),
            jiff::Timestamp::UNIX_EPOCH,
        );
        assert_eq!(load(&host).unwrap(), Secrets::default());
        let path = host.path(SECRETS_PATH);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "webhook = \"https://example.org/\"\n").unwrap();
        for (mode, fine) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(load(&host).is_ok(), fine, "{mode:o}");
        }
    }
}
