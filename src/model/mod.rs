//! Plain data that every room may use. Nothing here reads or changes the machine.

pub mod device;
pub mod level;
pub mod mirror;
pub mod size;

pub use device::{DevNo, Identity};
pub use level::Level;
pub use size::Bytes;
