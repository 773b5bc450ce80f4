//! Plain data that every room may use. Nothing here reads or changes the machine.

pub mod device;
pub mod inventory;
pub mod level;
pub(crate) mod lossy;
pub mod mirror;
pub mod node;
pub mod schedule;
pub mod size;

pub use device::{DevNo, Identity};
pub use inventory::{Content, Device, Inventory};
pub use level::Level;
pub use node::{BackendKind, NodeControl, NodeKind, Scheduler};
pub use schedule::{Schedule, ScheduleError};
pub use size::Bytes;
