//! A private mount namespace: what is mounted in it nobody else sees, and nothing of it stays.

use std::{io, panic, thread};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// Runs `work` on a thread of its own in a private mount namespace that ends with it (mount_namespaces(7)). Mounts made in it are seen by
/// nobody else; what others unmount meanwhile is unmounted in it too. Whoever mounts something should unmount it: what is left when the
/// thread ends the kernel unmounts a little later.
///
/// # Errors
/// There is no thread to be had, or no namespace: this is not root.
pub fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let inside = move || -> io::Result<T> {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
            Ok(work())
        };
        let thread = thread::Builder::new().name("apart".to_owned()).spawn_scoped(scope, inside)?;
        thread.join().unwrap_or_else(|payload| panic::resume_unwind(payload))
    })
}
