//! A properties area in both styles.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../tests/wire/checks.rs"]
mod checks;

fuzz_target!(|data: &[u8]| checks::properties(data));
