//! `zpool status -j --json-int`, from OpenZFS 2.3 on (`status_callback_json` and `vdev_stats_nvlist` in `cmd/zpool/zpool_main.c`): every
//! number as such and exact, every time in seconds since 1970.

use std::{fmt, marker::PhantomData, path::PathBuf};

use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use crate::{
    backend::ParseError,
    model::{
        Bytes,
        zfs::{ZfsClass, ZfsErrors, ZfsScan, ZfsScanKind, ZfsScanState, ZfsState, ZfsVdev},
    },
};

/// What `output_version` says of the form.
#[derive(Deserialize)]
struct Version {
    command: String,
    vers_major: u64,
}

#[derive(Deserialize)]
struct Output {
    output_version: Version,
    #[serde(deserialize_with = "in_order")]
    pools: Vec<Pool>,
}

#[derive(Deserialize)]
struct Pool {
    name: String,
    state: String,
    #[serde(rename = "pool_guid")]
    guid: u64,
    status: Option<String>,
    scan_stats: Option<Scan>,
    removal_stats: Option<Work>,
    checkpoint_stats: Option<Work>,
    raidz_expand_stats: Option<Work>,
    #[serde(default, deserialize_with = "in_order")]
    vdevs: Vec<Vdev>,
    #[serde(default, deserialize_with = "in_order")]
    dedup: Vec<Vdev>,
    #[serde(default, deserialize_with = "in_order")]
    special: Vec<Vdev>,
    #[serde(default, deserialize_with = "in_order")]
    logs: Vec<Vdev>,
    #[serde(default, deserialize_with = "in_order")]
    l2cache: Vec<Vdev>,
    #[serde(default, deserialize_with = "in_order")]
    spares: Vec<Vdev>,
    error_count: Option<u64>,
}

#[derive(Deserialize)]
struct Work {
    state: String,
}

/// Without a scan there may still be `rebuild_stats`.
#[derive(Deserialize)]
struct Scan {
    function: Option<String>,
    state: Option<String>,
    start_time: Option<i64>,
    end_time: Option<i64>,
    to_examine: Option<u64>,
    issued: Option<u64>,
    processed: Option<u64>,
    errors: Option<u64>,
    scrub_pause: Option<u64>,
    #[serde(default, deserialize_with = "in_order")]
    rebuild_stats: Vec<Work>,
}

#[derive(Deserialize)]
struct Vdev {
    name: String,
    #[serde(rename = "vdev_type")]
    kind: String,
    guid: u64,
    path: Option<PathBuf>,
    state: String,
    read_errors: Option<u64>,
    write_errors: Option<u64>,
    checksum_errors: Option<u64>,
    was: Option<PathBuf>,
    aux: Option<String>,
    configured_ashift: Option<u64>,
    physical_ashift: Option<u64>,
    scan_processed: Option<u64>,
    resilver_deferred: Option<u64>,
    #[serde(default, deserialize_with = "in_order")]
    vdevs: Vec<Vdev>,
}

fn bad(what: impl AsRef<str>) -> ParseError {
    ParseError::new("zpool status -j", what)
}

/// What an object holds, without the names, in the order in which it stands: of two devices of which one takes the other's place, the new
/// one comes second.
fn in_order<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    struct Each<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Each<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<T>, A::Error> {
            let mut found = Vec::new();
            while let Some((_, value)) = map.next_entry::<String, T>()? {
                found.push(value);
            }
            Ok(found)
        }
    }
    from.deserialize_map(Each(PhantomData))
}

/// The pools that are told of.
///
/// # Errors
/// It is not of that form.
pub fn parse_status(text: &str) -> Result<Vec<ZfsState>, ParseError> {
    let output: Output = serde_json::from_str(text).map_err(|e| bad(e.to_string()))?;
    if output.output_version.command != "zpool status" || output.output_version.vers_major != 0 {
        return Err(bad("it is of another version"));
    }
    output.pools.into_iter().map(Pool::state).collect()
}

