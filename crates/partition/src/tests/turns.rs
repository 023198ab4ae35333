//! Turns, replication and delivery of frames in a [`World`].

use std::collections::BTreeMap;

use flintmq_consensus::{GroupId, Index};
use flintmq_shard::{Committed, Machine as _, ReadError};
use prost::Message as _;

use super::clients::{Client, Seen, decode};
use super::world::{Node, World, id};
use crate::Effect;
use crate::peer_message::Frame;

/// Turns of all nodes after which a test has run away.
const TOO_MANY: usize = 20_000;

impl World {
    /// The leader's log goes to all that are not isolated, and is committed.
    pub(super) fn commit(&mut self) {
        if let Some(leader) = self.leader() {
            self.commit_at(leader);
        }
    }

    pub(super) fn commit_at(&mut self, leader: usize) {
        let commit = self.nodes[leader].group.log.len() as Index;
        if self.nodes.iter().all(|node| node.group.commit >= commit) {
            return;
        }
        for at in 0..self.nodes.len() {
            if self.isolated.contains(&at) {
                continue;
            }
            let known = self.nodes[at].group.commit as usize;
            let news = self.nodes[leader].group.log[known..].to_vec();
            let group = &mut self.nodes[at].group;
            group.log.truncate(known);
            group.log.extend(news);
            group.commit = commit;
        }
    }

    /// One turn of a node, in the order that the shard promises. True: it wants another.
    pub(super) fn turn(&mut self, at: usize) -> bool {
        let Node { engine, group, client, led } = &mut self.nodes[at];
        let serving = group.serving.then_some(group.term);
        if led.is_some() && serving != *led {
            *led = None;
            engine.lose_leadership(group);
        }
        while group.applied.index < group.commit {
            let entry = group.entry(group.applied.index + 1).unwrap().clone();
            let position = entry.position();
            group.applied = position;
            let entry = Committed { position, kind: entry.kind, payload: entry.payload };
            engine.apply(group, &entry).unwrap();
        }
        if led.is_none() && serving.is_some() {
            *led = serving;
            engine.take_leadership(group);
        }
        let more = engine.work(group);
        let mut effects = Vec::new();
        engine.take_effects(&mut effects);
        for effect in effects {
            client.take(effect);
        }
        for (to, frame) in std::mem::take(&mut group.sent) {
            self.frames += 1;
            self.largest = self.largest.max(frame.len());
            let to = to.0 as usize - 1;
            let lost = self.lost.contains(&self.frames) || self.cut.contains(&(at, to));
            if !lost {
                self.wire.push_back((at, to, frame));
            }
        }
        more
    }

    /// Everything that is on its way arrives, and what follows from it, until nothing moves.
    pub(super) fn settle(&mut self) {
        for _ in 0..TOO_MANY {
            let mut more = false;
            for at in 0..self.nodes.len() {
                more |= self.turn(at);
                if self.commits {
                    self.commit();
                }
                if self.reads {
                    more |= self.read(at);
                }
                let group = &self.nodes[at].group;
                more |= group.applied.index < group.commit || !group.sent.is_empty();
            }
            if let Some((from, to, frame)) = self.wire.pop_front() {
                let node = &mut self.nodes[to];
                node.engine.on_message(&mut node.group, id(from), frame);
                more = true;
            }
            if !more {
                return;
            }
        }
        let last = self.wire.iter().map(|(from, to, f)| (from, to, Frame::decode(f.clone())));
        panic!("it never ends; on the wire: {:?}", last.take(4).collect::<Vec<_>>());
    }

    /// Answers the reads of a node; true if there were any.
    pub(super) fn read(&mut self, at: usize) -> bool {
        let Node { engine, group, .. } = &mut self.nodes[at];
        let reads = std::mem::take(&mut group.reads);
        for index in &reads {
            let read = match group.entry(*index) {
                Some(entry) => Ok(entry.payload.clone()),
                None => Err(ReadError::Missing { group: GroupId(1), index: *index }),
            };
            engine.on_entry_read(group, *index, read);
        }
        !reads.is_empty()
    }
}

impl Client {
    fn take(&mut self, effect: Effect) {
        match effect {
            Effect::Answer { ticket, answer } => {
                self.answers.entry(ticket).or_default().push(answer);
            }
            Effect::Send { session, events, answered } => {
                self.answered += answered;
                let seen: &mut BTreeMap<u64, Vec<Seen>> = &mut self.sessions;
                decode(events, seen.entry(session.0).or_default());
            }
            Effect::Refuse { session, .. } => {
                self.sessions.entry(session.0).or_default().push(Seen::Refused);
            }
            Effect::QueueCreated { uri, version } => self.created.push((uri, version.index)),
            Effect::EndSession { session, .. } => {
                self.sessions.entry(session.0).or_default().push(Seen::SessionEnds);
            }
            _ => {}
        }
    }
}
