//! Manual pages, made from the command line's own description.

use std::{fmt::Write as _, io, path::Path};

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::{Cli, EXIT_CODES};
use crate::{
    host::files,
    ops::{Exit, Trouble},
    ui::Console,
};

/// What begins the parts of a verb's last words.
const CODES: &str = "Exit codes:";
const EXAMPLES: [&str; 2] = ["Examples:", "Example:"];

const FILES: [(&str, &str); 7] = [
    ("/etc/raidguard/raidguard.toml", "The declared mirrors, and the channels of notification."),
    ("/etc/raidguard/secrets.toml", "Webhook tokens and heartbeat URLs; readable by root only."),
    ("/etc/cron.d/raidguard, /etc/systemd/system/raidguard-*", "The regular jobs."),
    (
        "/etc/udev/rules.d/62-raidguard-*.rules",
        "Keeps halves of a mirror apart that were each written to alone.",
    ),
    ("/var/lib/raidguard/journal/", "What each change of the machine was to do, and how far it got."),
    (
        "/var/lib/raidguard/state.sqlite3",
        "Known errors, past jobs, and the newest database state that was ever seen.",
    ),
    ("/run/raidguard/", "Locks, mounts of rescues and exchanges, records of what a killed run left."),
];

/// The last words of a verb, taken apart.
#[derive(Debug, Default, PartialEq)]
struct Words {
    paragraphs: Vec<String>,
    codes: Option<String>,
    examples: Vec<String>,
}

impl Words {
    fn of(text: &str) -> Self {
        let mut words = Self::default();
        for part in text.split("\n\n") {
            let (first, rest) = part.split_once('\n').unwrap_or((part, ""));
            if EXAMPLES.contains(&first) {
                words
                    .examples
                    .extend(rest.lines().map(|line| line.strip_prefix("  ").unwrap_or(line).to_owned()));
            } else if let Some(codes) = part.strip_prefix(CODES) {
                words.codes = Some(codes.trim().to_owned());
            } else {
                words.paragraphs.push(part.to_owned());
            }
        }
        words
    }
}

/// Text as troff takes it for itself (groff(7), groff_char(7)).
fn plain(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('`', "\\(ga");
    let line = |line: &str| if line.starts_with('.') { format!("\\&{line}\n") } else { format!("{line}\n") };
    escaped.lines().map(line).collect()
}

fn section(out: &mut String, title: &str) {
    let _ = writeln!(out, ".SH {title}");
}

/// Lines as they are.
fn verbatim(out: &mut String, lines: impl Iterator<Item = impl AsRef<str>>) {
    out.push_str(".nf\n");
    lines.for_each(|line| out.push_str(&plain(line.as_ref())));
    out.push_str(".fi\n");
}

/// The name of a page's file and the page. `above` is the name of the page that leads to it.
fn page(mut command: Command, above: Option<&str>) -> io::Result<(String, Vec<u8>)> {
    let usage = command.render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage).to_owned();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let words = Words::of(&command.get_after_help().map(ToString::to_string).unwrap_or_default());
    let below: Vec<String> = command.get_subcommands().map(|c| file_name(c).replace(".8", "")).collect();
    let options = command.clone();
    let source = format!("raidguard {}", env!("CARGO_PKG_VERSION"));
    let file = file_name(&command);
    let man = Man::new(command).section("8").manual("raidguard").source(source);

    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    let mut text = String::new();
    section(&mut text, "SYNOPSIS");
    verbatim(&mut text, usage.lines().map(str::trim));
    section(&mut text, "DESCRIPTION");
    text.push_str(&plain(&format!("{about}.")));
    for paragraph in words.paragraphs {
        text.push_str(".PP\n");
        text.push_str(&plain(&paragraph));
    }
    page.extend_from_slice(text.as_bytes());
    if options.get_arguments().next().is_some() {
        man.render_options_section(&mut page)?;
    }
    if !below.is_empty() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut text = String::new();
    section(&mut text, "EXIT STATUS");
    let general =
        || EXIT_CODES.strip_prefix(CODES).and_then(|codes| codes.lines().next()).unwrap_or(EXIT_CODES);
    text.push_str(&plain(words.codes.as_deref().unwrap_or_else(|| general().trim())));
    if above.is_none() {
        section(&mut text, "FILES");
        for (file, what) in FILES {
            let _ = write!(text, ".TP\n{}{}", plain(file), plain(what));
        }
    }
    if options.get_arguments().any(|arg| arg.get_env().is_some()) {
        section(&mut text, "ENVIRONMENT");
        text.push_str(".TP\nLIGHTNINGDIR\n");
        text.push_str(&plain("The node's directory, where --lightning-dir does not name it."));
    }
    if !words.examples.is_empty() {
        section(&mut text, "EXAMPLES");
        verbatim(&mut text, words.examples.iter());
    }
    section(&mut text, "SEE ALSO");
    let others = above.map(str::to_owned).into_iter().chain(below);
    let others = others.map(|name| format!("{name}(8)")).chain(["btrfs(8)".to_owned()]);
    text.push_str(&plain(&others.collect::<Vec<_>>().join(", ")));
    page.extend_from_slice(text.as_bytes());
    Ok((file, page))
}

