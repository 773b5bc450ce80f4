//! The drill: what is said before each step, and the scorecard at its end.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use anstyle::{AnsiColor, Style};
use serde::{Serialize, Serializer};

use crate::model::{lossy, quote::printable};

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const QUIET: Style = Style::new().dimmed();
const STRONG: Style = Style::new().bold();

/// Text is broken to fit into a terminal of 80 columns.
const WIDTH: usize = 78;
const INDENT: usize = 6;
/// The scorecard's columns: step, promised, came out.
const COLUMNS: [usize; 3] = [16, 23, 24];

/// A cell has at most so many lines.
const CELL: usize = 5;

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepEnd {
    /// What was promised came out.
    Held,
    /// It did not.
    Failed,
    /// It was not come to.
    NotReached,
}

/// One step of a drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepReport {
    /// Its stable name.
    pub step: &'static str,
    /// It in a few words.
    pub title: &'static str,
    /// What raidguard was called with, as it would be typed; the machine's own part has none.
    pub command: Option<String>,
    /// What was promised.
    pub promised: String,
    /// How it ended.
    pub end: StepEnd,
    /// What came out, or why it failed.
    pub came_out: Option<String>,
    /// How long it took, in milliseconds; not with what waited for a key.
    #[serde(rename = "milliseconds", serialize_with = "milliseconds")]
    pub took: Option<Duration>,
}

/// A whole drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DrillReport {
    /// Every step held.
    pub passed: bool,
    /// What of the operator's declaration was rehearsed with.
    pub terms: String,
    /// The steps.
    pub steps: Vec<StepReport>,
    /// How long all of it took, in milliseconds, with making and clearing.
    #[serde(rename = "milliseconds", serialize_with = "milliseconds_of")]
    pub took: Duration,
    /// Where everything that was said is kept, where a step failed.
    #[serde(serialize_with = "lossy::option")]
    pub log: Option<PathBuf>,
}

#[allow(clippy::ref_option, reason = "serde hands the field over like this")]
fn milliseconds<S: Serializer>(took: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    took.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)).serialize(to)
}

fn milliseconds_of<S: Serializer>(took: &Duration, to: S) -> Result<S::Ok, S::Error> {
    milliseconds(&Some(*took), to)
}

/// What is about to happen.
#[derive(Debug, Clone, Copy)]
pub struct Announced<'a> {
    /// Its number, from 1.
    pub number: usize,
    /// How many there are.
    pub of: usize,
    /// It in a few words.
    pub title: &'a str,
    /// What happens.
    pub happens: &'a str,
    /// What one does on a real day.
    pub on_the_day: &'a str,
}

/// The words before the first step.
pub fn opening(intro: &[String]) -> String {
    let mut out = format!("{STRONG}A drill: the bad day, on disks that are thrown away{STRONG:#}\n");
    for part in intro {
        let _ = write!(out, "\n{}", wrapped(part, 0, WIDTH));
    }
    out.truncate(out.trim_end().len());
    out
}

/// The words before a step.
pub fn announced(step: &Announced<'_>) -> String {
    let Announced { number, of, title, happens, on_the_day } = step;
    let width = of.to_string().len();
    let mut out = format!("\n{QUIET}{number:>width$}/{of}{QUIET:#} {STRONG}{title}{STRONG:#}\n");
    out.push_str(&wrapped(happens, INDENT, WIDTH));
    if !on_the_day.is_empty() {
        out.push_str(&wrapped(&format!("On a real day: {on_the_day}"), INDENT, WIDTH));
    }
    out.trim_end().to_owned()
}

/// A command that is run.
pub fn command(line: &str) -> String {
    let mut words = line.split(' ');
    let mut lines = vec![words.next().unwrap_or_default().to_owned()];
    for word in words {
        match lines.last_mut() {
            Some(last) if last.chars().count() + word.chars().count() + INDENT + 5 < WIDTH => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.push(format!("    {word}")),
        }
    }
    // As it can be pasted.
    let line = lines.join(&format!(" \\\n{:INDENT$}", ""));
    format!("{:INDENT$}{STRONG}$ {line}{STRONG:#}", "")
}

/// What a command answered, set apart.
pub fn answered(text: &str) -> String {
    let lines = text.trim_end().lines().map(|line| {
        let inner = line.len() - line.trim_start().len();
        wrapped(&printable(line), INDENT + 2 + inner, WIDTH)
    });
    let text: String = lines.collect();
    text.trim_end().lines().map(|line| format!("{QUIET}{line}{QUIET:#}")).collect::<Vec<_>>().join("\n")
}

