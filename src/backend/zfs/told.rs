//! What `zpool status` says of a pool, as the parts of a mirror.

use crate::{
    host::zfs::{Label, Vdev},
    model::{
        mirror::{ErrorCounts, MemberState},
        zfs::{ZfsClass, ZfsErrors, ZfsState, ZfsVdev},
    },
};

/// Gives a vdev, and what it is made of, the names that `zpool status` gives them where it was asked for numbers, by the label of one of its
/// devices (`zpool_vdev_name` in `lib/libzfs/libzfs_pool.c`).
pub(super) fn call(vdev: &mut ZfsVdev, labels: &[&Label]) {
    let is_number = vdev.guid.is_some_and(|guid| vdev.name == guid.to_string());
    if is_number && !vdev.children.is_empty() {
        let described = labels.iter().find_map(|label| label.tree.as_ref()?.find(vdev.guid?));
        if let Some(Vdev { kind, id, parity, .. }) = described {
            let parity = if kind == "raidz" { parity.unwrap_or(1).to_string() } else { String::new() };
            vdev.name = format!("{kind}{parity}-{id}");
        }
    }
    for child in &mut vdev.children {
        call(child, labels);
    }
}

/// What is to take another's place is not whole as long as the other is there too, whether or not it is being filled.
pub(super) fn mark(vdev: &mut ZfsVdev) {
    if vdev.level() == Some("replacing") {
        if let Some(new) = vdev.children.last_mut().filter(|new| new.children.is_empty()) {
            new.resilvering = true;
        }
    }
    vdev.children.iter_mut().for_each(mark);
}

/// How redundant a pool is: `mirror`, `raidz2`, of one vdev that is none `single`.
pub(super) fn level_of(pool: &ZfsState) -> Option<String> {
    let tops: Vec<_> = pool.vdevs.iter().filter(|vdev| vdev.class == ZfsClass::Normal).collect();
    match tops[..] {
        [] => None,
        // One device that another is to take the place of.
        [top] if matches!(top.level(), Some("replacing" | "spare")) => Some("single".to_owned()),
        [top] => top.level().map(str::to_owned),
        [..] => Some(format!("striped over {} vdevs", tops.len())),
    }
}

pub(super) fn empty(guid: u64) -> MemberState {
    MemberState { uuid: Some(guid.to_string()), ..MemberState::unseen(guid) }
}

/// The devices that are members: those that hold data, and no log, spare or cache.
pub(super) fn of_members(pool: &ZfsState) -> Vec<&ZfsVdev> {
    pool.vdevs.iter().filter(|vdev| vdev.class == ZfsClass::Normal).flat_map(ZfsVdev::leaves).collect()
}

/// A pool, as a mirror with nothing seen but what its tools say.
#[cfg(test)]
pub(crate) fn as_mirror(
    mut pool: ZfsState,
    mountpoint: &std::path::Path,
) -> crate::model::mirror::MirrorState {
    use crate::model::mirror::MirrorState;
    pool.vdevs.iter_mut().for_each(mark);
    pool.level = level_of(&pool);
    let told = of_members(&pool).into_iter().map(|leaf| as_told(leaf, leaf.guid.unwrap()));
    let state = MirrorState {
        mounted: true,
        members: told.collect(),
        read_only: pool.read_only,
        exclusive_operation: pool.is_filling().then(|| "resilver".to_owned()),
        ..MirrorState::unseen(&pool.guid.unwrap().to_string(), mountpoint)
    };
    MirrorState { zfs: Some(pool), ..state }
}

/// A device as an imported pool shows it, of which nothing else is known.
pub(super) fn as_told(leaf: &ZfsVdev, guid: u64) -> MemberState {
    let errors = |e: ZfsErrors| ErrorCounts {
        read: e.read,
        write: e.write,
        corruption: e.checksum,
        ..ErrorCounts::default()
    };
    let mut member = MemberState {
        path: leaf.path.clone(),
        errors: leaf.errors.map(errors),
        replace_target: leaf.resilvering,
        ..empty(guid)
    };
    if !leaf.serves() {
        let why = leaf.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        (member.missing, member.missing_because) = (true, Some(format!("ZFS calls it {}{why}", leaf.state)));
    }
    member
}
