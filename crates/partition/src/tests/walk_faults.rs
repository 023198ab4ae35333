//! What happens to the cluster of a [`Walk`].

use flintmq_consensus::Index;

use super::walk::{NODES, Walk, pairs};

impl Walk {
    /// Something happens to the cluster.
    pub(super) fn disturb(&mut self) {
        let (one, other) = (self.random.below(NODES), self.random.below(NODES));
        match self.random.below(14) {
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
            8 if one != other => drop(self.world.late.insert((one, other))),
            9 => self.world.late.clear(),
            10 if !self.world.wire.is_empty() => {
                let at = self.random.below(self.world.wire.len());
                self.world.overtake(at);
            }
            11 => self.attach_several_times(one),
            _ => {
                for (from, to) in pairs() {
                    self.world.set_full(from, to, false);
                }
            }
        }
    }

    /// Several announcements and attachments in quick succession.
    fn attach_several_times(&mut self, one: usize) {
        for _ in 0..=self.random.below(3) {
            let told = self.random.below(NODES);
            match self.random.below(4) {
                0 => self.world.seek(told, one),
                1 => self.world.peer(told, one, true),
                2 => self.world.peer(one, told, true),
                _ => {
                    self.world.peer(told, one, false);
                    self.world.peer(told, one, true);
                }
            }
            let turns = self.random.below(30);
            self.world.run(turns);
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
}
