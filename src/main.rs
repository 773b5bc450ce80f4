//! The raidguard binary.
fn main() {}
