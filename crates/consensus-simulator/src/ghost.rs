//! What an all-seeing observer knows of a group, and the invariants that it checks with it.
//!
//! Logs are compared by terms: two logs that have an entry of the same term at the same index are
//! equal up to there, which [`Ghost::written`] sees to for every entry that is ever written.

use std::collections::{BTreeMap, BTreeSet};

use flintmq_consensus::{
    ConfigRegister, Entry, History, Index, LogTerms, NodeId, ProducerSequence, Term,
};

use crate::machine::content;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name.
    pub invariant: &'static str,
    /// What was seen.
    pub detail: String,
}

pub(crate) type Check = Result<(), Violation>;

pub(crate) fn violated(invariant: &'static str, detail: String) -> Check {
    Err(Violation { invariant, detail })
}

macro_rules! ensure {
    ($holds:expr, $invariant:expr, $($detail:tt)*) => {
        if !$holds {
            return Err($crate::ghost::Violation {
                invariant: $invariant,
                detail: format!($($detail)*),
            });
        }
    };
}
pub(crate) use ensure;

/// The log of one leadership.
#[derive(Clone, Debug)]
struct LeaderLog {
    before: LogTerms,
    last: Index,
}

/// An acknowledged entry: its term, and the first leader that decided it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Acked {
    term: Term,
    leader: Term,
}

/// A forced recovery.
#[derive(Clone, Debug)]
pub(crate) struct Fork {
    pub(crate) history: History,
    participants: BTreeSet<NodeId>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ghost {
    /// Each entry ever written: the term before it, and its content.
    entries: BTreeMap<(Index, Term), (Term, u64)>,
    elected: BTreeMap<Term, (NodeId, u64)>,
    leader_logs: BTreeMap<Term, LeaderLog>,
    acked: Vec<Acked>,
    /// What was acknowledged and given up by a forced recovery. A later one that does not know of
    /// that recovery may find it again.
    given_up: BTreeMap<(Index, Term), Acked>,
    /// Up to where an acknowledgement of this node was counted for what is acknowledged.
    holders: BTreeMap<NodeId, Index>,
    /// Whose snapshot of a later history may be on the disk, the history's number not yet.
    pub(crate) installing: BTreeSet<NodeId>,
    digests: BTreeMap<Index, u64>,
    sequences: BTreeMap<ProducerSequence, Index>,
    pub(crate) forks: Vec<Fork>,
    terms: BTreeMap<NodeId, Term>,
}

impl Ghost {
    /// How many entries are acknowledged.
    pub(crate) fn acked(&self) -> Index {
        self.acked.len() as Index
    }

    /// How many leaderships there were.
    pub(crate) fn elections(&self) -> u64 {
        self.elected.len() as u64
    }

    fn acked_at(&self, index: Index) -> Option<Acked> {
        self.acked.get(usize::try_from(index.checked_sub(1)?).ok()?).copied()
    }

    /// I3: entries of one term at one index have one content and one past.
    pub(crate) fn written(&mut self, before: Term, entries: &[Entry]) -> Check {
        let mut before = before;
        for entry in entries {
            let is = (before, content(entry));
            let was = self.entries.entry((entry.index, entry.term)).or_insert(is);
            ensure!(*was == is, "I3 LogMatching", "{:?} was {was:?}, is {is:?}", entry.position());
            before = entry.term;
        }
        Ok(())
    }

    /// I1: one process leads a term.
    pub(crate) fn elected(&mut self, term: Term, node: NodeId, run: u64) -> Check {
        let was = *self.elected.entry(term).or_insert((node, run));
        ensure!(
            was == (node, run),
            "I1 ElectionSafety",
            "term {term} is led by node {} run {} and by node {node} run {run}",
            was.0,
            was.1
        );
        Ok(())
    }

    /// I2: a node's term never falls, whatever happened to it.
    pub(crate) fn has_term(&mut self, node: NodeId, term: Term) -> Check {
        let before = self.terms.entry(node).or_insert(term);
        ensure!(term >= *before, "I2 TermMonotone", "node {node} had term {before}, has {term}");
        *before = term;
        Ok(())
    }

    /// Somebody is ready to lead, with this log.
    pub(crate) fn leads(&mut self, term: Term, log: &LogTerms) {
        self.leader_logs.insert(term, LeaderLog { before: log.clone(), last: log.last().index });
    }

