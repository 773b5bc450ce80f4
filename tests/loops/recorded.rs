//! What checks saw of real mirrors, kept for ring 0, which judges it again (`health/judge_tests.rs`): only where
//! `RAIDGUARD_RECORD_OBSERVED` names a directory. Nothing in a recording tells where or when it was made.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// The time that every recording is moved to.
const NOW: &str = "2026-11-23T12:00:00Z";

/// A check that is recorded.
pub(crate) struct Recording(PathBuf);

impl Recording {
    pub(crate) fn begin() -> Option<Self> {
        let dir = std::env::var_os("RAIDGUARD_RECORD_OBSERVED")?;
        fs::create_dir_all(&dir).unwrap();
        Some(Self(Path::new(&dir).join("newest.json")))
    }

    /// Where the check is to write what it sees.
    pub(crate) fn file(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// Keeps it with the faults that were found, under the test's name; one that found nothing once a test.
    pub(crate) fn keep(self, faults: &[&Value], codes: &BTreeSet<String>) {
        let dump: Value = serde_json::from_slice(&fs::read(&self.0).unwrap()).unwrap();
        fs::remove_file(&self.0).unwrap();
        let test = std::env::args().nth(1).unwrap_or_default();
        let test = test.rsplit("::").next().unwrap();
        let dir = self.0.parent().unwrap();
        let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mine: Vec<_> = names.filter(|name| name.starts_with(&format!("{test}-"))).collect();
        if codes.is_empty() && mine.iter().any(|name| name.ends_with(".ok.json")) {
            return;
        }
        let codes: Vec<_> = codes.iter().map(String::as_str).collect();
        let codes = if codes.is_empty() { "ok".to_owned() } else { codes.join("+") };
        let kept = neutral(dump, faults).to_string() + "\n";
        assert!(!kept.contains("raidguard-test-") && !kept.contains(&host()), "{kept}");
        fs::write(dir.join(format!("{test}-{:02}.{codes}.json", mine.len() + 1)), kept).unwrap();
    }
}

fn host() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned()
}

fn neutral(mut dump: Value, faults: &[&Value]) -> Value {
    let now: Timestamp = dump["now"].as_str().unwrap().parse().unwrap();
    move_times(&mut dump, NOW.parse::<Timestamp>().unwrap().duration_since(now));
    for mirror in dump["mirrors"].as_array_mut().unwrap() {
        // The machine's own disks, where a container keeps them from root.
        for place in ["/observed/storage/read/unread", "/record/read/open"] {
            if let Some(list) = mirror.pointer_mut(place) {
                list.as_array_mut().unwrap().retain(|one| !one.to_string().contains("not permitted"));
            }
        }
        // Words may hold times, and are made anew.
        mirror.as_object_mut().unwrap().remove("verdict");
    }
    let known = |f: &&Value| json!([f["code"], f["severity"], f["about"]]);
    dump["faults"] = faults.iter().map(known).collect();
    dump
}

/// Moves everything that is a time and nothing else.
fn move_times(value: &mut Value, by: SignedDuration) {
    match value {
        Value::String(text) => {
            if let Ok(time) = text.parse::<Timestamp>() {
                *text = (time + by).to_string();
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|one| move_times(one, by)),
        Value::Object(all) => all.values_mut().for_each(|one| move_times(one, by)),
        _ => {}
    }
}
