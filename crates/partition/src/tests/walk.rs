//! Random walks over requests, leaderships and lost frames. Whatever happened, in the end everybody
//! is answered once, and no message waits beside a consumer with room.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use flintmq_consensus::Index;
use flintmq_queue::{DomainSettings, QueueId};

use super::clients::{configure, confirm, domain, end, open, put};
use super::world::World;
use crate::{Answer, Removable, Request, SessionId, Ticket};

const NODES: usize = 3;
const WALKS: u64 = 150;
const STEPS: u64 = 120;

/// A small generator; the same seed makes the same walk.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

/// A session with one writer and one reader.
pub(super) struct Session {
    pub(super) node: usize,
    pub(super) number: u64,
    pub(super) writer: u64,
    pub(super) reader: u64,
    /// Messages that it published, all of which are to be answered if it lives.
    pub(super) published: Vec<u64>,
    pub(super) configures: u8,
    pub(super) confirmed: usize,
    pub(super) full: bool,
}

pub(super) struct Walk {
    random: Random,
    pub(super) world: World,
    pub(super) sessions: Vec<Session>,
    /// Tickets that are to be answered, by node.
    pub(super) tickets: BTreeSet<(usize, u64)>,
    last: u64,
    /// Of sessions that said goodbye: node, number, what they published.
    pub(super) gone: Vec<(usize, u64, Vec<u64>)>,
}

