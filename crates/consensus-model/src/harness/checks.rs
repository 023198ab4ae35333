//! The invariants (numbers as in docs/internals), on the real replicas.

use super::{Acked, Harness, Replica, State};
use flintmq_consensus::{Body, Core, Entry, Message, NodeId, Role};
use stateright::Property;
use std::collections::BTreeSet;
use std::sync::Arc;

impl Harness {
    pub(super) fn all_properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            // Steps that were wrong in themselves: I1, I2, I4, I10, I11, I13.
            Property::<Self>::always("every step is right", |_, state| state.broken.is_none()),
            Property::<Self>::always("I3 LogMatching", |_, state| log_matching(state)),
            Property::<Self>::always("I5 LeaderCompleteness", |_, state| {
                state.replicas.values().filter(|r| r.core.role() == Role::Ready).all(|replica| {
                    let complete = |acked: &Acked| {
                        acked.by > replica.core.term()
                            || replica.core.log().contains(acked.entry.position())
                    };
                    state.acked.iter().all(complete)
                })
            }),
            Property::<Self>::always("I6 StateMachineSafety", |_, state| {
                let acked = &state.acked;
                acked.iter().all(|one| {
                    let same = |other: &Acked| {
                        one.entry.index != other.entry.index || one.entry == other.entry
                    };
                    acked.iter().all(same)
                })
            }),
            Property::<Self>::always("I6 StateMachineSafety, applied", |_, state| {
                applied_agrees(state)
            }),
        ];
        if !self.forks() {
            all.push(Property::<Self>::always("I7 HolderOrRecovering", |_, state| {
                state.acked.iter().all(|acked| {
                    let keeps = |replica: &Arc<Replica>| {
                        let recovers = replica.core.recovering().is_some() || !is_written(replica);
                        recovers || has(replica, &acked.entry)
                    };
                    acked.holders.iter().all(|node| state.replicas.get(node).is_none_or(keeps))
                })
            }));
        }
        if self.reach.changes == 0 && !self.forks() {
            all.push(Property::<Self>::always("I8 QuorumHolds", |_, state| quorum_holds(state)));
        }
        all
    }

    /// True when entries may be given up knowingly.
    fn forks(&self) -> bool {
        self.reach.all_reported || self.reach.dead > 0
    }

    /// What can only be judged by comparing two states.
    pub(super) fn check_step(&self, before: &State, state: &mut State) {
        let replicas: Vec<(NodeId, Arc<Replica>)> =
            state.replicas.iter().map(|(node, r)| (*node, Arc::clone(r))).collect();
        for (node, replica) in replicas {
            let Some(old) = before.replicas.get(&node) else { continue };
            if old.print == replica.print {
                continue;
            }
            let core = &replica.core;
            if replica.disk.hard.term < old.disk.hard.term {
                state.broken = Some("I2 TermMonotone");
            }
            let restarted = state.losses > before.losses || state.crashes > before.crashes;
            let same_life = !restarted && core.history() == old.core.history();
            if same_life && core.commit_index() < old.core.commit_index() {
                state.broken = Some("I10 CommitSound: the commit index fell");
            }
            let raised = !restarted && core.commit_index() > old.core.commit_index();
            if raised && core.commit_index() > core.verified_index() {
                state.broken = Some("I10 CommitSound: beyond what is verified");
            }
            self.note_leadership(&old.core, &replica, state);
        }
    }

    fn note_leadership(&self, old: &Core, replica: &Replica, state: &mut State) {
        let (core, node) = (&replica.core, replica.core.node());
        if !matches!(core.role(), Role::Syncing | Role::Ready) {
            return;
        }
        let term = core.term();
        if *state.elected.entry(term).or_insert(node) != node {
            state.broken = Some("I1 ElectionSafety");
        }
        if core.role() != Role::Ready {
            return;
        }
        let log = led_log(replica);
        let led = state.led.entry(term).or_default();
        if log.len() < led.len() || !led.iter().zip(&log).all(|(one, other)| one == other) {
            state.broken = Some("I4 LeaderAppendOnly");
        }
        *led = Arc::new(log.clone());
        let known = if old.term() == term { old.commit_index() } else { 0 };
        if core.is_serving() && core.commit_index() > known {
            self.note_acked(replica, &log, state);
        }
    }

    fn note_acked(&self, replica: &Replica, log: &[Entry], state: &mut State) {
        let core = &replica.core;
        let commit = core.commit_index();
        // Followers may be a quorum before the leader itself has written the entry.
        let own = log.get(commit as usize - 1).is_some_and(|entry| has(replica, entry));
        let counted = core.progress().iter().filter(|peer| peer.matched >= commit);
        let counted = counted.map(|peer| peer.node).filter(|node| core.config().is_voter(*node));
        let holders: BTreeSet<NodeId> = counted.chain(own.then_some(core.node())).collect();
        let mut acked = Vec::clone(&state.acked);
        for entry in log.iter().take(commit as usize) {
            match acked.iter_mut().find(|known| known.entry == *entry) {
                // The first quorum says most; later ones only add.
                Some(known) if known.by <= core.term() => {}
                _ => acked.push(Acked {
                    entry: entry.clone(),
                    by: core.term(),
                    holders: holders.clone(),
                }),
            }
        }
        acked.sort_by_key(|acked| (acked.entry.position(), acked.by, acked.entry.payload.clone()));
        state.acked = Arc::new(acked);
    }

    /// The group goes on without knowing what was acknowledged: what survived nowhere is given up,
    /// and nothing else.
    pub(super) fn forked(&self, state: &mut State, replica: &Replica) {
        let core = &replica.core;
        let voters: Vec<&Arc<Replica>> = state
            .replicas
            .iter()
            .filter(|(node, _)| **node != core.node() && core.config().is_voter(**node))
            .filter(|(node, _)| !state.dead.contains(node))
            .map(|(_, replica)| replica)
            .collect();
        let survives = |entry: &Entry| voters.iter().any(|voter| has(voter, entry));
        let kept = |acked: &&Acked| core.log().contains(acked.entry.position());
        if state.acked.iter().any(|acked| survives(&acked.entry) && !kept(&acked)) {
            state.broken = Some("I13 ForceKeeps");
        }
        state.acked = Arc::new(state.acked.iter().filter(kept).cloned().collect());
    }

    /// A replica is told to apply: what it gets is the log with the writes under way.
    pub(super) fn apply(&self, state: &mut State, replica: &mut Replica, upto: u64) {
        let mut log = led_log(replica);
        if upto as usize > log.len() || !log.starts_with(&replica.disk.applied) {
            state.broken =
                Some("I10 CommitSound: applies what is not there, or contradicts itself");
        }
        log.truncate(upto as usize);
        replica.disk.applied = Arc::new(log);
    }

    /// A message leaves: nothing in it may go beyond what is on the disk.
    pub(super) fn send(&self, state: &mut State, replica: &Replica, message: Message) {
        let promised = message.term > replica.disk.hard.term;
        if promised && !matches!(message.body, Body::Cede { .. }) {
            state.broken = Some("I2 TermMonotone: a message ahead of the disk");
        }
        if let Body::Ack { outcome: Ok(verified), .. } = message.body {
            let led = state.led.get(&message.term);
            let sound = led.is_some_and(|led| {
                let upto = verified as usize;
                led.len() >= upto && replica.disk.log.get(..upto) == led.get(..upto)
            });
            if verified > 0 && !sound {
                state.broken = Some("I11 AckSound");
            }
        }
        state.network.send(message);
    }
}

