//! The Lightning directory: its layout, whether a node runs on it, its database. Knows no backend.
