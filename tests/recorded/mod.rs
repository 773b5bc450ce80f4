//! What checks saw of real mirrors, kept for ring 0, which judges it again (`health/judge_tests.rs`). Nothing in a recording tells where
//! or when it was made.

use std::{fs, path::Path};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// The time that every recording is moved to.
const NOW: &str = "2026-11-23T12:00:00Z";

/// Keeps what `check --dump-observed` wrote, with the faults that were found, under a name that begins so; one that found nothing once
/// for each such name.
pub(crate) fn keep(dir: &Path, prefix: &str, dump: Value, faults: &[&Value]) {
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mine: Vec<_> = names.filter(|name| name.starts_with(prefix)).collect();
    if faults.is_empty() && mine.iter().any(|name| name.ends_with(".ok.json")) {
        return;
    }
    let mut codes: Vec<_> = faults.iter().map(|f| f["code"].as_str().unwrap()).collect();
    codes.sort_unstable();
    codes.dedup();
    let codes = if codes.is_empty() { "ok".to_owned() } else { codes.join("+") };
    let kept = neutral(dump, faults).to_string() + "\n";
    assert!(!kept.contains("raidguard-test-") && !kept.contains(&host()), "{kept}");
    fs::write(dir.join(format!("{prefix}{:02}.{codes}.json", mine.len() + 1)), kept).unwrap();
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
