//! The generated documentation is what the program says now. `UPDATE_DOCS=1 cargo test --test docs` writes it anew.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test may fail loudly")]

use std::{fmt::Write as _, fs, path::Path};

use clap::{Command, CommandFactory as _};
use raidguard::{
    cli::Cli,
    health::findings::{self, Entry},
    model::Severity,
};

fn section(command: &Command, name: &str, out: &mut String) {
    let mut command = command.clone().term_width(100).bin_name(name);
    let help = command.render_long_help().to_string();
    let help = help.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    let _ = write!(out, "\n## {name}\n\n```text\n{}\n```\n", help.trim_end());
    for verb in command.get_subcommands().filter(|c| c.get_name() != "help") {
        section(verb, &format!("{name} {}", verb.get_name()), out);
    }
}

/// Writes the file anew where that is asked for; it must be this text then.
fn is_written(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(there == text, "{file} is not what the program says: UPDATE_DOCS=1 cargo test --test docs");
}

#[test]
fn the_command_line_is_documented_as_it_is() {
    let mut text = String::from(
        "# The command line\n\nGenerated from the program: `UPDATE_DOCS=1 cargo test --test docs` writes it anew.\n",
    );
    let mut command = Cli::command();
    command.build();
    section(&command, "raidguard", &mut text);
    is_written("docs/cli.md", &text);
}

const INTRODUCTION: &str = "# Findings

Generated from the program: `UPDATE_DOCS=1 cargo test --test docs` writes it anew.

Everything that `raidguard check` can find, by its code. Codes are stable: a script may rely on them. `raidguard explain CODE`
says the same on the machine. Words in capitals stand for what is the mirror's own (NAME, MOUNTPOINT, DEVICE ...); `check`
fills them in.

A finding is known by its code and by what it is about: a member, a job, a path. It stands while the place that it was read from
cannot be read. How bad it is depends on what was seen, so one code may come with more than one severity.
";

/// From best to worst, as the verdict takes them.
const SEVERITIES: [(Severity, &str); 4] = [
    (Severity::Ok, "A note: worth a line, and no fault."),
    (Severity::Warning, "Full redundancy holds, but something drifts, or would not be noticed."),
    (Severity::Unknown, "Something could not be read, so nobody knows. Never taken for ok."),
    (
        Severity::Critical,
        "Losing one more device could lose data, data are wrong already, or the node would not find its data.",
    ),
];

const AREAS: [(&str, &str, &str); 10] = [
    (
        "MIR",
        "the mirror",
        "Its members, their error counters, how its chunks are stored, and how it is mounted.",
    ),
    ("SCR", "scrubs", "When every copy was last read and compared, and what that found."),
    ("SPC", "space", "Room for data, for new chunks, and for metadata."),
    (
        "MNT",
        "the mount",
        "Whether the mirror is where it should be, and will be after the next start of the machine.",
    ),
    ("DIR", "the node's directory", "Whether it leads to the mirror, and who may use it."),
    ("NODE", "the node", "Its database, its secret, and processes that work off the mirror."),
    ("SCH", "the regular jobs", "Whether they are installed as declared, run in time, and end well."),
    ("DEV", "the disks", "What they say of their own health, and how they are attached."),
    ("NTF", "notification", "Whether a message would reach the operator."),
    ("OBS", "what was not seen", "Whatever could not be read: the verdict is then never ok."),
];

fn area(entry: &Entry) -> &str {
    entry.code.split('-').next().unwrap()
}

fn finding(entry: &Entry, out: &mut String) {
    let Entry { code, title, meaning, remedy, source } = entry;
    let source = if area(entry) == "OBS" { "whatever could not be read" } else { source.as_str() };
    let elsewhere = entry.elsewhere("**");
    let _ = write!(
        out,
        "\n### {code}: {title}\n\n{meaning}\n\n**What to do:** {remedy}{elsewhere}\n\n**Read from:** {source}.\n"
    );
}

#[test]
fn every_finding_is_documented_as_the_program_explains_it() {
    assert!(SEVERITIES.is_sorted_by_key(|(severity, _)| severity));
    let mut text = String::from(INTRODUCTION);
    text.push_str("\n## Severities\n\n| severity | exit code of `check` | meaning |\n|---|---|---|\n");
    for (severity, meaning) in SEVERITIES {
        let _ = writeln!(text, "| {severity} | {} | {meaning} |", severity.exit_code());
    }
    text.push_str("\nThe worst finding decides the verdict, in this order.\n");
    for (name, title, about) in AREAS {
        let _ = write!(text, "\n## {name}: {title}\n\n{about}\n");
        let mut here = findings::codes().filter(|entry| area(entry) == name).peekable();
        assert!(here.peek().is_some(), "{name} has no finding");
        here.for_each(|entry| finding(entry, &mut text));
    }
    for entry in findings::codes() {
        let heading = format!("\n### {}: ", entry.code);
        assert_eq!(text.matches(&heading).count(), 1, "{} is in no area, or in two", entry.code);
    }
    is_written("docs/findings.md", &text);
}