/// How a step ended, in a line or two.
pub fn ended(step: &StepReport) -> String {
    let (style, word) = mark(step.end);
    // What took no time to speak of is said without it.
    let took = step.took.filter(|t| t.as_millis() >= 100).map(|t| seconds(t).replace(' ', TIED));
    let took = took.map(|took| format!(" ({took})")).unwrap_or_default();
    let came = printable(step.came_out.as_deref().unwrap_or_default());
    let text = wrapped(&format!("{word}: {came}{took}"), INDENT, WIDTH);
    text.trim_end().replacen(word, &format!("{style}{word}{style:#}"), 1)
}

fn mark(end: StepEnd) -> (Style, &'static str) {
    match end {
        StepEnd::Held => (GOOD, "held"),
        StepEnd::Failed => (BAD, "FAILED"),
        StepEnd::NotReached => (QUIET, "-"),
    }
}

/// The scorecard.
pub fn scorecard(report: &DrillReport) -> String {
    let held = report.steps.iter().filter(|s| s.end == StepEnd::Held).count();
    let all = report.steps.len();
    let mut out = format!("{STRONG}What was promised, and what came out{STRONG:#}\n\n");
    let titles = ["step", "promised", "came out"];
    let _ = writeln!(out, "{STRONG}{:<7}{}   time{STRONG:#}", "", row(&titles.map(str::to_owned)));
    for step in &report.steps {
        let (style, word) = mark(step.end);
        let came = match step.end {
            StepEnd::NotReached => "not reached".to_owned(),
            _ => printable(step.came_out.as_deref().unwrap_or_default()),
        };
        let cells = [step.title.to_owned(), step.promised.clone(), came];
        let columns: Vec<_> =
            cells.iter().zip(COLUMNS).map(|(cell, width)| cut(broken(cell, width))).collect();
        for line in 0..columns.iter().map(Vec::len).max().unwrap_or(0) {
            let texts: Vec<_> = columns.iter().map(|c| c.get(line).cloned().unwrap_or_default()).collect();
            let (word, took) = if line == 0 { (word, step.took.map(seconds)) } else { ("", None) };
            let text = format!("{style}{word:<7}{style:#}{}{:>7}", row(&texts), took.unwrap_or_default());
            let _ = writeln!(out, "{}", text.trim_end());
        }
    }
    let took = seconds(report.took);
    if report.passed {
        let _ = writeln!(out, "\n{GOOD}All {all} steps held{GOOD:#}, in {took}. Nothing is left of it.");
    } else {
        let _ = writeln!(out, "\n{BAD}{held} of {all} steps held{BAD:#}, in {took}.");
    }
    out
}

/// A long reason is said in full elsewhere.
fn cut(mut lines: Vec<String>) -> Vec<String> {
    if lines.len() > CELL {
        lines.truncate(CELL - 1);
        lines.push("...".to_owned());
    }
    lines
}

fn row(cells: &[String]) -> String {
    cells.iter().zip(COLUMNS).map(|(cell, width)| format!("{cell:<width$} ")).collect()
}

fn seconds(took: Duration) -> String {
    let tenths = took.as_millis() / 100;
    match tenths {
        0..1000 => format!("{}.{} s", tenths / 10, tenths % 10),
        _ => format!("{} s", tenths / 10),
    }
}

/// A blank at which no line is broken.
const TIED: &str = "\u{a0}";

/// Text with each line indented and broken between words, a newline at each end.
fn wrapped(text: &str, indent: usize, width: usize) -> String {
    broken(text, width.saturating_sub(indent).max(20))
        .iter()
        .map(|l| format!("{:indent$}{l}\n", ""))
        .collect()
}

