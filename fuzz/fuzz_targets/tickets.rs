//! The target `tickets`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nexus_fuzz::take("tickets", bytes));
