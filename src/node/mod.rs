//! The Lightning directory: its layout, whether a node runs on it, its database. Knows no backend.

mod control;
pub mod database;
mod facts;
mod head;
pub mod instant;
mod layout;
mod processes;
mod remains;
mod running;
pub mod secret;
mod stray;
pub mod within;

pub use control::{
    ControlError, PATIENCE, commands_of, is_held, release, runs, start, start_again, start_commands, stop,
    stop_commands, verify_running_on,
};
pub use facts::facts;
pub use layout::{Layout, read_layout};
pub use processes::Share;
pub use remains::{Found, Place, find, is_own};
pub use running::{Running, find_nodes, find_running, known_unit};
pub use stray::strays;
