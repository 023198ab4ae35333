//! One group on its node: the core, and what the node keeps for it.

use super::budget::Account;
use super::elections::Standing;
use crate::{Body, ConfigStamp, Core, Effect, Message, NodeId, Time};

/// A group and its place in the node's books.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) core: Core,
    /// When its timer goes off.
    pub(super) armed: Option<Time>,
    pub(super) standing: Standing,
    /// What it asked for since the last flush.
    pub(super) effects: Vec<Effect>,
    /// It is in the list of groups to be flushed.
    pub(super) dirty: bool,
    /// Nodes whose going up and down it is told, ascending.
    pub(super) peers: Vec<NodeId>,
    /// What `peers` was found from.
    pub(super) peers_of: Option<(ConfigStamp, Option<NodeId>)>,
    /// What it has on the way, while it leads.
    pub(super) accounts: Vec<Account>,
    /// What it said when it stopped for good as a leader. It will not answer any more, so this is
    /// said again to whoever may not have heard it.
    pub(super) last_words: Vec<Message>,
}

impl Group {
    pub(super) fn new(core: Core) -> Self {
        Self {
            core,
            armed: None,
            standing: Standing::default(),
            effects: Vec::new(),
            dirty: false,
            peers: Vec::new(),
            peers_of: None,
            accounts: Vec::new(),
            last_words: Vec::new(),
        }
    }

    /// Everybody whose liveness matters to the group, ascending: the members and the leader, which
    /// may be none as far as is known here.
    pub(super) fn find_peers(&self) -> Vec<NodeId> {
        let mut peers = self.core.config().members();
        if let Some(leader) = self.core.leader()
            && let Err(at) = peers.binary_search(&leader)
        {
            peers.insert(at, leader);
        }
        peers.retain(|peer| *peer != self.core.node());
        peers
    }

    pub(super) fn account_mut(&mut self, peer: NodeId) -> Option<&mut Account> {
        self.accounts.iter_mut().find(|account| account.peer == peer)
    }

    /// Keeps what a leader says while it stops.
    pub(super) fn keep_last_words(&mut self) {
        let cessions = self.effects.iter().filter_map(|effect| match effect {
            Effect::Send(message) if matches!(message.body, Body::Cede { .. }) => {
                Some(message.clone())
            }
            _ => None,
        });
        self.last_words.extend(cessions);
    }

    /// True when the sender of this message seems not to know that the leadership here ended: it
    /// speaks to a leader, or scouts without the proof. Whoever has the proof should not be
    /// disturbed.
    pub(super) fn may_not_have_heard(&self, message: &Message) -> bool {
        match &message.body {
            Body::Wake | Body::Ack { .. } | Body::Confirmed { .. } | Body::Quiesced { .. } => true,
            Body::Scout { cession, .. } => {
                cession.is_none_or(|proof| proof.leader != self.core.node())
            }
            _ => false,
        }
    }

    /// The voter that has most, of those that are up and `suits` takes, where this group is led:
    /// the one to hand it to. Several that are equal take turns over the groups.
    pub(super) fn best_successor(&self, suits: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let fit = || {
            let config = self.core.config();
            let can = |node| config.is_voter(node) && self.core.is_up(node) && suits(node);
            self.core.progress().iter().filter(move |peer| can(peer.node))
        };
        let most = fit().map(|peer| (peer.recovering.is_none(), peer.acked)).max()?;
        let best = || fit().filter(|peer| (peer.recovering.is_none(), peer.acked) == most);
        let turn = usize::try_from(self.core.group().0).unwrap_or(0) % best().count();
        best().nth(turn).map(|peer| peer.node)
    }
}
