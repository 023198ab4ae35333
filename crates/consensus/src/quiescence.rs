//! Groups in which nothing happens need no timer and no message
//! (docs/internals/consensus.md#quiescence).

use crate::core::{Core, Turn};
use crate::durability::After;
use crate::progress::Flow;
use crate::{Body, LogPosition, NodeId, Role, Term, Time};

impl Core {
    /// Looks again later whether the group may go to rest.
    pub(crate) fn plan_quiescence(&mut self, now: Time) {
        let after = self.settings.quiesce_after;
        if let Some(leading) = &mut self.leading {
            leading.quiesce_due = leading.quiesce_due.or(Some(now + after));
        }
    }

    /// The group is not at rest, or no more.
    pub(crate) fn wake(&mut self, turn: &mut Turn<'_>) {
        self.quiesced = false;
        if let Some(leading) = &mut self.leading {
            for peer in &mut leading.progress {
                peer.quiesced = false;
            }
        }
        self.plan_quiescence(turn.now);
    }

    /// Members that keep the group from resting: the reachable ones that lack something.
    fn is_idle(&self) -> bool {
        let last = self.log.last().index;
        let Some(leading) = self.leading.as_ref().filter(|leading| leading.serving) else {
            return false;
        };
        self.commit == last
            && leading.transfer.is_none()
            && leading.reads.is_empty()
            && self.durability.is_hard_state_synced()
            && !self.hard.config.is_joint()
            && leading.progress.iter().filter(|peer| self.is_up(peer.node)).all(|peer| {
                peer.acked == last
                    && peer.flow == Flow::Replicate
                    && peer.recovering.is_none()
                    && peer.config == self.hard.config.stamp
            })
    }

    pub(crate) fn on_quiesce_due(&mut self, turn: &mut Turn<'_>) {
        if self.role != Role::Ready || self.quiesced {
            return;
        }
        let after = self.settings.quiesce_after;
        let last = self.log.last();
        let idle = self.is_idle();
        let down = self.down.clone();
        let Some(leading) = &mut self.leading else { return };
        let rested = leading.last_activity + after;
        leading.quiesce_due = Some(if rested > turn.now { rested } else { turn.now + after });
        if rested > turn.now {
            return;
        }
        if !idle {
            self.ask_the_last(turn);
            return;
        }
        let lagging: Vec<NodeId> =
            leading.progress.iter().map(|peer| peer.node).filter(|n| down.contains(n)).collect();
        let asked: Vec<NodeId> = leading
            .progress
            .iter()
            .filter(|peer| !peer.quiesced && !down.contains(&peer.node))
            .map(|peer| peer.node)
            .collect();
        for node in &asked {
            let lagging = lagging.clone();
            self.send(turn, *node, Body::Quiesce { last, lagging }, After::HardState);
        }
        if asked.is_empty() {
            self.rest();
        }
    }

    /// Members that have every entry keep the group from resting only as long as they recover or
    /// hold an older configuration. Their word that this is over may have been lost, and nothing is
    /// on the way that would make them repeat it.
    fn ask_the_last(&mut self, turn: &mut Turn<'_>) {
        let last = self.log.last().index;
        let stamp = self.hard.config.stamp;
        let Some(leading) = &self.leading else { return };
        let asked: Vec<NodeId> = leading
            .progress
            .iter()
            .filter(|peer| self.is_up(peer.node) && peer.acked == last && !peer.awaits_answer())
            .filter(|peer| peer.recovering.is_some() || peer.config != stamp)
            .map(|peer| peer.node)
            .collect();
        for node in asked {
            self.send_empty(turn, node);
        }
    }

    fn rest(&mut self) {
        let commit = self.commit;
        self.durability.shrink();
        if let Some(leading) = &mut self.leading {
            leading.quiesce_due = None;
            leading.commit_due = None;
            leading.uncommitted.shrink_to_fit();
            leading.progress.shrink_to_fit();
            for peer in &mut leading.progress {
                peer.shrink();
                peer.retry_at = None;
                if peer.quiesced {
                    peer.commit_sent = commit;
                }
            }
            leading.cache.clear();
            self.quiesced = true;
        }
    }

    pub(crate) fn on_quiesce(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        term: Term,
        last: LogPosition,
    ) {
        if term < self.hard.term {
            self.send(turn, from, Body::Refused { newer: None }, After::HardState);
            return;
        }
        if term > self.hard.term || self.leader != Some(from) || self.role != Role::Follower {
            return;
        }
        if self.log.last() != last {
            // Something was lost on the way, or here: the leader looks again.
            let hint = self.log.greatest_at_most(last.index, last.term);
            self.send_ack(turn, from, Err(hint));
            return;
        }
        self.verified = last.index;
        self.raise_commit(turn, last.index);
        self.quiesced = true;
        self.durability.shrink();
        self.send(turn, from, Body::Quiesced { last }, After::Writes);
    }

    pub(crate) fn on_quiesced(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        term: Term,
        last: LogPosition,
    ) {
        if term > self.hard.term {
            self.adopt_term(turn, term, None);
            return;
        }
        if term < self.hard.term || self.role != Role::Ready || last != self.log.last() {
            return;
        }
        if let Some(peer) = self.leading.as_mut().and_then(|leading| leading.progress_mut(from)) {
            peer.quiesced = true;
        }
        let all = self.leading.as_ref().is_some_and(|leading| {
            leading.progress.iter().all(|peer| peer.quiesced || !self.is_up(peer.node))
        });
        if all && self.is_idle() {
            self.rest();
        }
    }

    /// The host of a follower wants to hear from the leader.
    pub(crate) fn on_wake_asked(&mut self, turn: &mut Turn<'_>) {
        match self.leader {
            Some(leader) if leader == self.node => self.wake(turn),
            Some(leader) if self.is_up(leader) => {
                self.send(turn, leader, Body::Wake, After::HardState);
            }
            _ => {
                if let Some(deadline) = &mut self.election.deadline {
                    *deadline = (*deadline).min(turn.now);
                }
            }
        }
    }

    pub(crate) fn on_wake(&mut self, turn: &mut Turn<'_>, from: NodeId, term: Term) {
        if term > self.hard.term {
            self.adopt_term(turn, term, None);
        } else if self.role == Role::Ready {
            self.wake(turn);
            self.send_empty(turn, from);
        } else {
            // Whoever it follows, this is not a leader: the term tells it so when it is newer.
            self.send(turn, from, Body::Refused { newer: None }, After::HardState);
        }
    }
}
