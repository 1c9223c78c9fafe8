//! An AoE target: a pure command processor over a memory or file image.
