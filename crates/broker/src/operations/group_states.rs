//! All groups as their leaders see them. How far each member is only a group's leader knows, so the
//! leaders are asked; where one cannot be, this node tells what it knows itself.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::Method;
use flintmq_consensus::{GroupId, History, Index, NodeId, Term};
use flintmq_shard::GroupView;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::JoinSet;

use super::Node;

/// How long a leader may take to tell about its groups.
const PATIENCE: Duration = Duration::from_secs(2);

/// One group, as one node sees it. Other nodes and scripts read it as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupState {
    pub(crate) id: u32,
    pub(crate) kind: GroupKind,
    /// The node that serves it. Elected and not serving yet is not leading.
    pub(crate) leader: Option<u32>,
    pub(crate) term: Term,
    pub(crate) history: History,
    pub(crate) commit_index: Index,
    pub(crate) applied_index: Index,
    pub(crate) fsynced_index: Index,
    pub(crate) at_risk_entries: u64,
    pub(crate) at_risk_bytes: u64,
    /// The leader says that every member has everything, and no change of members is under way.
    pub(crate) settled: bool,
    pub(crate) members: Vec<MemberState>,
}

/// What a group replicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GroupKind {
    Controller,
    Partition,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemberState {
    pub(crate) node: u32,
    pub(crate) role: Role,
    pub(crate) state: Health,
    /// Up to where its log is known to be that of the leader.
    pub(crate) match_index: Option<Index>,
}

/// Whether a member votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Voter,
    Learner,
}

/// How a member is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Health {
    Normal,
    Recovering,
    Snapshot,
    Unreachable,
}

impl GroupState {
    /// Led, and no member is missing.
    pub(crate) fn is_healthy(&self) -> bool {
        self.leader.is_some() && self.members.iter().all(|member| member.state == Health::Normal)
    }
}

/// All groups as their leaders see them; asked by another node (`forwarded`), as this one does.
pub(crate) async fn all(node: &Node, forwarded: bool) -> Vec<GroupState> {
    let mut groups = here(node).await;
    let Some(peers) = node.peers.as_ref().filter(|_| !forwarded) else { return groups };
    let leaders: BTreeSet<NodeId> = groups
        .iter()
        .filter_map(|group| node.watch(group.id).ok()?.borrow().leader)
        .filter(|leader| leader.0 != node.id)
        .collect();
    let mut asked = JoinSet::new();
    for leader in leaders {
        let peers = peers.clone();
        asked.spawn(async move {
            let path = "/api/v1/groups";
            let reply = peers.ask(leader, Method::GET, path, &Value::Null, PATIENCE).await;
            (leader, reply)
        });
    }
    while let Some(answered) = asked.join_next().await {
        let Ok((leader, Ok(reply))) = answered else { continue };
        let Ok(theirs) = serde_json::from_value(reply.body) else {
            tracing::warn!(node = leader.0, "what the node tells about its groups cannot be read");
            continue;
        };
        take_those_led_by(leader, theirs, &mut groups);
    }
    groups
}

/// What each replica of this node knows of its group; without those that are stopping.
pub(crate) async fn here(node: &Node) -> Vec<GroupState> {
    let mut groups = Vec::with_capacity(node.replicas.len());
    for replica in &node.replicas {
        if let Some(view) = replica.inspect().await {
            groups.push(seen_here(node, replica.group(), &view));
        }
    }
    groups
}

/// A leader knows more of its groups, unless it has not noticed that it leads them no more.
fn take_those_led_by(leader: NodeId, theirs: Vec<GroupState>, groups: &mut [GroupState]) {
    for led in theirs.into_iter().filter(|group| group.leader == Some(leader.0)) {
        let known = groups.iter_mut().find(|known| known.id == led.id && known.term <= led.term);
        if let Some(known) = known {
            *known = led;
        }
    }
}

