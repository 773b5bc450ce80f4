//! What a person reads while raidguard works. Data goes to standard output, talk to standard error.

use std::{
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    exec::Interrupt,
    model::Bytes,
    plan::{Outcome, Watch, Work},
};

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const QUIET: Style = Style::new().dimmed();
const STRONG: Style = Style::new().bold();

/// Off a terminal, how often long work says how far it is.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// How a verb ended that did not end well.
#[derive(Debug)]
pub struct Problem<'a> {
    /// It in one sentence.
    pub headline: String,
    /// What stands in the way, each with what clears it.
    pub blockers: Vec<(&'a str, &'a str)>,
    /// The cause, with its own causes.
    pub cause: Option<&'a (dyn std::error::Error + 'static)>,
    /// What to do next, a line each.
    pub next: Vec<&'a str>,
}

/// The operator's end of the wire.
#[derive(Debug)]
pub struct Console {
    terminal: bool,
    of: usize,
    bar: Option<ProgressBar>,
    work: Option<(Instant, Instant, Work)>,
    waited: Option<String>,
    interrupt: Interrupt,
}

impl Default for Console {
    fn default() -> Self {
        Self::new(Interrupt::default())
    }
}

impl Console {
    /// One whose questions end when the operator asks to stop.
    pub fn new(interrupt: Interrupt) -> Self {
        let terminal = io::stderr().is_terminal();
        Self { terminal, of: 0, bar: None, work: None, waited: None, interrupt }
    }

    /// Did the operator ask to stop?
    pub fn is_stopped(&self) -> bool {
        self.interrupt.is_raised()
    }

    /// Prints data, as it is.
    #[allow(clippy::unused_self, reason = "the console is who prints")]
    pub fn data(&self, text: impl Display) {
        let mut out = anstream::stdout().lock();
        // A reader that went away (`| head`) is no error.
        let _ = write!(out, "{text}").and_then(|()| out.flush());
    }

    /// Says something.
    pub fn say(&self, text: impl Display) {
        let line = || {
            let _ = writeln!(anstream::stderr().lock(), "{text}");
        };
        match &self.bar {
            Some(bar) => bar.suspend(line),
            None => line(),
        }
    }

    /// Warns.
    pub fn warn(&self, text: impl Display) {
        let style = AnsiColor::Yellow.on_default();
        self.say(format_args!("{style}warning:{style:#} {text}"));
    }

    /// Says how a verb ended that did not end well: error, causes, what to do next.
    pub fn problem(&self, problem: &Problem<'_>) {
        self.say(format_args!("{BAD}error:{BAD:#} {}", problem.headline));
        for (says, clears) in &problem.blockers {
            self.say(format_args!("  - {says}\n    {QUIET}clears with:{QUIET:#} {clears}"));
        }
        let mut cause = problem.cause;
        while let Some(error) = cause {
            self.say(format_args!("  caused by: {error}"));
            cause = error.source();
        }
        for next in &problem.next {
            self.say(format_args!("  {STRONG}next:{STRONG:#} {next}"));
        }
    }

    /// Asks for a typed `yes`. Off a terminal nobody can be asked: `None`.
    pub fn confirm(&self, question: &str) -> Option<bool> {
        self.confirm_by(question, "yes")
    }

    /// Asks for these very words to be typed. Whoever stops it has not typed them. Off a terminal nobody can be asked: `None`.
    pub fn confirm_by(&self, question: &str, words: &str) -> Option<bool> {
        if !self.can_ask() {
            return None;
        }
        let mut err = anstream::stderr().lock();
        let asked = write!(err, "{STRONG}{question}{STRONG:#} Type {words} to go on: ");
        let _ = asked.and_then(|()| err.flush());
        let answer = super::key::line(&|| self.interrupt.is_raised()).ok()?;
        if answer.is_none() {
            // What follows does not stand behind the question.
            let _ = writeln!(err);
        }
        Some(answer.is_some_and(|answer| answer.trim() == words))
    }

    /// Is there a terminal, and somebody at it who can be asked?
    pub fn can_ask(&self) -> bool {
        self.terminal && io::stdin().is_terminal()
    }

    /// Waits for a key. False: `stop` said to leave off, or nobody is at the terminal any more.
    pub fn wait_for_key(&self, stop: &dyn Fn() -> bool) -> bool {
        if !self.can_ask() {
            return false;
        }
        let mut err = anstream::stderr().lock();
        let prompt = "      press a key to go on";
        let _ = write!(err, "{QUIET}{prompt}{QUIET:#}").and_then(|()| err.flush());
        let pressed = super::key::wait(stop).unwrap_or(false);
        // The line is cleared: what follows stands where it would without waiting.
        let _ = write!(err, "\r{:width$}\r", "", width = prompt.len()).and_then(|()| err.flush());
        pressed
    }

