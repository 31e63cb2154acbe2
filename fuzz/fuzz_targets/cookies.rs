//! The target `cookies`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nexus_fuzz::take("cookies", bytes));
