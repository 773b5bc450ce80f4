//! A letter by the machine's own sendmail.

use std::{fmt::Write as _, time::Duration};

use super::SendError;
use crate::{
    exec::Cmd,
    host::Host,
    model::{Event, EventKind, Finding, quote::printable},
};

/// How long a subject may be; the whole is in the letter.
const SUBJECT: usize = 200;
/// How long a line of a letter may be (RFC 5322 2.1.1 says 998 bytes).
const LINE: usize = 240;

pub(super) fn send(host: &Host, to: &str, event: &Event, limit: Duration) -> Result<(), SendError> {
    let cmd = Cmd::change("sendmail").args(["-i", "-t"]).letter(letter(to, event)).timeout(limit);
    host.runner().run(&cmd).map(drop).map_err(|e| SendError::program("sendmail -i -t", e))
}

/// In a header only what cannot end it, nor be taken for something else by old mail programs.
fn header(text: &str) -> String {
    text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).take(SUBJECT).collect()
}

fn subject(event: &Event) -> String {
    let Event { mirror, verdict, host, .. } = event;
    let codes = event.codes().join(", ");
    match event.kind {
        EventKind::Change => format!("{mirror} on {host} is {verdict}: {codes}"),
        EventKind::Reminder => format!("{mirror} on {host} is still {verdict}: {codes}"),
        EventKind::Cleared => format!("{mirror} on {host} is {verdict} again"),
        EventKind::Test => format!("a test from {host}"),
    }
}

/// The whole letter, header and text.
fn letter(to: &str, event: &Event) -> String {
    let to: String = to.chars().filter(|c| !c.is_control()).collect();
    let plain = |text: &str| -> String {
        text.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')).collect()
    };
    let mut out = format!(
        "From: raidguard <root>\nTo: {to}\nSubject: [raidguard] {}\nDate: {}\nMessage-ID: <{}@{}.raidguard>\n\
         X-Raidguard-Event: {}\nAuto-Submitted: auto-generated\nMIME-Version: 1.0\n\
         Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n",
        header(&subject(event)),
        event.at.strftime("%a, %d %b %Y %H:%M:%S +0000"),
        plain(&event.id),
        plain(&event.host),
        header(&event.id),
    );
    for line in text(event).lines() {
        for part in folded(line) {
            out.push_str(&part);
            out.push('\n');
        }
    }
    out
}

fn folded(line: &str) -> Vec<String> {
    let chars: Vec<char> = line.chars().collect();
    if chars.is_empty() {
        return vec![String::new()];
    }
    chars.chunks(LINE).map(|part| part.iter().collect()).collect()
}

fn text(event: &Event) -> String {
    let Event { verdict, before, .. } = event;
    let (mirror, host) = (printable(&event.mirror), printable(&event.host));
    let mut out = match event.kind {
        EventKind::Change => {
            format!("The mirror {mirror} on {host} is {verdict}. What was told last was {before}.\n")
        }
        EventKind::Reminder => format!("The mirror {mirror} on {host} is still {verdict}.\n"),
        EventKind::Cleared => format!("The mirror {mirror} on {host} is {verdict} again.\n"),
        EventKind::Test => {
            format!("This is a test of raidguard on {host}: letters arrive. Nothing happened.\n")
        }
    };
    for finding in &event.findings {
        fault(&mut out, finding);
    }
    if !event.cleared.is_empty() {
        out.push_str("\nGone since:\n");
    }
    for finding in &event.cleared {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {}: {}", printable(&finding.code), printable(&finding.says));
    }
    if event.kind != EventKind::Test {
        out.push_str(
            "\nraidguard status shows the picture; raidguard explain CODE says what a finding means.\n",
        );
    }
    out
}

