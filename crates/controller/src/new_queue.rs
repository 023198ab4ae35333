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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_that_is_not_defined_gets_a_definition_only_where_it_may() {
        let policy = NewQueuePolicy { creates_domains: true, partitions: 2, max_queues: 5 };
        let metadata = Metadata::default();
        let names = |policy: NewQueuePolicy| {
            let commands = policy.commands(&metadata, "bmq://shop/orders", "shop").unwrap();
            let defines = |command: &MetadataCommand| {
                matches!(command, MetadataCommand::PutDomain { when: PutCondition::IfMissing, .. })
            };
            (commands.iter().filter(|c| defines(c)).count(), commands.len())
        };
        assert_eq!(names(policy), (1, 2));
        assert_eq!(names(NewQueuePolicy { creates_domains: false, ..policy }), (0, 1));
        assert!(policy.commands(&metadata, "bmq://no domain/orders", "no domain").is_err());
    }
}
