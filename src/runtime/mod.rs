//! What drives the engine: threads, locks, sockets, the clock.
