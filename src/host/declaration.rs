//! The declaration on the machine: `/etc/raidguard/raidguard.toml`, read and durably changed.

use std::{fs, io};

use super::{
    Host,
    files::{self, Doing as _, FileError},
};
use crate::config::{self, Config, ConfigError, Left, Member, Mirror, PATH};

/// Why the declaration was not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum DeclarationError {
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// What is in it makes no sense.
    #[error(transparent)]
    Text(#[from] ConfigError),
}

/// The machine's declaration; an empty one where there is no file.
///
/// # Errors
/// It cannot be read or makes no sense.
pub fn load(host: &Host) -> Result<Config, DeclarationError> {
    let text = host.read_optional(PATH).doing("reading", PATH)?;
    Ok(text.as_deref().map_or_else(|| Ok(Config::default()), config::parse)?)
}

/// Adds a mirror.
///
/// # Errors
/// The whole would make no sense, or it cannot be written.
pub fn add(host: &Host, mirror: &Mirror) -> Result<(), DeclarationError> {
    let before = host.read_optional(PATH).doing("reading", PATH)?;
    let after = config::with_mirror(before.as_deref(), mirror)?;
    let path = host.path(PATH);
    files::create_dirs(files::parent(&path), 0o755)?;
    files::replace(&path, after.as_bytes(), 0o644)?;
    Ok(())
}

/// Writes what one of a mirror's members, known by the number that it had, is now.
///
/// # Errors
/// There is no such member, or it cannot be read or written.
pub fn set_member(host: &Host, name: &str, was: &str, member: &Member) -> Result<(), DeclarationError> {
    let text = host.read_optional(PATH).doing("reading", PATH)?.unwrap_or_default();
    let after = config::with_member(&text, name, was, member)?;
    files::replace(&host.path(PATH), after.as_bytes(), 0o644)?;
    Ok(())
}

/// Takes a mirror out. The last one takes the file along, and the directory where it is then empty.
///
/// # Errors
/// It cannot be read or written.
pub fn remove(host: &Host, name: &str) -> Result<(), DeclarationError> {
    let Some(text) = host.read_optional(PATH).doing("reading", PATH)? else { return Ok(()) };
    let path = host.path(PATH);
    match config::without_mirror(&text, name)? {
        Left::Unchanged => {}
        Left::Text(after) => files::replace(&path, after.as_bytes(), 0o644)?,
        Left::Nothing => {
            files::remove(&path)?;
            let dir = files::parent(&path);
            match fs::remove_dir(dir) {
                Ok(()) => files::sync_dir(files::parent(dir))?,
                Err(e) if matches!(e.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => {}
                Err(e) => return Err(e).doing("removing", dir).map_err(Into::into),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{exec::ScriptedRunner, health::samples::declared};

    #[test]
    fn what_is_written_is_read_again_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        let runner = std::sync::Arc::new(ScriptedRunner::new());
        let host = Host::captured(dir.path(), runner, jiff::Timestamp::UNIX_EPOCH);
        let mirror = declared();
        assert_eq!(load(&host).unwrap(), Config::default());
        add(&host, &mirror).unwrap();
        assert_eq!(load(&host).unwrap().mirror, std::slice::from_ref(&mirror));
        let second = Mirror { name: "second".into(), ..mirror.clone() };
        add(&host, &second).unwrap();
        remove(&host, &mirror.name).unwrap();
        assert_eq!(load(&host).unwrap().mirror, [second]);
        remove(&host, "second").unwrap();
        assert!(!dir.path().join("etc/raidguard").exists());
        remove(&host, "second").unwrap();
    }
}
