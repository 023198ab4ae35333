//! Who answers for a group: its leader, wherever it is; and handing its leadership over.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use flintmq_consensus::{NodeId, Term};
use flintmq_shard::{Ceded, NotCeded};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::{Node, Refused};

/// How long a request waits for a group to have a leader.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the next leader may take until it serves: one that is far behind fetches what it lacks
/// first, however slow its links are.
const TAKE_OVER: Duration = Duration::from_secs(60);

/// How long the leader may take until it has handed over, or given that up.
const HAND_OVER: Duration = Duration::from_secs(10);

/// A pause before the leader is looked for again.
const AGAIN: Duration = Duration::from_millis(20);

/// What a leader elsewhere is asked for.
pub(crate) struct ForLeader<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    pub(crate) body: Value,
    pub(crate) limit: Duration,
}

impl<'a> ForLeader<'a> {
    /// Looks at something.
    pub(crate) fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, body: Value::Null, limit: PATIENCE }
    }
}

/// An order to hand a leadership over.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Transfer {
    pub(crate) to: u32,
    /// At once, even if it is behind.
    #[serde(default)]
    pub(crate) force: bool,
}

/// A leadership that was handed over, and is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Transferred {
    group: u32,
    from: u32,
    to: u32,
    term: Term,
    leaderless_ms: f64,
}

/// To the next leader: tell when it serves, in a term above this one.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Keep {
    above: Term,
}

/// It serves, in this term.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    term: Term,
}

