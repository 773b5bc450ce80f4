//! The channels by which the operator is told: mail, a command, a webhook, and a heartbeat whose silence tells. Knows no verb, and decides
//! nothing.

mod command;
mod heartbeat;
mod http;
mod mail;
mod resolve;
#[cfg(test)]
pub(crate) mod server;

use std::{fmt, time::Duration};

use serde::Serialize;

pub use heartbeat::Heartbeat;
pub use http::HttpError;

use crate::{
    config::Notify,
    exec::{CmdError, Failure},
    host::{Host, files::FileError, secrets},
    model::{Event, observed::causes},
};

/// How long a channel may take for one message.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A program.
    pub program: Duration,
    /// A request over HTTP, in all.
    pub http: Duration,
    /// All that waits: what is left then is sent the next time.
    pub all: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { program: seconds(60), http: seconds(15), all: seconds(180) }
    }
}

/// Why a message was not taken. What is secret is in none of them.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// A program failed.
    #[error("`{program}` failed: {failure}{}", .said.as_ref().map(|s| format!("; it said: {s}")).unwrap_or_default())]
    Program {
        /// Its name.
        program: String,
        /// How.
        failure: Failure,
        /// The end of what it said.
        said: Option<String>,
    },
    /// A request failed.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A file could not be written.
    #[error("the heartbeat's file could not be written")]
    File(#[source] FileError),
    /// The message has no form in JSON.
    #[error("the message could not be written as JSON")]
    Json(#[from] serde_json::Error),
}

impl SendError {
    fn program(program: &str, error: CmdError) -> Self {
        Self::Program { program: program.to_owned(), failure: error.failure, said: error.said }
    }
}

/// The form in which programs are told.
#[derive(Debug, Serialize)]
pub struct Message<'a> {
    /// The version of this form.
    pub schema: u32,
    /// What happened.
    #[serde(flatten)]
    pub event: &'a Event,
}

fn json(event: &Event) -> Result<String, SendError> {
    Ok(serde_json::to_string(&Message { schema: 1, event })?)
}

/// Where a webhook listens.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    url: String,
    token: Option<String>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").finish_non_exhaustive()
    }
}

/// A channel that takes messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Channel {
    /// A letter by the machine's own sendmail.
    Mail(String),
    /// An HTTP POST.
    Webhook(Webhook),
    /// A program of the operator's: an argument vector.
    Command(Vec<String>),
}

impl Channel {
    /// The name by which it is known.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Mail(_) => "mail",
            Self::Webhook(_) => WEBHOOK,
            Self::Command(_) => "command",
        }
    }

    /// Sends a message. It was taken when this returns well, and only then.
    ///
    /// # Errors
    /// It was not taken, or nobody knows whether it was.
    pub fn send(&self, host: &Host, event: &Event, limits: Limits) -> Result<(), SendError> {
        match self {
            Self::Mail(to) => mail::send(host, to, event, limits.program),
            Self::Webhook(webhook) => {
                let text = json(event)?;
                let request = http::Request {
                    url: &webhook.url,
                    token: webhook.token.as_deref(),
                    message: Some((&event.id, &text)),
                };
                Ok(http::ask(host, &request, http::Roots::OfTheMachine, limits.http)?)
            }
            Self::Command(argv) => command::run(host, argv, event, limits.program),
        }
    }
}

const WEBHOOK: &str = "webhook";

/// All channels of the machine.
#[derive(Debug, Clone, Default)]
pub struct Channels {
    /// Those that take messages, the quickest first.
    pub send: Vec<Channel>,
    /// What is done after each check.
    pub heartbeat: Option<Heartbeat>,
    /// Why the secrets are not used, so that nobody knows whether there are a webhook and a heartbeat.
    pub locked: Option<String>,
}

impl Channels {
    /// The channels that were declared. Where nothing was, root gets a letter, if the machine can send one.
    pub fn of(host: &Host, notify: Option<&Notify>) -> Self {
        let (secrets, locked) = match secrets::load(host) {
            Ok(secrets) => (secrets, None),
            Err(e) => (crate::config::Secrets::default(), Some(causes(&e))),
        };
        let mail = match notify {
            Some(notify) => notify.mail.clone(),
            None => host.runner().has("sendmail").then(|| "root".to_owned()),
        };
        let command = notify.and_then(|n| n.command.clone());
        let webhook = secrets.webhook.map(|url| Webhook { url, token: secrets.webhook_token });
        let send = mail.map(Channel::Mail).into_iter().chain(webhook.map(Channel::Webhook));
        let send = send.chain(command.map(Channel::Command)).collect();
        let file = notify.and_then(|n| n.heartbeat_file.clone());
        Self { send, heartbeat: Heartbeat::of(secrets.heartbeat, file), locked }
    }

    /// For whom a message is to be kept: also for a webhook that there may be.
    pub fn takers(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.send.iter().map(Channel::name).collect();
        if self.locked.is_some() {
            names.push(WEBHOOK);
        }
        names
    }

    /// Every channel that there is or may be.
    pub fn known(&self) -> Vec<&'static str> {
        let mut names = self.takers();
        if self.heartbeat.is_some() || self.locked.is_some() {
            names.push(heartbeat::NAME);
        }
        names
    }
}

#[cfg(test)]
mod tests;
