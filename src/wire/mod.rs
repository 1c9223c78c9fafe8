//! Bytes and their meaning: every AoE frame, both directions. No state, no I/O, no allocation, no panic.
