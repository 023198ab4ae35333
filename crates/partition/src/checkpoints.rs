//! When the applied state is written, and what is let go of the log by it.

use flintmq_consensus::Index;
use flintmq_queue::Partition;
use flintmq_shard::{CheckpointBatch, Group};

/// Log applied since the last checkpoint at which the next is due. Small enough that an entry and
/// its deletion meet in the store's memory, before either is written to a table.
const CHECKPOINT_BYTES: usize = 2 << 20;

/// See the module.
#[derive(Default)]
pub(crate) struct Checkpoints {
    /// One that the store had no room for.
    waiting: Option<CheckpointBatch>,
    /// Entries whose messages are gone, kept in the log for members that may need them; bounded by
    /// what the group keeps for such members.
    held_dead: Vec<Index>,
    entries: u64,
    bytes: usize,
}

impl Checkpoints {
    /// An entry was applied.
    pub(crate) fn note(&mut self, bytes: usize) {
        self.entries += 1;
        self.bytes += bytes;
    }

    /// Another state took the place of the one that was followed.
    pub(crate) fn begin_again(&mut self) {
        *self = Self::default();
    }

    /// These entries are dead, and no checkpoint has said so.
    pub(crate) fn hold(&mut self, dead: Vec<Index>) {
        self.held_dead.extend(dead);
    }

    /// Whether so much was applied that a checkpoint is due.
    pub(crate) fn is_due(&self) -> bool {
        self.bytes >= CHECKPOINT_BYTES
    }

    /// Writes the net change since the last checkpoint. False when the store has no room for it
    /// now. The last one of a stopping node lets go of all that is dead.
    pub(crate) fn write(
        &mut self,
        machine: &mut Partition,
        group: &mut dyn Group,
        last: bool,
    ) -> bool {
        if let Some(batch) = self.waiting.take()
            && let Err(batch) = group.checkpoint(batch)
        {
            self.waiting = Some(batch);
            return false;
        }
        if self.entries == 0 {
            return true;
        }
        let checkpoint = machine.take_checkpoint();
        self.held_dead.extend(checkpoint.dead_entries);
        let limit = if last { Index::MAX } else { group.compaction_limit() };
        let dead_entries = self.held_dead.extract_if(.., |index| *index <= limit).collect();
        (self.entries, self.bytes) = (0, 0);
        let batch = CheckpointBatch {
            applied: group.applied(),
            puts: checkpoint.puts,
            deletes: checkpoint.deletes,
            dead_entries,
        };
        self.waiting = group.checkpoint(batch).err();
        self.waiting.is_none()
    }
}
