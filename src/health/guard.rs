//! Whether the node may start: the few faults that would cost money if it did. A member that is missing is none of them: the guard must
//! not be a new way to be down.

use crate::model::{Finding, Severity, Source, Verdict, record::Override};

/// Faults with which a start would use other files, old ones, or none.
const CODES: [&str; 15] = [
    "MIR-SUSPENDED",
    "MIR-INACTIVE",
    "MIR-SPLIT",
    "MNT-ABSENT",
    "MNT-OTHER",
    "MIR-READONLY",
    "DIR-LINK",
    "DIR-DATA",
    "NODE-DATABASE",
    "NODE-DATABASE-MISSING",
    "NODE-SECRET",
    "NODE-OLDER",
    "NODE-IDENTITY",
    "NODE-STRAY",
    "NODE-RUNNING",
];

/// What stands against a start. A source that could not be read at all stands against it too, but for raidguard's own record: without
/// it nothing is known to be newer; and what devices that do not serve say.
pub fn against(verdict: &Verdict) -> Vec<&Finding> {
    let whole = |f: &Finding| f.about.is_empty() || f.about == f.source.as_str();
    let stops = |f: &&Finding| match f.code.as_str() {
        "OBS-FAILED" => whole(f) && !matches!(f.source, Source::Record | Source::Clones),
        // One member that is not written to is no reason.
        "MIR-READONLY" => whole(f),
        code => f.severity == Severity::Critical && CODES.contains(&code),
    };
    verdict.findings.iter().filter(stops).collect()
}

/// Whether the operator has allowed every one of these.
pub fn is_allowed(against: &[&Finding], allowed: Option<&Override>) -> bool {
    let known = |f: &&Finding| {
        allowed.is_some_and(|o| o.faults.iter().any(|a| a.code == f.code && a.about == f.about))
    };
    against.iter().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        health::{
            findings, judge,
            samples::{healthy, now},
            states::{changed, states},
        },
        model::{Seen, record::Fault},
    };

    #[test]
    fn a_lost_member_does_not_keep_the_node_down_and_old_state_does() {
        for code in CODES {
            assert!(findings::find(code).is_some(), "{code}");
        }
        let stopped: Vec<_> = states()
            .into_iter()
            .filter(|(_, change)| {
                let (declared, observed, record) = changed(*change);
                !against(&judge(&declared, &observed, &Seen::Read(record), now())).is_empty()
            })
            .map(|(name, _)| name)
            .collect();
        insta::assert_snapshot!(stopped.join("\n"), @r"
        not mounted
        not mounted, and its halves parted
        another filesystem there
        mounted elsewhere
        no device at all
        forced read-only
        mounted read-only
        inactive
        not assembled
        halves that parted
        pool: suspended
        pool: suspended while it was asked
        pool: it does not serve
        pool: not imported
        pool: not imported, one device is there
        pool: not imported, one lags
        pool: not imported, its halves parted
        pool: no device
        pool: not mounted
        pool: read-only
        the symlink is gone
        the symlink was replaced
        the symlink leads elsewhere
        a file in its place
        data off the mirror
        no database
        an empty database
        a database cut short
        no secret
        a secret cut short
        a stray process
        another node runs
        a damaged database
        an older database
        another node's database
        an older database, seen at the last look
        ");
    }

    #[test]
    fn only_what_was_allowed_is() {
        let (declared, mut observed, record) = healthy();
        observed.node.get_mut().unwrap().networks[0].secret = None;
        let verdict = judge(&declared, &observed, &Seen::Read(record), now());
        let found = against(&verdict);
        let faults: Vec<_> =
            found.iter().map(|f| Fault { code: f.code.clone(), about: f.about.clone() }).collect();
        let allowed = Override { at: now(), reason: "why".into(), faults };
        assert!(!is_allowed(&found, None));
        assert!(is_allowed(&found, Some(&allowed)));
        let other =
            Override { faults: vec![Fault { code: "NODE-OLDER".into(), about: String::new() }], ..allowed };
        assert!(!is_allowed(&found, Some(&other)));
        assert!(is_allowed(&[], None));
    }
}