impl Walk {
    fn new(seed: u64) -> Self {
        Self {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            world: World::led(NODES),
            sessions: Vec::new(),
            tickets: BTreeSet::new(),
            last: 1000,
            gone: Vec::new(),
        }
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(super) fn is_open(&self, session: &Session, handle: u64) -> bool {
        matches!(self.world.answers(session.node, handle), [Answer::Opened(Ok(()))])
    }

    fn begin_session(&mut self) {
        let node = self.random.below(NODES);
        let (number, writer, reader) = (self.next(), self.next(), self.next());
        for (handle, reads) in [(writer, false), (reader, true)] {
            self.world.give(node, open(number, handle, reads));
            self.tickets.insert((node, handle));
        }
        let (published, configures) = (Vec::new(), 0);
        let (confirmed, full) = (0, false);
        let session =
            Session { node, number, writer, reader, published, configures, confirmed, full };
        self.sessions.push(session);
    }

    fn use_session(&mut self) {
        if self.sessions.is_empty() {
            return;
        }
        let at = self.random.below(self.sessions.len());
        let (node, number) = (self.sessions[at].node, self.sessions[at].number);
        match self.random.below(9) {
            0..=3 if self.is_open(&self.sessions[at], self.sessions[at].writer) => {
                for _ in 0..=self.random.below(4) {
                    let message = self.next();
                    self.world.give(node, put(number, self.sessions[at].writer, message));
                    self.sessions[at].published.push(message);
                }
            }
            4 if self.is_open(&self.sessions[at], self.sessions[at].reader) => {
                let room = self.random.below(6) as u64;
                let session = &mut self.sessions[at];
                session.configures += 1;
                let request = configure(number, session.reader, session.configures.into(), room);
                self.world.give(node, request);
            }
            5 | 6 => self.confirm_some(at),
            7 => {
                let session = &mut self.sessions[at];
                session.full = !session.full;
                let id = SessionId(number);
                let full = session.full;
                let request =
                    if full { Request::SessionFull(id) } else { Request::SessionRoom(id) };
                self.world.give(node, request);
            }
            8 if self.random.below(4) == 0 => self.end_session(at),
            _ => {}
        }
    }

    pub(super) fn confirm_some(&mut self, at: usize) {
        let session = &mut self.sessions[at];
        let pushed = self.world.nodes[session.node].client.pushed(session.number);
        let upto = pushed.len().min(session.confirmed + 4);
        for message in &pushed[session.confirmed..upto] {
            self.world.give(session.node, confirm(session.reader, *message));
        }
        session.confirmed = upto;
    }

    fn end_session(&mut self, at: usize) {
        let session = self.sessions.swap_remove(at);
        let ticket = self.next();
        let lost = self.random.below(2) == 0;
        self.world.give(session.node, end(session.number, lost, ticket));
        self.tickets.insert((session.node, ticket));
        if !lost {
            self.gone.push((session.node, session.number, session.published));
        }
    }

    fn administer(&mut self) {
        let (node, ticket, queue) = (self.random.below(NODES), self.next(), QueueId(1));
        let ticket_ = Ticket(ticket);
        let only_if = match self.random.below(2) {
            0 => Removable::Closed,
            _ => Removable::UnusedFor(Duration::from_secs(2)),
        };
        let request = match self.random.below(4) {
            0 => Request::Purge { ticket: ticket_, queue },
            1 => Request::Delete { ticket: ticket_, queue: QueueId(2), only_if },
            2 => {
                let domain = Arc::new(domain(ticket, DomainSettings::priority()));
                Request::SetDomain { ticket: ticket_, domain }
            }
            _ => Request::IdleQueues { ticket: ticket_, timeout: Duration::ZERO },
        };
        self.world.give(node, request);
        self.tickets.insert((node, ticket));
    }

    /// Something happens to the cluster.
    fn disturb(&mut self) {
        let (one, other) = (self.random.below(NODES), self.random.below(NODES));
        match self.random.below(9) {
            // A frame or two of the next ones are lost.
            0 | 1 => {
                let lost = self.world.frames + 1 + self.random.below(10) as u64;
                self.world.lost.insert(lost);
            }
            2 if one != other => drop(self.world.cut.insert((one, other))),
            3 => self.world.cut.clear(),
            4 => self.move_leadership(one),
            5 => {
                self.world.peer(one, other, false);
                if self.random.below(2) == 0 {
                    self.world.peer(one, other, true);
                }
            }
            6 => self.mend_reach(),
            7 if one != other => self.world.set_full(one, other, true),
            _ => {
                for (from, to) in pairs() {
                    self.world.set_full(from, to, false);
                }
            }
        }
    }

    pub(super) fn mend_reach(&mut self) {
        for (at, peer) in pairs() {
            let peer_id = super::world::id(peer);
            if !self.world.nodes[at].group.in_reach.contains(&peer_id) {
                self.world.peer(at, peer, true);
            }
        }
    }

    /// Another node leads; often the old leader does not know for a while.
    fn move_leadership(&mut self, to: usize) {
        let old = self.world.leader();
        let healed: Vec<usize> = self.world.isolated.iter().copied().collect();
        healed.into_iter().for_each(|at| self.world.heal(at));
        if let Some(old) = old
            && old != to
            && self.random.below(2) == 0
        {
            self.world.isolated.insert(old);
        }
        let commit = |at: usize| self.world.nodes[at].group.commit;
        let most: Index = (0..NODES).map(commit).max().unwrap_or(0);
        if commit(to) == most {
            self.world.elect(to);
        }
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0 | 1 => self.begin_session(),
            2..=10 => self.use_session(),
            11 => self.administer(),
            12 | 13 => self.disturb(),
            14 => self.world.commits = !self.world.commits,
            15 => self.world.reads = !self.world.reads,
            16 => self.world.tick(),
            17 => self.world.pass(Duration::from_millis(5)),
            _ => self.world.settle(),
        }
    }
}

pub(super) fn pairs() -> impl Iterator<Item = (usize, usize)> {
    let pairs = (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to)));
    pairs.filter(|(from, to)| from != to)
}

#[test]
#[expect(clippy::disallowed_macros, reason = "tells how to replay a failure")]
fn everybody_is_answered_once_whatever_happens() {
    let mut answered = 0;
    for seed in seeds() {
        let walked = std::panic::catch_unwind(|| {
            let mut walk = Walk::new(seed);
            (0..STEPS).for_each(|_| walk.step());
            walk.calm_down();
            walk.drain();
            walk.check()
        });
        match walked {
            Ok(count) => answered += count,
            Err(panic) => {
                eprintln!("the walk with FLINTMQ_SEED={seed} failed");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(answered > 0, "the walks published nothing");
}

/// One seed of the environment, or the first few.
fn seeds() -> std::ops::Range<u64> {
    let given = option_env!("FLINTMQ_SEED").and_then(|seed| seed.parse().ok());
    given.map_or(1..WALKS + 1, |seed: u64| seed..seed + 1)
}