impl Pool {
    fn state(self) -> Result<ZfsState, ParseError> {
        let scan = self.scan_stats.as_ref().map(Scan::state).transpose()?.flatten();
        let running = scan
            .as_ref()
            .is_some_and(|scan| scan.kind == ZfsScanKind::Resilver && scan.state == ZfsScanState::Running);
        // The pool itself is the root of its vdevs.
        let mut vdevs = Vec::new();
        for root in self.vdevs {
            if root.kind != "root" {
                return Err(bad(format!("{} stands where the pool should", root.name)));
            }
            vdevs.extend(children(root.vdevs, ZfsClass::Normal, running)?);
        }
        if vdevs.is_empty() {
            return Err(bad(format!("the pool {} has no vdevs", self.name)));
        }
        for (class, map) in [
            (ZfsClass::Dedup, self.dedup),
            (ZfsClass::Special, self.special),
            (ZfsClass::Log, self.logs),
            (ZfsClass::Cache, self.l2cache),
            (ZfsClass::Spare, self.spares),
        ] {
            vdevs.extend(children(map, class, running)?);
        }
        let mut rebuilds = self.scan_stats.iter().flat_map(|scan| &scan.rebuild_stats);
        let rebuilding = rebuilds.any(|work| work.state == "ACTIVE");
        let runs = |work: &Option<Work>| work.as_ref().is_some_and(|work| work.state == "SCANNING");
        Ok(ZfsState {
            name: self.name,
            level: None,
            guid: Some(self.guid),
            state: self.state,
            remark: self.status.map(|status| status.split_whitespace().collect::<Vec<_>>().join(" ")),
            vdevs,
            scan,
            rebuilding,
            checkpoint: self.checkpoint_stats.is_some_and(|checkpoint| checkpoint.state != "NONE"),
            removing: runs(&self.removal_stats) || runs(&self.raidz_expand_stats),
            damaged: self.error_count,
            space: None,
            read_only: false,
        })
    }
}

fn children(vdevs: Vec<Vdev>, class: ZfsClass, running: bool) -> Result<Vec<ZfsVdev>, ParseError> {
    vdevs.into_iter().map(|vdev| vdev.state(class, running)).collect()
}

impl Vdev {
    fn state(self, class: ZfsClass, running: bool) -> Result<ZfsVdev, ParseError> {
        let mut children = children(self.vdevs, class, running)?;
        // What comes stands behind what it takes the place of, also while nothing of it is filled yet.
        if let Some(new) =
            children.last_mut().filter(|_| running && matches!(self.kind.as_str(), "replacing" | "spare"))
        {
            new.resilvering |= new.children.is_empty();
        }
        let errors = match (self.read_errors, self.write_errors, self.checksum_errors) {
            (Some(read), Some(write), Some(checksum)) => Some(ZfsErrors { read, write, checksum }),
            (None, None, None) if class == ZfsClass::Spare => None,
            _ => return Err(bad(format!("{} has no counters", self.name))),
        };
        let state = state_word(&self.state, self.aux.as_deref());
        let why = self.was.map(|was| format!("was {}", was.display())).or(self.aux.map(|aux| aux_word(&aux)));
        Ok(ZfsVdev {
            resilvering: children.is_empty()
                && (running && self.scan_processed.is_some()
                    || self.resilver_deferred.is_some_and(|n| n != 0)),
            name: self.name,
            guid: Some(self.guid),
            class,
            path: self.path,
            state,
            errors,
            why,
            ashift: self.configured_ashift.zip(self.physical_ashift),
            children,
        })
    }
}

/// As the text calls it (`zpool_state_to_name` in `lib/libzfs/libzfs_pool.c`), so that both forms say the same.
fn state_word(state: &str, aux: Option<&str>) -> String {
    let word = match (state, aux) {
        ("CANT_OPEN", Some("CORRUPT_DATA" | "BAD_LOG")) => "FAULTED",
        ("CANT_OPEN", Some("SPLIT_POOL")) => "SPLIT",
        ("CANT_OPEN", _) => "UNAVAIL",
        ("CLOSED", _) => "OFFLINE",
        (other, _) => other,
    };
    word.to_owned()
}

/// As the text says it (`print_status_config`).
fn aux_word(aux: &str) -> String {
    match aux {
        "OPEN_FAILED" => "cannot open",
        "BAD_GUID_SUM" => "missing device",
        "NO_REPLICAS" => "insufficient replicas",
        "VERSION_NEWER" => "newer version",
        "UNSUP_FEAT" => "unsupported feature(s)",
        "ASHIFT_TOO_BIG" => "unsupported minimum blocksize",
        "SPARED" | "ACTIVE" => "currently in use",
        "ERR_EXCEEDED" => "too many errors",
        "IO_FAILURE" => "experienced I/O failures",
        "BAD_LOG" => "bad intent log",
        "EXTERNAL" => "external device fault",
        "SPLIT_POOL" => "split into new pool",
        "CHILDREN_OFFLINE" => "all children offline",
        "BAD_LABEL" => "invalid label",
        "CORRUPT_DATA" => "corrupted data",
        other => other,
    }
    .to_owned()
}

