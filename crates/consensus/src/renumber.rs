//! Counts that only tell how a state was come to, taken out, so that a model checker sees that two
//! states are the same.

use crate::core::Core;
use crate::durability::Durability;

impl Durability {
    /// Counts saves and writes anew, from the last of each that is done. What both began at.
    fn renumber(&mut self) -> (u64, u64) {
        let (saves, writes) = (self.saves_synced, self.writes_done);
        self.saves_issued -= saves;
        self.saves_synced = 0;
        self.writes_issued -= writes;
        self.writes_done = 0;
        for write in &mut self.under_way {
            write.number -= writes;
        }
        for held in &mut self.held {
            held.save = held.save.saturating_sub(saves);
            held.write = held.write.saturating_sub(writes);
        }
        (saves, writes)
    }
}

impl Core {
    /// Lowers the numbers of all saves and writes by what is returned: so many saves, so many
    /// writes. A host that has some under way lowers their numbers by as much. Reads of the log are
    /// counted anew when none is under way. For model checkers: a core behaves as before.
    pub fn renumber(&mut self) -> (u64, u64) {
        let (saves, writes) = self.durability.renumber();
        self.resetting = self.resetting.map(|write| write.saturating_sub(writes));
        let mut reading = self.fetch_read.is_some();
        if let Some(leading) = &mut self.leading {
            leading.barrier_write = leading.barrier_write.saturating_sub(writes);
            leading.sync.renumber(saves);
            reading |= leading.progress.iter().any(|peer| peer.reading.is_some());
        }
        if !reading {
            self.reads_issued = 0;
        }
        (saves, writes)
    }
}
