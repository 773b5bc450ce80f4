//! What happens in a drill, step by step, and what each step promises. Pure.

use super::rehearsal::Rehearsal;

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Setup,
    Check,
    Work,
    Pull,
    Critical,
    PowerCut,
    Recover,
    Replace,
    CheckAgain,
    OneLeft,
}

/// Every step, in order.
pub(super) const STEPS: [Step; 10] = [
    Step::Setup,
    Step::Check,
    Step::Work,
    Step::Pull,
    Step::Critical,
    Step::PowerCut,
    Step::Recover,
    Step::Replace,
    Step::CheckAgain,
    Step::OneLeft,
];

impl Step {
    /// Its stable name, for programs.
    pub(super) fn id(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Check => "check",
            Self::Work => "work",
            Self::Pull => "pull",
            Self::Critical => "critical",
            Self::PowerCut => "power-cut",
            Self::Recover => "recover",
            Self::Replace => "replace",
            Self::CheckAgain => "check-again",
            Self::OneLeft => "one-left",
        }
    }

    /// It in a few words.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Setup => "The node moves",
            Self::Check => "A good day",
            Self::Work => "The node works",
            Self::Pull => "A disk is pulled",
            Self::Critical => "It is noticed",
            Self::PowerCut => "The power fails",
            Self::Recover => "The rescue",
            Self::Replace => "A new disk",
            Self::CheckAgain => "A good day again",
            Self::OneLeft => "The proof",
        }
    }

    /// What happens, in a sentence or two.
    pub(super) fn happens(self, r: &Rehearsal) -> String {
        let disks = count(r.members());
        match self {
            Self::Setup => format!(
                "A mirror is made of {disks} empty disks, and the node's directory moves onto it. Every file is read back from the \
                 disks and compared before the mirror takes the directory's place."
            ),
            Self::Check => "Is the redundancy real? The regular jobs ask that every quarter of an hour, and you may at any time.".to_owned(),
            Self::Work => format!(
                "Somebody commits to the database as a node does. A commit counts when it is on all {disks} disks."
            )
            .replace("all two disks", "both disks"),
            Self::Pull => "One disk goes away while the node works, as a USB stick does that lost contact. The node must not notice.".to_owned(),
            Self::Critical => format!(
                "From outside all looks well: the node runs, and its files are there. But {}",
                if r.level.survives() == 1 {
                    "one more failure and everything may be gone."
                } else {
                    "the mirror can lose one disk less than it should."
                }
            ),
            Self::PowerCut => "Right after a commit the power goes, and with it whatever was not on a disk yet. The machine starts without \
                               the pulled disk. The mirror is not mounted then, and the node must not be started on nothing."
                .to_owned(),
            Self::Recover => "First of all the files are brought to safety. What is left of the mirror is read through a layer that takes \
                              all writes, so that not a byte of it changes; the newest commit comes out, and it is proven."
                .to_owned(),
            Self::Replace => "A new disk takes the place of the lost one. Everything is copied to it, read back, and counted: nothing may be \
                              left with one copy only."
                .to_owned(),
            Self::CheckAgain => "The same question as on the good day. The answer must be the same.".to_owned(),
            Self::OneLeft => match r.level.survives() {
                1 if r.members() == 2 => "The disk that survived goes away as well. Now the new disk alone must have every file.".to_owned(),
                survives => format!(
                    "{} of the disks that survived {} away as well. With the new one, what is left must have every file.",
                    capital(count(survives)),
                    if survives == 1 { "goes" } else { "go" }
                ),
            },
        }
    }

    /// What one does on a real day; nothing where there is nothing to do.
    pub(super) fn on_the_day(self) -> &'static str {
        match self {
            Self::Setup => {
                "find your disks with `raidguard devices`, read the plan with --dry-run, then the same command."
            }
            Self::Check | Self::Work | Self::CheckAgain => "",
            Self::Pull => "you do not see this happen.",
            Self::Critical => {
                "this comes as a message (`raidguard notify --test` tries it). Put the disk back, or order a new one."
            }
            Self::PowerCut => "do not mount it by hand, and do not start the node. Go on as below.",
            Self::Recover => {
                "the same command. It finds the disks by itself where --from is left out. Let --to be on another disk."
            }
            Self::Replace => "the same command, with the new disk's name.",
            Self::OneLeft => "leave this out. It is here so that you can trust the step before.",
        }
    }

    /// What is promised.
    pub(super) fn promises(self, r: &Rehearsal) -> String {
        match self {
            Self::Setup | Self::Replace => "every file as it was",
            Self::Check | Self::CheckAgain => "check says ok",
            Self::Work => "commits are acknowledged",
            Self::Pull => "the node works on",
            Self::Critical if r.level.survives() == 1 => "check says critical",
            Self::Critical => "check does not say ok",
            Self::PowerCut => "the node is not started on nothing",
            Self::Recover => "the last commit, every file; disk unchanged",
            Self::OneLeft => "the new disk has every file",
        }
        .to_owned()
    }

    /// What a failure of it means for a real day.
    pub(super) fn failure_means(self) -> &'static str {
        match self {
            Self::Setup => {
                "a setup on this machine would stop in the same way; the node's own files would be untouched"
            }
            Self::Check | Self::CheckAgain => {
                "check does not say ok on this machine where all is well, so a real fault would be lost in it"
            }
            Self::Work | Self::Pull => {
                "the mirror does not carry a working node here: do not put one on it before this is understood"
            }
            Self::Critical => {
                "a lost disk would not be noticed here: look at the mirror yourself until this is understood"
            }
            Self::PowerCut => {
                "a node might be started on an empty directory here: do not let it start by itself"
            }
            Self::Recover => {
                "on a real day, make an image of every disk that is left before anything else, and try with that"
            }
            Self::Replace => {
                "on a real day, run `raidguard recover` first; then a failed replace costs nothing but time"
            }
            Self::OneLeft => {
                "a mirror that was mended here may be less than it says: keep a copy of the node's files elsewhere"
            }
        }
    }
}

/// A number in words.
pub(super) fn count(number: usize) -> &'static str {
    match number {
        1 => "one",
        2 => "two",
        3 => "three",
        4 => "four",
        _ => "five",
    }
}

pub(super) fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, model::Level, ops::drill::rehearsal::rehearsal};

    fn of(level: Level) -> Rehearsal {
        Rehearsal { level, ..rehearsal(&Config::default(), false) }
    }

    #[test]
    fn the_scorecard_has_room_for_every_step() {
        for step in STEPS {
            for level in Level::ALL {
                let r = of(level);
                assert!(step.title().len() <= 16, "{}", step.title());
                assert!(step.promises(&r).len() <= 46, "{}", step.promises(&r));
                assert!(step.happens(&r).ends_with(['.', '?']), "{}", step.happens(&r));
            }
        }
    }

    #[test]
    fn more_disks_are_told_of_as_more() {
        let r = of(Level::Raid1c3);
        assert!(Step::Setup.happens(&r).contains("three empty disks"));
        assert!(Step::Work.happens(&r).contains("all three disks"));
        assert!(Step::OneLeft.happens(&r).starts_with("Two of the disks that survived go away"));
        assert!(
            Step::OneLeft.happens(&of(Level::Raid10)).starts_with("One of the disks that survived goes away")
        );
    }

    #[test]
    fn every_step_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = STEPS.iter().map(|s| s.id()).collect();
        assert_eq!(names.len(), STEPS.len());
        assert!(STEPS.iter().all(|s| !s.failure_means().is_empty()));
    }
}
