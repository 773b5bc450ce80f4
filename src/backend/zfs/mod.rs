//! ZFS, whose pool is both the mirror and the filesystem. Not a [`Backend`](super::Backend) yet: what is here reads what its tools say.

pub mod fit;
pub mod json;
pub mod kstat;
pub mod list;
pub mod observe;
mod scan;
pub mod text;

#[cfg(test)]
mod tests;
