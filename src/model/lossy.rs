//! Paths as JSON: a name that is not UTF-8 is shown with U+FFFD, because an answer with one odd name is worth more than none.

use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

pub(crate) fn path<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    path.to_string_lossy().serialize(to)
}

#[allow(clippy::ref_option, reason = "serde hands the field over like this")]
pub(crate) fn option<S: Serializer>(path: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|p| p.to_string_lossy()).serialize(to)
}

pub(crate) fn list<S: Serializer>(paths: &[PathBuf], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(paths.iter().map(|p| p.to_string_lossy()))
}
