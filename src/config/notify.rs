//! How the operator is told: `[notify]` in `raidguard.toml`, and what must stay secret in a file of its own.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ConfigError, unreadable};

/// Where secrets lie; mode 0600, root's.
pub const SECRETS_PATH: &str = "/etc/raidguard/secrets.toml";

/// How the operator is told of a change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Notify {
    /// Whom the machine's sendmail writes to.
    pub mail: Option<String>,
    /// A command that is run with the facts in its environment and as JSON on its standard input: an argument vector, the
    /// program's path first.
    pub command: Option<Vec<String>>,
    /// A file that each check that ran to its end writes anew, so that somebody else can notice silence.
    pub heartbeat_file: Option<PathBuf>,
    /// After how many hours the operator is reminded of faults that last; 24 unless given, 0 for never.
    pub remind_hours: Option<u32>,
}

/// What must stay secret: an address that whoever knows it can write to.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Secrets {
    /// Where messages are sent to by HTTP POST, as JSON.
    pub webhook: Option<String>,
    /// Sent along as `Authorization: Bearer`.
    pub webhook_token: Option<String>,
    /// An address that is asked for at the end of each check, so that whoever watches it notices silence.
    pub heartbeat: Option<String>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let given = |value: &Option<String>| if value.is_some() { "given" } else { "none" };
        f.debug_struct("Secrets")
            .field("webhook", &given(&self.webhook))
            .field("webhook_token", &given(&self.webhook_token))
            .field("heartbeat", &given(&self.heartbeat))
            .finish()
    }
}

impl Notify {
    /// After how many hours the operator is reminded; nothing for never.
    pub fn remind_after(&self) -> Option<u32> {
        Some(self.remind_hours.unwrap_or(24)).filter(|hours| *hours > 0)
    }

    /// Does it make sense?
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let bad = |what: &str| Err(ConfigError::Value(format!("[notify]: {what}")));
        if self
            .mail
            .as_deref()
            .is_some_and(|to| to.is_empty() || to.starts_with('-') || to.contains(char::is_control))
        {
            return bad("`mail` is no address");
        }
        match self.command.as_deref() {
            // env(1), which runs it, would take such a path for a variable.
            Some([program, ..]) if program.contains('=') => {
                return bad("the path of `command`'s program has a `=` in it");
            }
            Some([program, ..]) if program.starts_with('/') => {}
            None => {}
            Some(_) => return bad("`command` is a list: the program's absolute path, then its arguments"),
        }
        if self.heartbeat_file.as_ref().is_some_and(|file| !file.is_absolute()) {
            return bad("`heartbeat_file` is no absolute path");
        }
        Ok(())
    }
}

/// Reads the file of secrets.
///
/// # Errors
/// A key is not known, or an address is none; the value itself is never part of the message.
pub fn parse_secrets(text: &str) -> Result<Secrets, ConfigError> {
    let secrets: Secrets = toml::from_str(text).map_err(|e| match unreadable(SECRETS_PATH, text, &e) {
        // What is taken for a key may be a secret on a line of its own.
        ConfigError::Text { path, line, .. } => {
            let message = "this is not understood; it may say `webhook`, `webhook_token` or `heartbeat`, each with a text in quotes";
            ConfigError::Text { path, line, message: message.to_owned() }
        }
        other @ ConfigError::Value(_) => other,
    })?;
    for (key, value) in [("webhook", &secrets.webhook), ("heartbeat", &secrets.heartbeat)] {
        if value.as_ref().is_some_and(|v| !v.starts_with("https://") && !v.starts_with("http://")) {
            return Err(ConfigError::Value(format!("{SECRETS_PATH}: `{key}` is no http or https address")));
        }
    }
    Ok(secrets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn channels_are_read_and_what_makes_no_sense_is_refused() {
        let notify = |text: &str| parse(&format!("[notify]\n{text}\n")).map(|c| c.notify.unwrap());
        let all = notify(
            "mail = \"root\"\ncommand = [\"/bin/x\", \"y\"]\nheartbeat_file = \"/run/h\"\nremind_hours = 0",
        );
        assert_eq!(all.unwrap().remind_after(), None);
        assert_eq!(notify("").unwrap().remind_after(), Some(24));
        for bad in [
            "mail = \"\"",
            "mail = \"-x\"",
            "command = []",
            "command = [\"x\"]",
            "command = [\"/a=b/x\"]",
            "heartbeat_file = \"h\"",
            "mial = \"root\"",
        ] {
            assert!(notify(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        let secrets =
            parse_secrets("webhook = \"https://example.org/hidden\"\nwebhook_token = \"hidden\"").unwrap();
        assert!(!format!("{secrets:?}").contains("hidden"));
        for bad in [
            "webhook = \"ftp://hidden\"",
            "webhok = \"https://hidden\"",
            "webhook = [\"hidden\"]",
            "heartbeat = \"hidden\"",
            "hidden = 1",
            "hidden",
        ] {
            let error = parse_secrets(bad).unwrap_err().to_string();
            assert!(!error.contains("hidden") && error.contains("secrets.toml"), "{error}");
        }
    }

    crate::fuzz::fuzzed!(fuzz_secrets, text [
        b"webhook = \"https://example.org/hook\"\nwebhook_token = \"hidden\"\nheartbeat = \"http://example.org/beat\"\n",
    ], |text| {
        match parse_secrets(text) {
            Ok(secrets) => assert!(secrets.webhook.is_none_or(|url| url.starts_with("http"))),
            Err(e) => assert!(!e.to_string().contains("hidden"), "{e}"),
        }
    });
}
