//! What raidguard has told a person in a step, read again for the scorecard.

/// Why raidguard did not do what it should, from what it said: the error with the cause of all causes; or the first that its answer warns
/// of.
pub(super) fn why(said: &str, answer: &str) -> Option<String> {
    let after =
        |line: &str, word: &str| line.trim_start().strip_prefix(word).map(|rest| rest.trim().to_owned());
    let error = said.lines().find_map(|line| after(line, "error:"));
    let cause = said.lines().rev().find_map(|line| after(line, "caused by:").or_else(|| after(line, "- ")));
    let last = || said.lines().rev().find(|l| !l.trim().is_empty()).map(|l| l.trim().to_owned());
    match (error, cause) {
        (Some(error), Some(cause)) => Some(format!("{error}: {cause}")),
        (Some(error), None) => Some(error),
        (None, _) => answer.lines().find_map(|line| after(line, "! ")).or_else(last),
    }
}

/// The codes of findings in what `check` says to a person, each once.
pub(super) fn codes(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let severity = words.next().unwrap_or_default();
        let code = words.next().and_then(|word| word.strip_suffix(':'));
        if let Some(code) = code.filter(|_| matches!(severity, "critical" | "warning" | "unknown")) {
            if code.contains('-') && !found.iter().any(|f| f == code) {
                found.push(code.to_owned());
            }
        }
    }
    found
}

/// What was found, without the long list of what to do with it.
pub(super) fn before_next(text: &str) -> String {
    let found: Vec<&str> = text.lines().take_while(|line| !line.trim_start().starts_with("next:")).collect();
    let more =
        if found.len() < text.lines().count() { "\n... and what to do next, as in RECOVERY.md" } else { "" };
    first_lines(&found.join("\n"), 12) + more
}

/// The first so many lines that say something.
pub(super) fn first_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    let mut shown = lines.iter().take(count).copied().collect::<Vec<_>>().join("\n");
    if lines.len() > count {
        shown.push_str("\n...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_of_findings_are_read_from_what_people_are_told() {
        let text = "lightning: critical, btrfs raid1 of 2 at /srv/lightning\n\n  critical MIR-PULLED: 1 of 2 members is gone\n    \
                    seen: warning SPC-FREE: no\n  warning MIR-WRITE-ERRORS: new errors\n  note SCR-NEVER: never\n  critical MIR-PULLED: again\n";
        assert_eq!(codes(text), ["MIR-PULLED", "MIR-WRITE-ERRORS"]);
        assert!(codes("lightning: ok\n").is_empty());
    }

    #[test]
    fn why_it_failed_is_the_error_and_its_last_cause() {
        let said = "warning: x\nerror: setup stopped\n  caused by: step 7\n  caused by: SQLite cannot\n  next: raidguard setup --resume\n";
        assert_eq!(why(said, "").as_deref(), Some("setup stopped: SQLite cannot"));
        let refused =
            "error: refused: one thing is in the way\n  - /dev/x is in use\n    clears with: nothing\n";
        assert_eq!(why(refused, "").as_deref(), Some("refused: one thing is in the way: /dev/x is in use"));
        assert_eq!(why("thread panicked\n\n", "").as_deref(), Some("thread panicked"));
        let warned = why("done 3/3\n", "8 files are there\n  ! no database\n");
        assert_eq!(warned.as_deref(), Some("no database"));
        assert_eq!(why("", ""), None);
    }

    #[test]
    fn long_answers_are_cut() {
        assert_eq!(first_lines("a\n\nb\nc\n", 2), "a\nb\n...");
        assert_eq!(first_lines("a\nb\n", 2), "a\nb");
        assert_eq!(
            before_next("a\n  b\nnext: c\nnext: d\n"),
            "a\n  b\n... and what to do next, as in RECOVERY.md"
        );
        assert_eq!(before_next("a\n"), "a");
    }
}
