//! Manual pages, made from the command line's own description.

use std::path::Path;

use clap::{Command, CommandFactory as _};

use super::Cli;
use crate::{
    host::files,
    ops::{Exit, Trouble},
    ui::Console,
};

/// The name of a page's file and the page.
fn page(command: Command) -> std::io::Result<(String, Vec<u8>)> {
    let man = clap_mangen::Man::new(command).section("8").manual("raidguard");
    let mut text = Vec::new();
    man.render(&mut text)?;
    Ok((man.get_filename(), text))
}

fn pages() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut command = Cli::command();
    // Gives each verb its full name: raidguard-setup.
    command.build();
    let verbs: Vec<Command> = command.get_subcommands().filter(|c| c.get_name() != "help").cloned().collect();
    std::iter::once(command).chain(verbs).map(page).collect()
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
    #[test]
    fn every_verb_has_a_page_that_names_its_options() {
        let pages = super::pages().unwrap();
        let setup = pages.iter().find(|(name, _)| name == "raidguard-setup.8").unwrap();
        let text = String::from_utf8_lossy(&setup.1);
        assert!(text.contains("\\-\\-hdd") && text.contains("Examples"), "{text}");
        assert!(pages.iter().any(|(name, _)| name == "raidguard.8"));
        assert_eq!(pages.iter().filter(|(name, _)| name.starts_with("raidguard")).count(), pages.len());
    }
}
