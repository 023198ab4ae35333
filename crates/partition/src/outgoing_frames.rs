//! Frames of one attachment on their way to the other node: numbered, of bounded size, and kept
//! while the connection has no room.

use std::collections::VecDeque;

use bytes::Bytes;
use flintmq_consensus::NodeId;
use flintmq_shard::{Group, NotSent};

use crate::peer_message::{AttachmentId, PeerMessage};

/// What one frame carries at most; its last item may exceed the bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameLimit {
    pub(crate) items: usize,
    pub(crate) bytes: usize,
}

impl FrameLimit {
    /// Cuts items into as few frames as fit, in their order. `size` tells the bytes of an item.
    pub(crate) fn cut<T>(
        self,
        mut items: impl Iterator<Item = T>,
        size: impl Fn(&T) -> usize,
    ) -> impl Iterator<Item = Vec<T>> {
        std::iter::from_fn(move || {
            let (mut frame, mut bytes) = (Vec::new(), 0);
            while frame.len() < self.items
                && bytes < self.bytes
                && let Some(item) = items.next()
            {
                bytes += size(&item);
                frame.push(item);
            }
            (!frame.is_empty()).then_some(frame)
        })
    }
}

/// See the module.
pub(crate) struct OutgoingFrames {
    attachment: AttachmentId,
    /// How many there were so far.
    count: u64,
    /// Those that the connection had no room for. Who queues bounds them.
    waiting: VecDeque<Bytes>,
}

impl OutgoingFrames {
    pub(crate) fn new(attachment: AttachmentId) -> Self {
        Self { attachment, count: 0, waiting: VecDeque::new() }
    }

    pub(crate) fn attachment(&self) -> AttachmentId {
        self.attachment
    }

    /// How many frames there were so far, which is the number of the last one.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// How many wait for room.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Puts a message behind all others, as the next frame.
    pub(crate) fn push(&mut self, message: PeerMessage) {
        self.count += 1;
        self.waiting.push_back(message.frame(Some(self.attachment), self.count));
    }

    /// Sends what waits as far as the connection has room.
    ///
    /// # Errors
    /// Why some still wait.
    pub(crate) fn send(&mut self, group: &mut dyn Group, to: NodeId) -> Result<(), NotSent> {
        while let Some(frame) = self.waiting.front() {
            group.send(to, frame.clone())?;
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// Drops what waits: the attachment is over.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_end_with_the_item_that_reaches_a_limit() {
        let limit = FrameLimit { items: 3, bytes: 10 };
        let cut = |sizes: &[usize]| -> Vec<Vec<usize>> {
            limit.cut(sizes.iter().copied(), |size| *size).collect()
        };
        assert!(cut(&[]).is_empty());
        assert_eq!(cut(&[1, 1, 1, 1]), [vec![1, 1, 1], vec![1]]);
        assert_eq!(cut(&[9, 50, 10, 1]), [vec![9, 50], vec![10], vec![1]]);
    }
}
