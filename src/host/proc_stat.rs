//! `/proc/PID/stat` (proc_pid_stat(5)).

/// A field by its number in the manual page, from 3 on, which is the state; nothing where it is not there.
pub fn field(stat: &str, number: usize) -> Option<&str> {
    // The second, the name, may hold anything; it ends with the last parenthesis.
    stat.rsplit_once(')')?.1.split_whitespace().nth(number.checked_sub(3)?)
}

/// The flags (kernel: `PF_...` in include/linux/sched.h).
pub fn flags(stat: &str) -> Option<u64> {
    field(stat, 9)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_be_called_anything() {
        for name in ["sh", "a) b 1", ""] {
            let stat = format!("7 ({name}) S 1 7 7 0 -1 4194560 0 0");
            assert_eq!((field(&stat, 3), flags(&stat)), (Some("S"), Some(4_194_560)), "{name}");
            assert_eq!((field(&stat, 2), field(&stat, 99)), (None, None), "{name}");
        }
        assert_eq!((field("7 sh S", 3), flags("7 (sh) S 1")), (None, None));
    }
}
