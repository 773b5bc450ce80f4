//! A program of the operator's, run with the facts in its environment and as JSON on its standard input. Never a shell.

use std::time::Duration;

use super::{SendError, json};
use crate::{exec::Cmd, host::Host, model::Event};

/// Its environment, by env(1): what the runner gives every command is kept.
fn environment(event: &Event) -> Vec<String> {
    let facts = [
        ("EVENT", event.kind.as_str().to_owned()),
        ("EVENT_ID", event.id.clone()),
        ("HOST", event.host.clone()),
        ("MIRROR", event.mirror.clone()),
        ("VERDICT", event.verdict.to_string()),
        ("BEFORE", event.before.to_string()),
        ("CODES", event.codes().join(" ")),
    ];
    facts.map(|(name, value)| format!("RAIDGUARD_{name}={value}")).to_vec()
}

pub(super) fn run(host: &Host, argv: &[String], event: &Event, limit: Duration) -> Result<(), SendError> {
    let cmd = Cmd::change("env").arg("--").args(environment(event)).args(argv);
    let cmd = cmd.letter(json(event)?).timeout(limit);
    let program = argv.first().map_or("", String::as_str);
    host.runner().run(&cmd).map(drop).map_err(|e| SendError::program(program, e))
}
