//! The client against a scripted broker: every test plays the broker's part event by event.

#![allow(clippy::unwrap_used)]

mod bad_brokers;
mod broker;
mod consuming;
mod publishing;
mod reconnecting;
mod tls;
