//! A verb's flags, described only when the verb is typed.

use std::ops::Deref;

use clap::{ArgMatches, Args, Command, Error, FromArgMatches};

/// What was typed after a verb. A check every few minutes does not have to describe the flags of the twenty verbs that it is not.
#[derive(Debug)]
pub struct Later<T>(Box<T>);

impl<T> Later<T> {
    /// The flags themselves.
    #[must_use]
    pub fn take(self) -> T {
        *self.0
    }
}

impl<T> Deref for Later<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// The verb says itself what it is for; its flags' own words are for their reader in the code.
fn describe<T: Args>(command: Command) -> Command {
    let about = command.get_about().cloned();
    match about {
        Some(about) => T::augment_args(command).about(about),
        None => T::augment_args(command),
    }
}

impl<T: Args> Args for Later<T> {
    fn augment_args(command: Command) -> Command {
        command.defer(describe::<T>)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<T: FromArgMatches> FromArgMatches for Later<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        T::from_arg_matches(matches).map(|typed| Self(Box::new(typed)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }
}
