//! What a client has open, under the names that it chose: queue ids, sub-queue ids, and the handles
//! behind them.

use std::collections::BTreeMap;

use flintmq_queue::{HandleId, QueueId};

/// A queue that the client has open, by its qId. All sub-streams of one URI share the qId
/// (protocol: sessions, section 1).
#[derive(Debug)]
pub(crate) struct OpenedQueue {
    /// Canonical URI.
    pub(crate) uri: String,
    pub(crate) queue: QueueId,
    /// Number of the partition's group.
    pub(crate) partition: u32,
    /// By sub-queue id; 0 for writers and for readers without an app id.
    pub(crate) sub_streams: BTreeMap<u32, SubStream>,
}

/// One reader, one writer or both, under one sub-queue id.
#[derive(Debug, Default)]
pub(crate) struct SubStream {
    pub(crate) app: String,
    pub(crate) reader: Option<HandleId>,
    pub(crate) writer: Option<HandleId>,
}

/// All queues of one session.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    queues: BTreeMap<u32, OpenedQueue>,
    /// Queue ids whose open is under way, with their URI.
    opening: BTreeMap<u32, (String, usize)>,
}

impl Handles {
    /// The queue behind a qId.
    pub(crate) fn queue(&self, queue_id: u32) -> Option<&OpenedQueue> {
        self.queues.get(&queue_id)
    }

    /// How many handles there are: readers and writers of all queues.
    pub(crate) fn count(&self) -> usize {
        let streams = self.queues.values().flat_map(|queue| queue.sub_streams.values());
        streams.map(|s| usize::from(s.reader.is_some()) + usize::from(s.writer.is_some())).sum()
    }

    /// True when the qId stands for another queue.
    pub(crate) fn belongs_to_other(&self, queue_id: u32, uri: &str) -> bool {
        self.queues.get(&queue_id).is_some_and(|queue| queue.uri != uri)
            || self.opening.get(&queue_id).is_some_and(|(opening, _)| opening != uri)
    }

    /// Opens under way.
    pub(crate) fn opens_under_way(&self) -> usize {
        self.opening.values().map(|(_, count)| count).sum()
    }

    /// Reserves the qId while its queue is being opened.
    pub(crate) fn begin_open(&mut self, queue_id: u32, uri: &str) {
        self.opening.entry(queue_id).or_insert_with(|| (uri.to_owned(), 0)).1 += 1;
    }

    /// Ends the reservation.
    pub(crate) fn end_open(&mut self, queue_id: u32) {
        if let Some((_, count)) = self.opening.get_mut(&queue_id) {
            *count -= 1;
            if *count == 0 {
                self.opening.remove(&queue_id);
            }
        }
    }

    /// Adds what was opened; roles of a sub-stream add up.
    pub(crate) fn add(
        &mut self,
        queue_id: u32,
        opened: OpenedQueue,
        sub_id: u32,
        sub_stream: SubStream,
    ) {
        let queue = self.queues.entry(queue_id).or_insert(opened);
        let present = queue.sub_streams.entry(sub_id).or_default();
        present.app = sub_stream.app;
        present.reader = sub_stream.reader.or(present.reader);
        present.writer = sub_stream.writer.or(present.writer);
    }

    /// Takes the handles of a closed sub-stream out; the queue goes with its last one. `None` when
    /// the client has no such queue or sub-stream open.
    pub(crate) fn close(
        &mut self,
        queue_id: u32,
        sub_id: u32,
        reader: bool,
        writer: bool,
    ) -> Option<(u32, Vec<HandleId>)> {
        let queue = self.queues.get_mut(&queue_id)?;
        let sub_stream = queue.sub_streams.get_mut(&sub_id)?;
        let mut closed = Vec::new();
        if reader {
            closed.extend(sub_stream.reader.take());
        }
        if writer {
            closed.extend(sub_stream.writer.take());
        }
        if sub_stream.reader.is_none() && sub_stream.writer.is_none() {
            queue.sub_streams.remove(&sub_id);
        }
        let partition = queue.partition;
        if queue.sub_streams.is_empty() {
            self.queues.remove(&queue_id);
        }
        Some((partition, closed))
    }

    /// The reader's handle for a qId and an app.
    pub(crate) fn reader_of_app(&self, queue_id: u32, app: &str) -> Option<(u32, HandleId)> {
        let queue = self.queues.get(&queue_id)?;
        queue
            .sub_streams
            .values()
            .filter(|stream| stream.app == app)
            .find_map(|stream| stream.reader.map(|reader| (queue.partition, reader)))
    }

    /// The reader's handle for a qId and a sub-queue id.
    pub(crate) fn reader(&self, queue_id: u32, sub_id: u32) -> Option<(u32, HandleId)> {
        let queue = self.queues.get(&queue_id)?;
        let reader = queue.sub_streams.get(&sub_id)?.reader?;
        Some((queue.partition, reader))
    }

    /// The writer's handle for a qId.
    pub(crate) fn writer(&self, queue_id: u32) -> Option<(u32, QueueId, HandleId)> {
        let queue = self.queues.get(&queue_id)?;
        let writer = queue.sub_streams.values().find_map(|stream| stream.writer)?;
        Some((queue.partition, queue.queue, writer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(uri: &str) -> OpenedQueue {
        OpenedQueue {
            uri: uri.into(),
            queue: QueueId(9),
            partition: 4,
            sub_streams: BTreeMap::new(),
        }
    }

    fn stream(reader: Option<u64>, writer: Option<u64>) -> SubStream {
        SubStream {
            app: "__default".into(),
            reader: reader.map(HandleId),
            writer: writer.map(HandleId),
        }
    }

    #[test]
    fn roles_of_one_sub_stream_add_up_and_close_one_by_one() {
        let mut handles = Handles::default();
        handles.add(3, opened("bmq://d/q"), 0, stream(Some(1), None));
        handles.add(3, opened("bmq://d/q"), 0, stream(None, Some(2)));
        assert_eq!(handles.writer(3), Some((4, QueueId(9), HandleId(2))));
        assert_eq!(handles.count(), 2);
        assert_eq!(handles.close(3, 0, true, false), Some((4, vec![HandleId(1)])));
        assert_eq!((handles.reader(3, 0), handles.count()), (None, 1));
        assert!(handles.queue(3).is_some());
        assert_eq!(handles.close(3, 0, false, true), Some((4, vec![HandleId(2)])));
        assert!(handles.queue(3).is_none());
        assert_eq!(handles.close(3, 0, false, true), None);
    }

    #[test]
    fn a_queue_id_stands_for_one_queue_even_while_it_is_being_opened() {
        let mut handles = Handles::default();
        handles.begin_open(1, "bmq://d/a");
        assert!(handles.belongs_to_other(1, "bmq://d/b"));
        assert!(!handles.belongs_to_other(1, "bmq://d/a"));
        handles.end_open(1);
        assert!(!handles.belongs_to_other(1, "bmq://d/b"));
        handles.add(1, opened("bmq://d/a"), 0, stream(Some(1), None));
        assert!(handles.belongs_to_other(1, "bmq://d/b"));
    }
}
