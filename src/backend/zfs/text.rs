//! `zpool status -p`, as OpenZFS 2.1 prints it in the locale C and in UTC (`status_callback`, `print_status_config` and
//! `print_scan_scrub_resilver_status` in `cmd/zpool/zpool_main.c`); with `-g` each vdev is called by its number. Later versions print it
//! with a few more words. Counters are exact, amounts are rounded.

use std::path::PathBuf;

use super::scan::{Told, parse_scan};
use crate::{
    backend::ParseError,
    model::zfs::{ZfsClass, ZfsErrors, ZfsState, ZfsVdev},
};

fn bad(what: impl AsRef<str>) -> ParseError {
    ParseError::new("zpool status", what)
}

/// The sections that a pool's text is made of: `pool: tank`, then lines that begin with a tab.
#[derive(Debug, Default)]
struct Section<'t> {
    name: &'t str,
    lines: Vec<&'t str>,
}

const SECTIONS: [&str; 13] = [
    "pool",
    "state",
    "status",
    "action",
    "see",
    "scan",
    "remove",
    "checkpoint",
    "expand",
    "comment",
    "config",
    "errors",
    "dedup",
];

fn sections(text: &str) -> Result<Vec<Section<'_>>, ParseError> {
    let mut found: Vec<Section<'_>> = Vec::new();
    for line in text.lines() {
        let begins = || {
            let (name, rest) = line.trim_start_matches(' ').split_once(':')?;
            // Damaged files stand further in.
            let indent = line.len() - line.trim_start_matches(' ').len();
            (indent < 8 && SECTIONS.contains(&name))
                .then_some(Section { name, lines: vec![rest.trim_start()] })
        };
        match (begins(), found.last_mut()) {
            (Some(section), _) => found.push(section),
            (None, Some(section)) => section.lines.push(line),
            (None, None) if line.trim().is_empty() => {}
            (None, None) => return Err(bad(line)),
        }
    }
    Ok(found)
}

