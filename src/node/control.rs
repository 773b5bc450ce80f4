//! Stopping, holding and starting a node. It is asked, waited for, and never killed.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::{Running, find_nodes, find_running};
use crate::{
    exec::{Cmd, CmdError, log_change},
    host::{
        Host,
        files::{self, FileError},
    },
    model::NodeControl,
};

/// How long a node may take to stop unless told otherwise, in seconds: lightningd closes its database, and its plugins end after it.
pub const PATIENCE: u64 = 180;
/// How long a node may take until it has its files open.
const STARTING: Duration = Duration::from_secs(60);

/// Why a node was not stopped or started.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A command failed.
    #[error("the node's own command did not succeed")]
    Command(#[source] CmdError),
    /// A file operation failed.
    #[error("the node's unit could not be held or released")]
    File(#[source] FileError),
    /// It still runs.
    #[error("it is still in use: {0}")]
    StillRunning(Running),
    /// It does not run.
    #[error("no node works on {0} a minute after the start")]
    NotRunning(String),
    /// What runs cannot be told.
    #[error("{0}")]
    Unknown(String),
    /// The operator asked to stop waiting.
    #[error("stopped waiting, as asked")]
    Interrupted,
    /// A command has no program.
    #[error("the command to start or stop the node is empty")]
    Empty,
}

impl From<FileError> for ControlError {
    fn from(e: FileError) -> Self {
        Self::File(e)
    }
}

/// A drop-in of the runtime directory keeps a unit from being started, wherever its own file lies: a runtime mask would give way to a
/// unit file in `/etc` (systemd.unit(5), load path).
fn hold_path(unit: &str) -> std::path::PathBuf {
    Path::new("/run/systemd/system").join(format!("{unit}.d/raidguard-hold.conf"))
}

const HOLD: &str = "# Written by raidguard while it moves this node; gone with the next start of the machine.\n\
    [Unit]\nConditionPathExists=/run/raidguard/the-node-is-being-moved\n";

/// The shell words of a command line: blanks part them, quotes and backslashes keep them.
///
/// # Errors
/// A quote is not closed.
pub fn commands_of(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(q)) if c == q => quote = None,
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(chars.next()),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    match quote {
        None => Ok(words),
        Some(q) => Err(format!("the quote {q} is not closed in: {text}")),
    }
}

/// An operator's own command, run through env(1), which looks it up as a shell would.
fn own(argv: &[String]) -> Result<Cmd, ControlError> {
    if argv.is_empty() {
        return Err(ControlError::Empty);
    }
    Ok(Cmd::change("env").arg("--").args(argv))
}

fn stopping(control: &NodeControl) -> Result<Vec<Cmd>, ControlError> {
    match control {
        NodeControl::Systemd { unit } => Ok(vec![
            Cmd::change("systemctl").arg("daemon-reload"),
            Cmd::change("systemctl").args(["stop", "--", unit]),
        ]),
        NodeControl::Commands { stop, .. } => Ok(vec![own(stop)?]),
    }
}

fn starting(control: &NodeControl) -> Result<Vec<Cmd>, ControlError> {
    match control {
        NodeControl::Systemd { unit } => Ok(vec![
            Cmd::change("systemctl").arg("daemon-reload"),
            Cmd::change("systemctl").args(["start", "--", unit]),
        ]),
        // Where it does not return it is the node itself, which is never killed.
        NodeControl::Commands { start, .. } => Ok(vec![own(start)?.spared()]),
    }
}

/// Has systemd forget how often a unit failed: one that was started in vain too often, as at a boot without its mirror, it does not start
/// any more (systemctl(1), reset-failed). It refuses that for one that is not loaded, which has not failed either.
fn forgiving(unit: &str) -> Cmd {
    Cmd::change("systemctl").args(["reset-failed", "--", unit])
}

fn lines(first: Vec<String>, cmds: Result<Vec<Cmd>, ControlError>) -> Vec<String> {
    first.into_iter().chain(cmds.unwrap_or_default().iter().map(Cmd::line)).collect()
}

