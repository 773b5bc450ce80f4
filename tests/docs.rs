//! The generated documentation is what the program says now. `UPDATE_DOCS=1 cargo test --test docs` writes it anew.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test may fail loudly")]

use std::{fmt::Write as _, fs, path::Path};

use clap::{Command, CommandFactory as _};
use raidguard::cli::Cli;

fn section(command: &Command, name: &str, out: &mut String) {
    let mut command = command.clone().term_width(100).bin_name(name);
    let help = command.render_long_help().to_string();
    let help = help.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    let _ = write!(out, "\n## {name}\n\n```text\n{}\n```\n", help.trim_end());
    for verb in command.get_subcommands().filter(|c| c.get_name() != "help") {
        section(verb, &format!("{name} {}", verb.get_name()), out);
    }
}

#[test]
fn the_command_line_is_documented_as_it_is() {
    let mut text = String::from(
        "# The command line\n\nGenerated from the program: `UPDATE_DOCS=1 cargo test --test docs` writes it anew.\n",
    );
    section(&Cli::command(), "raidguard", &mut text);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(there == text, "docs/cli.md is not what the program says: UPDATE_DOCS=1 cargo test --test docs");
}
