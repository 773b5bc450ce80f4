//! What a person or a program reads: tables, prompts, progress, JSON. Decides nothing.

pub mod check;
mod console;

pub use console::Console;
