//! The rules, one file an area. Each looks at a case and adds what it finds.

mod away;
pub(super) mod channels;
pub(super) mod disks;
mod halves;
pub(super) mod jobs;
mod md;
pub(super) mod mirror;
pub(super) mod mount;
pub(super) mod node;
pub(super) mod scrub;
pub(super) mod space;
pub(super) mod zfs;

pub use away::away;
pub use disks::kept_by;
pub use md::mismatches;
pub use scrub::last_scrub;
pub use zfs::failed_writes;
