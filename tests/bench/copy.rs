//! `copy-bench SOURCE TARGET`: the verified copy alone, for `scripts/bench`. Prints the seconds of its two halves and the highest
//! resident memory in KiB.

#![allow(clippy::print_stdout, reason = "its output is the measurement")]

use std::{env, fs, path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context as _, Result, ensure};
use raidguard::{
    exec::Interrupt,
    host::copy::{Proven, copy_tree, settle, survey, verify_tree},
};

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("copy-bench: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<()> {
    let mut args = env::args_os().skip(1).map(PathBuf::from);
    let (source, target) = args.next().zip(args.next()).context("usage: copy-bench SOURCE TARGET")?;
    let interrupt = Interrupt::default();
    let expected = survey(&source)?;
    let began = Instant::now();
    let manifest = copy_tree(&source, &target, &mut |_| {}, &interrupt)?;
    let copied = began.elapsed();
    let began = Instant::now();
    let none = Proven::default();
    settle(&target, &manifest, &none)?;
    verify_tree(&target, &manifest, &none, None, &mut |_| {}, &interrupt)?;
    let verified = began.elapsed();
    ensure!(manifest.files() == expected.files, "{} of {} files", manifest.files(), expected.files);
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let peak = peak.trim().trim_end_matches(" kB");
    println!("{:.3} {:.3} {peak}", copied.as_secs_f64(), verified.as_secs_f64());
    Ok(())
}
