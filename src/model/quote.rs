//! Text as a shell would have to be given it: for lines that people paste. Nothing here is ever run by a shell.

use std::{borrow::Cow, ffi::OsStr, fmt::Write as _, os::unix::ffi::OsStrExt as _};

/// Names of disks and paths come from outside: what would move the cursor, or begin a line, is shown, not done.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

/// `text` as a POSIX shell (with bash's `$'..'` for control characters) would have to be given it.
pub fn shell_quote(text: &OsStr) -> Cow<'_, str> {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_./:=,@%+^".contains(b);
    let bytes = text.as_bytes();
    if let (false, true, Ok(text)) = (bytes.is_empty(), bytes.iter().all(plain), std::str::from_utf8(bytes)) {
        return Cow::Borrowed(text);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => {
            Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
        }
        _ => {
            let mut out = String::from("$'");
            for byte in bytes {
                match byte {
                    b'\'' | b'\\' => {
                        out.push('\\');
                        out.push(char::from(*byte));
                    }
                    b'\n' => out.push_str("\\n"),
                    b' '..=b'~' => out.push(char::from(*byte)),
                    other => {
                        let _ = write!(out, "\\x{other:02x}");
                    }
                }
            }
            out.push('\'');
            Cow::Owned(out)
        }
    }
}
