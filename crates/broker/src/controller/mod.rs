//! The controller: which domains there are, which queue lives where and which nodes hold what,
//! replicated in a group of its own.

mod planning;
mod task;

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use flintmq_consensus::NodeId;
use flintmq_controller::{
    CatchUpError, ChangeError, MembershipRefusal, MetadataCommand, PutCondition, Refusal,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::UndefinedDomain;
use crate::domain::DomainDefinition;
use crate::replica::ReplicaStatus;
pub(crate) use flintmq_controller::{
    ClusterMembership as Roster, DomainRecord, MembershipCommand as RosterCommand, Metadata,
    MetadataState, NodeRecord, NodeState, QueuePlace, ReplicaAssignment as Place, UnreadableRecord,
};
pub(crate) use planning::{Planning, first_nodes};
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
    /// The cluster's membership does not allow it.
    #[error("{0}")]
    Membership(MembershipRefusal),
    /// It was refused for a reason that concerns this node.
    #[error("{0}")]
    Refused(Refusal),
    /// It was not made, or is not known to be.
    #[error("{0}")]
    Change(ChangeError),
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

impl ControllerError {
    /// Whether to try again when the controller has a leader, or less to do.
    pub(crate) fn is_not_ready(&self) -> bool {
        match self {
            Self::NotReady | Self::Stopping => true,
            Self::Change(error) => !matches!(error, ChangeError::TooLarge { .. }),
            _ => false,
        }
    }
}

impl From<Refusal> for ControllerError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::UnknownDomain { domain } => Self::UnknownDomain(domain),
            Refusal::DomainExists { domain } => Self::DomainExists(domain),
            Refusal::DomainInUse { domain, queues } => Self::DomainInUse { domain, queues },
            Refusal::DomainUpdate { reason } => Self::Definition(reason),
            Refusal::TooManyQueues { domain, limit } => Self::TooManyQueues { domain, limit },
            Refusal::TooManyQueuesInAll { limit } => Self::NodeFull(limit),
            Refusal::Membership(refusal) => Self::Membership(refusal),
            Refusal::Superseded => Self::Refused(refusal),
        }
    }
}

impl From<ChangeError> for ControllerError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Refused(refusal) => refusal.into(),
            other => Self::Change(other),
        }
    }
}

impl From<CatchUpError> for ControllerError {
    fn from(_: CatchUpError) -> Self {
        Self::NotReady
    }
}

/// What the controller's task is asked for.
pub(crate) enum ControllerRequest {
    /// Make a change.
    Change(Change),
    /// Answer when the metadata here are as new as what was committed when this was asked.
    CatchUp {
        /// Told then.
        done: oneshot::Sender<Result<(), ControllerError>>,
    },
}

/// Access to the metadata; cheap to clone.
#[derive(Clone)]
pub(crate) struct Controller {
    metadata: Arc<RwLock<Metadata>>,
    status: watch::Receiver<ReplicaStatus>,
    requests: mpsc::Sender<ControllerRequest>,
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
    /// A handle to the task that receives `requests`.
    pub(crate) fn new(
        metadata: Arc<RwLock<Metadata>>,
        status: watch::Receiver<ReplicaStatus>,
        requests: mpsc::Sender<ControllerRequest>,
        roster: watch::Receiver<Arc<Roster>>,
        in_reach: watch::Receiver<BTreeSet<NodeId>>,
        policy: Policy,
    ) -> Self {
        Self { metadata, status, requests, roster, in_reach, policy }
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

    /// Changes the nodes or places, and waits until that is committed and applied here. It is no
    /// error if all is so already.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub(crate) async fn change_roster(&self, change: RosterCommand) -> Result<(), ControllerError> {
        match self.change(vec![MetadataCommand::Membership { change }]).await {
            Err(ControllerError::Membership(MembershipRefusal::Already)) => Ok(()),
            other => other,
        }
    }

    /// Waits until the metadata here are as new as anything that a client may have seen on another
    /// node before. Call it before something is refused, or said not to exist, because of them.
    ///
    /// # Errors
    /// The controller has no leader in reach, or the node is stopping.
    pub(crate) async fn catch_up(&self) -> Result<(), ControllerError> {
        let (done, answer) = oneshot::channel();
        let sent = self.requests.send(ControllerRequest::CatchUp { done }).await;
        sent.map_err(|_| ControllerError::Stopping)?;
        answer.await.map_err(|_| ControllerError::Stopping)?
    }

