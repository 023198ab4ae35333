#![allow(clippy::unwrap_used, clippy::panic)]

mod administration;
mod clients;
mod frames;
mod group;
mod leadership;
mod order;
mod walk;
mod world;
