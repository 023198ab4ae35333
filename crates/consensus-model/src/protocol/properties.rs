//! What must always be true, and what must be reachable for a run to mean anything.

use super::{Nodes, Protocol, Role, State, only};
use stateright::Property;

impl Protocol {
    pub(super) fn all_properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::<Self>::always("I1 ElectionSafety", |_, state| {
                let terms = state.elected.iter().map(|(term, _)| term);
                terms.clone().zip(terms.skip(1)).all(|(one, next)| one != next)
            }),
            Property::<Self>::always("I5 LeaderCompleteness", |_, state| {
                state.nodes.iter().filter(|node| node.role == Role::Leader).all(|node| {
                    state.committed.iter().all(|e| e.by > node.term || node.log.holds(e))
                })
            }),
            Property::<Self>::always("I6 StateMachineSafety", |_, state| {
                state.committed.iter().all(|one| {
                    state.committed.iter().all(|e| one.index != e.index || one.term == e.term)
                })
            }),
        ];
        if self.bounds.forks > 0 {
            all.push(Property::<Self>::always("I13 ForceKeeps", |_, state| !state.bad_fork));
        }
        // Of the right protocol: a shortcut is judged by what it loses, not by how.
        if self.shortcut.is_none() {
            all.push(Property::<Self>::always("I3 LogMatching", |_, state| log_matching(state)));
            if !self.has_changes() && self.bounds.forks == 0 {
                all.push(Property::<Self>::always("I8 QuorumHolds", |_, state| {
                    quorum_holds(state)
                }));
            }
        }
        if self.options.goals {
            self.add_goals(&mut all);
        }
        all
    }

    fn add_goals(&self, all: &mut Vec<Property<Self>>) {
        if self.bounds.nodes > self.bounds.voters && self.bounds.losses > 0 {
            all.push(Property::<Self>::sometimes(
                "a recovering learner is promoted",
                |model, state| {
                    let learners = !(only(model.bounds.voters) - 1);
                    leads_with(state, |voters| voters & learners & recovering(state) != 0)
                },
            ));
        }
        if self.options.joint {
            all.push(Property::<Self>::sometimes("a joint change is completed", |model, state| {
                state.nodes.iter().any(|node| {
                    let moved = node.config.voters ^ (only(model.bounds.voters) - 1);
                    node.config.outgoing == 0 && moved.count_ones() > 1
                })
            }));
        }
        if self.bounds.dead > 0 {
            all.push(Property::<Self>::sometimes("the dead are removed", |_, state| {
                state.dead != 0 && leads_with(state, |voters| voters & state.dead == 0)
            }));
            all.push(Property::<Self>::sometimes(
                "an entry is committed after a fork",
                |_, state| state.forks > 0 && state.committed.iter().any(|e| e.index > 1),
            ));
        }
    }
}

fn recovering(state: &State) -> Nodes {
    let recovering = state.nodes.iter().enumerate().filter(|(_, node)| node.recovering);
    recovering.fold(0, |who, (number, _)| who | 1 << number)
}

fn leads_with(state: &State, holds: impl Fn(Nodes) -> bool) -> bool {
    state.nodes.iter().any(|node| node.role == Role::Leader && holds(node.config.voters))
}

fn log_matching(state: &State) -> bool {
    state.nodes.iter().all(|one| {
        state.nodes.iter().all(|other| {
            (1..=one.log.len().min(other.log.len())).all(|index| {
                one.log.at(index) != other.log.at(index)
                    || one.log.prefix(index) == other.log.prefix(index)
            })
        })
    })
}

/// Every quorum of nodes that do not recover has all that was committed.
fn quorum_holds(state: &State) -> bool {
    let config = state.nodes[0].config;
    let lost = recovering(state);
    (1..=config.voters).filter(|set| set & lost == 0 && config.is_quorum(*set)).all(|set| {
        state.committed.iter().all(|entry| {
            let members = state.nodes.iter().enumerate().filter(|(at, _)| set & (1 << at) != 0);
            members.clone().any(|(_, node)| node.log.holds(entry))
        })
    })
}
