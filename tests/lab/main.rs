//! Ring 3: the lab, a virtual machine with its own kernel, systemd and udev, in which disks can be pulled and power can fail. Each case
//! gets a machine of its own, as it was right after the boot: it is resumed, not booted. `scripts/lab test` runs it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::pedantic,
    reason = "a test may fail loudly"
)]
#![allow(clippy::disallowed_methods, reason = "tests start processes themselves")]

mod btrfs;
mod disks;
mod guest;
mod machine;
#[path = "../standin/built.rs"]
mod programs;
mod ready;
mod talk;
