//! Whole-system tests: the finished binary as a process, the official Python client as a process,
//! and faults between them.
//!
//! | module | job |
//! | --- | --- |
//! | [`broker_process`] | start, kill and restart `flintmq serve` on ports and a folder of its own |
//! | [`cluster`] | three of them as a cluster, and the network between them |
//! | [`admin`] | ask it over HTTP |
//! | [`power`] | pretend that a machine loses its power |
//! | [`domains`] | domain definitions to start from |
//! | [`python`] | run the scripts in `tests/python` with the official client and collect what they saw |
//! | [`rust_client`] | producers and consumers with the Rust client, which take any of several brokers |
//! | [`many_queues`] | thousands of queues, some messages in each |
//! | [`wire`] | a client made by hand, for bytes that no proper client sends |
//! | [`json_session`] | a client that negotiates JSON and correlation ids, as the Java client does |
//! | [`history`] | what all clients saw, and what may not happen |
//! | [`silence`] | how long producers heard nothing |
//! | [`clock`] | the time that all processes of a machine share |
//! | [`wait`] | wait for a condition, never for a length of time |
//!
//! The tests themselves are in `tests/tests`, one file per fear. A test starts its own broker:
//!
//! ```no_run
//! use flintmq_system_tests::{broker_process::Broker, python::PythonClient};
//!
//! let broker = Broker::start();
//! let producer = PythonClient::producer(&broker, "p", &["--uri", "bmq://orders/q", "--count", "10"]);
//! producer.finish();
//! let consumer = PythonClient::consumer(&broker, "c", &["--uri", "bmq://orders/q", "--count", "10"]);
//! assert_eq!(consumer.finish().named("delivered").count(), 10);
//! ```
//!
//! The binary is the one that `FLINTMQ_BIN` names, else `flintmq` beside the test program's target
//! folder. The Python interpreter is the one that `FLINTMQ_PYTHON` names, else the environment that
//! `cargo xtask setup` makes. The logs of a failed test's brokers are kept in the folder for
//! temporary files; with `FLINTMQ_TEST_LOGS` set, those of every test.
//!
//! Everything in here panics when something is not as a test needs it: the panic is the finding.

#![allow(clippy::missing_panics_doc)]

pub mod admin;
pub mod broker_process;
pub mod clock;
pub mod cluster;
pub mod domains;
pub mod history;
pub mod json_session;
pub mod many_queues;
pub mod ports;
pub mod power;
pub mod programs;
pub mod python;
pub mod rust_client;
pub mod silence;
pub mod wait;
pub mod wire;
