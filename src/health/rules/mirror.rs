//! Members, counters, layout, and how the mirror is mounted.

use super::{away, halves, md, zfs};
use crate::{
    health::{
        case::{Case, age_word, is_declared_as, name_of, words_for},
        judge::may_fail,
    },
    model::{
        BackendKind, Record, Severity, Source,
        mirror::{ErrorCounts, MemberState, MirrorState, ProfileUse},
        quote::shell_quote,
    },
};

pub(in crate::health) fn judge(case: &mut Case<'_>) {
    if let Some(state) = case.observed.storage.get() {
        place(case, state);
        md::judge(case, state);
        zfs::judge(case, state);
        members(case, state);
        bad_sectors(case, state);
        superblocks(case, state);
        profiles(case, state);
        stale(case, state);
        away::judge(case, state);
        counters(case, state);
        modes(case, state);
    }
    clones(case);
    leftovers(case);
    halves::judge(case);
}

fn place(case: &mut Case<'_>, state: &MirrorState) {
    let declared = case.declared;
    let (name, at) = (&declared.name, declared.mountpoint.display());
    if state.uuid != declared.uuid || state.mountpoint.as_ref().is_some_and(|m| *m != declared.mountpoint) {
        let evidence = vec![format!("looked at filesystem {}, declared is {}", state.uuid, declared.uuid)];
        let says = format!("what was looked at is not mirror {name}");
        case.unread(Source::Storage, "another mirror", says, evidence);
    }
    if let Some(other) = &state.instead {
        let evidence = vec![
            format!("mounted there: {other}"),
            format!("declared: {} {}", declared.backend, declared.uuid),
        ];
        let says = format!("{at} shows another filesystem than mirror {name}");
        case.add("MNT-OTHER", Severity::Critical, "", says, evidence);
    } else if !state.mounted {
        let elsewhere = state.also_mounted.iter().map(|m| format!("it is mounted at {}", m.display()));
        let says = format!("mirror {name} is not mounted at {at}");
        case.add("MNT-ABSENT", Severity::Critical, "", says, elsewhere.collect());
    }
}

fn members(case: &mut Case<'_>, state: &MirrorState) {
    let declared = case.declared;
    // Of a pool that has stopped nothing else is known.
    if state.has_stopped() {
        return;
    }
    if state.members.is_empty() {
        let evidence = declared.member.iter().map(|m| format!("declared: {m}")).collect();
        let says = format!("no device of mirror {} is on this machine", declared.name);
        case.add("MIR-ABSENT", Severity::Critical, "", says, evidence);
        unread(case, state);
        return;
    }
    let (mut missing, mut pulled, mut filling) = (Vec::new(), Vec::new(), Vec::new());
    for wanted in &declared.member {
        let in_its_place = |m: &&MemberState| m.replace_target && m.devid.to_string() == wanted.id;
        let successor = state.members.iter().find(in_its_place);
        match (state.members.iter().find(|m| is_declared_as(m, wanted)), successor) {
            (None, Some(new)) => {
                filling.push(format!("{wanted}: {} takes its place{}", name_of(new), progress(state)));
            }
            (None, None) if state.zfs.is_some() => missing.push(format!("{wanted} is not part of the pool")),
            (None, None) if state.profiles.is_empty() => {
                missing.push(format!("{wanted}: no device answers as this member"));
            }
            (None, None) => missing.push(format!("{wanted} is not part of the filesystem")),
            (Some(m), _) if m.missing => {
                let why = m.missing_because.as_deref().unwrap_or("no reason is known");
                let list = if m.pulled { &mut pulled } else { &mut missing };
                list.push(format!("{wanted}: {why}"));
            }
            (Some(m), _) if m.replace_target => filling.push(format!("{wanted}{}", progress(state))),
            (Some(_), _) => {}
        }
    }
    for member in state.members.iter().filter(|m| !m.replace_target) {
        if declared.member.iter().any(|d| is_declared_as(member, d)) {
            continue;
        }
        let uuid = member.uuid.as_deref().unwrap_or("unknown");
        let says = format!("{} was not declared", name_of(member));
        let about = format!("member {}", member.devid);
        case.add("MIR-FOREIGN", Severity::Warning, about, says, vec![format!("its UUID is {uuid}")]);
        if member.missing {
            missing.push(format!("{}, which was not declared, is gone too", name_of(member)));
        }
    }
    let gone = missing.len() + pulled.len() + filling.len();
    if gone == 0 {
        return;
    }
    let be = if gone == 1 { "is" } else { "are" };
    let lacks = if filling.len() == gone { "not whole yet" } else { "missing" };
    let says = format!("{gone} of {} members {be} {lacks}", declared.member.len());
    let by_count = || Some(i64::try_from(declared.survives()).ok()? - i64::try_from(gone).ok()?);
    // Of a pool the devices that stand in for others count too, and those that lack something.
    let (severity, says) = match zfs::left(state, case.record).or_else(by_count).unwrap_or_default() {
        ..0 => (Severity::Critical, format!("{says}, more than {} survives", declared.level)),
        0 => (Severity::Critical, format!("{says}; no more may fail")),
        left => (Severity::Warning, format!("{says}; {left} more may fail")),
    };
    let words: Vec<_> = state
        .members
        .iter()
        .find(|m| m.missing)
        .map(|m| vec![("DEVID", m.devid.to_string())])
        .unwrap_or_default();
    for (code, evidence) in [("MIR-MISSING", missing), ("MIR-PULLED", pulled), ("MIR-REBUILDING", filling)] {
        if !evidence.is_empty() {
            case.add_with(code, severity, "", says.clone(), evidence, &words);
        }
    }
    unread(case, state);
}

