#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| cache::properties::cache_index(input));