    fn title(&self, index: usize, mark: impl Display, title: &str) {
        let of = self.of;
        let width = of.to_string().len();
        self.say(format_args!("{mark} {QUIET}{:>width$}/{of}{QUIET:#} {title}", index + 1));
    }

    /// Says who is waited for, once.
    pub fn waiting_for(&mut self, who: &str) {
        if self.waited.as_deref() != Some(who) {
            self.say(format_args!("waiting until {who} has ended"));
            self.waited = Some(who.to_owned());
        }
    }

    /// Takes a progress bar off the screen.
    pub fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Watch for Console {
    fn plan(&mut self, titles: &[String], resumed: bool) {
        self.of = titles.len();
        if resumed {
            self.say("taking up where it was interrupted");
        }
    }

    fn begin(&mut self, index: usize, title: &str) {
        self.work = None;
        if self.terminal {
            let bar = ProgressBar::new_spinner().with_message(format!("{}/{} {title}", index + 1, self.of));
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.enable_steady_tick(Duration::from_millis(120));
            self.bar = Some(bar);
        }
    }

    fn work(&mut self, work: Work) {
        if let Some(bar) = &self.bar {
            if self.work.is_none() {
                let style = "{spinner} {msg}\n  [{bar:32}] {bytes} of {total_bytes}, {binary_bytes_per_sec}, {eta} left";
                if let Ok(style) = ProgressStyle::with_template(style) {
                    bar.set_style(style.progress_chars("=> "));
                }
            }
            bar.set_length(work.total.0);
            bar.set_position(work.done.0);
        }
        let now = now();
        let (began, told, _) = self.work.unwrap_or((now, now, work));
        let due = now.duration_since(told) >= PLAIN_EVERY;
        if due && !self.terminal {
            self.say(format_args!("     {}", progress_line(work, now.duration_since(began))));
        }
        self.work = Some((began, if due { now } else { told }, work));
    }

    fn waiting(&mut self, what: &str) {
        // How long it takes is not known: an old bar beside it would lie.
        self.work = None;
        match &self.bar {
            Some(bar) => {
                if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}, {elapsed}") {
                    bar.set_style(style);
                }
                bar.set_message(what.to_owned());
            }
            None => self.say(format_args!("     {what}")),
        }
    }

    fn done(&mut self, index: usize, title: &str, outcome: &Outcome, fresh: bool) {
        self.clear();
        if fresh {
            self.title(index, format_args!("{GOOD}done{GOOD:#}"), title);
        } else {
            self.title(index, format_args!("{QUIET}held{QUIET:#}"), title);
        }
        for note in &outcome.notes {
            self.say(format_args!("     {QUIET}{note}{QUIET:#}"));
        }
    }

    fn undone(&mut self, index: usize, title: &str) {
        self.clear();
        self.title(index, format_args!("{GOOD}undone{GOOD:#}"), title);
    }

    fn failed(&mut self, index: usize, title: &str) {
        self.clear();
        self.title(index, format_args!("{BAD}failed{BAD:#}"), title);
    }
}

/// Elapsed time is the console's own business: nothing is decided on it.
fn now() -> Instant {
    Instant::now()
}

/// `1.2 GiB of 3 GiB, 80 MiB/s, 23 s left`.
fn progress_line(work: Work, elapsed: Duration) -> String {
    let Work { done, total } = work;
    let rate = u128::from(done.0) * 1000 / elapsed.as_millis().max(1);
    let left = u128::from(total.0.saturating_sub(done.0)).checked_div(rate);
    let left = left.map_or_else(|| "time left unknown".to_owned(), |seconds| format!("{seconds} s left"));
    format!("{done} of {total}, {}/s, {left}", Bytes(u64::try_from(rate).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_has_amount_rate_and_time_left() {
        let work = Work { done: Bytes::gib(1), total: Bytes::gib(3) };
        assert_eq!(progress_line(work, Duration::from_secs(10)), "1 GiB of 3 GiB, 102.3 MiB/s, 20 s left");
        let none = Work { done: Bytes(0), total: Bytes::gib(3) };
        assert_eq!(progress_line(none, Duration::ZERO), "0 B of 3 GiB, 0 B/s, time left unknown");
    }
}
