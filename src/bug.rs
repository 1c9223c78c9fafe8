//! Places where a test lets the program have a bug. A release build has none of it.

/// Panics if the environment variable `AOEFS_PANIC` is the name of this place, or `PLACE@FILE` with that name once the
/// file exists.
#[cfg(debug_assertions)]
pub fn here(place: &str) {
    static ASKED: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let asked = ASKED.get_or_init(|| std::env::var("AOEFS_PANIC").unwrap_or_default());
    let (name, file) = asked.split_once('@').unwrap_or((asked, "/"));
    if name == place {
        assert!(!std::path::Path::new(file).exists(), "a bug that AOEFS_PANIC asked for, in {place}");
    }
}

/// Does nothing: this is a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn here(_: &str) {}
