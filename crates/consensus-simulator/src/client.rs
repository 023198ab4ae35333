//! Producers that repeat what was not answered, and readers.

use std::collections::BTreeMap;

use bytes::Bytes;
use flintmq_consensus::{
    EntryKind, GroupId, Index, Input, NodeId, NodeInput, ProducerSequence, ProposeError, ReadToken,
    TokenRead,
};

use crate::coverage::Situation;
use crate::event::{Event, Reply, Request};
use crate::ghost::{Check, ensure};
use crate::node::{Reading, Waiting};
use crate::random::Random;
use crate::world::World;

/// How far a producer's newest proposal may be ahead of its oldest open one.
const SPAN: u64 = 200;

#[derive(Debug)]
enum Work {
    Produce {
        next: u64,
        /// When each open proposal was sent last, and how often.
        open: BTreeMap<u64, (u64, u64)>,
    },
    Read {
        /// When the open one was sent.
        open: Option<u64>,
    },
}

#[derive(Debug)]
pub(crate) struct Client {
    group: GroupId,
    random: Random,
    believed: Option<NodeId>,
    work: Work,
}

impl Client {
    /// True when nothing of it awaits an answer.
    pub(crate) fn is_done(&self) -> bool {
        match &self.work {
            Work::Produce { open, .. } => open.is_empty(),
            Work::Read { open } => open.is_none(),
        }
    }

    /// True while the answer to this proposal is awaited.
    pub(crate) fn awaits(&self, sequence: u64) -> bool {
        matches!(&self.work, Work::Produce { open, .. } if open.contains_key(&sequence))
    }

    pub(crate) fn group(&self) -> GroupId {
        self.group
    }
}

impl World {
    pub(crate) fn make_clients(&mut self) {
        let load = self.profile.load;
        for number in 0..self.profile.groups.len() {
            let group = GroupId(u32::try_from(number).unwrap_or(0));
            for at in 0..load.producers + load.readers {
                let client = self.clients.len();
                let work = if at < load.producers {
                    Work::Produce { next: 1, open: BTreeMap::new() }
                } else {
                    Work::Read { open: None }
                };
                self.clients.push(Client {
                    group,
                    random: Random::new(self.seed, 1_000_000 + client as u64),
                    believed: None,
                    work,
                });
                self.schedule.at(300_000 + client as u64, Event::Client { client });
            }
        }
    }

    pub(crate) fn on_client(&mut self, number: usize) {
        let now = self.schedule.now;
        let load = self.profile.load;
        let nodes: Vec<NodeId> = self.cluster.iter().copied().collect();
        let ends = self.healed_at.is_some_and(|at| now > at + 2_000_000);
        let Some(client) = self.clients.get_mut(number) else { return };
        let timeout = client.random.between(150_000, 900_000);
        let mut requests = Vec::new();
        match &mut client.work {
            Work::Produce { next, open } => {
                for (sequence, (sent, tries)) in open.iter_mut() {
                    if now > *sent + timeout * *tries {
                        *sent = now;
                        *tries = (*tries + 1).min(4);
                        client.believed = None;
                        requests.push(*sequence);
                    }
                }
                let oldest = open.keys().next().copied().unwrap_or(*next);
                if !ends && (open.len() as u64) < load.outstanding && *next < oldest + SPAN {
                    open.insert(*next, (now, 1));
                    requests.push(*next);
                    *next += 1;
                }
            }
            Work::Read { open } => {
                // A read whose process is gone is forgotten; another one is asked.
                if open.is_some_and(|sent| now > sent + 2_000_000) {
                    *open = None;
                    client.believed = None;
                }
                if open.is_none() && !ends {
                    *open = Some(now);
                    requests.push(0);
                }
            }
        }
        let again = !ends || !client.is_done();
        let reads = matches!(client.work, Work::Read { .. });
        for sequence in requests {
            let believed = client.believed.filter(|_| !client.random.chance(20_000));
            let Some(node) = believed.or_else(|| client.random.pick(&nodes)) else { continue };
            let request = if reads {
                Request::Read
            } else {
                let proposal = ProducerSequence { producer: number as u64, sequence };
                // Some do not number their proposals, and take no answer either.
                let plain = client.random.chance(30_000);
                let payload = sequence * 1000 + number as u64;
                let bytes = client.random.between(8, load.payload.max(8));
                if plain {
                    let sequenced = None;
                    let extra = Request::Propose { sequenced, payload: payload << 32, bytes };
                    let event = Event::Arrive { client: number, node, request: extra };
                    self.schedule.after(300, event);
                }
                // A proposal that is repeated has the same content.
                let bytes = 8 + payload.wrapping_mul(0x9e37_79b9) % load.payload.max(8);
                Request::Propose { sequenced: Some(proposal), payload, bytes }
            };
            let delay = client.random.between(50, 1_000);
            self.schedule.after(delay, Event::Arrive { client: number, node, request });
        }
        if again {
            let pause = client.random.between(load.pause / 4, load.pause) + 1;
            self.schedule.after(pause, Event::Client { client: number });
        }
    }

