//! What a person or a program reads: tables, prompts, progress, JSON. Decides nothing.

pub mod check;
mod console;
mod plan;

pub use console::Console;
pub use plan::plan;
