//! An options area.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../tests/wire/checks.rs"]
mod checks;

fuzz_target!(|data: &[u8]| checks::options(data));