/// Lines of at most this many characters, broken between words; a word that is longer is broken too.
fn broken(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(|c: char| c.is_whitespace() && !TIED.contains(c)).filter(|word| !word.is_empty()) {
        let mut word = word;
        loop {
            let length = word.chars().count();
            match lines.last_mut() {
                Some(line) if line.chars().count() + 1 + length <= width => {
                    line.push(' ');
                    line.push_str(word);
                    break;
                }
                _ if length <= width => {
                    lines.push(word.to_owned());
                    break;
                }
                _ => {
                    let at = word.char_indices().nth(width).map_or(word.len(), |(at, _)| at);
                    let (head, tail) = word.split_at(at);
                    lines.push(head.to_owned());
                    word = tail;
                }
            }
        }
    }
    lines.into_iter().map(|line| line.replace(TIED, " ")).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn step(title: &'static str, end: StepEnd, came_out: &str, millis: u64) -> StepReport {
        StepReport {
            step: "setup",
            title,
            command: Some("raidguard setup --yes".into()),
            promised: "every file as it was".into(),
            end,
            came_out: Some(came_out.to_owned()).filter(|c| !c.is_empty()),
            took: (end != StepEnd::NotReached).then(|| Duration::from_millis(millis)),
        }
    }

    pub(in crate::ui) fn drilled(passed: bool) -> DrillReport {
        let last = if passed {
            step("A disk goes", StepEnd::Held, "the node works on, 33 commits meanwhile", 1049)
        } else {
            step(
                "A disk goes",
                StepEnd::Failed,
                "/a/very/long/path/that/has/no/room/in/one/line does not fit",
                120_400,
            )
        };
        let mut steps = vec![step("The move", StepEnd::Held, "13 files, 211 MiB, all equal", 9_450), last];
        if !passed {
            steps.push(step("The rescue", StepEnd::NotReached, "", 0));
        }
        let log = (!passed).then(|| "/var/tmp/raidguard-drill.log".into());
        DrillReport { passed, terms: "the usual".into(), steps, took: Duration::from_millis(41_234), log }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_scorecard_of_a_drill_that_held() {
        insta::assert_snapshot!(plain(&scorecard(&drilled(true))), @r"
        What was promised, and what came out

               step             promised                came out                    time
        held   The move         every file as it was    13 files, 211 MiB, all     9.4 s
                                                        equal
        held   A disk goes      every file as it was    the node works on, 33      1.0 s
                                                        commits meanwhile

        All 2 steps held, in 41.2 s. Nothing is left of it.
        ");
    }

    #[test]
    fn a_scorecard_of_one_that_did_not() {
        insta::assert_snapshot!(plain(&scorecard(&drilled(false))), @r"
        What was promised, and what came out

               step             promised                came out                    time
        held   The move         every file as it was    13 files, 211 MiB, all     9.4 s
                                                        equal
        FAILED A disk goes      every file as it was    /a/very/long/path/that/h   120 s
                                                        as/no/room/in/one/line
                                                        does not fit
        -      The rescue       every file as it was    not reached

        1 of 3 steps held, in 41.2 s.
        ");
    }

    #[test]
    fn a_long_reason_is_cut_in_the_table() {
        let mut report = drilled(false);
        report.steps[1].came_out = Some("a_word ".repeat(100));
        let text = plain(&scorecard(&report));
        assert_eq!(text.matches("a_word").count(), 4 * 3, "{text}");
        assert!(text.contains("..."), "{text}");
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        for report in [drilled(true), drilled(false)] {
            let text = plain(&scorecard(&report));
            assert!(text.lines().all(|l| l.chars().count() <= 80 && l.trim_end() == l), "{text}");
        }
    }

    #[test]
    fn a_step_is_announced_and_ended() {
        let step = Announced {
            number: 3,
            of: 10,
            title: "The node works",
            happens: "It commits to its database, and each commit is on both disks before it is acknowledged.",
            on_the_day: "nothing to do.",
        };
        let mut text = announced(&step);
        let _ = write!(
            text,
            "\n{}\n{}",
            command("raidguard check"),
            answered("lightning: ok\n  all \u{1b}is there\n")
        );
        let _ = write!(text, "\n{}", ended(&drilled(true).steps[0]));
        insta::assert_snapshot!(plain(&text), @r"

         3/10 The node works
              It commits to its database, and each commit is on both disks before it
              is acknowledged.
              On a real day: nothing to do.
              $ raidguard check
                lightning: ok
                  all \u{1b}is there
              held: 13 files, 211 MiB, all equal (9.4 s)
        ");
    }

    #[test]
    fn a_long_command_can_be_pasted() {
        let line = format!("raidguard setup {}", "--device /dev/loop1 ".repeat(8).trim_end());
        let text = plain(&command(&line));
        assert!(text.lines().count() > 1 && text.lines().all(|l| l.chars().count() <= 80), "{text}");
        let joined = text.trim().trim_start_matches("$ ").replace("\\\n", " ");
        assert_eq!(joined.split_whitespace().collect::<Vec<_>>().join(" "), line);
    }
}
