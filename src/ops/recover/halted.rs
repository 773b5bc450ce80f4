//! What is said where a rescue ends before its end.

use std::io;

use super::ladder::{Halt, Reached};
use crate::{host::overlay::OverlayError, model::observed::causes, ops::Trouble};

const STOPPED: &str = "recover was stopped, as asked";

/// As asked, and all is as it was.
pub(super) fn interrupted() -> Trouble {
    Trouble::failed(STOPPED, io::Error::from(io::ErrorKind::Interrupted))
        .hint("nothing was written to a survivor, and nothing is left of it; run it again when you like")
}

impl Reached {
    /// As [`interrupted`], when all was read; what is not as it was is said.
    pub(super) fn interrupted(&self) -> Trouble {
        let mut against = self.proof.iter().filter(|(_, unchanged, _)| !unchanged).peekable();
        if against.peek().is_none() {
            return interrupted();
        }
        let stopped = Trouble::failed(STOPPED, io::Error::from(io::ErrorKind::Interrupted));
        against.fold(stopped, |trouble, (_, _, says)| trouble.hint(says))
    }
}

/// How long survivors stay read-only above which something stands that could not be taken down.
pub(super) fn until(e: &OverlayError) -> &'static str {
    match e {
        OverlayError::PoolStopped { .. } => "until the machine is started anew",
        _ => "until recover runs again and takes it down",
    }
}

/// Nothing came of it, and what was laid above the survivors stands: nothing further can be tried.
pub(super) fn standing(halt: Halt, e: OverlayError, stopped: bool) -> Trouble {
    let (what, hints) = match halt {
        _ if stopped => (STOPPED.to_owned(), Vec::new()),
        Halt::Closed(why) => (format!("the survivors could not be opened: {why}"), Vec::new()),
        Halt::Stop(Trouble::Refused(blockers)) => {
            let says = blockers.iter().map(|b| format!("{} ({})", b.says, b.clears));
            (says.collect::<Vec<_>>().join("; "), Vec::new())
        }
        Halt::Stop(mut trouble) => {
            let hints = match &mut trouble {
                Trouble::Failed { hints, .. } => std::mem::take(hints),
                _ => Vec::new(),
            };
            (causes(&trouble), hints)
        }
    };
    let stays = format!("the survivors stay read-only {}", until(&e));
    let standing =
        Trouble::failed(format!("{what}; and what was laid above the survivors could not be taken down"), e);
    hints.into_iter().fold(standing.hint(stays), Trouble::hint)
}
