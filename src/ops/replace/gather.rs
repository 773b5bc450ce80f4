//! What the machine says before `replace` decides.

use std::path::Path;

use jiff::Timestamp;

use super::pool::{self, PoolFacts};
use crate::{
    backend::{
        self, BackendError, Layout,
        rescue::{Relation, Survivor},
    },
    config::{Member, Mirror},
    host::{Host, files, inventory, partition, state::State},
    model::{
        BackendKind, Bytes, DevNo, Device, Inventory,
        mirror::{MemberState, MirrorState},
        observed::Claim,
        zfs::ZfsState,
    },
    node::{self, Running},
    ops::{Trouble, mirrors, resumed, setup, trouble::unchanged},
};

/// What the machine says.
#[derive(Debug, Clone)]
pub struct Facts {
    /// When it was asked.
    pub now: Timestamp,
    /// The mirror as it should be.
    pub mirror: Mirror,
    /// Every declared mirror.
    pub declared: Vec<Mirror>,
    /// The mirror as it is.
    pub state: MirrorState,
    /// Every device that says it belongs to it.
    pub claims: Vec<Claim>,
    /// What lies on which member, or why that cannot be told.
    pub layout: Result<Layout, String>,
    /// Whether what is there of it can be brought together.
    pub parting: Parting,
    /// The block devices.
    pub inventory: Inventory,
    /// The device that was named to come, or why it is none; nothing where none was asked for.
    pub new: Option<Result<DevNo, String>>,
    /// The device that was named to go, where one was.
    pub old: Option<Result<DevNo, String>>,
    /// The smallest piece that the new device can write, in bytes; unknown where the kernel does not say.
    pub sector: Option<u64>,
    /// The largest that it may be for the mirror to be mounted again; nothing where that cannot be told.
    pub largest: Option<u64>,
    /// What a pool of ZFS needs of a new device.
    pub pool: Option<PoolFacts>,
    /// A scrub that runs, which an exchange cannot be begun beside.
    pub scrubbing: bool,
    /// Who uses the node's files; nobody where none are declared or the mirror is not mounted.
    pub running: Running,
    /// The newest commit that raidguard ever saw of the mirror.
    pub known: Option<u64>,
    /// Operations that have not ended: verb and mirror.
    pub unfinished: Vec<(String, String)>,
}

/// How the halves of a mirror stand to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parting {
    /// Every one is a state that the newest went through, or is the newest: they can be brought together.
    Behind,
    /// Each was written to without the other: nobody can bring them together.
    Apart(String),
    /// It cannot be told which of the two it is, and why: nothing may be decided.
    Unclear(String),
}

/// How often halves are compared before it counts as unclear: the newer one may be in use, and a commit may have come between two looks.
const TRIES: u32 = 3;

/// How all that is there of a mirror stands to the newest of it. `mounted`: where that one is written to.
fn parting(host: &Host, mirror: &Mirror, mounted: Option<&Path>) -> Result<Parting, BackendError> {
    let mut last = Parting::Behind;
    for _ in 0..TRIES {
        last = look_at_halves(host, mirror)?;
        if last == Parting::Behind {
            break;
        }
        // A member that was away for a moment differs from it only in what was fsynced, which does not tell the older from the newer; a
        // commit does. It would come by itself within half a minute; where it fails, it stays unclear.
        if let Some(at) = mounted {
            let _ = files::sync_filesystem(&host.path(at));
        }
    }
    Ok(last)
}

/// Those of which one could be brought together with another. The new device of an exchange under way has number 0: it is none. Nor is one
/// whose first superblock is gone, as wipefs(8) leaves a former member: no kernel takes it, and nothing newer is on it.
fn halves(survivors: Vec<Survivor>) -> Vec<Survivor> {
    let newest = survivors.iter().filter(|s| s.opens).map(|s| s.generation).max();
    survivors.into_iter().filter(|s| s.devid != 0 && (s.opens || Some(s.generation) > newest)).collect()
}

fn look_at_halves(host: &Host, mirror: &Mirror) -> Result<Parting, BackendError> {
    let rescue = backend::of(mirror.backend).rescue();
    let remains = rescue.remains(host)?.into_iter().find(|r| r.uuid == mirror.uuid);
    let halves = halves(remains.map(|r| r.survivors).unwrap_or_default());
    let Some(newest) = halves.iter().max_by_key(|s| s.generation) else { return Ok(Parting::Behind) };
    for half in halves.iter().filter(|s| s.path != newest.path) {
        let pair = format!("{} and {}", half.path.display(), newest.path.display());
        match rescue.relate(host, half, newest, &halves)? {
            Relation::Same | Relation::Behind(_) => {}
            Relation::Diverged => return Ok(Parting::Apart(format!("{pair} have different pasts"))),
            Relation::OtherLog => {
                return Ok(Parting::Unclear(format!("{pair} differ in what was fsynced last")));
            }
            Relation::Unclear => {
                return Ok(Parting::Unclear(format!("nothing is left on {pair} that would tell")));
            }
        }
    }
    Ok(Parting::Behind)
}