/// One group as this node sees it.
fn seen_here(node: &Node, id: GroupId, view: &GroupView) -> GroupState {
    let status = &view.status;
    let leader = status.leader.filter(|leader| leader.0 != node.id || status.serving);
    let member = |member: NodeId| {
        let peer = view.peers.iter().find(|peer| peer.node == member);
        let is_here = member.0 == node.id;
        let state = match peer {
            _ if is_here && status.recovering => Health::Recovering,
            _ if is_here => Health::Normal,
            _ if !node.reaches(member.0) => Health::Unreachable,
            Some(peer) if peer.recovering => Health::Recovering,
            Some(peer) if peer.snapshot => Health::Snapshot,
            _ => Health::Normal,
        };
        MemberState {
            node: member.0,
            role: if view.config.is_voter(member) { Role::Voter } else { Role::Learner },
            state,
            match_index: if is_here {
                Some(view.last.index)
            } else {
                peer.map(|peer| peer.matched)
            },
        }
    };
    GroupState {
        id: id.0,
        kind: if id == GroupId::CONTROLLER { GroupKind::Controller } else { GroupKind::Partition },
        leader: leader.map(|leader| leader.0),
        term: status.term,
        history: status.history,
        commit_index: status.commit_index,
        applied_index: status.applied_index,
        fsynced_index: status.fsynced_index,
        at_risk_entries: status.commit_index.saturating_sub(status.fsynced_index),
        at_risk_bytes: status.at_risk_bytes,
        settled: view.settled,
        members: view.config.members().into_iter().map(member).collect(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A group with these members.
    pub(crate) fn group(kind: GroupKind, settled: bool, members: &[(u32, Role)]) -> GroupState {
        let members = members.iter().map(|(node, role)| MemberState {
            node: *node,
            role: *role,
            state: Health::Normal,
            match_index: None,
        });
        GroupState {
            id: u32::from(kind == GroupKind::Partition),
            kind,
            leader: Some(1),
            term: 4,
            history: 0,
            commit_index: 9,
            applied_index: 9,
            fsynced_index: 8,
            at_risk_entries: 1,
            at_risk_bytes: 10,
            settled,
            members: members.collect(),
        }
    }

    #[test]
    fn scripts_and_other_nodes_read_these_fields() {
        let group = group(GroupKind::Partition, true, &[(1, Role::Voter)]);
        let text = serde_json::to_string(&group).unwrap();
        let expected = concat!(
            r#"{"id":1,"kind":"partition","leader":1,"term":4,"history":0,"commit_index":9,"#,
            r#""applied_index":9,"fsynced_index":8,"at_risk_entries":1,"at_risk_bytes":10,"#,
            r#""settled":true,"members":[{"node":1,"role":"voter","state":"normal","#,
            r#""match_index":null}]}"#,
        );
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<GroupState>(&text).unwrap(), group);
    }

    #[test]
    fn a_leader_is_believed_of_what_it_leads_in_a_term_that_is_not_over() {
        let known = group(GroupKind::Partition, false, &[]);
        let believed = |theirs: GroupState| {
            let mut groups = vec![known.clone()];
            take_those_led_by(NodeId(2), vec![theirs.clone()], &mut groups);
            groups[0] == theirs
        };
        let led = GroupState { leader: Some(2), settled: true, ..known.clone() };
        assert!(believed(led.clone()));
        assert!(believed(GroupState { term: 5, ..led.clone() }));
        assert!(!believed(GroupState { term: 3, ..led.clone() }));
        assert!(!believed(GroupState { leader: Some(3), ..led.clone() }));
        assert!(!believed(GroupState { id: 7, ..led }));
    }

    #[test]
    fn a_group_is_healthy_with_a_leader_and_all_members() {
        let mut group = group(GroupKind::Partition, true, &[(1, Role::Voter), (2, Role::Learner)]);
        assert!(group.is_healthy());
        group.members[1].state = Health::Snapshot;
        assert!(!group.is_healthy());
        group.members[1].state = Health::Normal;
        group.leader = None;
        assert!(!group.is_healthy());
    }
}
