//! Going on without members that are lost for good, on an administrator's word.
//!
//! All members that are not named as lost have to answer first: one that is left out could hold
//! messages that no other has. The member with the most then stands for election.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::Method;
use flintmq_consensus::{ConfigRegister, ConfigStamp, GroupId, History, Index, NodeId, Term};
use flintmq_shard::Recovery;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Node, Refused};
use crate::host::GroupAdmin;

/// How long a member may take to tell where it stands.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long the election by the order may take, with everything that is to be fetched.
const ELECTION: Duration = Duration::from_secs(30);

/// What a group goes on with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recovered {
    group: u32,
    leader: Option<u32>,
    term: Term,
    history: History,
    lost: BTreeSet<u32>,
}

/// Where a member stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Standing {
    node: u32,
    leads: bool,
    recovering: bool,
    history: History,
    last: (Term, Index),
    members: Members,
}

/// A configuration as nodes tell it to each other.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Members {
    stamp: (Term, u64),
    voters: Vec<u32>,
    outgoing: Vec<u32>,
    learners: Vec<u32>,
}

/// The order, from the node that was asked to the one that is to stand.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RecoverHere {
    lost: BTreeSet<u32>,
    history: History,
    members: Members,
    number: u32,
}

/// Has the group go on without these voters, and answers when it has a leader.
///
/// # Errors
/// Somebody who may hold more does not answer, nothing needs to be given up, or the election does
/// not come to an end in time.
pub(crate) async fn recover(
    node: &Node,
    group: u32,
    lost: BTreeSet<u32>,
) -> Result<Recovered, Refused> {
    let replica = node.replica(group)?;
    if let Some(recovered) = through_a_member(node, group, replica, &lost).await? {
        return Ok(recovered);
    }
    let standings = ask_everybody(node, group, replica, &lost).await?;
    let plan = plan(group, &lost, &standings)?;
    tracing::warn!(group, ?lost, stands = plan.candidate, "goes on without lost members as asked");
    let number = give(node, group, replica, &lost, plan).await?;
    let mut status = node.watch(group)?;
    let led = status.wait_for(|status| status.led && status.history == number);
    match timeout(ELECTION, led).await {
        Ok(Ok(led)) => Ok(Recovered {
            group,
            leader: led.leader.map(|leader| leader.0),
            term: led.term,
            history: led.history,
            lost,
        }),
        Ok(Err(_)) => Err(Refused::stopping()),
        Err(_) => Err(Refused::unavailable(
            format!("recovery has begun, and the group has no leader yet, group={group}"),
            "look at `flintmq admin group show ID` and the nodes' logs; then ask again",
        )),
    }
}

/// Has a member of the group do it, where this node is none: what it knows of the group may be old.
async fn through_a_member(
    node: &Node,
    group: u32,
    replica: &GroupAdmin,
    lost: &BTreeSet<u32>,
) -> Result<Option<Recovered>, Refused> {
    let view = replica.inspect().await.ok_or_else(Refused::stopping)?;
    let Some(peers) = &node.peers else { return Ok(None) };
    let roster = node.controller.membership();
    let Some(place) = roster.place(GroupId(group)) else { return Ok(None) };
    if view.config.is_member(NodeId(node.id)) || place.holds(NodeId(node.id)) {
        return Ok(None);
    }
    let left = place.voters.iter().filter(|voter| !lost.contains(voter));
    let Some(member) = left.copied().find(|voter| node.reaches(*voter)) else { return Ok(None) };
    let path = format!("/api/v1/groups/{group}/recover");
    let body = json!({ "lost": lost, "accept_loss": true });
    let limit = PATIENCE + ELECTION;
    let reply = peers.ask(NodeId(member), Method::POST, &path, &body, limit).await?;
    if !reply.status.is_success() {
        return Err(Refused::of_reply(&reply));
    }
    serde_json::from_value(reply.body).map(Some).map_err(|_| {
        Refused::unavailable(
            format!("the answer of a member cannot be read, group={group} node={member}"),
            "run the same version of flintmq on all nodes, and look at `flintmq admin group show ID`",
        )
    })
}

