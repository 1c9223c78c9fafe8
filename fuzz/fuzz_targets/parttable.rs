#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aoefs_fuzz::parttable(data));