/// What [`stop`] runs.
pub fn stop_commands(control: &NodeControl) -> Vec<String> {
    let held = control.unit().map(|unit| format!("write {}", hold_path(unit).display()));
    lines(held.into_iter().collect(), stopping(control))
}

/// What [`start`] runs.
pub fn start_commands(control: &NodeControl) -> Vec<String> {
    let released =
        control.unit().map(|unit| vec![format!("rm {}", hold_path(unit).display()), forgiving(unit).line()]);
    lines(released.unwrap_or_default(), starting(control))
}

/// Is the node kept from being started?  Commands cannot hold it: that is up to whoever runs them.
pub fn is_held(host: &Host, control: &NodeControl) -> bool {
    control.unit().is_none_or(|unit| host.path(hold_path(unit)).exists())
}

/// Holds the node, asks it to stop, and waits until nothing uses `dir`, at most for `patience`. `waiting` is told what is waited for.
///
/// # Errors
/// It could not be asked, it did not stop in time (who still runs is named), or the operator asked to stop waiting.
pub fn stop(
    host: &Host,
    control: &NodeControl,
    dir: &Path,
    patience: Duration,
    waiting: &mut dyn FnMut(&str),
) -> Result<(), ControlError> {
    if let Some(unit) = control.unit() {
        // Before it is stopped: Restart= would bring it back between the two.
        let path = host.path(hold_path(unit));
        log_change(&format!("write {}", hold_path(unit).display()));
        files::create_dirs(files::parent(&path), 0o755)?;
        files::replace(&path, HOLD.as_bytes(), 0o644)?;
    }
    for cmd in stopping(control)? {
        host.runner().run(&cmd.timeout(patience)).map_err(ControlError::Command)?;
    }
    let began = Instant::now();
    loop {
        let running = find_running(host, dir, None)?;
        if running.is_quiet() {
            return Ok(());
        }
        if host.interrupt().is_raised() {
            return Err(ControlError::Interrupted);
        }
        if began.elapsed() > patience {
            return Err(ControlError::StillRunning(running));
        }
        waiting(&format!("waiting for {running}"));
        thread::sleep(Duration::from_millis(500));
    }
}

/// Releases the node and starts it, unless it runs: by commands a second one could be started over the same files.
///
/// # Errors
/// It could not be released or asked.
pub fn start_again(host: &Host, control: &NodeControl, dir: &Path) -> Result<(), ControlError> {
    if control.unit().is_none() && super::running::is_alive(dir) {
        return Ok(());
    }
    start(host, control)
}

fn let_go(host: &Host, unit: &str) -> Result<(), ControlError> {
    log_change(&format!("rm {}", hold_path(unit).display()));
    let path = host.path(hold_path(unit));
    files::remove(&path)?;
    // Others may have drop-ins there.
    let _ = fs::remove_dir(files::parent(&path));
    Ok(())
}

/// Releases the node, and leaves it to others to start it.
///
/// # Errors
/// It could not be released.
pub fn release(host: &Host, control: &NodeControl) -> Result<(), ControlError> {
    if let Some(unit) = control.unit() {
        let_go(host, unit)?;
        let reload = Cmd::change("systemctl").arg("daemon-reload");
        host.runner().run(&reload).map_err(ControlError::Command)?;
    }
    Ok(())
}

/// Releases the node and starts it.
///
/// # Errors
/// It could not be released or asked.
pub fn start(host: &Host, control: &NodeControl) -> Result<(), ControlError> {
    if let Some(unit) = control.unit() {
        let_go(host, unit)?;
        if let Err(e) = host.runner().run(&forgiving(unit)) {
            tracing::debug!("{e}");
        }
    }
    for cmd in starting(control)? {
        host.runner().run(&cmd).map_err(ControlError::Command)?;
    }
    Ok(())
}

