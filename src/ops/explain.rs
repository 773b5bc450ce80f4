//! `explain`: what a finding means and how to mend it.

use super::{Exit, Trouble};
use crate::{
    health::findings::{self, Entry},
    ui::Console,
};

/// Explains a code; without one, lists all.
///
/// # Errors
/// There is no such code.
pub fn explain(code: Option<&str>, console: &Console) -> Result<Exit, Trouble> {
    let Some(code) = code else {
        let width = findings::codes().map(|e| e.code.len()).max().unwrap_or_default();
        let line = |e: &Entry| format!("{:width$}  {}\n", e.code, e.title);
        console.data(findings::codes().map(line).collect::<String>());
        return Ok(Exit::Done);
    };
    let Some(entry) = findings::find(code.trim()) else {
        let area = code.trim().split('-').next().unwrap_or_default().to_uppercase();
        let alike = findings::codes().map(|e| e.code).filter(|c| c.split('-').next() == Some(&area));
        let alike: Vec<_> = alike.collect();
        let alike = match alike.as_slice() {
            [] => "`raidguard explain` lists all that there are".to_owned(),
            alike => format!("there is: {}", alike.join(", ")),
        };
        return Err(Trouble::Usage(format!("there is no finding `{code}`; {alike}")));
    };
    let Entry { code, title, meaning, remedy, .. } = entry;
    let elsewhere = entry.elsewhere("");
    console.data(format_args!("{code}: {title}\n\n{meaning}\n\nWhat to do: {remedy}{elsewhere}\n"));
    Ok(Exit::Done)
}