fn file_name(command: &Command) -> String {
    Man::new(command.clone()).section("8").get_filename()
}

fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    fn visit(command: Command, above: Option<&str>, out: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
        let below: Vec<Command> = command.get_subcommands().cloned().collect();
        let name = file_name(&command).replace(".8", "");
        out.push(page(command, above)?);
        below.into_iter().try_for_each(|verb| visit(verb, Some(&name), out))
    }
    let mut pages = Vec::new();
    visit(described(), None, &mut pages)?;
    Ok(pages)
}

/// The command line with the flags of every verb, each of which has its full name: raidguard-setup.
fn described() -> Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    command
}

/// Prints the page of the whole program, or writes every page into `dir`.
pub(super) fn man(dir: Option<&Path>, console: &Console) -> Result<Exit, Trouble> {
    let pages = pages().map_err(|e| Trouble::failed("the manual pages could not be rendered", e))?;
    match dir {
        None => {
            for (_, text) in pages.iter().take(1) {
                console.data(String::from_utf8_lossy(text));
            }
        }
        Some(dir) => {
            for (name, text) in &pages {
                files::replace(&dir.join(name), text, 0o644)
                    .map_err(|e| Trouble::failed("a manual page could not be written", e))?;
            }
            console.say(format_args!("{} pages are in {}", pages.len(), dir.display()));
        }
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<(String, String)> {
        let text = |(name, text): (String, Vec<u8>)| (name, String::from_utf8(text).unwrap());
        pages().unwrap().into_iter().map(text).collect()
    }

    #[test]
    fn every_verb_has_a_page_with_all_that_one_looks_for() {
        let pages = all();
        for (name, text) in &pages {
            for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "SEE ALSO"] {
                assert!(
                    text.contains(&format!(".SH {section}\n"))
                        || text.contains(&format!(".SH \"{section}\"\n")),
                    "{name}: {section}"
                );
            }
            assert!(name == "raidguard.8" || text.contains(".SH EXAMPLES\n"), "{name}");
            assert!(!text.contains("Examples:") && !text.contains("Exit codes:"), "{name}: {text}");
            // What a page names is there.
            for word in text.replace("\\-", "-").replace("\\fR", "").split([' ', '\n', ',']) {
                if let Some(other) = word.strip_suffix("(8)").filter(|w| w.contains("raidguard")) {
                    let other = other.replace("\\fB", "");
                    assert!(pages.iter().any(|(n, _)| *n == format!("{other}.8")), "{name} names {other}");
                }
            }
        }
        let setup = &pages.iter().find(|(name, _)| name == "raidguard-setup.8").unwrap().1;
        assert!(setup.contains("\\-\\-hdd") && setup.contains("LIGHTNINGDIR"), "{setup}");
        assert!(pages.iter().any(|(name, _)| name == "raidguard-schedule-install.8"));
    }

    #[test]
    fn no_example_is_torn() {
        fn visit(command: &Command) {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            // A manual page has 73 columns of 80.
            for line in Words::of(&text).examples {
                assert!(line.chars().count() <= 73, "{}: {line}", command.get_name());
            }
            command.get_subcommands().for_each(visit);
        }
        visit(&described());
    }

    #[test]
    fn the_last_words_are_taken_apart() {
        let words = Words::of("One.\nTwo.\n\nExit codes: 0 done.\n\nExamples:\n  a b\n  c \\\n      d");
        assert_eq!(words.paragraphs, ["One.\nTwo."]);
        assert_eq!(words.codes.as_deref(), Some("0 done."));
        assert_eq!(words.examples, ["a b", "c \\", "    d"]);
        assert_eq!(plain(".a 'b' - c\\d"), "\\&.a \\(aqb\\(aq \\- c\\ed\n");
    }
}
