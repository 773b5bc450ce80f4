//! Plain data that every room may use. Nothing here reads or changes the machine.

pub mod device;
pub mod size;

pub use device::{DevNo, Identity};
pub use size::Bytes;
