//! Wall clocks that jump, and nodes that compare them.

use flintmq_consensus::NodeId;
use flintmq_shard::ShardInput;

use crate::event::Event;
use crate::world::World;

impl World {
    pub(crate) fn jump(&mut self, id: NodeId, by: i64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.clock.wall_offset_ms += by;
        }
        self.compare_clocks();
    }

    /// Nodes compare their wall clocks, as they do with their beats.
    pub(crate) fn compare_clocks(&mut self) {
        let mut offsets: Vec<i64> =
            self.nodes.values().map(|node| node.clock.wall_offset_ms).collect();
        offsets.sort_unstable();
        let majority = offsets.get(offsets.len() / 2).copied().unwrap_or_default();
        for id in self.ids() {
            let Some(incarnation) = self.process_of(id) else { continue };
            let own = self.nodes.get(&id).map_or(0, |node| node.clock.wall_offset_ms);
            let offset_ms = majority - own;
            let clock = ShardInput::Clock { offset_ms, trusted: offset_ms.abs() < 2_000 };
            let delay = self.host_random.between(1_000, 300_000);
            let now = self.now;
            let Some(process) = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut())
            else {
                continue;
            };
            let at = (now + delay).max(process.last_clock_word + 1);
            process.last_clock_word = at;
            self.at(at, Event::Tell(id, incarnation, Box::new(clock)));
        }
    }

    /// Once in a while clocks are compared, whatever happened.
    pub(crate) fn keep_comparing(&mut self) {
        self.compare_clocks();
        self.after(400_000, Event::Compare);
    }
}