    /// Looks at the metadata, and if that fails, again at those that are known to be new enough to
    /// refuse from.
    async fn certainly<T>(
        &self,
        look: impl Fn(&Metadata) -> Result<T, ControllerError>,
    ) -> Result<T, ControllerError> {
        if let Ok(found) = look(&self.metadata()) {
            return Ok(found);
        }
        self.catch_up().await?;
        look(&self.metadata())
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
        let commands = self
            .certainly(|metadata| match metadata.queue(uri) {
                Some(_) => Ok(Vec::new()),
                None => self.policy.commands_for_new_queue(metadata, uri, domain),
            })
            .await?;
        if !commands.is_empty() {
            self.change(commands).await?;
        }
        // Another open may have won the race, or an administrator may have removed it again.
        self.lookup(uri).ok_or(ControllerError::NotReady)
    }

    /// As [`Self::lookup`], and none only if there is none as of now.
    ///
    /// # Errors
    /// The controller has no leader in reach, or the node is stopping.
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
        self.certainly(|metadata| match metadata.domain(&definition.name) {
            Some(_) => Err(ControllerError::DomainExists(definition.name.clone())),
            None => Ok(()),
        })
        .await?;
        self.change(vec![put(definition, PutCondition::New)]).await
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
        let first = |definition| put(definition, PutCondition::IfMissing);
        self.change(definitions.into_iter().map(first).collect()).await
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
        self.certainly(|metadata| {
            let present = metadata
                .domain(&definition.name)
                .ok_or_else(|| ControllerError::UnknownDomain(definition.name.clone()))?;
            let checked = present.definition.check_update(&definition);
            checked.map_err(|error| ControllerError::Definition(error.to_string()))
        })
        .await?;
        self.change(vec![put(definition, PutCondition::Update)]).await
    }

    /// Removes a domain that has no queues.
    ///
    /// # Errors
    /// It does not exist or has queues.
    pub(crate) async fn remove_domain(&self, name: &str) -> Result<(), ControllerError> {
        self.certainly(|metadata| {
            if metadata.domain(name).is_none() {
                return Err(ControllerError::UnknownDomain(name.to_owned()));
            }
            match metadata.queues_of(name) {
                0 => Ok(()),
                queues => Err(ControllerError::DomainInUse { domain: name.to_owned(), queues }),
            }
        })
        .await?;
        let remove = MetadataCommand::RemoveDomain { name: name.to_owned(), only_unused: true };
        self.change(vec![remove]).await
    }

    /// Makes a change and waits until it is committed and applied here.
    ///
    /// # Errors
    /// It does not fit, the controller is not ready, or the node is stopping.
    pub(crate) async fn change(
        &self,
        commands: Vec<MetadataCommand>,
    ) -> Result<(), ControllerError> {
        let (done, answer) = oneshot::channel();
        let change = ControllerRequest::Change(Change { commands, done });
        let sent = self.requests.send(change).await;
        sent.map_err(|_| ControllerError::Stopping)?;
        answer.await.map_err(|_| ControllerError::Stopping)?
    }
}

impl Policy {
    fn commands_for_new_queue(
        &self,
        metadata: &Metadata,
        uri: &str,
        domain: &str,
    ) -> Result<Vec<MetadataCommand>, ControllerError> {
        let mut commands = Vec::new();
        if metadata.domain(domain).is_some() {
            metadata.check_room(domain, self.max_queues)?;
        } else if self.undefined == UndefinedDomain::Create {
            let definition = DomainDefinition::default_template(domain)
                .map_err(|error| ControllerError::Definition(error.to_string()))?;
            commands.push(put(definition, PutCondition::IfMissing));
        } else {
            return Err(ControllerError::UnknownDomain(domain.to_owned()));
        }
        commands.push(MetadataCommand::AssignQueue {
            uri: uri.to_owned(),
            domain: domain.to_owned(),
            partition: metadata.emptiest_partition(self.partitions),
            max_queues: Some(self.max_queues),
        });
        Ok(commands)
    }
}

fn put(definition: DomainDefinition, when: PutCondition) -> MetadataCommand {
    MetadataCommand::PutDomain { definition: Box::new(definition), when }
}

fn check(definition: &DomainDefinition) -> Result<(), ControllerError> {
    definition.check_supported().map_err(|error| ControllerError::Definition(error.to_string()))
}
