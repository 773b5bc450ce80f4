//! All that is particular to one kind of mirror.
