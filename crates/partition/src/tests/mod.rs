#![allow(clippy::unwrap_used, clippy::panic)]

mod administration;
mod clients;
mod domain_limits;
mod domains;
mod frames;
mod group;
mod leadership;
mod noise;
mod order;
mod turns;
mod walk;
mod walk_end;
mod world;
