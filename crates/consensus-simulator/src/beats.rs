//! Processes in two halves, as the broker runs them: one beats and watches the peers, the other has
//! the groups and is told, a while later.

use std::hash::Hash;

use flintmq_consensus::{NodeEffect, NodeId, NodeInput};

use crate::coverage::Situation;
use crate::event::Event;
use crate::ghost::Check;
use crate::world::World;

impl World {
    /// Gives an input to the half that beats, if it is meant for that, and leaves the rest to the
    /// other.
    pub(crate) fn input_of_beats(&mut self, id: NodeId, input: NodeInput) -> Option<NodeInput> {
        let process = self.nodes.get(&id)?.process.as_ref()?;
        if process.beats.is_none() {
            return Some(input);
        }
        match &input {
            NodeInput::Packet(packet) if packet.messages.is_empty() => {}
            NodeInput::Connected { .. }
            | NodeInput::Disconnected { .. }
            | NodeInput::Stalled
            | NodeInput::Resumed => {}
            NodeInput::AddPeer { .. } | NodeInput::RemovePeer { .. } | NodeInput::Unfit { .. } => {
                self.step_beats(id, input.clone());
                return Some(input);
            }
            _ => return Some(input),
        }
        self.step_beats(id, input);
        None
    }

    pub(crate) fn step_beats(&mut self, id: NodeId, input: NodeInput) {
        let now = self.schedule.now;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let local = node.local(now);
        let Some(beats) = node.process.as_mut().and_then(|process| process.beats.as_mut()) else {
            return;
        };
        beats.core.step(local, input);
        self.flush_beats(id);
    }

    /// Carries out what the half that beats wants done: packets leave, and the other half will hear
    /// of peers.
    pub(crate) fn flush_beats(&mut self, id: NodeId) {
        let now = self.schedule.now;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let local = node.local(now);
        let Some(process) = &mut node.process else { return };
        let run = process.run;
        let Some(beats) = &mut process.beats else { return };
        let mut effects = Vec::new();
        beats.core.flush(local, &mut effects);
        if let Some(deadline) = beats.core.next_deadline() {
            let at = node.clock.global(deadline, now);
            if beats.timer_at.is_none_or(|timer| at < timer) {
                beats.timer_at = Some(at);
                self.schedule.at(at, Event::Beat { node: id, run, at });
            }
        }
        for effect in effects {
            effect.hash(&mut self.trace);
            let word = match effect {
                NodeEffect::Send { class, packet } => {
                    self.send(id, class, packet);
                    continue;
                }
                NodeEffect::PeerTrusted { peer, incarnation, restarted } => {
                    NodeInput::PeerUp { peer, incarnation, restarted }
                }
                NodeEffect::PeerUnfit { peer, reasons } => NodeInput::PeerUnfit { peer, reasons },
                NodeEffect::PeerSuspected { peer } => {
                    self.coverage.saw(Situation::Suspected);
                    NodeInput::PeerDown { peer }
                }
                NodeEffect::SaveHardStates { .. } | NodeEffect::Group { .. } => continue,
            };
            let delay = self.random.below(self.profile.told_after) + 1;
            if let Some(beats) = self.process(id, run).and_then(|process| process.beats.as_mut()) {
                beats.words.push_back(word);
                self.schedule.after(delay, Event::Told { node: id, run });
            }
        }
    }

    pub(crate) fn on_beat(&mut self, id: NodeId, run: u64, at: u64) {
        let beats = self.process(id, run).and_then(|process| process.beats.as_mut());
        if beats.is_some_and(|beats| beats.timer_at.take_if(|timer| *timer == at).is_some()) {
            self.step_beats(id, NodeInput::Tick);
        }
    }

    /// The half with the groups hears the next word. However long each took, they keep their order.
    pub(crate) fn on_told(&mut self, id: NodeId, run: u64) -> Check {
        let beats = self.process(id, run).and_then(|process| process.beats.as_mut());
        match beats.and_then(|beats| beats.words.pop_front()) {
            Some(word) => self.input(id, word),
            None => Ok(()),
        }
    }

    /// The half with the groups is not run for a while. The other one notices.
    pub(crate) fn stall(&mut self, id: NodeId, lasts: u64) {
        let now = self.schedule.now;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.stalled_until = node.stalled_until.max(now + lasts);
        let until = node.stalled_until;
        let Some(process) = &node.process else { return };
        let (run, watchdog) = (process.run, process.core.settings().watchdog);
        let noticed = now + u64::try_from(watchdog.as_micros()).unwrap_or(u64::MAX);
        if noticed < until {
            self.schedule.at(noticed, Event::NotStepped { node: id, run });
        }
        self.schedule.at(until, Event::Resumed { node: id, run });
    }

    pub(crate) fn on_not_stepped(&mut self, id: NodeId, run: u64) {
        let now = self.schedule.now;
        let stalled = self.nodes.get(&id).is_some_and(|node| node.stalled_until > now);
        if stalled && self.process(id, run).is_some() {
            self.coverage.saw(Situation::FellSilent);
            self.step_beats(id, NodeInput::Stalled);
        }
    }
}
