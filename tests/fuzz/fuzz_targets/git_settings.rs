#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| builder::properties::git_settings(input));
