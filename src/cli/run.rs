//! From the parsed command line to the verb.

use clap::CommandFactory as _;

use super::{Cli, Verb};
use crate::{
    host::Host,
    ops::{Exit, Trouble},
    ui::Console,
};

/// Runs a verb to its exit code.
///
/// # Errors
/// The verb was refused or failed; the caller says how.
pub fn run(verb: Verb, _host: &Host, console: &mut Console) -> Result<u8, Trouble> {
    match verb {
        Verb::Completions { shell } => {
            let mut out = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "raidguard", &mut out);
            console.data(String::from_utf8_lossy(&out));
        }
        Verb::Man => {
            let mut out = Vec::new();
            let page = clap_mangen::Man::new(Cli::command()).section("8");
            page.render(&mut out).map_err(|e| Trouble::failed("the manual page could not be rendered", e))?;
            console.data(String::from_utf8_lossy(&out));
        }
        _ => {}
    }
    Ok(Exit::Done as u8)
}
