//! Sessions from the outside: bytes in, effects out.

mod client;
mod ending;
mod messages;
mod negotiating;
mod opening;
mod vectors;