/// Has the group's leader answer, if that is another node. None: this node leads, and is to answer
/// itself. What another node forwarded is not forwarded again.
///
/// # Errors
/// There is no leader, it cannot be asked, or it refuses.
pub(crate) async fn ask_leader(
    node: &Node,
    group: u32,
    forwarded: bool,
    asked: &ForLeader<'_>,
) -> Result<Option<Value>, Refused> {
    let Some(peers) = &node.peers else { return Ok(None) };
    let status = node.watch(group)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let present = *status.borrow();
        if present.serving {
            return Ok(None);
        }
        if forwarded {
            return Err(Refused::moved(group));
        }
        let leader = present.leader.filter(|leader| leader.0 != node.id);
        if let Some(leader) = leader {
            let ForLeader { method, path, body, limit } = asked;
            match peers.ask(leader, method.clone(), path, body, *limit).await {
                Ok(reply) if reply.status.is_success() => return Ok(Some(reply.body)),
                Ok(reply) if reply.status == StatusCode::MISDIRECTED_REQUEST => {}
                Ok(reply) => return Err(Refused::of_reply(&reply)),
                // It may have done it: the operator has to look.
                Err(error) if *method != Method::GET => return Err(error.into()),
                Err(_) => {}
            }
        }
        if Instant::now() >= deadline {
            return Err(Refused::leaderless(group));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Transfers the leadership of a group, wherever it is, and answers when the next leader serves.
///
/// # Errors
/// It stays where it is, or went to another node.
pub(crate) async fn transfer(
    node: &Node,
    group: u32,
    forwarded: bool,
    order: Transfer,
) -> Result<Transferred, Refused> {
    let replica = node.replica(group)?;
    let asked = ForLeader {
        method: Method::POST,
        path: &format!("/api/v1/groups/{group}/transfer"),
        body: json!(order),
        limit: PATIENCE + HAND_OVER + TAKE_OVER,
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask_leader(node, group, forwarded, &asked).await? {
            return serde_json::from_value(answer).map_err(|_| unreadable(group));
        }
        if order.to == node.id {
            replica.keep_leadership().await;
            let view = replica.inspect().await.ok_or_else(Refused::stopping)?;
            let term = view.status.term;
            return Ok(Transferred::new(group, node.id, node.id, term, Duration::ZERO));
        }
        match cede(node, group, order).await {
            Ok(ceded) => return take_over(node, group, order.to, ceded).await,
            // It was lost to another node just now: that one is to be asked.
            Err(refused) if refused.is_moved() && !forwarded && Instant::now() < deadline => {
                tokio::time::sleep(AGAIN).await;
            }
            Err(refused) => return Err(refused),
        }
    }
}

/// Answers when this node leads the group and serves, and keeps it leading although another node
/// usually does.
///
/// # Errors
/// Another node leads, or none does in time.
pub(crate) async fn keep(node: &Node, group: u32, order: Keep) -> Result<Kept, Refused> {
    let replica = node.replica(group)?;
    let mut status = node.watch(group)?;
    // Any node that serves, if it is another one after all.
    let led = status.wait_for(|status| status.led && status.term > order.above);
    let led = match timeout(TAKE_OVER, led).await {
        Ok(Ok(status)) => *status,
        Ok(Err(_)) => return Err(Refused::stopping()),
        Err(_) => return Err(Refused::leaderless(group)),
    };
    if !led.serving {
        return Err(Refused::moved(group));
    }
    replica.keep_leadership().await;
    Ok(Kept { term: led.term })
}

async fn cede(node: &Node, group: u32, order: Transfer) -> Result<Ceded, Refused> {
    let replica = node.replica(group)?;
    let to = NodeId(order.to);
    let view = replica.inspect().await.ok_or_else(Refused::stopping)?;
    if !view.config.is_voter(to) {
        return Err(not_ceded(NotCeded::NotAVoter, group, to));
    }
    if node.peers.as_ref().is_none_or(|peers| !peers.is_reachable(to)) {
        return Err(Refused::conflict(
            format!("the node cannot be reached, so it cannot lead, group={group} to={to}"),
            "start it, or choose another: `flintmq admin node list`",
        ));
    }
    tracing::info!(group, to = to.0, force = order.force, "transfers the leadership as asked");
    match timeout(HAND_OVER, replica.transfer(to, order.force)).await {
        Ok(Some(Ok(ceded))) => Ok(ceded),
        Ok(Some(Err(reason))) => Err(not_ceded(reason, group, to)),
        Ok(None) => Err(Refused::stopping()),
        Err(_) => Err(not_ceded(NotCeded::GivenUp, group, to)),
    }
}

/// Waits until the next leader serves.
async fn take_over(node: &Node, group: u32, to: u32, ceded: Ceded) -> Result<Transferred, Refused> {
    let path = format!("/nodes/v1/groups/{group}/keep");
    let body = json!(Keep { above: ceded.term });
    let peers = node.peers.as_ref().ok_or_else(|| Refused::leaderless(group))?;
    let deadline = Instant::now() + TAKE_OVER;
    let leader = loop {
        let limit = deadline.saturating_duration_since(Instant::now()) + AGAIN;
        let reply = peers.ask(NodeId(to), Method::POST, &path, &body, limit).await.ok();
        let leaderless_for = node.clock.now().since(ceded.since);
        let kept = reply.filter(|reply| reply.status.is_success());
        let kept = kept.and_then(|reply| serde_json::from_value::<Kept>(reply.body).ok());
        if let Some(Kept { term }) = kept {
            return Ok(Transferred::new(group, node.id, to, term, leaderless_for));
        }
        // Another node was faster, or none can, or the two nodes missed each other for a moment.
        let mut status = node.watch(group)?;
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
        return Err(Refused::unavailable(
            format!(
                "leadership was given up, and the node does not serve yet, group={group} to={to}"
            ),
            "`flintmq admin group show ID` tells when it does; if another node should, order that",
        ));
    };
    Err(Refused::conflict(
        format!("another node took the leadership, group={group} to={to} leader={leader}"),
        "ask again; if it happens again, look at the log of the node that should lead",
    ))
}

impl Transferred {
    fn new(group: u32, from: u32, to: u32, term: Term, leaderless: Duration) -> Self {
        let leaderless_ms = (leaderless.as_secs_f64() * 10_000.0).round() / 10.0;
        Self { group, from, to, term, leaderless_ms }
    }
}

fn unreadable(group: u32) -> Refused {
    Refused::unavailable(
        format!("the answer of the node that leads cannot be read, group={group}"),
        "run the same version of flintmq on all nodes; `flintmq admin group show ID` shows who leads",
    )
}

fn not_ceded(reason: NotCeded, group: u32, to: NodeId) -> Refused {
    let named = |error: &str| format!("{error}, group={group} to={to}");
    match reason {
        NotCeded::NotLeader => Refused::moved(group),
        NotCeded::NotAVoter => Refused::conflict(
            named("the node is no voter of the group"),
            "`flintmq admin group show ID` lists the voters",
        ),
        NotCeded::Behind => Refused::conflict(
            named("the node has to catch up before it can lead"),
            "wait until `flintmq admin group show ID` shows it as normal, or use --force",
        ),
        NotCeded::Unfit => Refused::conflict(
            named("the node must not lead: its clock is off, or its disk is full or stalled"),
            "its /readyz says which; set that right, or use --force",
        ),
        NotCeded::Busy => Refused::conflict(
            named("another transfer of this leadership is under way"),
            "ask again in a moment",
        ),
        NotCeded::GivenUp => Refused::unavailable(
            named("the node did not catch up in time, and the leader leads on"),
            "ask again when it is less behind or less is published, or use --force",
        ),
    }
}
