//! What scrub, balance and the schedule report.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::JobReport;
use crate::{
    backend::{BalanceEnd, BalanceReport, ScrubCounts, ScrubEnd, ScrubReport},
    model::Scheduler,
};

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const STRONG: Style = Style::new().bold();

/// Each count that is not zero, in words.
fn counted(counts: &ScrubCounts) -> Vec<String> {
    let all = [
        (counts.read, "could not be read"),
        (counts.checksum, "had a wrong checksum"),
        (counts.verify, "were metadata of the wrong place or time"),
        (counts.superblock, "were superblocks in error"),
        (counts.memory, "could not be checked for want of memory"),
        (counts.corrected, "were mended from another copy"),
        (counts.uncorrectable, "could not be mended"),
        (counts.unverified, "were wrong at first, and right when read again"),
    ];
    let blocks = all.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} blocks {what}"));
    let differ = Some(counts.mismatched).filter(|n| *n > 0);
    blocks
        .chain(
            differ.map(|n| format!("{n} sectors differ between members, and nothing tells which is right")),
        )
        .collect()
}

/// A scrub's report for people.
pub fn scrub(name: &str, report: &ScrubReport) -> String {
    let mut out = String::new();
    let mended = report.status.as_ref().is_some_and(|s| s.counts.corrected > 0);
    let (style, word) = match report.end {
        ScrubEnd::Finished if report.is_good() && report.compared => {
            let same = report.status.as_ref().is_some_and(|s| s.counts.mismatched == 0);
            (
                GOOD,
                if same {
                    "every member could be read, and they hold the same"
                } else {
                    "every member could be read"
                },
            )
        }
        ScrubEnd::Finished if report.is_good() && mended => {
            (GOOD, "every block of every member is good again")
        }
        ScrubEnd::Finished if report.is_good() => (GOOD, "every block of every member is good"),
        ScrubEnd::Finished => (BAD, "not everything is good"),
        ScrubEnd::Aborted => (BAD, "it ended before everything was read"),
        ScrubEnd::AlreadyRunning => (STRONG, "another scrub runs; none was started"),
        ScrubEnd::Stopped => (STRONG, "stopped, as asked; the next one starts anew"),
    };
    let _ = writeln!(out, "scrub of {name}: {style}{word}{style:#}");
    if let Some(status) = &report.status {
        let _ = writeln!(out, "  {} read in {} (h:mm:ss)", status.bytes_scrubbed, status.duration);
        for line in counted(&status.counts) {
            let _ = writeln!(out, "  {line}");
        }
        if status.counts.uncorrectable > 0 {
            let _ = writeln!(out, "  to do: raidguard repair {name}, which names the files that are damaged");
        }
    }
    if report.end == ScrubEnd::Aborted {
        let _ = writeln!(out, "  to do: raidguard check, which tells whether a member is missing");
    }
    out
}

/// A balance's report for people.
pub fn balance(name: &str, report: &BalanceReport) -> String {
    let mut out = String::new();
    let (style, word) = match report.end {
        BalanceEnd::Done => (GOOD, "done"),
        BalanceEnd::AlreadyRunning => (STRONG, "other long work runs on the mirror; none was started"),
        BalanceEnd::NoSpace => (BAD, "it found no room to work in; nothing is lost"),
        BalanceEnd::Stopped => (STRONG, "stopped, as asked"),
    };
    let _ = writeln!(out, "balance of {name}: {style}{word}{style:#}");
    if let (Some(relocated), Some(considered)) = (report.relocated, report.considered) {
        let _ = writeln!(out, "  {relocated} of {considered} chunks were rewritten");
    }
    if let Some(note) = &report.note {
        let _ = writeln!(out, "  {note}");
    }
    if report.end == BalanceEnd::NoSpace {
        let _ = writeln!(out, "  to do: free some space on the mirror, then run it again");
    }
    out
}

/// The jobs of one mirror.
#[derive(Debug, Clone, Serialize)]
pub struct ScheduleReport {
    /// The mirror's name.
    pub mirror: String,
    /// What runs the jobs; nothing where none are declared.
    pub with: Option<Scheduler>,
    /// Whether the jobs are on the machine as they are declared.
    pub installed: bool,
    /// The jobs.
    pub jobs: Vec<JobReport>,
}