/// Does the node itself run with its files at `data`? Not while its unit is held or down, whoever else may have a file there open.
///
/// # Errors
/// It cannot be told.
pub fn runs(host: &Host, control: &NodeControl, data: &Path) -> Result<bool, ControlError> {
    if let Some(unit) = control.unit() {
        if is_held(host, control) || !is_active(host, unit)? {
            return Ok(false);
        }
    }
    let nodes = find_nodes(host, data)?;
    match nodes.unknown.filter(|_| nodes.holders.is_empty()) {
        None => Ok(!nodes.holders.is_empty()),
        Some(why) => Err(ControlError::Unknown(why)),
    }
}

/// Is it up? The node need not be the unit's main process: it may run in a container.
fn is_active(host: &Host, unit: &str) -> Result<bool, ControlError> {
    let cmd = Cmd::probe("systemctl").args(["show", "--property=ActiveState", "--value", "--", unit]);
    let state = host.runner().run(&cmd).map_err(ControlError::Command)?;
    Ok(matches!(state.text().trim(), "active" | "reloading"))
}

/// Waits until the node works on `data`.
///
/// # Errors
/// It does not in time, or the operator asked to stop waiting.
pub fn verify_running_on(
    host: &Host,
    control: &NodeControl,
    data: &Path,
    waiting: &mut dyn FnMut(&str),
) -> Result<(), ControlError> {
    let began = Instant::now();
    loop {
        match runs(host, control, data) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            // The node's lock or its socket may tell it yet.
            Err(ControlError::Unknown(_)) if began.elapsed() <= STARTING => {}
            Err(e) => return Err(e),
        }
        if host.interrupt().is_raised() {
            return Err(ControlError::Interrupted);
        }
        if began.elapsed() > STARTING {
            return Err(ControlError::NotRunning(data.display().to_string()));
        }
        waiting("waiting for the node to open its files");
        thread::sleep(Duration::from_millis(500));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::exec::{Reply, ScriptedRunner};

    #[test]
    fn a_command_is_split_as_a_shell_would() {
        for (text, words) in [
            ("lightning-cli stop", vec!["lightning-cli", "stop"]),
            (r#"  a "b c" 'd "e' f\ g "" "#, vec!["a", "b c", "d \"e", "f g", ""]),
            ("", vec![]),
        ] {
            assert_eq!(commands_of(text).unwrap(), words, "{text}");
        }
        assert!(commands_of("a 'b").is_err());
    }

    #[test]
    fn a_unit_that_failed_too_often_is_started_all_the_same() {
        let runner = Arc::new(
            ScriptedRunner::new()
                .on("systemctl reset-failed", Reply::fail(1, "Unit node.service not loaded.\n"))
                .on("systemctl daemon-reload", Reply::ok(""))
                .on("systemctl start -- node.service", Reply::ok("")),
        );
        let dir = tempfile::tempdir().unwrap();
        let host = Host::captured(dir.path(), runner.clone(), jiff::Timestamp::UNIX_EPOCH);
        let control = NodeControl::Systemd { unit: "node.service".to_owned() };
        start(&host, &control).unwrap();
        let ran: Vec<_> = runner.calls().into_iter().map(|(_, line)| line).collect();
        assert_eq!(ran, &start_commands(&control)[1..]);
    }

    #[test]
    fn a_start_command_that_is_the_node_itself_is_never_killed() {
        let words = |text: &str| vec![text.to_owned()];
        let control = NodeControl::Commands { stop: words("stop"), start: words("lightningd") };
        assert!(starting(&control).unwrap().iter().all(Cmd::is_spared));
        let unit = NodeControl::Systemd { unit: "node.service".to_owned() };
        let others = [stopping(&control), stopping(&unit), starting(&unit)];
        assert!(!others.into_iter().flat_map(Result::unwrap).any(|cmd| cmd.is_spared()));
    }

    crate::fuzz::fuzzed!(fuzz_commands, text[br#"/bin/sh -c "a \\" b" 'it is' c\ d"#], |text| {
        let _ = commands_of(text);
    });
}