    /// I5: who is ready to lead has all that earlier leaders decided.
    pub(crate) fn ready(&self, node: NodeId, term: Term, log: &LogTerms) -> Check {
        for (offset, acked) in self.acked.iter().enumerate() {
            let index = offset as Index + 1;
            if acked.leader <= term && index >= log.floor().index {
                let has = log.term_at(index);
                ensure!(
                    has == Some(acked.term),
                    "I5 LeaderCompleteness",
                    "node {node} is ready in term {term} with {has:?} at {index}; decided was {}",
                    acked.term
                );
            }
        }
        ensure!(
            log.floor().index <= self.acked(),
            "I5 LeaderCompleteness",
            "node {node} compacted up to {} what is decided up to {} only",
            log.floor().index,
            self.acked()
        );
        Ok(())
    }

    pub(crate) fn leader_wrote(&mut self, term: Term, last: Index) {
        if let Some(log) = self.leader_logs.get_mut(&term) {
            log.last = log.last.max(last);
        }
    }

    /// True of a history that the group has left: who is still in it may hear, late, of what was
    /// decided in it and given up since. It will have to give way.
    pub(crate) fn is_left(&self, history: History) -> bool {
        self.forks.last().is_some_and(|fork| history < fork.history)
    }

    /// I6 and I10: what one replica takes for decided is what others took for decided, and only
    /// leaders decide.
    pub(crate) fn decided(
        &mut self,
        node: NodeId,
        leads: Option<Term>,
        after: Index,
        upto: Index,
        log: &LogTerms,
    ) -> Check {
        for index in after.max(log.floor().index) + 1..=upto {
            let Some(term) = log.term_at(index) else {
                return violated("I10 CommitSound", format!("node {node} has no entry {index}"));
            };
            if let Some(acked) = self.acked_at(index) {
                ensure!(
                    acked.term == term,
                    "I6 StateMachineSafety",
                    "at {index}, {} was decided; node {node} decides {term}",
                    acked.term
                );
            } else if let Some(leader) = leads {
                // Rule 7.3: entries of earlier terms are decided only together with an own one.
                ensure!(
                    log.term_at(upto) == Some(leader),
                    "I10 CommitSound",
                    "the leader of {leader} decides {upto}, of term {:?}",
                    log.term_at(upto)
                );
                self.acked.push(Acked { term, leader });
                ensure!(
                    self.acked() == index,
                    "I6 StateMachineSafety",
                    "node {node} decides {index}, but only {} before it are",
                    self.acked() - 1
                );
            } else {
                return violated(
                    "I10 CommitSound",
                    format!("node {node} takes {index} for decided, which no leader has decided"),
                );
            }
        }
        Ok(())
    }

    /// This node's copy was counted.
    pub(crate) fn held_by(&mut self, node: NodeId, upto: Index) {
        let held = self.holders.entry(node).or_default();
        *held = (*held).max(upto.min(self.acked.len() as Index));
    }

    /// This node's copies count for nothing any more, and nobody relies on them.
    pub(crate) fn forget_holder(&mut self, node: NodeId) {
        self.holders.remove(&node);
    }

    /// I7: who was counted for an acknowledged entry has it, or knows that it may not.
    pub(crate) fn check_holder(
        &self,
        node: NodeId,
        recovering: bool,
        floor: Index,
        term_at: impl Fn(Index) -> Option<Term>,
    ) -> Check {
        let Some(held) = self.holders.get(&node).copied().filter(|_| !recovering) else {
            return Ok(());
        };
        // By log matching, having the last one is having all of them.
        if let Some(acked) = self.acked_at(held).filter(|_| held >= floor.max(1)) {
            let has = term_at(held);
            ensure!(
                has == Some(acked.term),
                "I7 HolderOrRecovering",
                "node {node} was counted for {held} of term {}, has {has:?} and does not recover",
                acked.term
            );
        }
        Ok(())
    }

    /// True when the log has everything that is acknowledged.
    pub(crate) fn has_all(&self, floor: Index, term_at: impl Fn(Index) -> Option<Term>) -> bool {
        let last = self.acked();
        self.acked_at(last).is_none_or(|acked| floor >= last || term_at(last) == Some(acked.term))
    }

