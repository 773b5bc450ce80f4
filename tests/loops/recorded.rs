//! A check that is recorded: only where `RAIDGUARD_RECORD_OBSERVED` names a directory.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::recordings;

/// A check that is recorded.
pub(crate) struct Recording(PathBuf);

impl Recording {
    pub(crate) fn begin() -> Option<Self> {
        let dir = std::env::var_os("RAIDGUARD_RECORD_OBSERVED")?;
        fs::create_dir_all(&dir).unwrap();
        Some(Self(Path::new(&dir).join("newest.json")))
    }

    /// Where the check is to write what it sees.
    pub(crate) fn file(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// Keeps it with the faults that were found, under the test's name.
    pub(crate) fn keep(self, faults: &[&Value]) {
        let dump: Value = serde_json::from_slice(&fs::read(&self.0).unwrap()).unwrap();
        fs::remove_file(&self.0).unwrap();
        let test = std::env::args().nth(1).unwrap_or_default();
        let test = test.rsplit("::").next().unwrap();
        recordings::keep(self.0.parent().unwrap(), &format!("{test}-"), dump, faults);
    }
}