/// The pools that are told of; none where there is none (`no pools available`).
///
/// # Errors
/// It is not of that form.
pub fn parse_status(text: &str) -> Result<Vec<ZfsState>, ParseError> {
    if text.trim() == "no pools available" {
        return Ok(Vec::new());
    }
    let sections = sections(text)?;
    let mut pools: Vec<&[Section<'_>]> = Vec::new();
    let mut rest = &sections[..];
    while let [first, others @ ..] = rest {
        if first.name != "pool" {
            return Err(bad(first.name));
        }
        let end = others.iter().position(|s| s.name == "pool").map_or(rest.len(), |at| at + 1);
        let (pool, next) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        pools.push(pool);
        rest = next;
    }
    pools.into_iter().map(pool).collect()
}

fn pool(sections: &[Section<'_>]) -> Result<ZfsState, ParseError> {
    let all = |name: &str| sections.iter().filter(move |s| s.name == name).collect::<Vec<_>>();
    let one = |name: &str| match &all(name)[..] {
        [] => Ok(None),
        [section] => Ok(Some(*section)),
        _ => Err(bad(format!("`{name}` stands twice"))),
    };
    let line =
        |name: &str| Ok::<_, ParseError>(one(name)?.and_then(|s| s.lines.first()).map(|line| line.trim()));
    let must =
        |name: &'static str| line(name)?.filter(|l| !l.is_empty()).ok_or_else(|| bad(format!("no `{name}`")));
    let name = must("pool")?.to_owned();
    let joined = |s: &Section<'_>| {
        s.lines.iter().flat_map(|line| line.split_whitespace()).collect::<Vec<_>>().join(" ")
    };
    // A rebuild is told of beside the last scrub.
    let mut scan = None;
    let mut rebuilding = false;
    for section in all("scan") {
        match parse_scan(&section.lines)? {
            Told::Nothing => {}
            Told::Rebuild { runs } => rebuilding |= runs,
            Told::Scan(told) => scan = Some(told),
        }
    }
    let config = one("config")?.ok_or_else(|| bad("no `config`"))?;
    Ok(ZfsState {
        vdevs: parse_config(config, &name)?,
        name,
        guid: None,
        level: None,
        state: must("state")?.to_owned(),
        remark: one("status")?.map(joined),
        scan,
        rebuilding,
        checkpoint: one("checkpoint")?.is_some(),
        removing: [line("remove")?, line("expand")?]
            .into_iter()
            .flatten()
            .any(|l| l.contains("in progress since")),
        damaged: one("errors")?.map(parse_errors).transpose()?,
        space: None,
        read_only: false,
    })
}

/// `No known data errors`, `3 data errors, use '-v' for a list`, or with `-v` a list of files.
fn parse_errors(section: &Section<'_>) -> Result<u64, ParseError> {
    let [first, rest @ ..] = &section.lines[..] else { return Err(bad("errors")) };
    if *first == "No known data errors" {
        return Ok(0);
    }
    if first.starts_with("Permanent errors have been detected in the following files:") {
        let files = rest.iter().filter(|line| !line.trim().is_empty()).count();
        return u64::try_from(files).map_err(|_| bad(first));
    }
    let number = first.strip_suffix(" data errors, use '-v' for a list").ok_or_else(|| bad(first))?;
    number.parse().map_err(|_| bad(first))
}

/// The table of vdevs: a line each, what it is made of below it and two blanks further in.
fn parse_config(section: &Section<'_>, pool: &str) -> Result<Vec<ZfsVdev>, ParseError> {
    let mut lines = section.lines.iter().filter(|line| !line.trim().is_empty());
    let head: Vec<&str> =
        lines.next().map(|line| line.split_ascii_whitespace().collect()).unwrap_or_default();
    if !matches!(&head[..], ["NAME", "STATE", "READ", "WRITE", "CKSUM", ..]) {
        return Err(bad(format!("the table of {pool}")));
    }
    let mut class = None;
    let mut rows: Vec<(usize, ZfsVdev)> = Vec::new();
    for line in lines {
        let row = line.strip_prefix('\t').ok_or_else(|| bad(line))?;
        let name = row.trim_start_matches(' ');
        let depth = row.len() - name.len();
        let words: Vec<&str> = name.split_ascii_whitespace().collect();
        match &words[..] {
            // The pool itself comes first, and its name may be anything.
            [_, _, ..] if depth == 0 && class.is_none() && name.starts_with(pool) => {
                class = Some(ZfsClass::Normal)
            }
            [word] if depth == 0 && class.is_some() => {
                class = Some(match *word {
                    "dedup" => ZfsClass::Dedup,
                    "special" => ZfsClass::Special,
                    "logs" => ZfsClass::Log,
                    "cache" => ZfsClass::Cache,
                    "spares" => ZfsClass::Spare,
                    _ => return Err(bad(line)),
                });
            }
            _ => {
                let class = class.filter(|_| depth >= 2 && depth % 2 == 0).ok_or_else(|| bad(line))?;
                rows.push((depth / 2, parse_vdev(name, class)?));
            }
        }
    }
    let mut rows = rows.into_iter().peekable();
    let mut vdevs = Vec::new();
    while let Some(vdev) = take(&mut rows, 1)? {
        vdevs.push(vdev);
    }
    if vdevs.is_empty() || rows.peek().is_some() {
        return Err(bad(format!("the table of {pool}")));
    }
    Ok(vdevs)
}

type Rows = std::iter::Peekable<std::vec::IntoIter<(usize, ZfsVdev)>>;

/// No vdev lies deeper: a spare in a replacing in a mirror.
const DEEPEST: usize = 16;

/// The next vdev at this depth, with what it is made of.
fn take(rows: &mut Rows, depth: usize) -> Result<Option<ZfsVdev>, ParseError> {
    let Some((_, mut vdev)) = rows.next_if(|(at, _)| *at == depth) else { return Ok(None) };
    if depth > DEEPEST {
        return Err(bad("a table that is too deep"));
    }
    while let Some(child) = take(rows, depth + 1)? {
        vdev.children.push(child);
    }
    Ok(Some(vdev))
}

/// `NAME STATE READ WRITE CKSUM`, then what is wrong and what is done; of a spare name and state only. A name may hold blanks.
fn parse_vdev(row: &str, class: ZfsClass) -> Result<ZfsVdev, ParseError> {
    const STATES: [&str; 10] = [
        "ONLINE", "DEGRADED", "FAULTED", "OFFLINE", "REMOVED", "UNAVAIL", "SPLIT", "UNKNOWN", "AVAIL",
        "INUSE",
    ];
    // Where a state stands and what should follow it does.
    let parts = || {
        let mut from = 0;
        loop {
            let rest = row.get(from..)?;
            let at = from + rest.find("  ").or_else(|| rest.find(' '))?;
            let after = row.get(at..)?.trim_start();
            let state = STATES.iter().find(|state| {
                after.strip_prefix(**state).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
            });
            if let Some(state) = state {
                return Some((row.get(..at)?.trim_end(), *state, after.get(state.len()..)?.trim_start()));
            }
            from = at + row.get(at..)?.len() - after.len();
        }
    };
    let (name, state, rest) = parts().ok_or_else(|| bad(row))?;
    let (errors, notes) = if class == ZfsClass::Spare {
        (None, rest)
    } else {
        let mut rest = rest;
        let mut number = || {
            let end = rest.find(' ').unwrap_or(rest.len());
            let (word, after) = rest.split_at_checked(end)?;
            rest = after.trim_start();
            word.parse::<u64>().ok()
        };
        let read = (number(), number(), number());
        let (Some(read), Some(write), Some(checksum)) = read else { return Err(bad(row)) };
        (Some(ZfsErrors { read, write, checksum }), rest)
    };
    let said = |note: &str| notes.contains(note);
    let why = notes.split("  ").map(str::trim).find(|note| !note.is_empty() && !note.starts_with('('));
    let why = why.filter(|why| !why.starts_with("block size: "));
    let was = why.and_then(|why| why.strip_prefix("was "));
    let path = was.or_else(|| name.starts_with('/').then_some(name)).map(PathBuf::from);
    Ok(ZfsVdev {
        guid: name.parse().ok(),
        name: name.to_owned(),
        class,
        path,
        state: state.to_owned(),
        errors,
        why: why.map(str::to_owned),
        resilvering: said("(resilvering)") || said("(awaiting resilver)"),
        ashift: notes.split_once("block size: ").map(|(_, rest)| parse_block_size(rest)).transpose()?,
        children: Vec::new(),
    })
}

/// `512B configured, 4096B native`, as powers of two.
fn parse_block_size(text: &str) -> Result<(u64, u64), ParseError> {
    let sizes = || {
        let (configured, rest) = text.split_once("B configured, ")?;
        let (native, _) = rest.split_once("B native")?;
        let power = |size: &str| {
            let size: u64 = size.parse().ok()?;
            size.is_power_of_two().then(|| u64::from(size.trailing_zeros()))
        };
        Some((power(configured)?, power(native)?))
    };
    sizes().ok_or_else(|| bad(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Bytes,
        zfs::{ZfsScanKind, ZfsScanState},
    };

    /// Written after what `print_status_config` prints.
    const DEGRADED: &str = "  pool: tank
 state: DEGRADED
status: One or more devices has been removed by the administrator.
\tSufficient replicas exist for the pool to continue functioning in a
\tdegraded state.
action: Online the device using zpool online' or replace the device with
\t'zpool replace'.
  scan: scrub repaired 1.50K in 00:00:07 with 0 errors on Thu Nov  5 14:48:02 2026
config:

\tNAME                        STATE     READ WRITE CKSUM
\ttank                        DEGRADED     0     0     0
\t  mirror-0                  DEGRADED     0     0     0
\t    1409154420577123132     ONLINE       0     0     0
\t    12822710133198817520    REMOVED      3     4    12  was /dev/disk/by-id/usb-a b-part1
\tlogs\t
\t  77                        ONLINE       0     0     0
\tcache
\t  88                        ONLINE       0     0     0
\tspares
\t  99                        AVAIL   

errors: No known data errors
";

    #[test]
    fn a_pool_with_every_class_of_vdevs() {
        let pools = parse_status(DEGRADED).unwrap();
        let [pool] = &pools[..] else { panic!("{pools:?}") };
        assert_eq!((pool.name.as_str(), pool.state.as_str(), pool.damaged), ("tank", "DEGRADED", Some(0)));
        assert!(pool.remark.as_ref().unwrap().ends_with("functioning in a degraded state."), "{pool:?}");
        let classes: Vec<_> = pool.vdevs.iter().map(|v| (v.name.as_str(), v.class)).collect();
        assert_eq!(
            classes,
            [
                ("mirror-0", ZfsClass::Normal),
                ("77", ZfsClass::Log),
                ("88", ZfsClass::Cache),
                ("99", ZfsClass::Spare)
            ]
        );
        let leaves = pool.leaves();
        assert_eq!(leaves.iter().map(|v| v.guid).collect::<Option<Vec<_>>>().unwrap().len(), 5);
        let gone = leaves[1];
        assert_eq!(gone.errors, Some(ZfsErrors { read: 3, write: 4, checksum: 12 }));
        assert_eq!(gone.path.as_deref(), Some(std::path::Path::new("/dev/disk/by-id/usb-a b-part1")));
        assert_eq!((gone.state.as_str(), gone.serves()), ("REMOVED", false));
        assert_eq!((leaves[4].state.as_str(), leaves[4].errors), ("AVAIL", None));
        let scan = pool.scan.as_ref().unwrap();
        assert_eq!(
            (scan.kind, scan.state, scan.repaired),
            (ZfsScanKind::Scrub, ZfsScanState::Finished, Bytes(1536))
        );
        assert_eq!(scan.ended.unwrap().to_string(), "2026-11-05T14:48:02Z");
    }

    #[test]
    fn the_names_of_vdevs_are_told_from_their_states() {
        let of = |row| parse_vdev(row, ZfsClass::Normal).unwrap();
        let odd = of("/dev/disk/by-id/ONLINE disk  ONLINE       0     0     0");
        assert_eq!((odd.name.as_str(), odd.state.as_str()), ("/dev/disk/by-id/ONLINE disk", "ONLINE"));
        assert_eq!(odd.path.as_deref(), Some(std::path::Path::new("/dev/disk/by-id/ONLINE disk")));
        let small = of("/dev/sdb  ONLINE       0     0     0  block size: 512B configured, 4096B native");
        assert_eq!((small.ashift, small.why), (Some((9, 12)), None));
        let filling = of("/dev/sdb  ONLINE       0     0     0  (resilvering)");
        assert!(filling.resilvering && filling.why.is_none());
        assert!(of("/dev/sdb  UNAVAIL       0     0     0  cannot open  (awaiting resilver)").resilvering);
        assert_eq!(
            of("x  FAULTED       0     0     0  too many errors").why.as_deref(),
            Some("too many errors")
        );
        for bad in ["", "sdb", "sdb  ONLINE", "sdb  ONLINE 0 0", "sdb  ONLINE 1.2K 0 0", "sdb  online 0 0 0"]
        {
            assert!(parse_vdev(bad, ZfsClass::Normal).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_damaged_is_counted() {
        let errors = |lines: &[&str]| parse_errors(&Section { name: "errors", lines: lines.to_vec() });
        assert_eq!(errors(&["3 data errors, use '-v' for a list"]), Ok(3));
        let listed = [
            "Permanent errors have been detected in the following files:",
            "",
            "        tank:<0x0>",
            "        /a b",
        ];
        assert_eq!(errors(&listed), Ok(2));
        assert!(errors(&["many"]).is_err());
    }

    #[test]
    fn what_is_none_is_an_error_and_no_pool_is_none() {
        assert_eq!(parse_status("no pools available\n"), Ok(Vec::new()));
        assert_eq!(parse_status(""), Ok(Vec::new()));
        let damaged = DEGRADED.replace(
            "No known data errors",
            "Permanent errors have been detected in the following files:\n\n        pool:<0x1>",
        );
        assert_eq!(parse_status(&damaged).unwrap()[0].damaged, Some(1));
        let two = format!("{DEGRADED}\n{}", DEGRADED.replace("pool: tank", "pool: tan"));
        assert_eq!(parse_status(&two).unwrap().len(), 2);
        for (from, to) in [
            (" state: DEGRADED\n", ""),
            ("config:\n", ""),
            ("NAME ", "NOME "),
            ("logs", "other"),
            ("\t    1409", "\t   1409"),
            ("\t  mirror-0", "\t      mirror-0"),
            ("errors: No", "errors: Some"),
        ] {
            let text = DEGRADED.replace(from, to);
            assert!(text != DEGRADED && parse_status(&text).is_err(), "{from:?}");
        }
    }

    const SAMPLE: &[u8] = DEGRADED.as_bytes();

    crate::fuzz::fuzzed!(fuzz_zpool_text, text[SAMPLE], |text| {
        if let Ok(pools) = parse_status(text) {
            assert!(pools.iter().all(|pool| !pool.vdevs.is_empty() && !pool.state.is_empty()));
        }
    });
}