/// Which devices were named.
#[derive(Debug, Clone, Copy, Default)]
pub struct Named<'a> {
    /// The member that goes, as typed.
    pub old: Option<&'a str>,
    /// The device that comes.
    pub new: Option<&'a Path>,
}

/// Asks the machine all that [`super::decide`] needs for `verb`. Changes nothing.
///
/// # Errors
/// Something could not be told. Unknown means refuse.
pub fn gather(host: &Host, mirror: Mirror, verb: &str, named: Named<'_>) -> Result<Facts, Trouble> {
    let backend = backend::of(mirror.backend);
    let always = ["lsblk", "blkid", "wipefs", "blkdiscard"];
    let mut missing: Vec<_> = backend.tools().iter().chain(&always).copied().collect();
    missing.retain(|tool| !host.runner().has(tool));
    if !missing.is_empty() {
        return Err(Trouble::refused(
            format!("not installed: {}", missing.join(", ")),
            format!("apt-get install {} util-linux mount", backend.packages()),
        ));
    }
    let looked = "the mirror cannot be looked at";
    let state = backend.observe(host, &mirror.uuid, &mirror.mountpoint).map_err(unchanged(looked))?;
    let claims = backend.claims(host).map_err(unchanged(looked))?.remove(&mirror.uuid).unwrap_or_default();
    let survivor = state.members.iter().filter(|m| !m.missing && !m.replace_target && m.devid != 0);
    let survivor = survivor.max_by_key(|m| m.generation).and_then(|m| m.path.as_deref());
    let layout = match survivor {
        Some(device) => backend.layout(host, device).map_err(|e| e.to_string()),
        None => Err("no member of it is on this machine".to_owned()),
    };
    // While all is mounted the members are one commit apart at most, and are written to.
    let parting = if state.mounted && state.members.iter().all(|m| !m.missing) {
        Parting::Behind
    } else {
        let writes = state.mounted && !state.read_only && !is_stopped(&state);
        let mounted = state.mountpoint.as_deref().filter(|_| writes);
        parting(host, &mirror, mounted).map_err(unchanged(looked))?
    };
    let inventory = inventory::gather(host).map_err(unchanged("the block devices cannot be read"))?;
    let resolve = |path: &Path| inventory::resolve(host, path).map_err(|e| e.to_string());
    let of_state = state.members.iter().filter_map(|m| m.path.clone());
    let members: Vec<_> = of_state.chain(claims.iter().map(|claim| claim.path.clone())).collect();
    let member = |found: Result<DevNo, String>| {
        let disk = found.as_ref().ok().and_then(|dev| inventory.by_dev(*dev));
        match disk.and_then(|disk| inventory.partition_among(&disk.path, &members)) {
            Some(part) => Ok(part.dev),
            None => found,
        }
    };
    let new = named.new.map(resolve);
    // What `repair` names is a member.
    let new = if verb == "repair" { new.map(member) } else { new };
    let old = named.old.filter(|old| old.contains('/')).map(|old| member(resolve(Path::new(old))));
    let comes = new.as_ref().and_then(|new| new.as_ref().ok()).and_then(|dev| inventory.by_dev(*dev));
    let sector = comes.and_then(|device| partition::sectors(host, &device.kname)).map(|(logical, _)| logical);
    let largest = backend.largest_sector(host, &mirror.uuid, &members).map_err(unchanged(looked))?;
    let pool = pool::gather(host, &mirror, comes, sector)?;
    let running = match mirror.node.as_ref().filter(|_| state.mounted) {
        Some(node) => node::find_running(host, &node.data, node.unit.as_deref())
            .map_err(unchanged("it cannot be told whether a node is running"))?,
        None => Running::default(),
    };
    let scrub =
        backend.scrub_record(host, &mirror.uuid).map_err(unchanged("the last scrub cannot be read"))?;
    let known = State::open_existing(host)
        .and_then(|state| state.map(|s| s.generation(&mirror.name)).transpose())
        .map_err(unchanged("raidguard's own record cannot be read"))?
        .flatten();
    Ok(Facts {
        known,
        now: resumed::moment(host, verb, &mirror.name),
        declared: mirrors::declared(host)?,
        sector,
        largest,
        pool,
        scrubbing: scrub.is_some_and(|s| s.ended.is_none()) || is_compared(&state),
        unfinished: setup::unfinished(host)?,
        state,
        claims,
        layout,
        parting,
        inventory,
        new,
        old,
        running,
        mirror,
    })
}

