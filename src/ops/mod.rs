//! One file per verb: gather, decide, show, apply, verify.
