//! The controller on several nodes: changes, requests to catch up, and what is kept of them.

mod catching_up;
mod changing;
mod cluster;
mod fake_group;
mod keeping;
mod waiting;

use flintmq_consensus::Time;

use crate::command::{MetadataCommand, PutCondition};
use crate::domain::DomainDefinition;
use crate::request::Request;

fn assign(uri: &str) -> Vec<MetadataCommand> {
    vec![MetadataCommand::AssignQueue {
        uri: uri.into(),
        domain: "d".into(),
        partition: 1,
        max_queues: None,
    }]
}

fn unassign(uri: &str, queue: u32) -> Vec<MetadataCommand> {
    vec![MetadataCommand::UnassignQueue { uri: uri.into(), queue }]
}

fn put(name: &str, when: PutCondition) -> Vec<MetadataCommand> {
    let definition = Box::new(DomainDefinition::default_template(name).unwrap());
    vec![MetadataCommand::PutDomain { definition, when }]
}

/// With a deadline of ten seconds after the beginning.
fn change(ticket: u64, commands: Vec<MetadataCommand>) -> Request {
    Request::Change { ticket, commands, deadline: Time::from_millis(10_000) }
}

/// With a deadline of ten seconds after the beginning.
fn catch_up(ticket: u64) -> Request {
    Request::CatchUp { ticket, deadline: Time::from_millis(10_000) }
}