    /// I11: an acknowledgement of `upto` to the leader of `term` is about that leader's log.
    pub(crate) fn acknowledges(
        &self,
        node: NodeId,
        term: Term,
        upto: Index,
        has: Option<Term>,
    ) -> Check {
        let Some(leader) = self.leader_logs.get(&term) else {
            return violated("I11 AckSound", format!("nobody was ready in term {term}"));
        };
        ensure!(
            upto <= leader.last,
            "I11 AckSound",
            "node {node} acknowledges {upto} in term {term}, whose leader has {}",
            leader.last
        );
        let leads = if upto > leader.before.last().index {
            Some(term)
        } else {
            leader.before.term_at(upto)
        };
        if let (Some(leads), Some(has)) = (leads, has) {
            ensure!(
                leads == has,
                "I11 AckSound",
                "node {node} acknowledges {upto} of term {has} to the leader of {term}, who has \
                 {leads}"
            );
        }
        Ok(())
    }

    /// I6: replicas that applied the same index are in the same state.
    pub(crate) fn applied(&mut self, node: NodeId, index: Index, digest: u64) -> Check {
        let was = *self.digests.entry(index).or_insert(digest);
        ensure!(
            was == digest,
            "I6 StateMachineSafety",
            "node {node} is in another state than others at {index}"
        );
        Ok(())
    }

    /// I16: a proposal is applied once.
    pub(crate) fn applied_first(&mut self, proposal: ProducerSequence, index: Index) -> Check {
        let was = *self.sequences.entry(proposal).or_insert(index);
        ensure!(was == index, "I16 Dedup", "{proposal:?} is applied at {was} and at {index}");
        Ok(())
    }

    /// Where a proposal was applied.
    pub(crate) fn sequence(&self, proposal: ProducerSequence) -> Option<Index> {
        self.sequences.get(&proposal).copied()
    }

    /// I13: a forced recovery keeps what survives on any disk that was asked. What it could not
    /// keep is acknowledged no more. `decided`: up to where somebody has applied the chosen log.
    pub(crate) fn forked<'a>(
        &mut self,
        history: History,
        (chosen, decided): (&LogTerms, Index),
        participants: impl Iterator<Item = (NodeId, &'a crate::replica::Log)>,
    ) -> Check {
        ensure!(
            self.forks.last().is_none_or(|fork| fork.history < history),
            "I13 ForceKeeps",
            "history {history} after {:?}",
            self.forks.last()
        );
        let last = chosen.last().index;
        let kept = |index: Index, acked: Acked| {
            index < chosen.floor().index || chosen.term_at(index) == Some(acked.term)
        };
        let mut keep = self.acked.len();
        for (offset, acked) in self.acked.iter().enumerate() {
            if !kept(offset as Index + 1, *acked) {
                keep = offset;
                break;
            }
        }
        let mut nodes = BTreeSet::new();
        for (node, log) in participants {
            nodes.insert(node);
            for (offset, acked) in self.acked.iter().enumerate().skip(keep) {
                let index = offset as Index + 1;
                ensure!(
                    log.get(index).is_none_or(|entry| entry.term != acked.term),
                    "I13 ForceKeeps",
                    "node {node} has the acknowledged {index}, the chosen log ends at {last}"
                );
            }
        }
        self.forks.push(Fork { history, participants: nodes });
        for (offset, acked) in self.acked.drain(keep..).enumerate() {
            self.given_up.insert(((keep + offset) as Index + 1, acked.term), acked);
        }
        let keep = keep as Index;
        // Somebody in the chosen past has decided these, and goes on from there.
        for index in keep + 1..=decided {
            let found = chosen.term_at(index).and_then(|term| self.given_up.get(&(index, term)));
            let Some(found) = found else { break };
            self.acked.push(*found);
        }
        for held in self.holders.values_mut() {
            *held = (*held).min(keep);
        }
        self.digests.retain(|index, _| *index <= keep);
        self.sequences.retain(|_, index| *index <= keep);
        Ok(())
    }

