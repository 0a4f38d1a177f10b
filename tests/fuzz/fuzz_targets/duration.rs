#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| frontend::properties::duration(input));
