//! What is read once for several questions of one look at the machine.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

type Kept = Option<Arc<dyn Any + Send + Sync>>;
type About = (TypeId, PathBuf);

/// What was read, by what it is and what it is about.
#[derive(Default)]
pub(super) struct Glance(Mutex<HashMap<About, Arc<Mutex<Kept>>>>);

impl Glance {
    /// Reads it, or gives what was read. Who comes while it is being read waits for that.
    pub(super) fn once<T: Send + Sync + 'static, E>(
        &self,
        about: &Path,
        read: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let key = (TypeId::of::<T>(), about.to_owned());
        let place = Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default());
        let mut kept = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.as_ref().and_then(|known| Arc::clone(known).downcast().ok()) {
            return Ok(known);
        }
        let value = Arc::new(read()?);
        *kept = Some(value.clone());
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_once_for_each_thing_and_a_failure_is_not_kept() {
        let glance = Glance::default();
        let path = Path::new("/a");
        assert_eq!(glance.once(path, || Err::<u8, _>("no")), Err("no"));
        assert_eq!(glance.once(path, || Ok::<u8, ()>(1)), Ok(Arc::new(1)));
        assert_eq!(glance.once(path, || Ok::<u8, ()>(2)), Ok(Arc::new(1)));
        assert_eq!(glance.once(path, || Ok::<u16, ()>(3)), Ok(Arc::new(3)), "another kind of thing");
        assert_eq!(glance.once(Path::new("/b"), || Ok::<u8, ()>(4)), Ok(Arc::new(4)));
    }
}
