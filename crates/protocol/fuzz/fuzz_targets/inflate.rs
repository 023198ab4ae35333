//! A zlib stream, and data to be compressed.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../tests/wire/checks.rs"]
mod checks;

fuzz_target!(|data: &[u8]| checks::inflate(data));
