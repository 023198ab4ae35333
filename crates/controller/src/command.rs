//! Commands, and the entries of the log that hold them.
//!
//! Changes are rare, so entries are JSON: they can be read with a tool and grow fields without a
//! new format.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::domain::DomainDefinition;
use crate::membership::MembershipCommand;

/// One step of a change, as it stands in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetadataCommand {
    /// Defines a domain, or replaces its definition.
    PutDomain {
        /// The whole definition.
        definition: Box<DomainDefinition>,
        /// When it fits.
        #[serde(default, skip_serializing_if = "PutCondition::is_always")]
        when: PutCondition,
    },
    /// Removes a domain.
    RemoveDomain {
        /// Its name.
        name: String,
        /// It must exist and have no queues.
        #[serde(default, skip_serializing_if = "is_false")]
        only_unused: bool,
    },
    /// Gives a new queue its id and its partition. A queue that has a place keeps it.
    AssignQueue {
        /// Canonical URI.
        uri: String,
        /// The domain that it belongs to.
        domain: String,
        /// The partition to hold it.
        partition: u32,
        /// Most queues of the cluster. With it the domain must exist, and its own limit counts too.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_queues: Option<u32>,
    },
    /// Forgets a queue, if it still has this id.
    UnassignQueue {
        /// Canonical URI.
        uri: String,
        /// The id that it was deleted under.
        queue: u32,
    },
    /// Changes the nodes, or which of them hold what.
    #[serde(rename = "roster")]
    Membership {
        /// How.
        change: MembershipCommand,
    },
}

/// When a definition may be put.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PutCondition {
    /// Whatever is there.
    #[default]
    Always,
    /// The domain must not exist.
    New,
    /// The domain must exist, and allow the change.
    Update,
    /// A domain that exists keeps its definition, and the change goes on.
    IfMissing,
}

impl PutCondition {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
    fn is_always(&self) -> bool {
        *self == Self::Always
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_false(value: &bool) -> bool {
    !value
}

/// What names a change for ever: however often it is proposed, it is applied once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChangeId {
    /// The node that asks for it.
    pub node: u32,
    /// The number of the node's process; a later process of the node has a greater one.
    pub process: u64,
    /// The process's own count.
    pub number: u64,
}

/// A change as it stands in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoggedChange {
    /// Its name; none in entries of versions that had no names for changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<ChangeId>,
    /// The process does not wait for changes with smaller numbers any more: they need not be
    /// remembered, and are not made if they come late.
    #[serde(default)]
    pub oldest: u64,
    /// What to do, in order, up to the first that does not fit.
    pub commands: Vec<MetadataCommand>,
}

#[derive(Serialize, Deserialize)]
struct EntryDocument<C> {
    changes: C,
}

/// The payload of one entry.
///
/// # Errors
/// A definition holds what JSON cannot express.
pub fn encode_entry(changes: &[LoggedChange]) -> Result<Bytes, serde_json::Error> {
    serde_json::to_vec(&EntryDocument { changes }).map(Bytes::from)
}

/// The changes in an entry's payload. Entries of earlier versions are a bare list of commands.
///
/// # Errors
/// It is neither.
pub fn decode_entry(payload: &[u8]) -> Result<Vec<LoggedChange>, UnreadableRecord> {
    let unreadable = |error: serde_json::Error| UnreadableRecord::new(b"entry", error.to_string());
    if payload.trim_ascii_start().first() == Some(&b'[') {
        let commands = serde_json::from_slice(payload).map_err(unreadable)?;
        return Ok(vec![LoggedChange { id: None, oldest: 0, commands }]);
    }
    let entry: EntryDocument<_> = serde_json::from_slice(payload).map_err(unreadable)?;
    Ok(entry.changes)
}

/// A record or an entry of the controller that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the controller's metadata cannot be read: restore the data directory or ask for help, \
     record={key} reason={reason}"
)]
pub struct UnreadableRecord {
    key: String,
    reason: String,
}

impl UnreadableRecord {
    pub(crate) fn new(key: &[u8], reason: impl Into<String>) -> Self {
        Self { key: String::from_utf8_lossy(key).into_owned(), reason: reason.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_earlier_versions_are_read() {
        let old = br#"[{"assign_queue":{"uri":"bmq://d/a","domain":"d","partition":2}},
            {"remove_domain":{"name":"d"}},
            {"roster":{"change":{"drain":{"id":1,"draining":true}}}}]"#;
        let changes = decode_entry(old).unwrap();
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].id, None);
        let drain = MembershipCommand::Drain { id: 1, draining: true };
        assert_eq!(
            changes[0].commands,
            [
                MetadataCommand::AssignQueue {
                    uri: "bmq://d/a".into(),
                    domain: "d".into(),
                    partition: 2,
                    max_queues: None,
                },
                MetadataCommand::RemoveDomain { name: "d".into(), only_unused: false },
                MetadataCommand::Membership { change: drain },
            ]
        );
    }

    #[test]
    fn an_entry_comes_back_as_it_was() {
        let id = Some(ChangeId { node: 1, process: 2, number: 3 });
        let definition = Box::new(DomainDefinition::default_template("d").unwrap());
        let put = MetadataCommand::PutDomain { definition, when: PutCondition::New };
        let remove = MetadataCommand::RemoveDomain { name: "e".into(), only_unused: true };
        let changes = [
            LoggedChange { id, oldest: 1, commands: vec![put] },
            LoggedChange { id: None, oldest: 0, commands: vec![remove] },
        ];
        let payload = encode_entry(&changes).unwrap();
        assert_eq!(decode_entry(&payload).unwrap(), changes);
        assert!(decode_entry(b"not json").is_err());
    }
}
