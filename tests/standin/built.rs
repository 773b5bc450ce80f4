//! The programs that tests of rings 2 and 3 run, built beside each other.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
};

/// A program of this build.
pub(crate) fn built(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_raidguard")).with_file_name(name)
}

/// `cargo test` builds examples only where no target is named.
pub(crate) fn build_standin() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let profile = built("");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--locked", "--example", "standin-node", "--target-dir"]);
        cargo.arg(profile.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
        cargo.args(profile.ends_with("release").then_some("--release"));
        assert!(untold(&mut cargo).status().unwrap().success(), "the stand-in node cannot be built");
    });
}

/// Without what cargo told this test of its package: a build script that looks at it would have half of everything built anew, each time.
pub(crate) fn untold(cargo: &mut Command) -> &mut Command {
    let told = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    std::env::vars().filter(|(name, _)| told(name)).for_each(|(name, _)| {
        cargo.env_remove(name);
    });
    cargo
}