/// Has it stopped, since too few of its members answer? Whoever writes to it waits.
pub(in crate::ops) fn is_stopped(state: &MirrorState) -> bool {
    state.zfs.as_ref().is_some_and(ZfsState::is_suspended)
}

/// Are its members being compared now?
fn is_compared(state: &MirrorState) -> bool {
    state.md.as_ref().is_some_and(|md| md.action.as_deref() == Some("check"))
}

impl Facts {
    /// A member in words: its number, path, and what the declaration knows of its disk.
    pub fn name_of(&self, id: u64) -> String {
        let declared = self.mirror.member.iter().find(|m| m.id == id.to_string());
        let path = self.state.members.iter().find(|m| m.devid == id).and_then(|m| m.path.as_ref());
        let mut facts: Vec<String> = path.map(|p| p.display().to_string()).into_iter().collect();
        facts.extend(declared.and_then(|m| m.model.clone()));
        facts.extend(declared.and_then(|m| m.serial.as_ref().map(|s| format!("serial {s}"))));
        if facts.is_empty() {
            facts.extend(declared.map(|m| m.size.to_string()));
        }
        format!("member {id} ({})", facts.join(", "))
    }

    /// The numbers of all members, declared or found.
    pub fn ids(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.mirror.member.iter().filter_map(|m| m.id.parse().ok()).collect();
        ids.extend(self.state.members.iter().filter(|m| !m.replace_target && m.devid != 0).map(|m| m.devid));
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Those that are gone: the kernel says so, or no device answers.
    pub fn gone(&self) -> Vec<u64> {
        // Of a mirror that has stopped only the devices themselves tell.
        let stopped = is_stopped(&self.state);
        let there = |id: &u64| {
            let claims = || self.claims.iter().any(|c| c.devid == *id && !self.is_leftover(c));
            if stopped { claims() } else { self.state.members.iter().any(|m| m.devid == *id && !m.missing) }
        };
        self.ids().into_iter().filter(|id| !there(id)).collect()
    }

    /// Which member a device says it is; of a pool, by a partition on it.
    pub fn claim_on(&self, device: &Device) -> Option<&Claim> {
        let part = self.pool.as_ref().and_then(|_| {
            let claimed: Vec<_> = self.claims.iter().map(|c| c.path.clone()).collect();
            self.inventory.partition_among(&device.path, &claimed)
        });
        self.claims.iter().find(|c| c.path == device.path || part.is_some_and(|part| part.path == c.path))
    }

    /// Has the pool gone on without it, and forgotten its number?
    pub fn was_once(&self, claim: &Claim) -> bool {
        self.pool.is_some() && !self.ids().contains(&claim.devid)
    }

    /// Is it what an exchange that was given up has left: no member that is declared, and what it holds a part of what the others hold?
    pub fn is_leftover(&self, claim: &Claim) -> bool {
        claim.devid == 0 || claim.filling && !self.mirror.member.iter().any(|m| m.uuid == claim.uuid)
    }

    /// Members of an array that serve at a declared place under another UUID, each with what is declared there: filled anew, md has given
    /// them one of their own.
    pub fn redeclarable(&self) -> Vec<(&Member, &MemberState)> {
        let md = self.mirror.backend == BackendKind::Mdadm && self.state.mounted;
        let serves = |declared: &&Member, m: &&MemberState| {
            let other = m.uuid.as_ref().is_some_and(|uuid| *uuid != declared.uuid);
            !m.missing && !m.replace_target && m.devid.to_string() == declared.id && other
        };
        let members = self.mirror.member.iter().filter(|_| md);
        members.filter_map(|d| Some((d, self.state.members.iter().find(|m| serves(&d, m))?))).collect()
    }

    /// How large a device must be to take a member's place.
    pub fn needed(&self, id: u64) -> Option<Bytes> {
        self.layout.as_ref().ok()?.size_of(id)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::ops::recover;

    fn survivor(path: &str, devid: u64, generation: u64, opens: bool) -> Survivor {
        Survivor { opens, ..recover::tests::survivor(path, devid, generation) }
    }

    #[test]
    fn what_is_left_of_a_former_member_is_no_half_unless_it_is_newer() {
        let all = vec![
            survivor("/dev/sda", 1, 33, true),
            survivor("/dev/sdb", 2, 30, true),
            survivor("/dev/old", 2, 20, false),
            survivor("/dev/lost", 2, 34, false),
            survivor("/dev/new", 0, 33, true),
        ];
        let paths = |all| halves(all).into_iter().map(|s| s.path).collect::<Vec<_>>();
        assert_eq!(paths(all.clone()), ["/dev/sda", "/dev/sdb", "/dev/lost"].map(PathBuf::from));
        let lost_only = all.into_iter().filter(|s| !s.opens).collect();
        assert_eq!(paths(lost_only), ["/dev/old", "/dev/lost"].map(PathBuf::from));
    }
}
