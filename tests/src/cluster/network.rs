//! The network between the nodes of a cluster: what a test can do to it.

use std::time::Duration;

use super::relay::{Relay, Rules};
use super::{Cluster, NODES};

/// What passes between the nodes of a cluster that was built with relays.
#[derive(Debug)]
pub(super) struct Network {
    rules: Rules,
    relays: Vec<Relay>,
}

impl Cluster {
    /// Drops every packet from `from` to `to`, of a cluster built with
    /// [`ClusterBuilder::relayed`](super::ClusterBuilder::relayed). The other direction stays.
    ///
    /// # Panics
    /// When the cluster has no relays.
    #[track_caller]
    pub fn cut(&self, from: usize, to: usize) {
        self.network().rules.cut(from, to);
    }

    /// Lets every packet from `from` to `to` arrive so much later, of a cluster built with
    /// [`ClusterBuilder::relayed`](super::ClusterBuilder::relayed).
    ///
    /// # Panics
    /// When the cluster has no relays.
    #[track_caller]
    pub fn delay(&self, from: usize, to: usize, by: Duration) {
        self.network().rules.delay(from, to, by);
    }

    /// Drops so many of a hundred packets on every link, in both directions.
    ///
    /// # Panics
    /// When the cluster has no relays.
    #[track_caller]
    pub fn lose_everywhere(&self, of_hundred: u8) {
        for (from, to) in links() {
            self.network().rules.lose(from, to, of_hundred);
        }
    }

    /// Lets every packet arrive so much later, on every link, in both directions.
    ///
    /// # Panics
    /// When the cluster has no relays.
    #[track_caller]
    pub fn delay_everywhere(&self, by: Duration) {
        for (from, to) in links() {
            self.delay(from, to, by);
        }
    }

    /// Cuts a node off from both others, in both directions.
    ///
    /// # Panics
    /// When the cluster has no relays.
    #[track_caller]
    pub fn isolate(&self, node: usize) {
        for other in self.others(node) {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    /// Lets all packets through again.
    ///
    /// # Panics
    /// When the cluster has no relays.
    #[track_caller]
    pub fn heal(&self) {
        self.network().rules.heal();
    }

    /// How many packets were dropped so far.
    ///
    /// # Panics
    /// When the cluster has no relays.
    #[track_caller]
    pub fn dropped_packets(&self) -> u64 {
        self.network().rules.dropped()
    }

    #[track_caller]
    fn network(&self) -> &Network {
        self.network.as_ref().expect("a cluster built with relayed()")
    }
}

impl Network {
    /// Relays for each pair of nodes; `listen` is where each node listens.
    pub(super) fn between(listen: &[u16; 3]) -> Self {
        let rules = Rules::default();
        let mut relays = Vec::new();
        for (from, to) in links() {
            relays.push(Relay::start(from, to, listen[to - 1], &rules));
        }
        Self { rules, relays }
    }

    /// Where `from` finds `to`.
    pub(super) fn port(&self, from: usize, to: usize) -> u16 {
        let relay = self.relays.iter().find(|relay| relay.joins(from, to));
        relay.expect("a relay for each pair").port()
    }
}

/// Each pair of nodes, in both directions.
fn links() -> impl Iterator<Item = (usize, usize)> {
    let all = NODES.into_iter().flat_map(|from| NODES.map(|to| (from, to)));
    all.filter(|(from, to)| from != to)
}
