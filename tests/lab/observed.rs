//! What checks saw of mirrors in the lab, kept for ring 0, which judges it again (`health/judge_tests.rs`).

use std::{fs, path::Path};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// The time that every recording is moved to.
const NOW: &str = "2026-11-23T12:00:00Z";

/// Keeps what `check --dump-observed` wrote, with the faults that were found, under the case's name; one that found nothing once a case.
pub(crate) fn keep(dir: &Path, case: &str, dump: &str, faults: &[&Value]) {
    fs::create_dir_all(dir).unwrap();
    let prefix = format!("lab-{case}-");
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mine: Vec<_> = names.filter(|name| name.starts_with(&prefix)).collect();
    if faults.is_empty() && mine.iter().any(|name| name.ends_with(".ok.json")) {
        return;
    }
    let mut codes: Vec<_> = faults.iter().map(|f| f["code"].as_str().unwrap()).collect();
    codes.sort_unstable();
    codes.dedup();
    let codes = if codes.is_empty() { "ok".to_owned() } else { codes.join("+") };
    let mut dump: Value = serde_json::from_str(dump).unwrap();
    let now: Timestamp = dump["now"].as_str().unwrap().parse().unwrap();
    move_times(&mut dump, NOW.parse::<Timestamp>().unwrap().duration_since(now));
    for mirror in dump["mirrors"].as_array_mut().unwrap() {
        // Words may hold times, and are made anew.
        mirror.as_object_mut().unwrap().remove("verdict");
    }
    dump["faults"] = faults.iter().map(|f| json!([f["code"], f["severity"], f["about"]])).collect();
    fs::write(dir.join(format!("{prefix}{:02}.{codes}.json", mine.len() + 1)), dump.to_string() + "\n")
        .unwrap();
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
