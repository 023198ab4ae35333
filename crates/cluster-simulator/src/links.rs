//! What travels between nodes: packets, messages on connections, and the connections.

use bytes::Bytes;
use flintmq_consensus::{GroupId, NodeId, NodeInput, Packet};
use flintmq_shard::ShardInput;

use crate::coverage::Situation;
use crate::event::Event;
use crate::network::{InFlight, ends};
use crate::world::World;

impl World {
    pub(crate) fn packet_arrives(&mut self, packet: Packet, beat: bool) {
        let (from, to) = (packet.from, packet.to);
        if self.net.is_cut(from, to) || !self.knows(to, from) {
            return;
        }
        let Some(node) = self.nodes.get_mut(&to) else { return };
        let time = node.clock.time(self.now.max(node.paused_until));
        let Some(process) = &mut node.process else { return };
        if beat {
            if node.paused_until > self.now {
                // It waits in the socket until the process runs on.
                let at = node.paused_until;
                self.at(at + 1, Event::Packet(packet, beat));
                return;
            }
            process.step_liveness(time, NodeInput::Packet(packet.clone()));
            let news = node.hear_clocks(self.now, &packet);
            self.wake_liveness(to, self.now);
            if news {
                let soon = self.now + self.host_random.skewed(1, 200);
                self.wake_shard(to, soon);
            }
        } else {
            process.inbox.push_back(ShardInput::Packet(packet));
            let soon = self.now + self.host_random.skewed(1, 200);
            self.wake_shard(to, soon);
        }
    }

    /// Sends a packet on its way, unless it gets lost.
    pub(crate) fn send_packet(&mut self, packet: Packet, beat: bool) {
        let (from, to) = (packet.from, packet.to);
        let weather = self.net.weather;
        if !self.knows(from, to) {
            return;
        }
        if self.net.is_cut(from, to) || self.net_random.chance(weather.loss) {
            self.coverage.saw(Situation::PacketLost);
            return;
        }
        let delay = self.net_random.between(weather.delay.0, weather.delay.1);
        self.after(delay, Event::Packet(packet, beat));
    }

    /// Puts a message on the connection between two nodes.
    pub(crate) fn send_message(
        &mut self,
        from: NodeId,
        to: NodeId,
        (process, group, bytes): (u64, GroupId, Bytes),
    ) {
        let (low, high) = self.net.weather.delay;
        let delay = self.net_random.between(low, high);
        let loses = self.net_random.chance(self.net.weather.loss);
        let now = self.now;
        let Some(link) = self.net.links.get_mut(&(from, to)) else { return };
        // What is lost on the way is sent again below: it is only later.
        let arrival = now + if loses { delay * 4 + 2_000 } else { delay };
        let arrival = arrival.max(link.last_arrival);
        link.last_arrival = arrival;
        link.flow.push_back(InFlight { arrival, process, group, bytes });
        self.look_at_flow(from, to);
    }

    pub(crate) fn look_at_flow(&mut self, from: NodeId, to: NodeId) {
        let Some(link) = self.net.links.get_mut(&(from, to)) else { return };
        let Some(next) = link.flow.front().filter(|_| !link.cut) else { return };
        let at = next.arrival.max(self.now);
        if link.looked_at.is_none_or(|looked| looked > at) {
            link.looked_at = Some(at);
            self.at(at, Event::Flow(from, to));
        }
    }

    pub(crate) fn flow(&mut self, from: NodeId, to: NodeId) {
        let now = self.now;
        let Some(link) = self.net.links.get_mut(&(from, to)) else { return };
        link.looked_at = None;
        let mut arrived = Vec::new();
        while !link.cut
            && link.flow.front().is_some_and(|message| message.arrival <= now)
            && let Some(message) = link.flow.pop_front()
        {
            arrived.push(message);
        }
        let bytes: usize = arrived.iter().map(|message| message.bytes.len()).sum();
        if bytes > 0 {
            self.make_room(from, to, bytes);
        }
        if let Some(incarnation) = self.process_of(to) {
            for message in arrived {
                let InFlight { process, group, bytes, .. } = message;
                let input = ShardInput::Message { from, process, group, bytes };
                self.tell_now(to, incarnation, input);
            }
        }
        self.look_at_flow(from, to);
    }

    /// So many bytes of a connection have arrived.
    pub(crate) fn make_room(&mut self, from: NodeId, to: NodeId, bytes: usize) {
        let Some(process) = self.nodes.get(&from).and_then(|node| node.process.as_ref()) else {
            return;
        };
        let mut wire = process.wire.lock();
        let Some(way) = wire.ways.get_mut(&to) else { return };
        way.in_flight = way.in_flight.saturating_sub(bytes);
        let room = way.starved && way.in_flight <= way.limit / 2;
        way.starved &= !room;
        drop(wire);
        let incarnation = process.incarnation;
        if room {
            self.coverage.saw(Situation::RoomAgain);
            self.tell_now(from, incarnation, ShardInput::Room { peer: to });
        }
    }

    /// Makes a connection between two nodes that run and can reach each other.
    pub(crate) fn connect(&mut self, a: NodeId, b: NodeId) {
        if self.net.is_open(a, b) {
            return;
        }
        if !self.knows(a, b) || !self.knows(b, a) {
            return;
        }
        if self.net.is_cut(a, b) || self.net.is_cut(b, a) {
            let later = self.net_random.between(50_000, 300_000);
            self.after(later, Event::Connect(a, b));
            return;
        }
        self.net.open.insert(ends(a, b), true);
        self.set_ways(a, b, true);
    }

    /// Whether a node runs and connects to another one.
    fn knows(&self, id: NodeId, other: NodeId) -> bool {
        let process = self.nodes.get(&id).and_then(|node| node.process.as_ref());
        process.is_some_and(|process| process.known.contains(&other))
    }

    /// Opens or closes the ways between two nodes; nothing is on them.
    pub(crate) fn set_ways(&mut self, a: NodeId, b: NodeId, open: bool) {
        let limit = self.net.way_limit;
        for (from, to) in [(a, b), (b, a)] {
            let Some(process) = self.nodes.get(&from).and_then(|node| node.process.as_ref()) else {
                continue;
            };
            let incarnation = process.incarnation;
            if process.set_way(to, open, limit) {
                self.tell_now(from, incarnation, ShardInput::Room { peer: to });
            }
        }
    }

    /// The connection between two nodes is no more, with all that was on it.
    pub(crate) fn disconnect(&mut self, a: NodeId, b: NodeId) {
        self.net.drop_flows(a, b);
        if self.net.open.insert(ends(a, b), false) == Some(true) {
            self.set_ways(a, b, false);
        }
        let later = self.net_random.between(5_000, 200_000);
        self.after(later, Event::Connect(a, b));
    }
}