/// Where this node's member stands.
///
/// # Errors
/// There is no such group, or the node is stopping.
pub(crate) async fn standing(node: &Node, group: u32) -> Result<Standing, Refused> {
    own_standing(node, node.replica(group)?).await
}

/// Has this node's member stand for election.
///
/// # Errors
/// There is no such group.
pub(crate) async fn recover_here(
    node: &Node,
    group: u32,
    order: RecoverHere,
) -> Result<(), Refused> {
    node.replica(group)?.recover(order.into_recovery()).await;
    Ok(())
}

async fn own_standing(node: &Node, replica: &GroupAdmin) -> Result<Standing, Refused> {
    let mut view = replica.inspect().await.ok_or_else(Refused::stopping)?;
    // What is not durable yet may never have been. An fsync takes milliseconds.
    while !view.durable {
        tokio::time::sleep(Duration::from_millis(5)).await;
        view = replica.inspect().await.ok_or_else(Refused::stopping)?;
    }
    Ok(Standing {
        node: node.id,
        leads: view.status.serving,
        recovering: view.status.recovering,
        history: view.status.history,
        last: (view.last.term, view.last.index),
        members: Members::of(&view.config),
    })
}

/// Where all members stand that are not lost.
async fn ask_everybody(
    node: &Node,
    group: u32,
    replica: &GroupAdmin,
    lost: &BTreeSet<u32>,
) -> Result<Vec<Standing>, Refused> {
    let own = own_standing(node, replica).await?;
    let mut standings = vec![own];
    let path = format!("/nodes/v1/groups/{group}/standing");
    // Another one may know of members that this one has not heard of.
    let mut at = 0;
    while let Some(standing) = standings.get(at) {
        at += 1;
        for member in standing.members.all() {
            if lost.contains(&member) || standings.iter().any(|known| known.node == member) {
                continue;
            }
            let silent = || {
                Refused::conflict(
                    format!(
                        "a member does not answer, and may hold messages that no other has, group={group} node={member}"
                    ),
                    "bring it back; if it never comes back, name it with --lost, too",
                )
            };
            let peers = node.peers.as_ref().ok_or_else(silent)?;
            let asked = peers.ask(NodeId(member), Method::GET, &path, &Value::Null, PATIENCE);
            let reply = asked.await.map_err(|_| silent())?;
            let standing = serde_json::from_value(reply.body).map_err(|_| silent())?;
            standings.push(standing);
            at = 0;
            break;
        }
    }
    for lost in lost {
        if node.reaches(*lost) {
            return Err(Refused::conflict(
                format!("a node named as lost is up, group={group} node={lost}"),
                "what it has counts: leave it out of --lost",
            ));
        }
    }
    Ok(standings)
}

/// Who is to stand, by what.
struct Plan {
    candidate: u32,
    history: History,
    members: Members,
}

fn plan(group: u32, lost: &BTreeSet<u32>, standings: &[Standing]) -> Result<Plan, Refused> {
    let refused = |error: &str, hint: &'static str| {
        Refused::conflict(format!("{error}, group={group}"), hint)
    };
    if standings.iter().any(|standing| standing.leads) {
        let hint = "if it has lost its majority it steps down within seconds: ask again then";
        return Err(refused("the group has a leader, so that nothing needs to be given up", hint));
    }
    let newest = standings.iter().map(|standing| &standing.members).max_by_key(|m| m.stamp);
    let members = newest.ok_or_else(|| refused("no member is left", ""))?.clone();
    if !lost.iter().any(|node| members.is_voter(*node)) {
        return Err(refused(
            "none of the nodes named as lost is a voter of the group",
            "when all voters are back, the group goes on by itself",
        ));
    }
    let history = standings.iter().map(|standing| standing.history).max().unwrap_or_default();
    let fit = |standing: &&Standing| standing.history == history && members.is_voter(standing.node);
    let best = standings.iter().filter(fit).max_by_key(|s| (!s.recovering, s.last));
    let candidate = best.ok_or_else(|| {
        let hint = "bring back one of its voters; without any, the group's messages are gone";
        refused("no voter of the group is left", hint)
    })?;
    Ok(Plan { candidate: candidate.node, history, members })
}

