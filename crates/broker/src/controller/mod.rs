//! The controller as the rest of the node sees it: which domains there are, which queue lives where
//! and which nodes hold what. The metadata and their machine are in `flintmq_controller`.
//!
//! What is refused here is refused because of this node's own copy of the metadata, which may be
//! older than what a client has seen through another node. So a refusal is only given after the
//! copy has caught up.

mod first_nodes;

use std::sync::Arc;

use arc_swap::Guard;
use flintmq_controller::{ChangeError, DomainVersion, NewQueuePolicy, PlanningSettings, Refusal};
use tokio::sync::watch;

use crate::config::UndefinedDomain;
use crate::domain::DomainDefinition;
use crate::host::ControllerHandle;
pub(crate) use first_nodes::first_nodes;
pub(crate) use flintmq_controller::{
    ClusterMembership, DomainRecord, MembershipCommand, Metadata, MetadataCommand, NodeRecord,
    NodeState, PutCondition, QueuePlace,
};
use flintmq_shard::ReplicaStatus;

/// Why the controller did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ControllerError {
    /// It does not fit what there is.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The definition is wrong, or changes what cannot change.
    #[error("{0}")]
    Definition(String),
    /// There is no leader, or too much is under way.
    #[error("{0}")]
    NotReady(String),
    /// The node is stopping.
    #[error("the node is stopping: connect to another node")]
    Stopping,
}

/// Access to the metadata; cheap to clone.
#[derive(Clone)]
pub(crate) struct Controller {
    handle: ControllerHandle,
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
    /// The controller behind this handle.
    pub(crate) fn new(handle: ControllerHandle, policy: Policy) -> Self {
        Self { handle, policy }
    }

    /// The nodes and what they hold, as applied here.
    pub(crate) fn membership(&self) -> Arc<ClusterMembership> {
        Arc::clone(&self.handle.membership().borrow())
    }

    /// The nodes and what they hold, to wait for.
    pub(crate) fn watch_membership(&self) -> watch::Receiver<Arc<ClusterMembership>> {
        self.handle.membership()
    }

    /// The greatest version of all domains, to wait for a change of one. What it announces is in
    /// [`Self::metadata`] by then.
    pub(crate) fn watch_domains(&self) -> watch::Receiver<DomainVersion> {
        self.handle.domain_version()
    }

    /// How many partitions the cluster has.
    pub(crate) fn partitions(&self) -> u32 {
        self.policy.partitions
    }

    /// Plans with this while the node leads the controller.
    pub(crate) fn plan(&self, settings: PlanningSettings) {
        self.handle.plan(settings);
    }

    /// Changes the nodes or what they hold, and waits until that is committed and applied here.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub(crate) async fn change_membership(
        &self,
        change: MembershipCommand,
    ) -> Result<(), ControllerError> {
        self.change(vec![MetadataCommand::Membership { change }]).await
    }

    /// The metadata as applied here.
    pub(crate) fn metadata(&self) -> Guard<Arc<Metadata>> {
        self.handle.metadata()
    }

    /// Waits until this node's metadata are as new as anything that a client may have seen at
    /// another node. To be called before something is refused because of them.
    ///
    /// # Errors
    /// The controller has no leader in reach, or the node is stopping.
    pub(crate) async fn catch_up(&self) -> Result<(), ControllerError> {
        let caught_up = self.handle.catch_up().await.ok_or(ControllerError::Stopping)?;
        caught_up.map_err(|error| ControllerError::NotReady(error.to_string()))
    }

    /// Waits until this node leads the group. False when the node is stopping.
    pub(crate) async fn leads(&self) -> bool {
        self.handle.status().wait_for(|status| status.serving).await.is_ok()
    }

    /// State of the group's replica, to wait for.
    pub(crate) fn watch(&self) -> watch::Receiver<ReplicaStatus> {
        self.handle.status()
    }

    /// State of the group's replica.
    pub(crate) fn status(&self) -> ReplicaStatus {
        *self.handle.status().borrow()
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
        self.change(self.commands_for_new_queue(uri, domain)?).await?;
        // Another open may have won the race, or an administrator may have removed it again.
        let again =
            || ControllerError::NotReady("the queue was removed meanwhile: try again".into());
        self.lookup(uri).ok_or_else(again)
    }

    /// Where an existing queue lives, with its domain's definition.
    pub(crate) fn lookup(&self, uri: &str) -> Option<(QueuePlace, DomainRecord)> {
        let metadata = self.metadata();
        let place = metadata.queue(uri)?;
        let domain = metadata.domain(&place.domain)?;
        Some((place.clone(), domain.clone()))
    }

    /// As [`Self::lookup`]; a queue that is not known here is looked for once more when this node
    /// has caught up.
    ///
    /// # Errors
    /// As [`Self::catch_up`].
    pub(crate) async fn find(
        &self,
        uri: &str,
    ) -> Result<Option<(QueuePlace, DomainRecord)>, ControllerError> {
        if let Some(found) = self.lookup(uri) {
            return Ok(Some(found));
        }
        self.catch_up().await?;
        Ok(self.lookup(uri))
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
        self.put(definition, PutCondition::New).await
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
        let put = |definition| MetadataCommand::PutDomain {
            definition: Box::new(definition),
            when: PutCondition::Always,
        };
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
        self.put(definition, PutCondition::Update).await
    }

    /// Removes a domain that has no queues.
    ///
    /// # Errors
    /// It does not exist or has queues.
    pub(crate) async fn remove_domain(&self, name: &str) -> Result<(), ControllerError> {
        self.change(vec![MetadataCommand::RemoveDomain {
            name: name.to_owned(),
            only_unused: true,
        }])
        .await
    }

    /// Makes a change and waits until it is committed and applied here.
    ///
    /// # Errors
    /// It does not fit, the controller is not ready, or the node is stopping.
    pub(crate) async fn change(
        &self,
        commands: Vec<MetadataCommand>,
    ) -> Result<(), ControllerError> {
        match self.handle.change(commands).await.ok_or(ControllerError::Stopping)? {
            Ok(()) => Ok(()),
            Err(ChangeError::Refused(refusal)) => Err(refusal.into()),
            Err(error) => Err(ControllerError::NotReady(error.to_string())),
        }
    }

    fn commands_for_new_queue(
        &self,
        uri: &str,
        domain: &str,
    ) -> Result<Vec<MetadataCommand>, ControllerError> {
        let policy = NewQueuePolicy {
            creates_domains: self.policy.undefined == UndefinedDomain::Create,
            partitions: self.policy.partitions,
            max_queues: self.policy.max_queues,
        };
        let commands = policy.commands(&self.metadata(), uri, domain);
        commands.map_err(|error| ControllerError::Definition(error.to_string()))
    }

    async fn put(
        &self,
        definition: DomainDefinition,
        when: PutCondition,
    ) -> Result<(), ControllerError> {
        let definition = Box::new(definition);
        self.change(vec![MetadataCommand::PutDomain { definition, when }]).await
    }
}

fn check(definition: &DomainDefinition) -> Result<(), ControllerError> {
    definition.check_supported().map_err(|error| ControllerError::Definition(error.to_string()))
}
