//! The protocol against captured bytes, random messages and hostile input.
#![allow(clippy::unwrap_used)]

mod captures;
mod checks;
mod hostile;
mod round_trips;
mod seeds;
mod vectors;