    /// Only who was not asked in a forced recovery may have to give its past up, or who lost the
    /// new history's number after its snapshot was installed and so cannot tell what it has.
    pub(crate) fn gives_way(&mut self, node: NodeId, before: History) -> Check {
        let installed = self.installing.contains(&node);
        let outside = |fork: &Fork| {
            (installed || !fork.participants.contains(&node)) && fork.history > before
        };
        ensure!(
            self.forks.iter().any(outside),
            "I13 ForceKeeps",
            "node {node} of history {before} drops its past, and was asked in all of {:?}",
            self.forks.iter().map(|fork| fork.history).collect::<Vec<_>>()
        );
        self.forget_holder(node);
        Ok(())
    }
}

/// I12: of two configurations under which somebody may be elected next, no two majorities are
/// disjoint. `holders` tells every node's configuration.
pub(crate) fn check_configurations(holders: &BTreeMap<NodeId, &ConfigRegister>) -> Check {
    let mut configs: Vec<&ConfigRegister> = holders.values().copied().collect();
    configs.sort();
    configs.dedup();
    let electable: Vec<&ConfigRegister> = configs
        .into_iter()
        .filter(|config| {
            config
                .is_quorum(|node| holders.get(&node).is_some_and(|held| held.stamp <= config.stamp))
        })
        .collect();
    for (at, one) in electable.iter().enumerate() {
        for other in &electable[at + 1..] {
            ensure!(
                !have_disjoint_quorums(one, other, holders),
                "I12 ConfigOverlap",
                "{one:?} and {other:?} elect without each other"
            );
        }
    }
    Ok(())
}

fn have_disjoint_quorums(
    older: &ConfigRegister,
    newer: &ConfigRegister,
    holders: &BTreeMap<NodeId, &ConfigRegister>,
) -> bool {
    let mut nodes = older.members();
    nodes.extend(newer.members());
    nodes.sort_unstable();
    nodes.dedup();
    let stamp = |node: NodeId| holders.get(&node).map(|config| config.stamp);
    (0_u32..1 << nodes.len()).any(|set| {
        let has = |node: NodeId| nodes.binary_search(&node).is_ok_and(|at| set & (1 << at) != 0);
        older.is_quorum(|n| has(n) && stamp(n).is_some_and(|s| s <= older.stamp))
            && newer.is_quorum(|n| !has(n) && stamp(n).is_some_and(|s| s <= newer.stamp))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use flintmq_consensus::{ConfigStamp, EntryKind, LogPosition};

    fn log(terms: &[Term]) -> LogTerms {
        let positions = terms
            .iter()
            .enumerate()
            .map(|(at, term)| LogPosition { term: *term, index: at as Index + 1 });
        LogTerms::from_positions(LogPosition::default(), positions)
    }

    #[test]
    fn a_second_past_of_one_entry_is_noticed() {
        let entry = |index, term| Entry {
            index,
            term,
            history: 0,
            kind: EntryKind::Commands,
            payload: Bytes::new(),
        };
        let mut ghost = Ghost::default();
        ghost.written(0, &[entry(1, 1), entry(2, 2)]).expect("the first");
        ghost.written(1, &[entry(2, 2)]).expect("the same");
        assert!(ghost.written(2, &[entry(2, 2)]).is_err());
    }

    #[test]
    fn a_leader_without_a_decided_entry_is_noticed() {
        let mut ghost = Ghost::default();
        ghost.elected(1, NodeId(1), 1).expect("the first");
        ghost.decided(NodeId(1), Some(1), 0, 2, &log(&[1, 1])).expect("decided");
        ghost.ready(NodeId(2), 2, &log(&[1, 1, 1])).expect("has all");
        assert!(ghost.ready(NodeId(2), 2, &log(&[1])).is_err());
        assert!(ghost.elected(1, NodeId(1), 2).is_err(), "the same node, restarted");
        assert!(ghost.decided(NodeId(3), None, 2, 3, &log(&[1, 1, 1])).is_err());
    }

    #[test]
    fn disjoint_majorities_are_noticed_unless_the_older_is_dead() {
        let config = |term, version, voters: &[u32]| ConfigRegister {
            stamp: ConfigStamp { term, version },
            ..ConfigRegister::of_voters(voters.iter().copied().map(NodeId))
        };
        let small = config(1, 0, &[1, 2, 3]);
        let large = config(1, 2, &[1, 2, 3, 4, 5]);
        let spread = BTreeMap::from([
            (NodeId(1), &small),
            (NodeId(2), &small),
            (NodeId(3), &large),
            (NodeId(4), &large),
            (NodeId(5), &large),
        ]);
        assert!(check_configurations(&spread).is_err());
        let mut taken = spread;
        taken.insert(NodeId(2), &large);
        check_configurations(&taken).expect("a majority of the older knows the newer");
    }
}
