//! Brings the settings of domains from the controller's metadata to the partitions: one command per
//! partition, domain and version.
//!
//! Nothing polls. A partition that this node leads gets settings when it begins to serve, when a
//! domain changes, and when it has created a queue for a client whose node knew older ones. What it
//! knows already, it does not log.

use std::sync::Arc;
use std::time::Duration;

use flintmq_consensus::Term;
use flintmq_controller::DomainVersion;
use flintmq_queue::Domain;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::controller::{Controller, Metadata};
use crate::host::{CreatedQueue, PartitionHandle, partition_of};

/// How long an administrator waits for partitions that have no leader. They get the settings when
/// they have one.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pause after which a partition is asked again that could not tell.
const AGAIN: Duration = Duration::from_millis(50);

/// Brings the settings of a domain, as they are in this node's metadata, into force in all
/// partitions that hold queues of it, led here or elsewhere, and waits for that. A partition
/// without a leader is waited for no longer than [`PATIENCE`].
pub(crate) async fn bring_into_force(
    controller: &Controller,
    partitions: &[PartitionHandle],
    name: &str,
) {
    let mut waiting = JoinSet::new();
    {
        let metadata = controller.metadata();
        let Some(record) = metadata.domain(name) else { return };
        let domain = Arc::new(record.for_partitions());
        for number in metadata.partitions_of(name) {
            if let Some(partition) = partition_of(partitions, number) {
                waiting.spawn(set_domain(partition.clone(), Arc::clone(&domain)));
            }
        }
    }
    let all_set = async { while waiting.join_next().await.is_some() {} };
    if tokio::time::timeout(PATIENCE, all_set).await.is_err() {
        tracing::warn!(
            domain = name,
            "a partition without leader did not take the domain's change yet: it does when it has one"
        );
    }
}

async fn set_domain(partition: PartitionHandle, domain: Arc<Domain>) {
    loop {
        match partition.set_domain(Arc::clone(&domain)).await {
            Ok(Ok(())) | Err(_) => return,
            Ok(Err(refusal)) => {
                let group = partition.group().0;
                tracing::debug!(group, %refusal, "a domain's change is sent again");
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Sends a partition the settings of its domains while this node leads it: all when it begins to
/// serve, then each one that changes. Until `stop`.
pub(crate) async fn follow_domains(
    controller: Controller,
    partition: PartitionHandle,
    stop: CancellationToken,
) {
    let mut statuses = partition.watch();
    let mut changes = controller.watch_domains();
    let mut sent: Option<(Term, DomainVersion)> = None;
    loop {
        let status = *statuses.borrow_and_update();
        changes.borrow_and_update();
        if status.serving {
            let known = sent.filter(|(term, _)| *term == status.term).map(|(_, version)| version);
            let (news, version) = {
                let metadata = controller.metadata();
                (settings_for(&metadata, partition.group().0, known), metadata.domain_version())
            };
            for domain in news {
                // If the leadership moves, the next leader looks for itself.
                let _answer = partition.begin_set_domain(Arc::new(domain)).await;
            }
            sent = Some((status.term, version));
        } else {
            sent = None;
        }
        let ended = tokio::select! {
            changed = statuses.changed() => changed.is_err(),
            changed = changes.changed() => changed.is_err(),
            () = stop.cancelled() => true,
        };
        if ended {
            return;
        }
    }
}

/// The domains with queues in a partition that changed after `known`, or all of them.
fn settings_for(metadata: &Metadata, partition: u32, known: Option<DomainVersion>) -> Vec<Domain> {
    match known {
        None => metadata.domains_in(partition).map(|record| record.for_partitions()).collect(),
        Some(version) => {
            let changed = metadata.domains_changed_since(version);
            let here = changed.filter(|record| {
                metadata.partitions_of(&record.definition.name).contains(&partition)
            });
            here.map(|record| record.for_partitions()).collect()
        }
    }
}

/// Sends newer settings to partitions that this node leads and that have created a queue with older
/// ones: the client's node did not know of a change yet. Until `stop`.
pub(crate) async fn follow_new_queues(
    controller: Controller,
    partitions: Vec<PartitionHandle>,
    mut created: mpsc::UnboundedReceiver<CreatedQueue>,
    stop: CancellationToken,
) {
    loop {
        let queue = tokio::select! {
            queue = created.recv() => queue,
            () = stop.cancelled() => None,
        };
        let Some(CreatedQueue { group, uri, version }) = queue else { return };
        let newer = {
            let metadata = controller.metadata();
            let place = metadata.queue(&uri);
            let record = place.and_then(|place| metadata.domain(&place.domain));
            record.map(|record| record.for_partitions()).filter(|domain| domain.version > version)
        };
        if let Some(domain) = newer
            && let Some(partition) = partition_of(&partitions, group.0)
        {
            let _answer = partition.begin_set_domain(Arc::new(domain)).await;
        }
    }
}
