//! Who leads which group, as nodes tell it and as they have logged it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Cluster, NODES};
use crate::wait::until;

/// One leadership of a partition that served, from a node's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lead {
    /// The partition's group.
    pub group: u64,
    /// Its term.
    pub term: u64,
    /// The node.
    pub node: usize,
}

impl Cluster {
    /// Waits until the queue's partition has a leader, and has it lead on although another node
    /// usually does: only a failure moves the leadership from here on. `queue` is `domain/queue`
    /// and exists.
    ///
    /// # Panics
    /// When nobody leads, or the leader does not take the order.
    #[track_caller]
    pub fn hold_leader(&self, queue: &str) -> usize {
        let leader = self.wait_for_leader(queue);
        let shown = self.node(leader).admin().get_json(&format!("/api/v1/queues/{queue}"));
        self.hold_group(shown["group"].as_u64().expect("a group"), leader);
        self.wait_for_leader(queue);
        leader
    }

    /// Has this node lead the group, and lead on: only a failure moves the leadership from here on.
    ///
    /// # Panics
    /// When it does not take the order.
    #[track_caller]
    pub fn hold_group(&self, group: u64, leader: usize) {
        let path = format!("/api/v1/groups/{group}/transfer");
        let body = json!({ "to": leader }).to_string();
        until(&format!("node {leader} to lead group {group} on"), || {
            let answer = self.node(leader).admin().send("POST", &path, &body);
            (answer.status == 200).then_some(())
        });
    }

    /// Waits until these nodes tell the same of all groups, and each group has a leader.
    ///
    /// # Panics
    /// When they never do.
    #[track_caller]
    pub fn wait_for_agreement(&self, nodes: &[usize]) -> Value {
        until(&format!("{nodes:?} to agree who leads each group"), || {
            let mut said = nodes.iter().map(|node| self.leaders_as_seen_by(*node));
            let first = said.next()??;
            said.all(|other| other.as_ref() == Some(&first)).then_some(())
        });
        self.node(nodes[0]).admin().get_json("/api/v1/groups")
    }

    /// Group, leader and term of each group, when all of them have leaders.
    fn leaders_as_seen_by(&self, node: usize) -> Option<Vec<(u64, u64, u64)>> {
        let answer = self.node(node).admin().try_get("/api/v1/groups?here=true")?;
        let groups = (answer.status == 200).then(|| answer.json())?;
        let number = |group: &Value, name: &str| group[name].as_u64();
        let seen =
            |group| Some((number(group, "id")?, number(group, "leader")?, number(group, "term")?));
        groups.as_array()?.iter().map(seen).collect()
    }

    /// How many terms all groups together have seen, elections without a winner among them.
    ///
    /// # Panics
    /// When a node does not answer.
    #[track_caller]
    pub fn terms(&self) -> u64 {
        let mut terms: BTreeMap<u64, u64> = BTreeMap::new();
        for node in NODES.into_iter().filter(|node| self.node(*node).runs()) {
            let groups = self.node(node).admin().get_json("/api/v1/groups?here=true");
            for group in groups.as_array().into_iter().flatten() {
                let term = group["term"].as_u64().unwrap_or_default();
                let known = terms.entry(group["id"].as_u64().unwrap_or_default()).or_default();
                *known = term.max(*known);
            }
        }
        terms.values().sum()
    }

    /// Every leadership of a partition so far.
    pub fn leads(&self) -> Vec<Lead> {
        let mut leads: Vec<Lead> = Vec::new();
        for node in NODES {
            let log = self.node(node).log();
            leads.extend(log.lines().filter_map(|line| read(line, node)));
        }
        leads.sort_unstable();
        leads
    }

    /// Requires that no two nodes led a partition in the same term.
    ///
    /// # Panics
    /// When two did.
    #[track_caller]
    pub fn assert_one_leader_per_term(&self) {
        let leads = self.leads();
        assert!(!leads.is_empty(), "somebody has led");
        for pair in leads.windows(2) {
            let same = (pair[0].group, pair[0].term) == (pair[1].group, pair[1].term);
            assert!(!same || pair[0].node == pair[1].node, "two leaders in one term: {pair:?}");
        }
    }
}

fn read(line: &str, node: usize) -> Option<Lead> {
    let (_, facts) = line.split_once("leadership: leads group=")?;
    let (group, term) = facts.split_once(" term=")?;
    Some(Lead { group: group.parse().ok()?, term: term.trim().parse().ok()?, node })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lead_is_read_from_a_log() {
        let line = "2026-01-01T00:00:00Z  INFO flintmq_broker::partition::leadership: leads group=2 term=17";
        assert_eq!(read(line, 3), Some(Lead { group: 2, term: 17, node: 3 }));
        assert_eq!(read(&line.replace("leads", "leads no more"), 3), None);
    }
}
