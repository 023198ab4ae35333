//! Control messages in BER.
#![no_main]

use flintmq_protocol::control::Encoding;
use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../tests/wire/checks.rs"]
mod checks;

fuzz_target!(|data: &[u8]| checks::control_bodies(data, Encoding::Ber));
