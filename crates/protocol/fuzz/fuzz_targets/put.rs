//! The body of a PUT event.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../tests/wire/checks.rs"]
mod checks;

fuzz_target!(|data: &[u8]| checks::put(&Bytes::copy_from_slice(data)));
