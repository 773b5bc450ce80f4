//! What came of trying the channels.

use std::fmt::Write as _;

use anstyle::AnsiColor;
use serde::Serialize;

use super::printable;

/// A channel that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// Which.
    pub channel: &'static str,
    /// Whether it took the message.
    pub ok: bool,
    /// Why not.
    pub error: Option<String>,
}

/// One line a channel.
pub fn notify(tried: &[Tried]) -> String {
    let (good, bad) = (AnsiColor::Green.on_default(), AnsiColor::Red.on_default().bold());
    let mut out = String::new();
    for Tried { channel, error, .. } in tried {
        // Writing to a String cannot fail.
        let _ = match error {
            None => writeln!(out, "{channel}: {good}ok{good:#}"),
            Some(why) => writeln!(out, "{channel}: {bad}failed{bad:#}: {}", printable(why)),
        };
    }
    out
}