    pub(crate) fn reply(&mut self, client: usize, reply: Reply) {
        // Few answers are lost; then the client asks again.
        if self.healed_at.is_none() && self.random.chance(10_000) {
            return;
        }
        let delay = self.random.between(50, 1_000);
        self.schedule.after(delay, Event::Answered { client, reply });
    }

    pub(crate) fn on_request(&mut self, client: usize, id: NodeId, request: Request) -> Check {
        let now = self.schedule.now;
        let Some(group) = self.clients.get(client).map(|client| client.group) else {
            return Ok(());
        };
        let ghost = &self.ghosts[group.0 as usize];
        let (acked, forks) = (ghost.acked(), ghost.forks.len());
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let local = node.local(now);
        let Some(process) = node.process.as_mut().filter(|process| !process.stopping) else {
            return Ok(());
        };
        match request {
            Request::Propose { sequenced, payload, bytes } => {
                let mut content = payload.to_be_bytes().to_vec();
                content.resize(usize::try_from(bytes.max(8)).unwrap_or(8), 0);
                let kind = sequenced.map_or(EntryKind::Commands, EntryKind::Sequenced);
                let proposed = process.core.propose(local, group, kind, Bytes::from(content));
                process.touched.insert(group);
                match proposed {
                    Ok(index) => {
                        let term = process.core.group(group).map_or(0, |core| core.term());
                        if let (Some(live), Some(proposal)) =
                            (process.groups.get_mut(&group), sequenced)
                        {
                            live.waiting.insert(index, Waiting { client, proposal, term });
                        }
                    }
                    Err(ProposeError::NotLeader { leader }) => {
                        self.reply(client, Reply::NotLeader { leader });
                    }
                    Err(ProposeError::WindowFull { .. }) => {
                        self.coverage.saw(Situation::WindowFull);
                        self.reply(client, Reply::Busy);
                    }
                }
                self.after_step(id)
            }
            Request::Read => {
                if process.core.group(group).is_none() {
                    self.reply(client, Reply::NotLeader { leader: None });
                    return Ok(());
                }
                let read = self.steps;
                if let Some(live) = process.groups.get_mut(&group) {
                    let reading = Reading { client, acked, forks, at_once: true, index: None };
                    live.reads.insert(read, reading);
                }
                process.touched.insert(group);
                let input = Input::Read { read };
                process.core.step(local, NodeInput::Group { group, input });
                // What is answered within its own step asked nobody.
                self.flush(id)?;
                if let Some(reading) =
                    self.live(id, group).and_then(|live| live.reads.get_mut(&read))
                    && reading.index.is_none()
                {
                    reading.at_once = false;
                }
                Ok(())
            }
            Request::ReadAt { history, index } => {
                let token = ReadToken { history, index };
                if let (Some(core), Some(live)) =
                    (process.core.group(group), process.groups.get(&group))
                {
                    let applied = live.machine.applied.index;
                    if core.read_at(token, applied) == TokenRead::Ready {
                        self.coverage.saw(Situation::FollowerRead);
                        ensure!(
                            applied >= index,
                            "I14 ReadLinear",
                            "node {id} is behind {token:?}"
                        );
                    }
                }
                Ok(())
            }
        }
    }

    pub(crate) fn on_reply(&mut self, number: usize, reply: Reply) -> Check {
        let nodes: Vec<NodeId> = self.cluster.iter().copied().collect();
        let Some(client) = self.clients.get_mut(number) else { return Ok(()) };
        let group = client.group;
        match reply {
            Reply::Proposed { proposal, index, forks } => {
                if let Work::Produce { open, .. } = &mut client.work {
                    open.remove(&proposal.sequence);
                }
                let ghost = &self.ghosts[group.0 as usize];
                let applied = ghost.sequence(proposal);
                ensure!(
                    forks != ghost.forks.len() || applied == Some(index),
                    "Acknowledged",
                    "{proposal:?} is acknowledged at {index}, applied at {applied:?}"
                );
                ensure!(
                    forks != ghost.forks.len() || index <= ghost.acked(),
                    "Acknowledged",
                    "{proposal:?} is acknowledged at {index}, decided is {}",
                    ghost.acked()
                );
            }
            Reply::NotLeader { leader } => {
                client.believed = leader.or_else(|| client.random.pick(&nodes));
                match &mut client.work {
                    Work::Read { open } => *open = None,
                    // Soon again, at somebody else.
                    Work::Produce { open, .. } => {
                        for (sent, tries) in open.values_mut() {
                            *sent = sent.saturating_sub(100_000);
                            *tries = 1;
                        }
                    }
                }
            }
            Reply::Busy => {}
            Reply::Read { history, index } => {
                client.work = Work::Read { open: None };
                if let Some(node) = client.random.pick(&nodes) {
                    let request = Request::ReadAt { history, index };
                    let delay = client.random.between(50, 1_000);
                    self.schedule.after(delay, Event::Arrive { client: number, node, request });
                }
            }
        }
        Ok(())
    }

    /// What this group has decided, as everybody could know.
    pub(crate) fn decided(&self, group: GroupId) -> Index {
        self.ghosts[group.0 as usize].acked()
    }
}
