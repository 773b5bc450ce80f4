//! Metrics for Prometheus, as node_exporter's textfile collector reads them (Prometheus exposition format, text).

use std::fmt::Write as _;

use jiff::Timestamp;

use super::check::Checked;
use crate::{
    health,
    model::{
        Record, Severity,
        mirror::{ChunkKind, ErrorCounts},
        zfs::ZfsState,
    },
};

/// One metric: its name, type and meaning, and a line of labels and value for each sample.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    samples: Vec<(String, String)>,
}

impl Metric {
    fn new(name: &'static str, kind: &'static str, help: &'static str) -> Self {
        Self { name, kind, help, samples: Vec::new() }
    }

    fn add(&mut self, labels: &[(&str, &str)], value: impl Into<i128>) {
        let labels: Vec<_> =
            labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
        self.samples.push((labels.join(","), value.into().to_string()));
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// All metrics of these mirrors.
pub fn prometheus(checked: &[Checked<'_>], now: Timestamp) -> String {
    let mut time = Metric::new("raidguard_check_timestamp_seconds", "gauge", "When the check was made.");
    time.add(&[], now.as_second());
    let mut metrics = vec![time];
    metrics.extend(verdicts(checked));
    metrics.extend(storage(checked));
    metrics.extend(times(checked));
    let mut out = String::new();
    for Metric { name, kind, help, samples } in metrics.into_iter().filter(|m| !m.samples.is_empty()) {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
            let _ = writeln!(out, "{name}{labels} {value}");
        }
    }
    out
}

fn verdicts(checked: &[Checked<'_>]) -> Vec<Metric> {
    let mut verdict =
        Metric::new("raidguard_verdict", "gauge", "The verdict: 0 ok, 1 warning, 2 critical, 3 unknown.");
    let mut may_fail =
        Metric::new("raidguard_may_fail", "gauge", "How many more members may fail without loss of data.");
    let mut findings = Metric::new("raidguard_finding", "gauge", "A fault that is there now.");
    for c in checked {
        let mirror = ("mirror", c.declared.name.as_str());
        verdict.add(&[mirror], c.verdict.level.exit_code());
        if let Some(count) = c.verdict.may_fail {
            may_fail.add(&[mirror], count);
        }
        for f in c.verdict.findings.iter().filter(|f| f.severity > Severity::Ok) {
            let labels =
                [mirror, ("code", &f.code), ("severity", f.severity.as_str()), ("about", f.about.as_str())];
            findings.add(&labels, 1);
        }
    }
    vec![verdict, may_fail, findings]
}

fn storage(checked: &[Checked<'_>]) -> Vec<Metric> {
    let gauge = |name, help| Metric::new(name, "gauge", help);
    let mut mounted = gauge("raidguard_mounted", "Whether the mirror is mounted at its place.");
    let mut missing = gauge("raidguard_member_missing", "Whether a member is gone.");
    let mut errors = Metric::new("raidguard_member_errors_total", "counter", "What the kernel has counted.");
    let mut unallocated =
        gauge("raidguard_member_unallocated_bytes", "Space of a member that is in no chunk yet.");
    let mut used = gauge("raidguard_used_bytes", "Data and metadata, counted once.");
    let mut free = gauge("raidguard_free_bytes", "How much more data would fit.");
    let mut chunks = gauge("raidguard_chunk_bytes", "Size of the chunks of a kind, by profile.");
    let mut size = gauge("raidguard_pool_size_bytes", "Space of a pool of ZFS, every copy counted.");
    let mut allocated = gauge("raidguard_pool_allocated_bytes", "How much of that is in use.");
    let mut damaged =
        gauge("raidguard_pool_damaged", "Places of files that are wrong in every copy, as far as known.");
    for c in checked {
        let mirror = ("mirror", c.declared.name.as_str());
        let Some(state) = c.observed.storage.get() else { continue };
        if let Some(space) = state.zfs.as_ref().and_then(|pool| pool.space) {
            size.add(&[mirror], space.size.0);
            allocated.add(&[mirror], space.allocated.0);
        }
        if let Some(count) = state.zfs.as_ref().and_then(|pool| pool.damaged) {
            damaged.add(&[mirror], count);
        }
        mounted.add(&[mirror], i128::from(state.mounted));
        for member in &state.members {
            let devid = member.devid.to_string();
            let path = member.path.as_ref().map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
            let own = [mirror, ("devid", devid.as_str()), ("device", path.as_str())];
            missing.add(&own, i128::from(member.missing));
            for (kind, count) in member.errors.iter().flat_map(ErrorCounts::named) {
                errors.add(&[own.as_slice(), &[("kind", kind)]].concat(), count);
            }
            if let Some(room) = member.unallocated {
                unallocated.add(&own, room.0);
            }
        }
        if state.mounted && !state.has_stopped() {
            used.add(&[mirror], state.used.0);
        }
        if let Some(room) = state.free {
            free.add(&[mirror], room.0);
        }
        for kind in ChunkKind::ALL {
            for profile in state.profiles.iter().filter(|p| p.kind == kind) {
                let labels = [mirror, ("kind", kind.as_str()), ("profile", profile.profile.as_str())];
                chunks.add(&labels, profile.total.0);
            }
        }
    }
    vec![mounted, missing, errors, unallocated, used, free, chunks, size, allocated, damaged]
}

fn times(checked: &[Checked<'_>]) -> Vec<Metric> {
    let mut scrub =
        Metric::new("raidguard_scrub_timestamp_seconds", "gauge", "When the last whole scrub ended.");
    let mut mended = Metric::new("raidguard_scrub_blocks", "gauge", "What the last scrub found, by result.");
    let mut jobs = Metric::new("raidguard_job_timestamp_seconds", "gauge", "When a job last ended well.");
    let mut newest = Metric::new(
        "raidguard_database_version",
        "gauge",
        "The newest data_version ever seen of a database.",
    );
    for c in checked {
        let mirror = ("mirror", c.declared.name.as_str());
        let nothing = Record::default();
        if let Some(ended) = health::last_scrub(c.observed, c.record.unwrap_or(&nothing)) {
            scrub.add(&[mirror], ended.as_second());
        }
        if let Some(lost) = c.observed.storage.get().and_then(|state| lost(state.zfs.as_ref()?)) {
            mended.add(&[mirror, ("result", "uncorrectable")], lost);
        }
        if let Some(record) = c.observed.scrub.get().and_then(Option::as_ref) {
            for (result, count) in [("corrected", record.corrected), ("uncorrectable", record.uncorrectable)]
            {
                mended.add(&[mirror, ("result", result)], count);
            }
        }
        let Some(record) = c.record else { continue };
        for (job, good) in record.jobs.iter().filter_map(|(job, run)| Some((job, run.good?))) {
            jobs.add(&[mirror, ("task", job)], good.as_second());
        }
        for (network, entry) in &record.ledger {
            newest.add(&[mirror, ("network", network)], entry.data_version);
        }
    }
    vec![scrub, mended, jobs, newest]
}

/// How many blocks of a pool are lost, by what ZFS knows now and what its last scrub found. What was mended it tells in bytes.
fn lost(pool: &ZfsState) -> Option<u64> {
    pool.damaged.max(pool.scan.as_ref().and_then(|scan| scan.errors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        health::{judge, samples},
        model::{
            Bytes, Observed, Seen,
            zfs::{ZfsScan, ZfsScanKind, ZfsScanState},
        },
    };

    #[test]
    fn every_metric_has_its_type_once_and_labels_are_escaped() {
        let (mut declared, mut observed, record) = samples::healthy();
        declared.name = "a\"b\\c\nd".into();
        observed.storage.get_mut().unwrap().members[1].missing = true;
        let verdict = judge(&declared, &observed, &Seen::Read(record.clone()), samples::now());
        let one =
            Checked { declared: &declared, observed: &observed, record: Some(&record), verdict: &verdict };
        let text = prometheus(&[one, one], samples::now());
        let types: Vec<_> = text.lines().filter(|l| l.starts_with("# TYPE")).collect();
        let mut different = types.clone();
        different.dedup();
        assert_eq!(types, different);
        assert!(text.contains(r#"raidguard_verdict{mirror="a\"b\\c\nd"} 2"#), "{text}");
        assert!(
            text.lines()
                .all(|l| l.starts_with('#') || l.split(' ').next_back().unwrap().parse::<f64>().is_ok())
        );
        insta::assert_snapshot!(prometheus(&[], samples::now()), @r"
        # HELP raidguard_check_timestamp_seconds When the check was made.
        # TYPE raidguard_check_timestamp_seconds gauge
        raidguard_check_timestamp_seconds 1795435200
        ");
    }

    /// md and ZFS leave no record of a scrub where btrfs has one.
    #[test]
    fn a_scrub_is_told_of_every_kind_of_mirror_and_by_the_newer_record() {
        let told = |observed: &Observed, record: Option<&Record>| {
            let (declared, ..) = samples::healthy();
            let seen = record.cloned().map_or(Seen::Skipped, Seen::Read);
            let verdict = judge(&declared, observed, &seen, samples::now());
            let one = Checked { declared: &declared, observed, record, verdict: &verdict };
            let text = prometheus(&[one], samples::now());
            let ours = text.lines().filter(|line| line.starts_with("raidguard_scrub_"));
            ours.map(|line| line.replace("mirror=\"lightning\"", "")).collect::<Vec<_>>()
        };
        let (_, mut observed, mut record) = samples::healthy();
        observed.scrub = Seen::Read(None);
        let at = |hours| samples::hours_ago(hours).as_second();
        assert_eq!(
            told(&observed, Some(&record)),
            [format!("raidguard_scrub_timestamp_seconds{{}} {}", at(35))]
        );
        assert!(told(&observed, None).is_empty());
        record.jobs.remove("scrub");
        assert!(told(&observed, Some(&record)).is_empty());

        let healthy = include_str!("../../tests/fixtures/zfs/2.3.9/healthy/status-tree.json");
        let mut pool = crate::backend::zfs::json::parse_status(healthy).unwrap().pop().unwrap();
        let mut lost = |damaged, errors| {
            pool.damaged = damaged;
            pool.scan = Some(ZfsScan {
                kind: ZfsScanKind::Scrub,
                state: ZfsScanState::Finished,
                started: None,
                ended: None,
                done: None,
                total: None,
                repaired: Bytes(4096),
                errors,
            });
            observed.storage.get_mut().unwrap().zfs = Some(pool.clone());
            told(&observed, None)
        };
        let blocks = |n: u64| format!("raidguard_scrub_blocks{{,result=\"uncorrectable\"}} {n}");
        assert_eq!(lost(Some(0), Some(0)), [blocks(0)]);
        assert_eq!(lost(Some(2), Some(0)), [blocks(2)]);
        assert_eq!(lost(None, Some(3)), [blocks(3)]);
        assert!(lost(None, None).is_empty());
    }
}