/// Devices that could not be read matter where a member may be among them.
fn unread(case: &mut Case<'_>, state: &MirrorState) {
    if !state.unread.is_empty() {
        let says = "devices could not be read, and a member may be among them";
        case.unread(Source::Storage, "devices", says, state.unread.clone());
    }
}

/// What a member does not hold is on the others only.
fn bad_sectors(case: &mut Case<'_>, state: &MirrorState) {
    let severity =
        if may_fail(state, case.record) == Some(0) { Severity::Critical } else { Severity::Warning };
    for member in state.members.iter().filter(|m| !m.missing && m.bad_sectors > 0) {
        let says = format!("{} lacks {} sectors", name_of(member), member.bad_sectors);
        let about = format!("member {}", member.devid);
        case.add_with("MIR-BAD-BLOCKS", severity, about, says, Vec::new(), &words_for(member));
    }
}

/// One whose superblock is damaged may not be taken at the next mount: it counts as one that is gone.
fn superblocks(case: &mut Case<'_>, state: &MirrorState) {
    let one_more = may_fail(state, case.record).is_some_and(|count| count > 0);
    // Of the four labels that ZFS writes one is enough.
    let harmless = one_more || case.declared.backend == BackendKind::Zfs;
    let severity = if harmless { Severity::Warning } else { Severity::Critical };
    for member in state.members.iter().filter(|m| !m.missing) {
        let Some(why) = &member.damaged else { continue };
        let says = format!("the superblock of {} is damaged", name_of(member));
        let about = format!("member {}", member.devid);
        case.add_with("MIR-SUPERBLOCK", severity, about, says, vec![why.clone()], &words_for(member));
    }
}

fn profiles(case: &mut Case<'_>, state: &MirrorState) {
    let declared = case.declared;
    let chunks = state.profiles.iter().filter(|p| p.total.0 > 0);
    if let Some(md) = state.md.as_ref().filter(|md| md.runs() && md.level != declared.level.as_str()) {
        let says = format!("mirror {} is {}, not {}", declared.name, md.level, declared.level);
        case.add("MIR-PROFILE", Severity::Critical, "", says, Vec::new());
    }
    let drifted: Vec<_> = chunks.clone().filter(|p| p.profile != declared.level.as_str()).collect();
    if drifted.is_empty() {
        if state.mounted && state.md.is_none() && state.zfs.is_none() && chunks.count() == 0 {
            let says = format!("no chunk of mirror {} was seen", declared.name);
            case.unread(Source::Storage, "chunks", says, Vec::new());
        }
        return;
    }
    let single = |p: &ProfileUse| p.copies().is_none_or(|c| c.devices < 2) && p.used.0 > 0;
    let at_risk = drifted.iter().any(|p| single(p));
    let says = if at_risk {
        format!("part of mirror {} exists on one member only", declared.name)
    } else {
        format!("part of mirror {} is not stored as {}", declared.name, declared.level)
    };
    let show = |p: &&ProfileUse| format!("{} as {}: {} in use of {}", p.kind, p.profile, p.used, p.total);
    let severity = if at_risk { Severity::Critical } else { Severity::Warning };
    case.add("MIR-PROFILE", severity, "", says, drifted.iter().map(show).collect());
}