/// The jobs for people.
pub fn schedule(reports: &[ScheduleReport]) -> String {
    let mut out = String::new();
    for ScheduleReport { mirror, with, installed, jobs } in reports {
        let Some(with) = with else {
            let _ = writeln!(out, "{mirror}: no jobs are declared");
            continue;
        };
        let (style, state) = if *installed {
            (GOOD, "installed")
        } else {
            (BAD, "NOT installed as declared; `raidguard schedule install` mends that")
        };
        let _ = writeln!(out, "{mirror} by {with}: {style}{state}{style:#}");
        for JobReport { job, when, next, .. } in jobs {
            let _ = writeln!(out, "  {job:<8} {when:<14} next {}", next.join(", then "));
        }
    }
    if reports.is_empty() {
        out.push_str("No mirror is declared.\n");
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::backend::ScrubStatus;
    use crate::model::Bytes;

    pub(in crate::ui) fn scrubbed(counts: ScrubCounts) -> ScrubReport {
        ScrubReport {
            command: "btrfs scrub start -B -c 2 -n 4 /srv/lightning".into(),
            end: ScrubEnd::Finished,
            compared: false,
            status: Some(ScrubStatus {
                uuid: "25e3e740".into(),
                started: "Mon Nov 23 15:14:47 2026".into(),
                status: "finished".into(),
                duration: "0:01:12".into(),
                bytes_scrubbed: Bytes::gib(3),
                counts,
            }),
        }
    }

    pub(in crate::ui) fn balanced() -> BalanceReport {
        BalanceReport {
            command: "btrfs balance start -dusage=50 -dlimit=2 /srv/lightning".into(),
            note: Some("metadata was left out: a member has less than 1 GiB unallocated".into()),
            end: BalanceEnd::Done,
            relocated: Some(2),
            considered: Some(5),
        }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn scrubs_good_and_bad() {
        insta::assert_snapshot!(plain(&scrub("lightning", &scrubbed(ScrubCounts::default()))), @r"
        scrub of lightning: every block of every member is good
          3 GiB read in 0:01:12 (h:mm:ss)
        ");
        let counts = ScrubCounts { checksum: 3, corrected: 2, uncorrectable: 1, ..ScrubCounts::default() };
        insta::assert_snapshot!(plain(&scrub("lightning", &scrubbed(counts))), @r"
        scrub of lightning: not everything is good
          3 GiB read in 0:01:12 (h:mm:ss)
          3 blocks had a wrong checksum
          2 blocks were mended from another copy
          1 blocks could not be mended
          to do: raidguard repair lightning, which names the files that are damaged
        ");
        let aborted =
            ScrubReport { end: ScrubEnd::Aborted, compared: false, status: None, command: String::new() };
        insta::assert_snapshot!(plain(&scrub("lightning", &aborted)), @r"
        scrub of lightning: it ended before everything was read
          to do: raidguard check, which tells whether a member is missing
        ");
    }

    #[test]
    fn balances_done_and_without_room() {
        insta::assert_snapshot!(plain(&balance("lightning", &balanced())), @r"
        balance of lightning: done
          2 of 5 chunks were rewritten
          metadata was left out: a member has less than 1 GiB unallocated
        ");
        let full = BalanceReport { end: BalanceEnd::NoSpace, relocated: None, note: None, ..balanced() };
        insta::assert_snapshot!(plain(&balance("lightning", &full)), @r"
        balance of lightning: it found no room to work in; nothing is lost
          to do: free some space on the mirror, then run it again
        ");
    }

    #[test]
    fn jobs_installed_and_not() {
        let job = JobReport {
            last: None,
            failed: None,
            job: "scrub",
            when: "0 0 * * 0".into(),
            next: vec!["Sunday".into(), "Sunday after".into()],
        };
        let of = |with, installed| ScheduleReport {
            mirror: "lightning".into(),
            with,
            installed,
            jobs: vec![job.clone()],
        };
        let all = [of(Some(Scheduler::Cron), true), of(Some(Scheduler::Systemd), false), of(None, false)];
        insta::assert_snapshot!(plain(&schedule(&all)), @r"
        lightning by cron: installed
          scrub    0 0 * * 0      next Sunday, then Sunday after
        lightning by systemd: NOT installed as declared; `raidguard schedule install` mends that
          scrub    0 0 * * 0      next Sunday, then Sunday after
        lightning: no jobs are declared
        ");
    }
}
