#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sync_fuzz_targets::mergeable(bytes));
