//! Queues as their leaders see them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::Method;
use flintmq_consensus::NodeId;
use flintmq_partition::QueueSnapshot;
use flintmq_queue::AppView;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::JoinSet;

use super::{Node, Refused};
use crate::controller::QueuePlace;

/// How long a leader may take to tell about its queues.
const PATIENCE: Duration = Duration::from_secs(5);

/// What stands in a queue. Other nodes and scripts read it as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct QueueState {
    pub(crate) uri: String,
    /// The partition that holds it.
    group: u32,
    /// The node that leads the partition; none for a queue that no client has opened yet.
    leader: Option<u32>,
    backlog_messages: u64,
    backlog_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    oldest_age_seconds: Option<f64>,
    producers: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    history_guids: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    history_bytes: Option<u64>,
    apps: Vec<AppState>,
}

/// An app's share of a queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct AppState {
    id: String,
    backlog_messages: u64,
    backlog_bytes: u64,
    unconfirmed_messages: u64,
    oldest_age_seconds: f64,
    redelivery_messages: u64,
    consumers: u32,
}

impl QueueState {
    /// What a partition on this node tells; without a snapshot it has no such queue yet.
    pub(crate) fn new(uri: &str, place: &QueuePlace, snapshot: Option<&QueueSnapshot>) -> Self {
        let empty = Self {
            uri: uri.to_owned(),
            group: place.partition,
            leader: None,
            backlog_messages: 0,
            backlog_bytes: 0,
            oldest_age_seconds: None,
            producers: 0,
            history_guids: None,
            history_bytes: None,
            apps: Vec::new(),
        };
        let Some(QueueSnapshot { group, node, view }) = snapshot else { return empty };
        let age = view.oldest_arrival_ms.map_or(0.0, age_seconds);
        Self {
            group: group.0,
            leader: *node,
            backlog_messages: view.messages,
            backlog_bytes: view.bytes,
            oldest_age_seconds: Some(age),
            producers: view.producers,
            history_guids: Some(view.history_guids),
            history_bytes: Some(view.history_bytes),
            apps: view.apps.iter().map(|app| AppState::new(app, age)).collect(),
            ..empty
        }
    }

    /// Whether this node leads the queue.
    pub(crate) fn is_led_by(&self, node: u32) -> bool {
        self.leader == Some(node)
    }

    /// How many clients read it, and how many write it.
    pub(crate) fn clients(&self) -> (usize, usize) {
        let consumers = self.apps.iter().map(|app| app.consumers as usize).sum();
        (consumers, self.producers as usize)
    }
}

impl AppState {
    fn new(app: &AppView, queue_age: f64) -> Self {
        Self {
            id: if app.name.is_empty() { "__default".to_owned() } else { app.name.clone() },
            backlog_messages: app.messages,
            backlog_bytes: app.bytes,
            unconfirmed_messages: app.unconfirmed,
            oldest_age_seconds: if app.messages == 0 { 0.0 } else { queue_age },
            redelivery_messages: app.redelivery,
            consumers: app.consumers,
        }
    }
}

/// All queues, or those of a domain, by URI: as their leaders see them. Asked by another node
/// (`forwarded`), this one tells those that it leads.
///
/// # Errors
/// The node is stopping.
pub(crate) async fn all(
    node: &Node,
    domain: Option<&str>,
    forwarded: bool,
) -> Result<BTreeMap<String, QueueState>, Refused> {
    let mut snapshots = BTreeMap::new();
    for partition in &node.partitions {
        for snapshot in partition.view_all().await.map_err(|_| Refused::stopping())? {
            snapshots.insert(snapshot.view.uri.clone(), snapshot);
        }
    }
    let mut states: BTreeMap<String, QueueState> = {
        let metadata = node.controller.metadata();
        let wanted = |place: &QueuePlace| domain.is_none_or(|domain| *domain == place.domain);
        let queues = metadata.queues().filter(|(_, place)| wanted(place));
        let state =
            |(uri, place)| (str::to_owned(uri), QueueState::new(uri, place, snapshots.get(uri)));
        queues.map(state).collect()
    };
    if forwarded {
        states.retain(|_, state| state.is_led_by(node.id));
    } else {
        for state in led_elsewhere(node, domain).await {
            if let Some(known) = states.get_mut(&state.uri) {
                *known = state;
            }
        }
    }
    Ok(states)
}

/// What other nodes tell about queues that they lead; nothing of those that do not answer.
async fn led_elsewhere(node: &Node, domain: Option<&str>) -> Vec<QueueState> {
    let Some(peers) = &node.peers else { return Vec::new() };
    let leaders: BTreeSet<NodeId> = node
        .partitions
        .iter()
        .filter_map(|partition| partition.status().leader)
        .filter(|leader| leader.0 != node.id)
        .collect();
    let filter = domain.map(|domain| format!("?domain={domain}")).unwrap_or_default();
    let mut asked = JoinSet::new();
    for leader in leaders {
        let (peers, path) = (peers.clone(), format!("/api/v1/queues{filter}"));
        asked.spawn(
            async move { peers.ask(leader, Method::GET, &path, &Value::Null, PATIENCE).await },
        );
    }
    let mut states = Vec::new();
    while let Some(answered) = asked.join_next().await {
        if let Ok(Ok(reply)) = answered
            && let Ok(theirs) = serde_json::from_value::<Vec<QueueState>>(reply.body)
        {
            states.extend(theirs);
        }
    }
    states
}

/// How long ago something came.
pub(crate) fn age_seconds(arrival_ms: u64) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    now_ms.saturating_sub(arrival_ms) as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use flintmq_consensus::GroupId;
    use flintmq_queue::{AppKey, QueueId, QueueView};

    use super::*;

    fn app(name: &str, consumers: u32) -> AppView {
        AppView {
            key: AppKey::DEFAULT,
            name: name.to_owned(),
            messages: 0,
            bytes: 0,
            unconfirmed: 0,
            redelivery: 0,
            consumers,
        }
    }

    fn state(snapshot: Option<&QueueSnapshot>) -> QueueState {
        let place = QueuePlace { queue: 7, partition: 3, domain: "d".to_owned() };
        QueueState::new("bmq://d/q", &place, snapshot)
    }

    #[test]
    fn scripts_and_other_nodes_read_these_fields() {
        let unopened = state(None);
        let text = serde_json::to_string(&unopened).unwrap();
        let expected = concat!(
            r#"{"uri":"bmq://d/q","group":3,"leader":null,"backlog_messages":0,"#,
            r#""backlog_bytes":0,"producers":0,"apps":[]}"#,
        );
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<QueueState>(&text).unwrap(), unopened);
        let view = QueueView {
            id: QueueId(7),
            uri: "bmq://d/q".to_owned(),
            messages: 0,
            bytes: 0,
            oldest_arrival_ms: None,
            next_position: 5,
            history_guids: 5,
            history_bytes: 60,
            producers: 2,
            apps: vec![app("", 3), app("billing", 4)],
        };
        let opened = state(Some(&QueueSnapshot { group: GroupId(3), node: Some(2), view }));
        assert_eq!(opened.clients(), (7, 2));
        assert!(opened.is_led_by(2) && !opened.is_led_by(1));
        let value = serde_json::to_value(&opened).unwrap();
        assert_eq!(
            (&value["apps"][0]["id"], &value["apps"][1]["id"]),
            (&"__default".into(), &"billing".into())
        );
        assert_eq!(value["oldest_age_seconds"], 0.0);
        assert_eq!(serde_json::from_value::<QueueState>(value).unwrap(), opened);
    }
}