/// The log of a leader, with what it has not written yet.
fn led_log(replica: &Replica) -> Vec<Entry> {
    let mut log = Vec::clone(&replica.disk.log);
    for write in &replica.disk.writes {
        if let Some(from) = write.truncate_from {
            log.truncate(from.saturating_sub(1) as usize);
        }
        log.extend(write.entries.iter().cloned());
    }
    log
}

/// False while a replica that has what it lacked is still writing it: it says nothing before.
fn is_written(replica: &Replica) -> bool {
    replica.disk.rejoined == replica.disk.epoch || replica.disk.writes.is_empty()
}

fn has(replica: &Replica, entry: &Entry) -> bool {
    let at = entry.index.checked_sub(1).and_then(|at| replica.disk.log.get(at as usize));
    at.is_some_and(|other| other == entry)
}

fn applied_agrees(state: &State) -> bool {
    let alive = || state.replicas.iter().filter(|(node, _)| !state.dead.contains(node));
    let all = || alive().map(|(_, replica)| &replica.disk.applied);
    all().all(|one| all().all(|other| one.iter().zip(&**other).all(|(one, other)| one == other)))
}

fn log_matching(state: &State) -> bool {
    let logs = || state.replicas.values().map(|replica| &replica.disk.log);
    logs().all(|one| {
        logs().all(|other| {
            let same = one.iter().zip(other.iter()).rposition(|(a, b)| a.term == b.term);
            same.is_none_or(|last| one[..=last] == other[..=last])
        })
    })
}

/// Every quorum of replicas that do not recover has all that was acknowledged.
fn quorum_holds(state: &State) -> bool {
    let is_sound = |replica: &Replica| replica.core.recovering().is_none() && is_written(replica);
    let sound: Vec<_> = state.replicas.iter().filter(|(_, r)| is_sound(r)).collect();
    let Some((_, first)) = sound.first() else { return true };
    let config = first.core.config();
    state.acked.iter().all(|acked| {
        // Those without the entry must not be a quorum.
        let lacks = |node: NodeId| {
            sound.iter().any(|(name, replica)| **name == node && !has(replica, &acked.entry))
        };
        !config.is_quorum(lacks)
    })
}