/// Gives the order and tells its number, which the history has once it is carried out.
async fn give(
    node: &Node,
    group: u32,
    replica: &GroupAdmin,
    lost: &BTreeSet<u32>,
    plan: Plan,
) -> Result<History, Refused> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let number = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
    let Plan { candidate, history, members } = plan;
    let order = RecoverHere { lost: lost.clone(), history, members, number };
    if candidate == node.id {
        replica.recover(order.into_recovery()).await;
        return Ok(number);
    }
    let to = NodeId(candidate);
    let path = format!("/nodes/v1/groups/{group}/recover");
    let peers = node.peers.as_ref().ok_or(super::peer_calls::NoReply(to))?;
    let reply = peers.ask(to, Method::POST, &path, &json!(order), PATIENCE).await?;
    if reply.status.is_success() { Ok(number) } else { Err(Refused::of_reply(&reply)) }
}

impl RecoverHere {
    fn into_recovery(self) -> Recovery {
        Recovery {
            dead: self.lost.into_iter().map(NodeId).collect(),
            history: self.history,
            newest: self.members.into_config(),
            number: self.number,
        }
    }
}

impl Members {
    fn of(config: &ConfigRegister) -> Self {
        let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
        Self {
            stamp: (config.stamp.term, config.stamp.version),
            voters: numbers(&config.voters),
            outgoing: numbers(&config.outgoing),
            learners: numbers(&config.learners),
        }
    }

    fn into_config(self) -> ConfigRegister {
        let nodes = |mut numbers: Vec<u32>| {
            numbers.sort_unstable();
            numbers.dedup();
            numbers.into_iter().map(NodeId).collect()
        };
        let (term, version) = self.stamp;
        ConfigRegister {
            stamp: ConfigStamp { term, version },
            voters: nodes(self.voters),
            outgoing: nodes(self.outgoing),
            learners: nodes(self.learners),
        }
    }

    fn all(&self) -> BTreeSet<u32> {
        self.voters.iter().chain(&self.outgoing).chain(&self.learners).copied().collect()
    }

    fn is_voter(&self, node: u32) -> bool {
        self.voters.contains(&node) || self.outgoing.contains(&node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(node: u32, history: History, last: (Term, Index)) -> Standing {
        let members = Members {
            stamp: (1, 1),
            voters: vec![1, 2, 3],
            outgoing: Vec::new(),
            learners: Vec::new(),
        };
        Standing { node, leads: false, recovering: false, history, last, members }
    }

    fn candidate(lost: &[u32], standings: &[Standing]) -> Result<u32, Refused> {
        plan(1, &lost.iter().copied().collect(), standings).map(|plan| plan.candidate)
    }

    #[test]
    fn the_member_with_the_most_of_the_newest_history_stands() {
        let (first, second) = (standing(1, 0, (4, 90)), standing(2, 0, (5, 70)));
        assert_eq!(candidate(&[3], &[first.clone(), second.clone()]).unwrap(), 2);
        let newer = Standing { history: 7, ..first };
        assert_eq!(candidate(&[3], &[newer.clone(), second.clone()]).unwrap(), 1);
        let recovering = Standing { recovering: true, history: 0, ..newer };
        assert_eq!(candidate(&[3], &[recovering, second]).unwrap(), 2);
    }

    #[test]
    fn without_need_or_without_a_voter_nothing_is_given_up() {
        let rest = [standing(1, 0, (4, 90)), standing(2, 0, (5, 70))];
        assert!(candidate(&[], &rest).is_err());
        assert!(candidate(&[9], &rest).is_err());
        let led = [Standing { leads: true, ..rest[0].clone() }, rest[1].clone()];
        assert!(candidate(&[3], &led).is_err());
        assert!(candidate(&[1, 2, 3], &[standing(4, 0, (5, 70))]).is_err());
    }
}
