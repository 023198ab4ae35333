//! The append rule, the hints and the windows, as properties of a follower and a leader seen from
//! outside.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use flintmq_consensus::{
    Body, ConfigRegister, ConfigStamp, Core, CreationId, Effect, Entry, EntryKind, GroupId,
    HardState, Index, Input, LogPosition, LogTerms, Message, NodeId, Restored, Role, Settings,
    Term, Time,
};
use proptest::prelude::*;

const GROUP: GroupId = GroupId(1);
const LEADER: NodeId = NodeId(1);
const FOLLOWER: NodeId = NodeId(2);

/// The terms of a log's entries, never falling.
fn log(longest: usize) -> impl Strategy<Value = Vec<Term>> {
    prop::collection::vec(prop_oneof![3 => Just(0u64), 1 => 1..3u64], 0..longest).prop_map(
        |steps| {
            let mut term = 1;
            steps
                .into_iter()
                .map(|step| {
                    term += step;
                    term
                })
                .collect()
        },
    )
}

/// A leader's log, and one that agrees with it up to somewhere and then is another's.
fn diverging() -> impl Strategy<Value = (Vec<Term>, Vec<Term>)> {
    (log(30), any::<prop::sample::Index>(), log(12)).prop_map(|(leader, at, tail)| {
        let shared = at.index(leader.len() + 1);
        let mut other = leader[..shared].to_vec();
        // Log matching: an entry of the same index and term would be the same entry, and so would
        // all before it. Terms that the leader's log does not have are another leader's.
        let last = other.last().copied().unwrap_or(0);
        let foreign = |term: Term| last + term * 100;
        other.extend(tail.into_iter().map(foreign));
        (leader, other)
    })
}

fn entries(terms: &[Term]) -> Vec<Entry> {
    let payload = Bytes::from_static(b"x");
    terms
        .iter()
        .zip(1..)
        .map(|(term, index)| Entry {
            index,
            term: *term,
            history: 0,
            kind: EntryKind::Commands,
            payload: payload.clone(),
        })
        .collect()
}

/// A follower with a disk that is always done at once.
struct Replica {
    core: Core,
    disk: Vec<Entry>,
    sent: VecDeque<Message>,
}

impl Replica {
    fn new(node: NodeId, terms: &[Term], term: Term, settings: Settings) -> Self {
        let disk = entries(terms);
        let config = ConfigRegister::of_voters([LEADER, FOLLOWER]);
        let restored = Restored {
            group: GROUP,
            creation: CreationId(0),
            node,
            hard_state: HardState { term, config, ..HardState::default() },
            log: LogTerms::from_positions(LogPosition::default(), disk.iter().map(Entry::position)),
            applied: 0,
            recovering: None,
        };
        let core = Core::new(restored, Arc::new(settings), 1).expect("a sound disk");
        Self { core, disk, sent: VecDeque::new() }
    }

    fn step(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.core.step(Time(0), input, &mut effects);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(message) => self.sent.push_back(message),
                Effect::SaveHardState { save, .. } => self.step(Input::HardStateSynced { save }),
                Effect::Append { write, truncate_from, entries } => {
                    if let Some(index) = truncate_from {
                        self.disk.retain(|entry| entry.index < index);
                    }
                    self.disk.extend(entries);
                    self.step(Input::Appended { write });
                }
                Effect::ReadLog { read, after, upto, max_bytes } => {
                    let wanted = |entry: &&Entry| entry.index > after && entry.index <= upto;
                    let mut bytes = 0;
                    let fits = |entry: &&Entry| {
                        let first = bytes == 0;
                        bytes += entry.payload.len();
                        first || bytes <= max_bytes as usize
                    };
                    let entries = self.disk.iter().filter(wanted).take_while(fits).cloned();
                    let entries = entries.collect();
                    self.step(Input::LogRead { read, entries });
                }
                Effect::Stop { reason } => panic!("{reason}"),
                _ => {}
            }
        }
    }

    fn terms(&self) -> Vec<Term> {
        self.disk.iter().map(|entry| entry.term).collect()
    }

    fn append(&mut self, term: Term, leader: &[Entry], from: usize, to: usize, commit: Index) {
        let prev = from.checked_sub(1).map(|at| leader[at].position()).unwrap_or_default();
        let body = Body::Append {
            prev,
            entries: leader[from..to].to_vec(),
            commit,
            history: 0,
            config: ConfigStamp::default(),
            newer: None,
            rejoin: None,
        };
        let (group, creation) = (GROUP, CreationId(0));
        let message = Message { group, creation, from: LEADER, to: FOLLOWER, term, body };
        self.step(Input::Message(message));
    }
}

