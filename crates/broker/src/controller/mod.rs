//! The controller: which domains there are, which queue lives where and which nodes hold what,
//! replicated in a group of its own.

mod metadata;
mod placement;
mod planning;
mod roster;
mod task;

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use flintmq_consensus::NodeId;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::UndefinedDomain;
use crate::domain::DomainDefinition;
use crate::replica::ReplicaStatus;
pub(crate) use metadata::{DomainRecord, Metadata, MetadataCommand, QueuePlace, UnreadableRecord};
pub(crate) use planning::{Planning, first_nodes};
#[cfg(test)]
pub(crate) use roster::tests::roster_of;
pub(crate) use roster::{NodeRecord, NodeState, Place, Roster, RosterCommand};
pub(crate) use task::{Change, ControllerParts, ControllerTask};

/// Why the controller did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ControllerError {
    /// The domain is not defined.
    #[error("the domain is not defined: create it with `flintmq admin domain create`, domain={0}")]
    UnknownDomain(String),
    /// A domain of that name exists.
    #[error("the domain is defined already: use `flintmq admin domain update`, domain={0}")]
    DomainExists(String),
    /// Queues of the domain exist.
    #[error("the domain has queues: delete them first, domain={domain} queues={queues}")]
    DomainInUse {
        /// The domain.
        domain: String,
        /// How many queues it has.
        queues: usize,
    },
    /// The definition is wrong, or changes what cannot change.
    #[error("{0}")]
    Definition(String),
    /// The domain's `maxQueues` is reached.
    #[error(
        "the domain's limit of queues is reached: delete unused queues or raise maxQueues, domain={domain} limit={limit}"
    )]
    TooManyQueues {
        /// The domain.
        domain: String,
        /// Its limit.
        limit: u32,
    },
    /// The node's `limits.max_queues` is reached.
    #[error(
        "this node's limit of queues is reached: delete unused queues or raise limits.max_queues, limit={0}"
    )]
    NodeFull(u32),
    /// There is no leader, or too much is under way.
    #[error("the controller is not ready: try again")]
    NotReady,
    /// The node is stopping.
    #[error("the node is stopping: connect to another node")]
    Stopping,
    /// A command cannot be written down.
    #[error("the change cannot be encoded: {0}")]
    Encoding(String),
}

/// Access to the metadata; cheap to clone.
#[derive(Clone)]
pub(crate) struct Controller {
    metadata: Arc<RwLock<Metadata>>,
    status: watch::Receiver<ReplicaStatus>,
    changes: mpsc::Sender<Change>,
    roster: watch::Receiver<Arc<Roster>>,
    in_reach: watch::Receiver<BTreeSet<NodeId>>,
    policy: Policy,
}

/// What the node's configuration says about queues and domains.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    pub(crate) undefined: UndefinedDomain,
    pub(crate) partitions: u32,
    pub(crate) max_queues: u32,
}

impl Controller {
    /// A handle to the task that receives `changes`.
    pub(crate) fn new(
        metadata: Arc<RwLock<Metadata>>,
        status: watch::Receiver<ReplicaStatus>,
        changes: mpsc::Sender<Change>,
        roster: watch::Receiver<Arc<Roster>>,
        in_reach: watch::Receiver<BTreeSet<NodeId>>,
        policy: Policy,
    ) -> Self {
        Self { metadata, status, changes, roster, in_reach, policy }
    }

    /// Whether a node can be reached from here: this one, or another one that is up.
    pub(crate) fn reaches(&self, node: u32) -> bool {
        self.in_reach.borrow().contains(&NodeId(node))
    }