fn fault(out: &mut String, finding: &Finding) {
    let _ =
        writeln!(out, "\n{} {}: {}", finding.severity, printable(&finding.code), printable(&finding.says));
    for evidence in &finding.evidence {
        let _ = writeln!(out, "  seen: {}", printable(evidence));
    }
    if let Some(since) = finding.since {
        let _ = writeln!(out, "  since: {since:.0}");
    }
    let _ = writeln!(out, "  to do: {}", printable(&finding.remedy));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::tests::event;

    #[test]
    fn a_letter_names_each_fault_with_what_was_seen_and_what_to_do() {
        insta::assert_snapshot!(letter("root", &event(EventKind::Change)), @r"
        From: raidguard <root>
        To: root
        Subject: [raidguard] lightning on node1 is critical: MIR-MISSING, SCR-OLD
        Date: Mon, 23 Nov 2026 12:00:00 +0000
        Message-ID: <6d6f2b8e-0000-4000-8000-000000000001@node1.raidguard>
        X-Raidguard-Event: 6d6f2b8e-0000-4000-8000-000000000001
        Auto-Submitted: auto-generated
        MIME-Version: 1.0
        Content-Type: text/plain; charset=utf-8
        Content-Transfer-Encoding: 8bit

        The mirror lightning on node1 is critical. What was told last was ok.

        critical MIR-MISSING: member 2 is missing
          seen: sysfs says missing=1
          since: 2026-11-23T12:00:00Z
          to do: raidguard explain MIR-MISSING

        warning SCR-OLD: the last scrub was 40 days ago
          since: 2026-11-23T12:00:00Z
          to do: raidguard explain SCR-OLD

        Gone since:
          SPC-METADATA: metadata is nearly full

        raidguard status shows the picture; raidguard explain CODE says what a finding means.
        ");
        let of = |kind| subject(&event(kind));
        assert_eq!(of(EventKind::Reminder), "lightning on node1 is still critical: MIR-MISSING, SCR-OLD");
        assert_eq!(of(EventKind::Cleared), "lightning on node1 is critical again");
    }

    #[test]
    fn nothing_from_outside_becomes_a_header_or_a_line() {
        let evil = "x\r\nBcc: thief@example.org\n\nbody\u{85}\u{2028}";
        let mut event = event(EventKind::Change);
        event.host = evil.into();
        event.mirror = evil.into();
        event.id = evil.into();
        for finding in event.findings.iter_mut().chain(&mut event.cleared) {
            finding.code = evil.into();
            finding.says = evil.into();
            finding.remedy = evil.into();
            finding.evidence = vec![evil.into(), "long ".repeat(1000)];
        }
        for kind in [EventKind::Change, EventKind::Reminder, EventKind::Cleared, EventKind::Test] {
            event.kind = kind;
            let letter = letter(&format!("root{evil}"), &event);
            let (head, body) = letter.split_once("\n\n").unwrap();
            let names: Vec<_> = head.lines().map(|line| line.split_once(": ").unwrap().0).collect();
            let expected = "From To Subject Date Message-ID X-Raidguard-Event Auto-Submitted MIME-Version Content-Type \
                            Content-Transfer-Encoding";
            assert_eq!(names.join(" "), expected);
            assert!(
                !letter.lines().any(|line| line.starts_with("Bcc") || line.starts_with("body")),
                "{letter}"
            );
            assert!(!letter.contains('\r') && body.lines().all(|line| line.len() < 998));
        }
    }

    /// As it waits to be sent.
    const WAITING: &[u8] = br#"{"id":"1","kind":"change","host":"h","mirror":"m","at":"2026-11-23T12:00:00Z","verdict":"critical","before":"ok","findings":[{"code":"MIR-MISSING","severity":"critical","about":"1","says":"x","evidence":["y"],"remedy":"z","source":"storage","since":null}],"cleared":[]}"#;

    crate::fuzz::fuzzed!(fuzz_waiting_message, text[WAITING], |text| {
        if let Ok(event) = serde_json::from_str::<Event>(text) {
            let letter = letter("root", &event);
            let (head, body) = letter.split_once("\n\n").unwrap();
            assert_eq!(head.lines().count(), 10, "{head}");
            assert!(body.lines().all(|line| line.len() < 998), "{body}");
        }
    });

    #[test]
    fn the_sample_is_of_the_form_that_waits() {
        assert!(letter("root", &serde_json::from_slice(WAITING).unwrap()).contains("MIR-MISSING"));
    }
}
