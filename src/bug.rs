//! Places where a test lets the program have a bug. A release build has none of it.

/// Panics if the environment variable `AOEFS_PANIC` names this place; it holds names with commas between them.
#[cfg(debug_assertions)]
pub fn here(place: &str) {
    static PLACES: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let places = PLACES.get_or_init(|| std::env::var("AOEFS_PANIC").unwrap_or_default());
    assert!(!places.split(',').any(|name| name == place), "a bug that AOEFS_PANIC asked for, in {place}");
}

/// Does nothing: this is a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn here(_: &str) {}