    /// The nodes and places as applied here.
    pub(crate) fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.roster.borrow())
    }

    /// The nodes and places, to wait for.
    pub(crate) fn watch_roster(&self) -> watch::Receiver<Arc<Roster>> {
        self.roster.clone()
    }

    /// How many partitions the cluster has.
    pub(crate) fn partitions(&self) -> u32 {
        self.policy.partitions
    }

    /// Changes the nodes or places, and waits until that is decided and applied here. A change
    /// that does not fit does nothing: look at [`Self::roster`].
    ///
    /// # Errors
    /// As [`Self::change`].
    pub(crate) async fn change_roster(&self, change: RosterCommand) -> Result<(), ControllerError> {
        self.change(vec![MetadataCommand::Roster { change }]).await
    }

    /// The metadata as applied here. Hold it briefly.
    pub(crate) fn metadata(&self) -> RwLockReadGuard<'_, Metadata> {
        self.metadata.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until this node leads the group. False when its task has ended.
    pub(crate) async fn leads(&self) -> bool {
        self.status.clone().wait_for(|status| status.serving).await.is_ok()
    }

    /// State of the group's replica, to wait for.
    pub(crate) fn watch(&self) -> watch::Receiver<ReplicaStatus> {
        self.status.clone()
    }

    /// State of the group's replica.
    pub(crate) fn status(&self) -> ReplicaStatus {
        *self.status.borrow()
    }

    /// Where the queue lives, with its domain's definition; both are made when they do not exist
    /// and may.
    ///
    /// # Errors
    /// [`ControllerError`] tells the client why it cannot open the queue.
    pub(crate) async fn place(
        &self,
        uri: &str,
        domain: &str,
    ) -> Result<(QueuePlace, DomainRecord), ControllerError> {
        if let Some(found) = self.lookup(uri) {
            return Ok(found);
        }
        let commands = self.commands_for_new_queue(uri, domain)?;
        self.change(commands).await?;
        // Another open may have won the race, or an administrator may have removed it again.
        self.lookup(uri).ok_or(ControllerError::NotReady)
    }

    /// Where an existing queue lives, with its domain's definition.
    pub(crate) fn lookup(&self, uri: &str) -> Option<(QueuePlace, DomainRecord)> {
        let metadata = self.metadata();
        let place = metadata.queue(uri)?;
        let domain = metadata.domain(&place.domain)?;
        Some((place.clone(), domain.clone()))
    }

    /// Forgets a queue whose messages are gone.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub(crate) async fn forget_queue(&self, uri: &str, queue: u32) -> Result<(), ControllerError> {
        self.change(vec![MetadataCommand::UnassignQueue { uri: uri.to_owned(), queue }]).await
    }

    /// Defines a new domain.
    ///
    /// # Errors
    /// It exists, or the definition is wrong or not served yet.
    pub(crate) async fn create_domain(
        &self,
        definition: DomainDefinition,
    ) -> Result<(), ControllerError> {
        check(&definition)?;
        if self.metadata().domain(&definition.name).is_some() {
            return Err(ControllerError::DomainExists(definition.name));
        }
        self.put(definition).await
    }

    /// Defines the domains that a new cluster starts with: all of them or, after a crash, none.
    ///
    /// # Errors
    /// A definition is wrong or not served yet, or the controller is not ready.
    pub(crate) async fn define_first(
        &self,
        definitions: Vec<DomainDefinition>,
    ) -> Result<(), ControllerError> {
        definitions.iter().try_for_each(check)?;
        let put = |definition| MetadataCommand::PutDomain { definition: Box::new(definition) };
        self.change(definitions.into_iter().map(put).collect()).await
    }

    /// Replaces the definition of a domain.
    ///
    /// # Errors
    /// It does not exist, or the definition is wrong or changes what cannot change.
    pub(crate) async fn update_domain(
        &self,
        definition: DomainDefinition,
    ) -> Result<(), ControllerError> {
        check(&definition)?;
        {
            let metadata = self.metadata();
            let present = metadata
                .domain(&definition.name)
                .ok_or_else(|| ControllerError::UnknownDomain(definition.name.clone()))?;
            present
                .definition
                .check_update(&definition)
                .map_err(|error| ControllerError::Definition(error.to_string()))?;
        }
        self.put(definition).await
    }

    /// Removes a domain that has no queues.
    ///
    /// # Errors
    /// It does not exist or has queues.
    pub(crate) async fn remove_domain(&self, name: &str) -> Result<(), ControllerError> {
        {
            let metadata = self.metadata();
            if metadata.domain(name).is_none() {
                return Err(ControllerError::UnknownDomain(name.to_owned()));
            }
            let queues = metadata.queues_of(name);
            if queues > 0 {
                return Err(ControllerError::DomainInUse { domain: name.to_owned(), queues });
            }
        }
        self.change(vec![MetadataCommand::RemoveDomain { name: name.to_owned() }]).await
    }

    /// Makes a change and waits until it is decided and applied here.
    ///
    /// # Errors
    /// The controller is not ready, or the node is stopping.
    pub(crate) async fn change(
        &self,
        commands: Vec<MetadataCommand>,
    ) -> Result<(), ControllerError> {
        let (done, answer) = oneshot::channel();
        let sent = self.changes.send(Change { commands, done }).await;
        sent.map_err(|_| ControllerError::Stopping)?;
        answer.await.map_err(|_| ControllerError::Stopping)?
    }

    fn commands_for_new_queue(
        &self,
        uri: &str,
        domain: &str,
    ) -> Result<Vec<MetadataCommand>, ControllerError> {
        let metadata = self.metadata();
        let mut commands = Vec::new();
        let max_queues = match metadata.domain(domain) {
            Some(record) => record.definition.max_queues,
            None if self.policy.undefined == UndefinedDomain::Create => {
                let definition = DomainDefinition::default_template(domain)
                    .map_err(|error| ControllerError::Definition(error.to_string()))?;
                let limit = definition.max_queues;
                commands.push(MetadataCommand::PutDomain { definition: Box::new(definition) });
                limit
            }
            None => return Err(ControllerError::UnknownDomain(domain.to_owned())),
        };
        if max_queues > 0 && metadata.queues_of(domain) >= max_queues as usize {
            let domain = domain.to_owned();
            return Err(ControllerError::TooManyQueues { domain, limit: max_queues });
        }
        if metadata.queue_count() >= self.policy.max_queues as usize {
            return Err(ControllerError::NodeFull(self.policy.max_queues));
        }
        commands.push(MetadataCommand::AssignQueue {
            uri: uri.to_owned(),
            domain: domain.to_owned(),
            partition: metadata.emptiest_partition(self.policy.partitions),
        });
        Ok(commands)
    }

    async fn put(&self, definition: DomainDefinition) -> Result<(), ControllerError> {
        self.change(vec![MetadataCommand::PutDomain { definition: Box::new(definition) }]).await
    }
}

fn check(definition: &DomainDefinition) -> Result<(), ControllerError> {
    definition.check_supported().map_err(|error| ControllerError::Definition(error.to_string()))
}
