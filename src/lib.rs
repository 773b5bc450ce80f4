//! raidguard puts a Lightning node's data on a RAID-1 mirror, keeps the redundancy real, and leads the operator
//! through the bad day.
//!
//! The rooms, from the outside in. A room may use those below it, never those above (docs/architecture.md).

#[cfg(test)]
mod fuzz;

pub mod cli;
pub mod ui;

pub mod ops;

pub mod health;

pub mod plan;

pub mod backend;
pub mod node;
pub mod notify;

pub mod host;

pub mod exec;

pub mod config;
pub mod model;