impl Scan {
    fn state(&self) -> Result<Option<ZfsScan>, ParseError> {
        let Some(function) = self.function.as_deref().filter(|function| *function != "NONE") else {
            return Ok(None);
        };
        let kind = match function {
            "SCRUB" => ZfsScanKind::Scrub,
            "RESILVER" => ZfsScanKind::Resilver,
            "ERRORSCRUB" => ZfsScanKind::ErrorScrub,
            other => return Err(bad(format!("scan {other}"))),
        };
        let paused = self.scrub_pause.is_some_and(|since| since != 0);
        let state = match self.state.as_deref() {
            Some("SCANNING" | "ERRORSCRUBBING") if paused => ZfsScanState::Paused,
            Some("SCANNING" | "ERRORSCRUBBING") => ZfsScanState::Running,
            Some("FINISHED") => ZfsScanState::Finished,
            Some("CANCELED") => ZfsScanState::Canceled,
            other => return Err(bad(format!("scan {other:?}"))),
        };
        let number =
            |name: &str, number: Option<u64>| number.ok_or_else(|| bad(format!("scan without {name}")));
        let time = |seconds: Option<i64>| match seconds {
            None | Some(0) => Ok(None),
            Some(seconds) => Timestamp::from_second(seconds).map(Some).map_err(|e| bad(e.to_string())),
        };
        let (total, issued) = (number("to_examine", self.to_examine)?, number("issued", self.issued)?);
        let under_way = matches!(state, ZfsScanState::Running | ZfsScanState::Paused);
        let part = u128::from(issued) * 10_000 / u128::from(total.max(1));
        let errors = number("errors", self.errors)?;
        Ok(Some(ZfsScan {
            kind,
            state,
            started: time(self.start_time)?,
            ended: time(self.end_time)?.filter(|_| !under_way),
            done: under_way.then(|| u64::try_from(part).unwrap_or(10_000).min(10_000)),
            total: Some(Bytes(total)),
            repaired: Bytes(number("processed", self.processed)?),
            errors: (state == ZfsScanState::Finished).then_some(errors),
        }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn leaf(name: &str, guid: u64) -> Value {
        json!({
            "name": name, "vdev_type": "disk", "guid": guid, "path": format!("/dev/{name}"), "class": "normal", "state": "ONLINE",
            "total_space": 1_006_632_960_u64, "read_errors": 0, "write_errors": 0, "checksum_errors": 0, "slow_ios": 0,
        })
    }

    /// Written after what `status_callback_json` adds.
    fn pool() -> Value {
        let mut gone = leaf("sdc", 12_822_710_133_198_817_520);
        gone["state"] = json!("CANT_OPEN");
        gone["not_present"] = json!(1);
        gone["was"] = json!("/dev/sdc1");
        gone["checksum_errors"] = json!(12);
        json!({
            "output_version": {"command": "zpool status", "vers_major": 0, "vers_minor": 1},
            "pools": {"tank": {
                "name": "tank", "state": "DEGRADED", "pool_guid": 10_972_298_985_683_485_842_u64, "txg": 452, "spa_version": 5000,
                "zpl_version": 5, "status": "One or more devices could not be opened.",
                "scan_stats": {
                    "function": "SCRUB", "state": "SCANNING", "start_time": 1_795_704_482, "end_time": 0, "to_examine": 4096,
                    "examined": 4096, "skipped": 0, "processed": 512, "errors": 0, "bytes_per_scan": 1, "pass_start": 1_795_704_482,
                    "scrub_pause": 0, "scrub_spent_paused": 0, "issued_bytes_per_scan": 1, "issued": 1024,
                },
                "vdevs": {"tank": {
                    "name": "tank", "vdev_type": "root", "guid": 1, "class": "normal", "state": "DEGRADED", "read_errors": 0,
                    "write_errors": 0, "checksum_errors": 0,
                    "vdevs": {"mirror-0": {
                        "name": "mirror-0", "vdev_type": "mirror", "guid": 5, "class": "normal", "state": "DEGRADED", "read_errors": 0,
                        "write_errors": 0, "checksum_errors": 0,
                        "vdevs": {"sdb": leaf("sdb", 1_409_154_420_577_123_132), "sdc": gone},
                    }},
                }},
                "logs": {"sdd": leaf("sdd", 7)},
                "spares": {"sde": {"name": "sde", "vdev_type": "disk", "guid": 9, "path": "/dev/sde", "class": "spare", "state": "AVAIL"}},
                "error_count": 0,
            }},
        })
    }

    fn parsed(value: &Value) -> Result<ZfsState, ParseError> {
        parse_status(&value.to_string()).map(|mut pools| pools.remove(0))
    }

    #[test]
    fn a_pool_is_read_exactly() {
        let pool = parsed(&pool()).unwrap();
        assert_eq!(
            (pool.name.as_str(), pool.guid, pool.damaged),
            ("tank", Some(10_972_298_985_683_485_842), Some(0))
        );
        let leaves = pool.leaves();
        assert_eq!(leaves.iter().map(|v| v.class).collect::<Vec<_>>()[2..], [ZfsClass::Log, ZfsClass::Spare]);
        assert_eq!((leaves[0].state.as_str(), leaves[0].guid), ("ONLINE", Some(1_409_154_420_577_123_132)));
        assert_eq!((leaves[1].state.as_str(), leaves[1].why.as_deref()), ("UNAVAIL", Some("was /dev/sdc1")));
        assert_eq!(leaves[1].errors, Some(ZfsErrors { checksum: 12, ..ZfsErrors::default() }));
        let scan = pool.scan.unwrap();
        assert_eq!((scan.state, scan.done, scan.ended), (ZfsScanState::Running, Some(2500), None));
        assert_eq!(scan.started.unwrap().as_second(), 1_795_704_482);
    }

    #[test]
    fn scans_and_work() {
        let of = |change: &dyn Fn(&mut Value)| {
            let mut value = pool();
            change(&mut value["pools"]["tank"]);
            parsed(&value)
        };
        let paused = of(&|p| p["scan_stats"]["scrub_pause"] = json!(1_795_704_490)).unwrap();
        assert_eq!(paused.scan.unwrap().state, ZfsScanState::Paused);
        let resilver = of(&|p| {
            p["scan_stats"]["function"] = json!("RESILVER");
            p["vdevs"]["tank"]["vdevs"]["mirror-0"]["vdevs"]["sdb"]["scan_processed"] = json!(100);
        });
        let resilver = resilver.unwrap();
        assert_eq!(resilver.leaves().iter().map(|v| v.resilvering).collect::<Vec<_>>()[..2], [true, false]);
        let none = of(&|p| p["scan_stats"] = json!({"function": "NONE", "state": "NONE"})).unwrap();
        assert_eq!(none.scan, None);
        let rebuild =
            of(&|p| p["scan_stats"]["rebuild_stats"] = json!({"mirror-0": {"state": "ACTIVE"}})).unwrap();
        assert!(rebuild.rebuilding && !rebuild.removing);
        let kept = of(&|p| p["checkpoint_stats"] = json!({"state": "EXISTS", "space": 1})).unwrap();
        assert!(kept.checkpoint);
        let leaving = of(&|p| p["removal_stats"] = json!({"state": "SCANNING"})).unwrap();
        assert!(leaving.removing);
        let suspended = of(&|p| p["state"] = json!("SUSPENDED")).unwrap();
        assert!(suspended.is_suspended());
    }

    #[test]
    fn what_is_not_of_that_form_is_an_error() {
        let tank = |p: &mut Value| p["pools"]["tank"].take();
        for change in [
            (&|p: &mut Value| p["output_version"]["vers_major"] = json!(1)) as &dyn Fn(&mut Value),
            &|p| p["pools"]["tank"]["vdevs"] = json!({}),
            &|p| p["pools"]["tank"]["pool_guid"] = json!("10972298985683485842"),
            &|p| p["pools"]["tank"]["scan_stats"]["state"] = json!("OTHER"),
            &|p| p["pools"]["tank"]["scan_stats"]["issued"] = json!(null),
            &|p| p["pools"]["tank"]["vdevs"]["tank"]["vdev_type"] = json!("mirror"),
            &|p| p["pools"]["tank"]["logs"]["sdd"]["read_errors"] = json!(null),
            &|p| drop(tank(p)),
        ] {
            let mut value = pool();
            change(&mut value);
            assert!(parse_status(&value.to_string()).is_err(), "{value}");
        }
        assert!(parse_status("").is_err() && parse_status("{}").is_err());
        let none = json!({"output_version": {"command": "zpool status", "vers_major": 0, "vers_minor": 1}, "pools": {}});
        assert_eq!(parse_status(&none.to_string()), Ok(Vec::new()));
    }

    crate::fuzz::fuzzed!(fuzz_zpool_json, text[SAMPLE], |text| {
        if let Ok(pools) = parse_status(text) {
            assert!(pools.iter().all(|pool| !pool.vdevs.is_empty() && pool.guid.is_some()));
        }
    });

    const SAMPLE: &[u8] = br#"{"output_version":{"command":"zpool status","vers_major":0,"vers_minor":1},"pools":{"tank":{"name":"tank","state":"ONLINE","pool_guid":1,"vdevs":{"tank":{"name":"tank","vdev_type":"root","guid":1,"state":"ONLINE","read_errors":0,"write_errors":0,"checksum_errors":0,"vdevs":{"sdb":{"name":"sdb","vdev_type":"disk","guid":7,"state":"ONLINE","read_errors":0,"write_errors":0,"checksum_errors":0}}}},"error_count":0}}}"#;
}
