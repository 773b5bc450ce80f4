//! What a repair reports.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::maintain;
use crate::{backend::ScrubReport, host::readable::Damaged};

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// What a repair found and did.
#[derive(Debug, Clone, Serialize)]
pub struct RepairReport {
    /// The mirror's name.
    pub mirror: String,
    /// What was found wrong, in words; empty where nothing was.
    pub found: Vec<String>,
    /// What was done, a step each.
    pub done: Vec<String>,
    /// Each scrub, the last one last.
    pub scrubs: Vec<ScrubReport>,
    /// Files of which a part has no good copy.
    pub damaged: Vec<Damaged>,
    /// Why redundancy is not whole, where the proof has found it so, in words.
    pub lacks: Vec<String>,
    /// Whether redundancy is whole now.
    pub whole: bool,
}

/// A repair's report for people.
pub fn repair(report: &RepairReport) -> String {
    let RepairReport { mirror, found, scrubs, damaged, lacks, whole, .. } = report;
    let mut out = String::new();
    let (style, word) = match (found.is_empty(), *whole, damaged.is_empty()) {
        (true, true, _) => (GOOD, "nothing to do"),
        (_, true, true) => (GOOD, "redundancy is whole"),
        (_, true, false) => (BAD, "redundancy is whole, and some files are damaged"),
        (_, false, _) => (BAD, "redundancy is not whole"),
    };
    let _ = writeln!(out, "repair of {mirror}: {style}{word}{style:#}");
    for says in found {
        let _ = writeln!(out, "  found: {says}");
    }
    for scrub in scrubs {
        // What is to do is said below.
        let text = maintain::scrub(mirror, scrub);
        for line in text.lines().filter(|l| !l.contains("to do:")) {
            let _ = writeln!(out, "{line}");
        }
    }
    for lack in lacks {
        let _ = writeln!(out, "  not whole: {lack}");
    }
    for Damaged { path, why } in damaged {
        let _ = writeln!(out, "  damaged: {} ({why})", path.display());
    }
    if !damaged.is_empty() {
        let _ = writeln!(
            out,
            "  to do: stop the node; take each of these files from a backup, or remove it; then"
        );
        let _ = writeln!(
            out,
            "         `raidguard repair {mirror}` again. Never start a node on an old database."
        );
    }
    if !*whole {
        let _ = writeln!(out, "  to do: raidguard check {mirror} says what is left");
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{backend::ScrubCounts, ui::maintain::tests::scrubbed};

    pub(in crate::ui) fn sample() -> RepairReport {
        let counts = ScrubCounts { checksum: 2, uncorrectable: 2, ..ScrubCounts::default() };
        RepairReport {
            mirror: "lightning".into(),
            found: vec!["data as single: 416 MiB".into()],
            done: vec!["store as raid1 again what is not".into()],
            scrubs: vec![scrubbed(counts)],
            damaged: vec![Damaged {
                path: "/srv/lightning/lightning/log".into(),
                why: "Input/output error (os error 5)".into(),
            }],
            lacks: Vec::new(),
            whole: true,
        }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn damaged_files_are_named_and_nothing_to_do_is_said() {
        insta::assert_snapshot!(plain(&repair(&sample())), @r#"
        repair of lightning: redundancy is whole, and some files are damaged
          found: data as single: 416 MiB
        scrub of lightning: not everything is good
          3 GiB read in 0:01:12 (h:mm:ss)
          2 blocks had a wrong checksum
          2 blocks could not be mended
          damaged: /srv/lightning/lightning/log (Input/output error (os error 5))
          to do: stop the node; take each of these files from a backup, or remove it; then
                 `raidguard repair lightning` again. Never start a node on an old database.
        "#);
        let none = RepairReport {
            found: Vec::new(),
            done: Vec::new(),
            scrubs: Vec::new(),
            damaged: Vec::new(),
            ..sample()
        };
        insta::assert_snapshot!(plain(&repair(&none)), @"repair of lightning: nothing to do");
        let short = RepairReport { whole: false, damaged: Vec::new(), scrubs: Vec::new(), ..sample() };
        insta::assert_snapshot!(plain(&repair(&short)), @r#"
        repair of lightning: redundancy is not whole
          found: data as single: 416 MiB
          to do: raidguard check lightning says what is left
        "#);
    }
}