proptest! {
    /// Whatever of a leader's messages arrive, in whatever order and however often: what is
    /// acknowledged is there, the log is never shortened without a contradiction, and it only comes
    /// closer to the leader's.
    #[test]
    fn appends_in_any_order_only_bring_the_log_closer(
        (leader, follower) in diverging(),
        pieces in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..25),
    ) {
        let term = leader.iter().chain(&follower).max().copied().unwrap_or(0) + 1;
        let list = entries(&leader);
        let mut replica = Replica::new(FOLLOWER, &follower, term, Settings::default());
        let shared = |log: &[Term]| log.iter().zip(&leader).take_while(|(a, b)| a == b).count();
        for (one, other) in pieces {
            let (one, other) = (one.index(list.len() + 1), other.index(list.len() + 1));
            let (from, to) = (one.min(other), one.max(other));
            let before = replica.terms();
            replica.append(term, &list, from, to, 0);
            let after = replica.terms();
            prop_assert!(shared(&after) >= shared(&before), "{before:?} became {after:?}");
            let truncated = after.len() < before.len();
            prop_assert!(!truncated || shared(&before) < to, "shortened without a contradiction");
            let Some(Message { body: Body::Ack { outcome, .. }, .. }) = replica.sent.pop_back()
            else {
                return Err(TestCaseError::fail("an append is answered"));
            };
            match outcome {
                Ok(verified) => {
                    prop_assert_eq!(verified, to as Index);
                    prop_assert_eq!(&after[..to], &leader[..to]);
                    // The same again changes nothing.
                    replica.append(term, &list, from, to, 0);
                    prop_assert_eq!(&replica.terms(), &after);
                }
                Err(hint) => {
                    prop_assert_eq!(after, before);
                    prop_assert!((hint.index as usize) <= from);
                }
            }
        }
    }

    /// A leader and a follower whose logs differ find the place where they meet by hints, in no
    /// more rejected messages than their logs have terms; then the follower has the leader's log.
    #[test]
    fn a_leader_finds_where_the_logs_meet((leader, follower) in diverging()) {
        let term = leader.iter().chain(&follower).max().copied().unwrap_or(0);
        let mut one = Replica::new(LEADER, &leader, term, Settings::default());
        let mut two = Replica::new(FOLLOWER, &follower, term, Settings::default());
        one.step(Input::Stand { scout: false });
        let (mut rejected, mut distinct) = (0, [leader, follower].concat());
        distinct.sort_unstable();
        distinct.dedup();
        for _ in 0..1000 {
            if let Some(message) = one.sent.pop_front() {
                two.step(Input::Message(message));
            } else if let Some(message) = two.sent.pop_front() {
                rejected += usize::from(matches!(&message.body, Body::Ack { outcome: Err(_), .. }));
                one.step(Input::Message(message));
            } else {
                break;
            }
        }
        prop_assert!(one.core.is_serving());
        prop_assert_eq!(one.terms(), two.terms());
        prop_assert!(rejected <= distinct.len() + 1, "{rejected} messages were rejected");
    }

    /// However acknowledgements come, no more than the window is on the way to a follower, and the
    /// leader keeps no more than the bytes it may.
    #[test]
    fn windows_hold(
        script in prop::collection::vec((0..4u8, 1..40usize), 1..120),
        window_entries in 1..20u32,
        window_bytes in 1..400u64,
    ) {
        let settings = Settings {
            window_entries,
            window_bytes,
            message_entries: 8,
            message_bytes: 100,
            cache_bytes: 300,
            proposal_window_bytes: 2000,
            ..Settings::default()
        };
        let mut one = Replica::new(LEADER, &[], 0, settings.clone());
        let mut two = Replica::new(FOLLOWER, &[], 0, settings);
        one.step(Input::Stand { scout: false });
        let mut way: VecDeque<Message> = VecDeque::new();
        for (what, size) in script {
            match what {
                0 | 1 => {
                    let payload = Bytes::from(vec![0; size]);
                    let mut effects = Vec::new();
                    let taken = one.core.propose(Time(0), EntryKind::Commands, payload, &mut effects);
                    prop_assert!(taken.is_ok() || one.core.role() != Role::Ready
                        || one.core.uncommitted_bytes() >= 2000);
                    one.carry_out(effects);
                }
                2 => {
                    if let Some(message) = one.sent.pop_front() {
                        two.step(Input::Message(message));
                    }
                }
                _ => {
                    way.extend(two.sent.drain(..));
                    if let Some(message) = way.pop_front() {
                        one.step(Input::Message(message));
                    }
                }
            }
            for peer in one.core.progress() {
                prop_assert!(peer.in_flight_entries() <= u64::from(window_entries));
                prop_assert!(peer.in_flight_bytes() < window_bytes + 100);
            }
            prop_assert!(one.core.cached_bytes() <= 300);
        }
    }
}
