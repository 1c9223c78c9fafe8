#![no_main]

libfuzzer_sys::fuzz_target!(|dvhost: &[u8]| aoefs_fuzz::vhost(dvhost));
