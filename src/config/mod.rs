//! `/etc/raidguard/raidguard.toml`: what should be.
