//! The protocol against captured bytes, random messages and hostile input.
#![allow(clippy::unwrap_used)]

mod captures;
mod checks;
mod control_round_trips;
mod data_round_trips;
mod hostile;
mod seeds;
mod vectors;
