//! What a node counts, for metrics and for the coverage of simulations.

/// Events since the node was made; none of them ever falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeCounters {
    /// Packets sent, beats included.
    pub packets_sent: u64,
    /// Packets sent that had no message.
    pub beats_sent: u64,
    /// Messages sent.
    pub messages_sent: u64,
    /// Packets received, whatever came of them.
    pub packets_received: u64,
    /// Messages handed to their groups.
    pub messages_received: u64,
    /// Packets dropped: not for this node, or not from a peer.
    pub packets_misdirected: u64,
    /// Packets dropped: from a process that is no more.
    pub packets_outlived: u64,
    /// Packets for an earlier process of this node, or for none: signs of life at most, their
    /// messages are dropped.
    pub packets_for_others: u64,
    /// Packets dropped: from a process of which this node was not told yet.
    pub packets_early: u64,
    /// Packets that a newer one had overtaken, or that came again: they tell nothing of the sender.
    pub packets_overtaken: u64,
    /// Messages dropped: for a group that is not here.
    pub messages_unknown_group: u64,
    /// Messages dropped: for another making of a group.
    pub messages_other_creation: u64,
    /// Messages dropped: the peer's process is not known yet.
    pub messages_unsent: u64,
    /// Acknowledgements left out because a later one of the same flush says more.
    pub acks_left_out: u64,
    /// Peers that counted as down, for whatever reason.
    pub suspicions: u64,
    /// Peers that counted as down because they were silent.
    pub suspicions_by_silence: u64,
    /// Peers that counted as down although they are heard: they do not hear this node.
    pub suspicions_one_way: u64,
    /// Peers that counted as up (again).
    pub trusts: u64,
    /// New processes of peers.
    pub restarts_seen: u64,
    /// Times that this node itself was not run for so long that its peers' silence says nothing.
    pub late_steps: u64,
    /// Elections that began.
    pub elections: u64,
    /// Elections that had to wait for their turn.
    pub elections_held: u64,
    /// Elections that took so long that they were not counted any more.
    pub elections_uncounted: u64,
    /// Hard states given to the host.
    pub hard_states: u64,
    /// Batches of hard states given to the host.
    pub hard_state_batches: u64,
    /// Times that a group was let to send entries to a peer.
    pub grants: u64,
    /// Of these, times that the peer lacked decided entries.
    pub catch_up_grants: u64,
    /// Times that groups had to wait because too much was on the way to a peer.
    pub window_full: u64,
    /// Snapshots that had to wait for their turn.
    pub snapshots_held: u64,
    /// Times that a group was to be handed over because this node should not lead.
    pub unfit_hand_overs: u64,
    /// Last words of a stopped leader said again.
    pub last_words_repeated: u64,
}
