//! What a person or a program reads: tables, prompts, progress, JSON. Decides nothing.

mod console;

pub use console::Console;
