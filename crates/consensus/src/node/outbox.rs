//! Messages of all groups for one peer, until they leave in common packets.

use crate::{Body, Class, Entry, FetchOutcome, Message};

/// Counted for a message besides what it carries.
const MESSAGE_BYTES: usize = 64;
/// Counted for an entry besides its payload.
const ENTRY_BYTES: usize = 32;

/// What waits for the next packets.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox {
    urgent: Vec<Message>,
    append: Vec<Message>,
    bulk: Vec<Message>,
}

impl Outbox {
    /// Adds a message. True when it took the place of the one before, which says less.
    pub(super) fn push(&mut self, message: Message) -> bool {
        let queue = self.queue(Class::of(&message.body));
        if let Some(last) = queue.last_mut()
            && is_outdone(last, &message)
        {
            *last = message;
            return true;
        }
        queue.push(message);
        false
    }

    fn queue(&mut self, class: Class) -> &mut Vec<Message> {
        match class {
            Class::Urgent => &mut self.urgent,
            Class::Append => &mut self.append,
            Class::Bulk => &mut self.bulk,
        }
    }

    /// Empties it into lists of messages, each within the bounds unless one message is beyond them.
    /// With `greet` there is an urgent one, even if it is empty.
    pub(super) fn pack(
        &mut self,
        greet: bool,
        max_messages: usize,
        max_bytes: usize,
        mut packet: impl FnMut(Class, Vec<Message>),
    ) {
        if greet && self.urgent.is_empty() {
            packet(Class::Urgent, Vec::new());
        }
        for class in [Class::Urgent, Class::Append, Class::Bulk] {
            let mut messages = std::mem::take(self.queue(class));
            while !messages.is_empty() {
                let rest = messages.split_off(fitting(&messages, max_messages, max_bytes));
                packet(class, std::mem::replace(&mut messages, rest));
            }
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// How many of these messages fit into one packet, at least one.
fn fitting(messages: &[Message], max_messages: usize, max_bytes: usize) -> usize {
    let mut bytes = 0;
    messages
        .iter()
        .take(max_messages)
        .take_while(|message| {
            bytes += weight(message);
            bytes <= max_bytes
        })
        .count()
        .max(1)
}

/// About how many bytes a message takes.
fn weight(message: &Message) -> usize {
    let of_entries = |entries: &[Entry]| -> usize {
        entries.iter().map(|entry| ENTRY_BYTES + entry.payload.len()).sum()
    };
    MESSAGE_BYTES
        + match &message.body {
            Body::Append { entries, .. } => of_entries(entries),
            Body::FetchReply { outcome: FetchOutcome::Entries(entries), .. } => of_entries(entries),
            Body::SnapshotChunk { cursor, data, next, .. } => {
                cursor.len() + data.len() + next.as_ref().map_or(0, bytes::Bytes::len)
            }
            _ => 0,
        }
}

/// An acknowledgement that a later one of the same term makes superfluous.
fn is_outdone(earlier: &Message, later: &Message) -> bool {
    let (
        Body::Ack { outcome: Ok(before), recovering, .. },
        Body::Ack { outcome: Ok(after), recovering: now, .. },
    ) = (&earlier.body, &later.body)
    else {
        return false;
    };
    earlier.group == later.group
        && earlier.creation == later.creation
        && earlier.term == later.term
        && before <= after
        && recovering == now
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConfigStamp, CreationId, EntryKind, GroupId, Index, LogPosition, NodeId};
    use bytes::Bytes;

    fn message(group: u32, body: Body) -> Message {
        let (from, to) = (NodeId(1), NodeId(2));
        Message { group: GroupId(group), creation: CreationId(0), from, to, term: 1, body }
    }

    fn ack(group: u32, outcome: Result<Index, LogPosition>) -> Message {
        let config = ConfigStamp::default();
        message(group, Body::Ack { outcome, synced: 0, config, recovering: None })
    }

    fn append(size: usize) -> Message {
        let payload = Bytes::from(vec![0; size]);
        let entry = Entry { index: 1, term: 1, history: 0, kind: EntryKind::Commands, payload };
        message(
            1,
            Body::Append {
                prev: LogPosition::default(),
                entries: vec![entry],
                commit: 0,
                history: 0,
                config: ConfigStamp::default(),
                newer: None,
                rejoin: None,
            },
        )
    }

    fn packed(outbox: &mut Outbox, greet: bool, messages: usize, bytes: usize) -> Vec<usize> {
        let mut sizes = Vec::new();
        outbox.pack(greet, messages, bytes, |_, messages| sizes.push(messages.len()));
        sizes
    }

    #[test]
    fn packets_are_bounded_in_messages_and_bytes() {
        let mut outbox = Outbox::default();
        for group in 0..5 {
            outbox.push(message(group, Body::Wake));
        }
        assert_eq!(packed(&mut outbox, false, 2, 10_000), [2, 2, 1]);
        for _ in 0..4 {
            outbox.push(append(300));
        }
        outbox.push(append(5000));
        assert_eq!(packed(&mut outbox, false, 9, 1000), [2, 2, 1], "one message may exceed it");
        assert_eq!(packed(&mut outbox, false, 9, 1000), []);
    }

    #[test]
    fn a_greeting_needs_no_message_of_its_own() {
        let mut outbox = Outbox::default();
        assert_eq!(packed(&mut outbox, true, 9, 1000), [0]);
        outbox.push(message(1, Body::Wake));
        assert_eq!(packed(&mut outbox, true, 9, 1000), [1]);
        outbox.push(append(1));
        assert_eq!(packed(&mut outbox, true, 9, 1000), [0, 1], "entries may be late");
    }

    #[test]
    fn only_the_last_of_a_groups_acknowledgements_leaves() {
        let mut outbox = Outbox::default();
        assert!(!outbox.push(ack(1, Ok(3))));
        assert!(outbox.push(ack(1, Ok(5))));
        assert!(!outbox.push(ack(1, Ok(4))), "it says less, but it is the later one");
        assert!(!outbox.push(ack(2, Ok(9))), "another group");
        assert!(!outbox.push(ack(2, Err(LogPosition::default()))), "a refusal says more");
        assert_eq!(packed(&mut outbox, false, 9, 1000), [4]);
    }
}
