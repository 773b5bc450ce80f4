//! Whether the operator would hear of it.

use crate::{health::case::Case, model::Severity};

pub(in crate::health) fn judge(case: &mut Case<'_>) {
    if let Some(why) = case.observed.channels.get().and_then(|c| c.secrets.clone()) {
        case.add("NTF-SECRETS", Severity::Warning, "", "the file of secrets is not used", vec![why]);
    }
    let failing = case.record.channels.clone();
    for failure in failing {
        let mut evidence = vec![failure.error, format!("since {:.0}", failure.since)];
        if failure.waiting > 0 {
            evidence.push(format!("{} messages wait", failure.waiting));
        }
        let says = format!("the channel {} does not work", failure.channel);
        case.add("NTF-FAILED", Severity::Warning, failure.channel, says, evidence);
    }
}
