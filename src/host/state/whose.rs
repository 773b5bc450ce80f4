//! Which mirror a record is about. It is kept by the mirror's name, and a name may be given again.

use super::{State, StateError};

/// The name of the UUID of the mirror that a record is about.
const UUID: &str = "uuid";

impl State {
    /// The name means the mirror of this UUID from now on. What is remembered of another one of that name goes, its history too. Of the
    /// same one all stays: its commits go on from where they were, and its newest half may still be elsewhere. A record that does not say
    /// whose it is counts as another's.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn begin(&self, mirror: &str, uuid: &str) -> Result<(), StateError> {
        self.durably(|| {
            if self.whose(mirror)?.as_deref() == Some(uuid) {
                return Ok(());
            }
            self.db.execute("DELETE FROM record WHERE mirror = ?1", [mirror])?;
            self.db.execute("DELETE FROM history WHERE mirror = ?1", [mirror])?;
            self.put(mirror, UUID, &uuid)
        })
    }

    /// Has a record say whose it is, where none does yet: that of a mirror which was declared before this was kept.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn keep_whose(&self, mirror: &str, uuid: &str) -> Result<(), StateError> {
        self.durably(|| if self.whose(mirror)?.is_none() { self.put(mirror, UUID, &uuid) } else { Ok(()) })
    }

    fn whose(&self, mirror: &str) -> Result<Option<String>, StateError> {
        self.get(mirror, UUID)
    }
}
