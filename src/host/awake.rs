//! The machine does not go to sleep in the middle of long work: a disk that loses its power meanwhile may drop off, and new kernels begin
//! an exchange of members anew after a suspend.

use super::Host;
use crate::exec::{Cmd, Held};

/// Held while it lives. Work goes on without it too.
#[derive(Debug)]
pub struct Awake(#[allow(dead_code, reason = "released with the value")] Held);

/// Asks systemd (systemd-inhibit(1)) not to suspend the machine while the value lives, nor when its lid is closed. A shutdown is not held
/// up: whatever is interrupted goes on afterwards. Where there is no systemd, nothing suspends by itself.
pub fn hold(host: &Host, why: &str) -> Awake {
    if !host.path("/run/systemd/system").is_dir() || !host.runner().has("systemd-inhibit") {
        return Awake(Held::default());
    }
    let held = host.runner().hold(
        &Cmd::probe("systemd-inhibit")
            .args(["--what=sleep:handle-lid-switch", "--mode=block", "--who=raidguard"])
            .arg(format!("--why={why}"))
            .arg("cat"),
    );
    Awake(held.unwrap_or_else(|e| {
        tracing::warn!("the machine may go to sleep meanwhile: {e}");
        Held::default()
    }))
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use super::*;
    use crate::exec::ScriptedRunner;

    #[test]
    fn systemd_is_asked_where_it_runs() {
        let dir = tempfile::tempdir().unwrap();
        let runner = Arc::new(ScriptedRunner::new());
        let host = Host::captured(dir.path(), runner.clone(), jiff::Timestamp::UNIX_EPOCH);
        drop(hold(&host, "a rescue"));
        assert_eq!(runner.held(), [] as [String; 0]);
        fs::create_dir_all(dir.path().join("run/systemd/system")).unwrap();
        drop(hold(&host, "a rescue"));
        let line = "systemd-inhibit --what=sleep:handle-lid-switch --mode=block --who=raidguard '--why=a rescue' cat";
        assert_eq!(runner.held(), [line]);
    }
}
