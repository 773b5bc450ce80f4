//! What is typed at the terminal: one key without Enter, or a line. Either can be stopped.

use std::io::{self, BufRead as _, Read as _};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};

/// Puts the terminal back as it was.
struct Restored(Termios);

impl Drop for Restored {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

/// How long a look at the terminal waits, in milliseconds.
const LOOK: u16 = 200;

/// Waits for a line. Nothing: `stop` said to leave off, or the terminal is gone.
pub(super) fn line(stop: &dyn Fn() -> bool) -> io::Result<Option<String>> {
    use std::os::fd::AsFd as _;
    let stdin = io::stdin();
    // A terminal gives a line when it is whole, so what can be read is all of it.
    loop {
        if stop() {
            return Ok(None);
        }
        match poll(&mut [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)], PollTimeout::from(LOOK)) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => break,
            Err(e) => return Err(e.into()),
        }
    }
    let mut line = String::new();
    let length = stdin.lock().read_line(&mut line)?;
    Ok((length > 0).then_some(line))
}

/// Waits for a key. False: `stop` said to leave off, or the terminal is gone. Ctrl-C stays a signal.
pub(super) fn wait(stop: &dyn Fn() -> bool) -> io::Result<bool> {
    let before = tcgetattr(io::stdin())?;
    let mut by_key = before.clone();
    by_key.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
    // A read comes back after a fifth of a second, with a key or without (termios(3), VTIME in tenths).
    for (index, value) in [(SpecialCharacterIndices::VMIN, 0), (SpecialCharacterIndices::VTIME, 2)] {
        if let Some(slot) = by_key.control_chars.get_mut(index as usize) {
            *slot = value;
        }
    }
    let _restored = Restored(before);
    tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &by_key)?;
    let mut key = [0];
    loop {
        if stop() {
            return Ok(false);
        }
        // A terminal that was closed is an error, or gives nothing at once for ever: the hang-up is also a signal.
        match io::stdin().lock().read(&mut key) {
            Ok(0) => {}
            Ok(_) => return Ok(true),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