/// Which members' last commit is older than another's, with both. One commit apart is no fault: it may be on its way, or was cut by a
/// power failure.
pub(super) fn behind(state: &MirrorState) -> impl Iterator<Item = (&MemberState, u64, u64)> {
    let whole = |m: &&MemberState| !m.missing && !m.replace_target;
    let present = move || state.members.iter().filter(whole).filter_map(|m| Some((m, m.generation?)));
    let newest = present().map(|(_, generation)| generation).max().unwrap_or_default();
    let lags = move |(_, generation, _): &(&MemberState, u64, u64)| newest - generation > 1;
    present().map(move |(member, generation)| (member, generation, newest)).filter(lags)
}

fn stale(case: &mut Case<'_>, state: &MirrorState) {
    for (member, generation, newest) in behind(state) {
        let what = age_word(case.declared.backend);
        let evidence = vec![format!("its {what} is {generation}, the newest is {newest}")];
        let says = format!("{} holds older data than another member", name_of(member));
        case.add("MIR-STALE", Severity::Critical, format!("member {}", member.devid), says, evidence);
    }
}

/// What was counted since the operator last acknowledged it. A counter that fell was reset by somebody: all of it is new then.
fn growth(now: ErrorCounts, known: Option<&ErrorCounts>) -> [(&'static str, u64, u64); 5] {
    let known = known.copied().unwrap_or_default();
    let codes =
        ["MIR-WRITE-ERRORS", "MIR-READ-ERRORS", "MIR-FLUSH-ERRORS", "MIR-CORRUPTION", "MIR-GENERATION"];
    let mut out = [("", 0, 0); 5];
    for (slot, (code, ((_, now), (_, known)))) in
        out.iter_mut().zip(codes.into_iter().zip(now.named().into_iter().zip(known.named())))
    {
        *slot = (code, now, now.checked_sub(known).unwrap_or(now));
    }
    out
}

/// How many members are there and may all the same be of no use: the superblock is damaged, or writes have failed, which the kernel does
/// not repeat by itself, and nobody has said since that this was mended; or it was away while the others were written to.
pub(in crate::health) fn lacking(state: &MirrorState, record: &Record) -> u64 {
    let lacks = |member: &&MemberState| {
        let writes = || grown_writes(member, record) > 0 || away::was_away(member, record).is_some();
        !member.missing && (member.damaged.is_some() || writes())
    };
    state.members.iter().filter(lacks).count() as u64
}

/// How many writes to a member have failed that nobody has acknowledged, by its counters.
pub(super) fn grown_writes(member: &MemberState, record: &Record) -> u64 {
    let known = member.uuid.as_ref().and_then(|uuid| record.acknowledged.get(uuid));
    member.errors.map_or(0, |errors| {
        let [(_, _, writes), ..] = growth(errors, known);
        writes
    })
}

fn counters(case: &mut Case<'_>, state: &MirrorState) {
    if state.has_stopped() {
        return;
    }
    // Losing one more could lose data.
    let bare = may_fail(state, case.record) == Some(0);
    for member in &state.members {
        let Some(errors) = member.errors else {
            if !state.profiles.is_empty() || state.zfs.is_some() {
                let says = format!("the error counters of {} could not be read", name_of(member));
                case.unread(
                    Source::Storage,
                    &format!("counters of member {}", member.devid),
                    says,
                    Vec::new(),
                );
            }
            continue;
        };
        let known = member.uuid.as_ref().and_then(|uuid| case.record.acknowledged.get(uuid));
        for (code, total, grown) in growth(errors, known).into_iter().filter(|(_, _, grown)| *grown > 0) {
            let kind = code.trim_start_matches("MIR-").trim_end_matches("-ERRORS").to_lowercase();
            let says = format!("{} has counted {grown} {kind} {}", name_of(member), plural(grown, "error"));
            let evidence = if grown == total {
                Vec::new()
            } else {
                vec![format!("{total} in all, {} of them acknowledged", total - grown)]
            };
            let words = words_for(member);
            let about = format!("member {}", member.devid);
            let lost = code == "MIR-WRITE-ERRORS" && bare;
            let severity = if lost { Severity::Critical } else { Severity::Warning };
            case.add_with(code, severity, about, says, evidence, &words);
        }
    }
}

pub(super) fn plural(count: u64, word: &str) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

/// How far what fills members is, to be put behind a word.
fn progress(state: &MirrorState) -> String {
    if state.zfs.is_some() { zfs::progress(state) } else { md::progress(state) }
}

fn modes(case: &mut Case<'_>, state: &MirrorState) {
    let name = &case.declared.name;
    let options = || vec![format!("mount options: {}", state.mount_options.join(","))];
    if state.read_only {
        let says = if state.zfs.as_ref().is_some_and(|pool| pool.read_only) {
            format!("the pool of mirror {name} was imported read-only")
        } else if state.forced_read_only {
            format!("the kernel has made mirror {name} read-only")
        } else {
            format!("mirror {name} is mounted read-only")
        };
        case.add("MIR-READONLY", Severity::Critical, "", says, options());
    } else if state.mounted {
        for member in state.members.iter().filter(|m| m.writeable == Some(false) && !m.missing) {
            let says = format!("{} cannot be written to", name_of(member));
            case.add(
                "MIR-READONLY",
                Severity::Critical,
                format!("member {}", member.devid),
                says,
                Vec::new(),
            );
        }
    }
    if state.degraded_option {
        let says = format!("mirror {name} is mounted with `degraded`");
        case.add("MIR-DEGRADED-OPTION", Severity::Critical, "", says, options());
    }
    if let Some(work) = state.exclusive_operation.as_deref().filter(|w| w.starts_with("device ")) {
        let says = format!("{work} runs on mirror {name}");
        case.add("MIR-REPLACING", Severity::Warning, "", says, Vec::new());
    }
}

/// A device that an exchange which did not end has left: beside it the kernel mounts nothing (`btrfs_init_dev_replace` in
/// fs/btrfs/dev-replace.c).
fn leftovers(case: &mut Case<'_>) {
    let Some(claims) = case.observed.claims.get().filter(|_| case.declared.backend == BackendKind::Btrfs)
    else {
        return;
    };
    let state = case.observed.storage.get();
    let is_filled = state.is_some_and(|s| s.exclusive_operation.as_deref() == Some("device replace"));
    for claim in claims.iter().filter(|c| c.devid == 0 && !is_filled) {
        let path = claim.path.display();
        let says = format!(
            "{path} says that it is being made a member of mirror {}, and it is not",
            case.declared.name
        );
        let evidence = vec![format!("its last commit is {}", claim.generation)];
        let words = [("DEVICE", shell_quote(claim.path.as_os_str()).into_owned())];
        case.add_with("MIR-LEFTOVER", Severity::Warning, path.to_string(), says, evidence, &words);
    }
}

/// Two devices with one member's UUID: a copy is attached.
fn clones(case: &mut Case<'_>) {
    let Some(claims) = case.observed.claims.get() else { return };
    for (index, first) in claims.iter().enumerate() {
        // A member of md that another has taken the place of keeps its number, and is told from that by its UUID.
        let by_number = case.declared.backend == BackendKind::Btrfs;
        let mut same =
            claims.iter().filter(|c| c.uuid == first.uuid || (by_number && c.devid == first.devid));
        let is_first = same.clone().next().is_some_and(|c| c.path == first.path);
        let others: Vec<_> = same.by_ref().filter(|c| c.path != first.path).collect();
        if !is_first || others.is_empty() || index >= claims.len() {
            continue;
        }
        let age = age_word(case.declared.backend);
        let show = |path: &std::path::Path, generation| format!("{}: {age} {generation}", path.display());
        let evidence = std::iter::once(show(&first.path, first.generation))
            .chain(others.iter().map(|c| show(&c.path, c.generation)));
        let says = format!("{} devices say that they are member {}", others.len() + 1, first.devid);
        case.add(
            "MIR-CLONE",
            Severity::Critical,
            format!("member {}", first.devid),
            says,
            evidence.collect(),
        );
    }
}
