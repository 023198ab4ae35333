//! Who gives messages their GUIDs.

use flintmq_consensus::Time;
use flintmq_partition::SessionId;
use flintmq_protocol::guid::{ClientId, GuidGenerator, MessageGuid};

/// Who makes the GUIDs of a session's messages.
#[derive(Debug)]
pub(crate) enum GuidSource {
    /// The client; the correlation id is always 0.
    Client,
    /// This session, for clients that only count.
    Session(SessionGuids),
}

/// Makes the GUIDs of one session.
#[derive(Debug)]
pub(crate) struct SessionGuids {
    generator: GuidGenerator,
    since: Time,
}

impl SessionGuids {
    /// For a session that begins now.
    pub(crate) fn new(now: Time, client: ClientId) -> Self {
        Self { generator: GuidGenerator::new(client), since: now }
    }

    /// The next one. They differ by their count where the time is the same: one step takes far
    /// fewer messages than the count has numbers.
    pub(crate) fn next(&mut self, now: Time) -> MessageGuid {
        let elapsed = now.since(self.since).as_nanos();
        self.generator.next_guid(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }
}

/// Six bytes that no other session of the cluster has: `boot` names this process of the node.
pub(crate) fn client_id(boot: u32, session: SessionId) -> ClientId {
    let [a, b, c, d] = boot.to_be_bytes();
    let [.., e, f] = session.0.to_be_bytes();
    let mixed = (session.0 >> 16) as u32;
    let [m, n, ..] = mixed.to_be_bytes();
    ClientId([a ^ m, b ^ n, c, d, e, f])
}
