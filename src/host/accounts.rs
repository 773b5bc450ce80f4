//! Users by their names: from `/etc/passwd` (passwd(5)), and from whatever else the machine asks (nsswitch.conf(5)) by getent(1), since
//! a static program cannot load what a machine adds to its C library.

use super::{
    Host,
    files::{Doing as _, FileError},
};
use crate::exec::{Cmd, CmdError};

const FILE: &str = "/etc/passwd";
/// getent's exit code for what is not there.
const NOT_FOUND: i32 = 2;

/// A user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Its number.
    pub uid: u32,
    /// Its first group's.
    pub gid: u32,
}

/// Why it is not known whether there is such a user.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The machine could not be asked.
    #[error(transparent)]
    Asked(#[from] CmdError),
}

/// The user of this name; nothing where there is none.
///
/// # Errors
/// It is not known whether there is one.
pub fn find(host: &Host, name: &str) -> Result<Option<Account>, AccountError> {
    let file = host.path(FILE);
    let text = host.read_optional(FILE).doing("reading", &file)?.unwrap_or_default();
    if let Some(found) = in_passwd(&text, name) {
        return Ok(Some(found));
    }
    Ok(in_passwd(&host.runner().run(&getent("passwd", name))?.text(), name))
}

/// Asks for what one of the machine's databases has of a name: `passwd`, `ahosts`. It says nothing where that is nothing.
pub fn getent(database: &str, name: &str) -> Cmd {
    Cmd::probe("getent").args(["--", database, name]).accept(&[0, NOT_FOUND])
}

/// The line of this name: getent takes a number for a user's, too.
fn in_passwd(text: &str, name: &str) -> Option<Account> {
    text.lines().find_map(|line| {
        let mut fields = line.strip_prefix(name)?.strip_prefix(':')?.split(':').skip(1);
        Some(Account { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use jiff::Timestamp;

    use super::*;
    use crate::exec::{Reply, ScriptedRunner};

    fn asked(runner: ScriptedRunner, name: &str) -> Result<Option<Account>, AccountError> {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir(tree.path().join("etc")).unwrap();
        let passwd = "root:x:0:0:root:/root:/bin/bash\n+::::::\nbitcoin:x:107:112::/home/bitcoin:/usr/sbin/nologin\nodd:x:-1:\n";
        fs::write(tree.path().join("etc/passwd"), passwd).unwrap();
        find(&Host::captured(tree.path(), Arc::new(runner), Timestamp::UNIX_EPOCH), name)
    }

    #[test]
    fn the_file_is_enough_for_whom_it_names() {
        let bitcoin = asked(ScriptedRunner::new(), "bitcoin").unwrap();
        assert_eq!(bitcoin, Some(Account { uid: 107, gid: 112 }));
    }

    #[test]
    fn whoever_is_not_in_the_file_is_asked_for() {
        let getent = |reply| ScriptedRunner::new().on("getent -- passwd", reply);
        let found = asked(getent(Reply::ok("lnd:*:60001:60002:a name:/:/bin/sh\n")), "lnd").unwrap();
        assert_eq!(found, Some(Account { uid: 60001, gid: 60002 }));
        assert_eq!(asked(getent(Reply::fail(2, "")), "lnd").unwrap(), None);
        assert_eq!(
            asked(getent(Reply::ok("root:x:0:0:root:/root:/bin/bash\n")), "0").unwrap(),
            None,
            "a number"
        );
        for odd in ["odd", "", "bit", "x"] {
            assert_eq!(asked(getent(Reply::fail(2, "")), odd).unwrap(), None, "{odd}");
        }
    }

    #[test]
    fn what_could_not_be_asked_is_not_known() {
        assert!(matches!(asked(ScriptedRunner::new(), "lnd"), Err(AccountError::Asked(_))));
        let fails = ScriptedRunner::new().on("getent", Reply::fail(3, "no enumeration"));
        assert!(matches!(asked(fails, "lnd"), Err(AccountError::Asked(_))));
    }
}
