//! What is asked of the controller when a client opens a queue that has no place yet.

use crate::command::{MetadataCommand, PutCondition};
use crate::domain::{DomainDefinition, DomainError};
use crate::metadata::Metadata;

/// What a node's configuration says about new queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewQueuePolicy {
    /// A domain that is not defined gets the default definition.
    pub creates_domains: bool,
    /// How many partitions the cluster has.
    pub partitions: u32,
    /// Most queues of the cluster.
    pub max_queues: u32,
}

impl NewQueuePolicy {
    /// The change that gives the queue a place, and its domain a definition where it may. What
    /// others have changed since these metadata counts when it is applied.
    ///
    /// # Errors
    /// No domain may have this name.
    pub fn commands(
        &self,
        metadata: &Metadata,
        uri: &str,
        domain: &str,
    ) -> Result<Vec<MetadataCommand>, DomainError> {
        let mut commands = Vec::new();
        if metadata.domain(domain).is_none() && self.creates_domains {
            let definition = Box::new(DomainDefinition::default_template(domain)?);
            let when = PutCondition::IfMissing;
            commands.push(MetadataCommand::PutDomain { definition, when });
        }
        // Whether there is room is decided when the change is applied.
        commands.push(MetadataCommand::AssignQueue {
            uri: uri.to_owned(),
            domain: domain.to_owned(),
            partition: metadata.emptiest_partition(self.partitions),
            max_queues: Some(self.max_queues),
        });
        Ok(commands)
    }
}
