//! Who answers for a group: its leader, wherever it is; and handing its lead over.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::{Extension, Json};
use flintmq_consensus::{NodeId, Term};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::answer::{Answer, Failure, stopping};
use super::peers::{HandedOn, Reply};
use super::{AdminState, Node};
use flintmq_shard::{Ceded, NotCeded};

/// How long a request waits for a group to have a leader.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the next leader may take until it serves: one that is far behind fetches what it lacks
/// first, however slow its links are.
const TAKE_OVER: Duration = Duration::from_secs(60);

/// How long the leader may take until it has handed over, or given that up.
const HAND_OVER: Duration = Duration::from_secs(10);

/// A pause before the leader is looked for again.
const AGAIN: Duration = Duration::from_millis(20);

/// Whether a request came from another node.
pub(super) type Handed = Option<Extension<HandedOn>>;

/// What a leader elsewhere is asked for.
pub(super) struct ForLeader<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) body: Value,
    pub(super) limit: Duration,
}

impl<'a> ForLeader<'a> {
    /// Looks at something.
    pub(super) fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, body: Value::Null, limit: PATIENCE }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TransferRequest {
    to: u32,
    #[serde(default)]
    force: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct KeepRequest {
    above: Term,
}

/// Has the group's leader answer, if that is another node. None: this node leads, and is to answer
/// itself.
///
/// # Errors
/// There is no leader, it cannot be asked, or it refuses.
pub(super) async fn ask_leader(
    node: &Node,
    group: u32,
    handed: &Handed,
    asked: &ForLeader<'_>,
) -> Result<Option<Json<Value>>, Failure> {
    let Some(peers) = &node.peers else { return Ok(None) };
    let status = node.watch(group).ok_or_else(|| unknown_group(group))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let present = *status.borrow();
        if present.serving {
            return Ok(None);
        }
        if handed.is_some() {
            return Err(moved(group));
        }
        let leader = present.leader.filter(|leader| leader.0 != node.id);
        if let Some(leader) = leader {
            let ForLeader { method, path, body, limit } = asked;
            match peers.ask(leader, method.clone(), path, body, *limit).await {
                Ok(reply) if reply.status.is_success() => return Ok(Some(Json(reply.body))),
                Ok(reply) if reply.status == StatusCode::MISDIRECTED_REQUEST => {}
                Ok(reply) => return Err(Failure::of_reply(&reply)),
                // It may have done it: whoever asks has to look.
                Err(error) if *method != Method::GET => return Err(error.into()),
                Err(_) => {}
            }
        }
        if Instant::now() >= deadline {
            return Err(leaderless(group));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// `POST /api/v1/groups/{id}/transfer`: transfers the leadership, and answers when the next leader
/// serves.
pub(super) async fn transfer(
    State(state): State<AdminState>,
    Path(group): Path<u32>,
    handed: Handed,
    body: String,
) -> Answer {
    let request: TransferRequest = serde_json::from_str(&body).map_err(|error| {
        let error = format!("the request cannot be read: {error}");
        Failure::new(StatusCode::BAD_REQUEST, error, "send {\"to\": NODE, \"force\": false}")
    })?;
    let node = state.node()?;
    let replica = node.replica(group).ok_or_else(|| unknown_group(group))?;
    let asked = ForLeader {
        method: Method::POST,
        path: &format!("/api/v1/groups/{group}/transfer"),
        body: json!({ "to": request.to, "force": request.force }),
        limit: PATIENCE + HAND_OVER + TAKE_OVER,
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask_leader(node, group, &handed, &asked).await? {
            return Ok(answer);
        }
        if request.to == node.id {
            replica.keep_leadership().await;
            let view = replica.inspect().await.ok_or_else(|| stopping(()))?;
            let term = view.status.term;
            return Ok(Json(transferred(group, node.id, node.id, term, Duration::ZERO)));
        }
        match cede(node, group, &request).await {
            Ok(ceded) => return take_over(node, group, request.to, ceded).await,
            // It was lost to another node just now: that one is to be asked.
            Err(failure) if failure.is_moved() && handed.is_none() && Instant::now() < deadline => {
                tokio::time::sleep(AGAIN).await;
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// `POST /nodes/v1/groups/{id}/keep`: answers when this node leads the group and serves, and keeps
/// it leading although another node usually does.
pub(super) async fn keep(
    State(state): State<AdminState>,
    Path(group): Path<u32>,
    Json(request): Json<KeepRequest>,
) -> Answer {
    let node = state.node()?;
    let replica = node.replica(group).ok_or_else(|| unknown_group(group))?;
    let mut status = node.watch(group).ok_or_else(|| unknown_group(group))?;
    // Whoever serves, if it is another node after all.
    let led = status.wait_for(|status| status.led && status.term > request.above);
    let led = match timeout(TAKE_OVER, led).await {
        Ok(Ok(status)) => *status,
        Ok(Err(_)) => return Err(stopping(())),
        Err(_) => return Err(leaderless(group)),
    };
    if !led.serving {
        return Err(moved(group));
    }
    let term = led.term;
    replica.keep_leadership().await;
    Ok(Json(json!({ "term": term })))
}

async fn cede(node: &Node, group: u32, request: &TransferRequest) -> Result<Ceded, Failure> {
    let replica = node.replica(group).ok_or_else(|| unknown_group(group))?;
    let to = NodeId(request.to);
    let view = replica.inspect().await.ok_or_else(|| stopping(()))?;
    if !view.config.is_voter(to) {
        return Err(not_ceded(NotCeded::NotAVoter, group, to));
    }
    if node.peers.as_ref().is_none_or(|peers| !peers.is_reachable(to)) {
        return Err(Failure::new(
            StatusCode::CONFLICT,
            format!("the node cannot be reached, so it cannot lead, group={group} to={to}"),
            "start it, or choose another: `flintmq admin node list`",
        ));
    }
    tracing::info!(group, to = to.0, force = request.force, "transfers the leadership as asked");
    match timeout(HAND_OVER, replica.transfer(to, request.force)).await {
        Ok(Some(Ok(ceded))) => Ok(ceded),
        Ok(Some(Err(reason))) => Err(not_ceded(reason, group, to)),
        Ok(None) => Err(stopping(())),
        Err(_) => Err(not_ceded(NotCeded::GivenUp, group, to)),
    }
}

/// Waits until the next leader serves.
async fn take_over(node: &Node, group: u32, to: u32, ceded: Ceded) -> Answer {
    let path = format!("/nodes/v1/groups/{group}/keep");
    let body = json!({ "above": ceded.term });
    let peers = node.peers.as_ref().ok_or_else(|| leaderless(group))?;
    let deadline = Instant::now() + TAKE_OVER;
    let leader = loop {
        let limit = deadline.saturating_duration_since(Instant::now()) + AGAIN;
        let reply: Option<Reply> =
            peers.ask(NodeId(to), Method::POST, &path, &body, limit).await.ok();
        let leaderless_for = node.clock.now().since(ceded.since);
        if let Some(reply) = reply.filter(|reply| reply.status.is_success()) {
            let term = reply.body["term"].as_u64().unwrap_or_default();
            return Ok(Json(transferred(group, node.id, to, term, leaderless_for)));
        }
        // Another node was faster, or none can, or the two nodes missed each other for a moment.
        let mut status = node.watch(group).ok_or_else(|| unknown_group(group))?;
        let led = status.wait_for(|status| status.led && status.term > ceded.term);
        let leader = match timeout(PATIENCE, led).await {
            Ok(Ok(status)) => status.leader,
            _ => None,
        };
        if leader != Some(NodeId(to)) || Instant::now() >= deadline {
            break leader;
        }
        tokio::time::sleep(AGAIN).await;
    };
    let Some(leader) = leader else {
        return Err(Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!(
                "leadership was given up, and the node does not serve yet, group={group} to={to}"
            ),
            "`flintmq admin group show ID` tells when it does; if another node should, order that",
        ));
    };
    Err(Failure::new(
        StatusCode::CONFLICT,
        format!("another node took the leadership, group={group} to={to} leader={leader}"),
        "ask again; if it happens again, look at the log of the node that should lead",
    ))
}

fn transferred(group: u32, from: u32, to: u32, term: Term, leaderless: Duration) -> Value {
    json!({
        "group": group,
        "from": from,
        "to": to,
        "term": term,
        "leaderless_ms": (leaderless.as_secs_f64() * 10_000.0).round() / 10.0,
    })
}

fn not_ceded(reason: NotCeded, group: u32, to: NodeId) -> Failure {
    let (status, error, hint) = match reason {
        NotCeded::NotLeader => return moved(group),
        NotCeded::NotAVoter => (
            StatusCode::CONFLICT,
            "the node is no voter of the group",
            "`flintmq admin group show ID` lists the voters",
        ),
        NotCeded::Behind => (
            StatusCode::CONFLICT,
            "the node has to catch up before it can lead",
            "wait until `flintmq admin group show ID` shows it as normal, or use --force",
        ),
        NotCeded::Unfit => (
            StatusCode::CONFLICT,
            "the node had better not lead: its clock is off, or its disk is full or stalled",
            "its /readyz says which; mend that, or use --force",
        ),
        NotCeded::Busy => (
            StatusCode::CONFLICT,
            "another transfer of this leadership is under way",
            "ask again in a moment",
        ),
        NotCeded::GivenUp => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the node did not catch up in time, and the leader leads on",
            "ask again when it is less behind or less is published, or use --force",
        ),
    };
    Failure::new(status, format!("{error}, group={group} to={to}"), hint)
}

/// A group that does not exist.
pub(super) fn unknown_group(group: u32) -> Failure {
    Failure::not_found(format!("there is no such group, id={group}"), "`flintmq admin group list`")
}

/// The leader is elsewhere, which only another node is told: it looks again.
pub(super) fn moved(group: u32) -> Failure {
    Failure::new(
        StatusCode::MISDIRECTED_REQUEST,
        format!("this node does not lead the group now, group={group}"),
        "ask the leader",
    )
}

/// There is no leader that could answer.
pub(super) fn leaderless(group: u32) -> Failure {
    Failure::new(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("the group has no leader that can be asked, group={group}"),
        "ask again; `flintmq admin node list` shows which nodes are missing",
    )
}
