//! Plain data that every room may use. Nothing here reads or changes the machine.

mod ago;
pub mod device;
pub mod event;
pub mod finding;
pub mod inventory;
pub mod level;
pub(crate) mod lossy;
pub mod md;
pub mod mirror;
pub mod node;
pub mod observed;
pub mod quote;
pub mod record;
pub mod schedule;
pub mod size;
pub mod zfs;
pub mod zone;

pub use ago::ago;
pub use device::{DevNo, Identity};
pub use event::{Event, EventKind};
pub use finding::{Finding, Severity, Source, Verdict};
pub use inventory::{Content, Device, Inventory};
pub use level::Level;
pub use node::{BackendKind, Filesystem, FilesystemKind, NodeControl, NodeKind, Scheduler};
pub use observed::{Observed, Seen};
pub use record::Record;
pub use schedule::{Schedule, ScheduleError};
pub use size::Bytes;
pub use zone::Zone;
