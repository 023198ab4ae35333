//! What passes between clients and partitions through the sessions of a node.

use flintmq_consensus::{GroupId, NodeId};
use flintmq_partition::{Request, SessionEnded, SessionId, Ticket};
use flintmq_shard::ShardInput;

use crate::client::Item;
use crate::coverage::Situation;
use crate::event::{Event, Waits};
use crate::node::Stopping;
use crate::oracle::{Key, key_of};
use crate::world::World;

impl World {
    /// Sends something to the session's node, behind all that was sent before.
    pub(crate) fn hand_to_node(&mut self, session: SessionId, group: GroupId, request: Request) {
        if self.sessions.contains_key(&session) {
            let at = self.on_the_way_to_node(session);
            self.at(at, Event::ToNode(session, group, Box::new(request)));
        }
    }

    /// When something reaches the session's node that is sent now, behind all that was sent before.
    pub(crate) fn on_the_way_to_node(&mut self, session: SessionId) -> u64 {
        let delay = self.net_random.skewed(20, 2_000);
        let Some(info) = self.sessions.get_mut(&session) else { return self.now };
        let at = (self.now + delay).max(info.last_to_node + 1);
        info.last_to_node = at;
        at
    }

    pub(crate) fn request_arrives(&mut self, session: SessionId, group: GroupId, request: Request) {
        let now = self.now;
        self.say(|| format!("{session:?} group {}: {}", group.0, summary(&request)));
        // A session that is over reads nothing more.
        let Some(info) = self.sessions.get_mut(&session).filter(|info| !info.over) else { return };
        match &request {
            Request::Publish(publish) => {
                for put in &publish.puts {
                    let key = key_of(put.guid);
                    info.unanswered.insert(key, (put.queue, now));
                    if let Some(oracle) = self.groups.get_mut(&group) {
                        oracle.put_sent(key, now);
                    }
                }
            }
            Request::Confirm(confirms) => {
                for confirm in confirms {
                    let mut names = info.names.values();
                    let place = names.find(|(handle, ..)| *handle == confirm.handle).copied();
                    if let Some((_, group, queue)) = place
                        && let Some(oracle) = self.groups.get_mut(&group)
                    {
                        oracle.confirm_sent(queue, key_of(confirm.guid));
                        self.coverage.saw(Situation::Confirmed);
                    }
                }
            }
            // From now on the queue may be removed.
            Request::Close(close) => info.open.retain(|open, _| !close.handles.contains(open)),
            _ => {}
        }
        let (node, incarnation) = (info.node, info.incarnation);
        if let Request::SessionEnded(ended) = &request {
            let lost = ended.lost;
            info.over = lost;
            return self.tell_session_over(session, lost);
        }
        self.request(node, incarnation, group, request);
    }

    /// A request reaches a partition of a node.
    pub(crate) fn request(
        &mut self,
        id: NodeId,
        incarnation: u64,
        group: GroupId,
        request: Request,
    ) {
        let Some(process) = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut()) else {
            return;
        };
        if process.incarnation != incarnation {
            return;
        }
        process.waiting.entry(group).or_default().push_back(request);
        let soon = self.now + self.host_random.skewed(1, 200);
        self.wake_shard(id, soon);
    }

    pub(crate) fn hand_to_client(&mut self, session: SessionId, item: Item) {
        let delay = self.net_random.skewed(20, 2_000);
        let Some(info) = self.sessions.get_mut(&session) else { return };
        if info.over && !matches!(item, Item::Ended) {
            return;
        }
        let at = (self.now + delay).max(info.last_to_client + 1);
        info.last_to_client = at;
        let client = info.client;
        self.at(at, Event::ToClient(client, session, item));
    }

    /// The broker ends a session: its client and every partition are notified.
    pub(crate) fn end_session(&mut self, session: SessionId) {
        let Some(info) = self.sessions.get_mut(&session) else { return };
        if std::mem::replace(&mut info.over, true) {
            return;
        }
        self.hand_to_client(session, Item::Ended);
        self.tell_session_over(session, true);
    }

    /// Tells all partitions of the session's node that it is over.
    pub(crate) fn tell_session_over(&mut self, session: SessionId, lost: bool) {
        let Some(info) = self.sessions.get_mut(&session) else { return };
        if lost {
            info.unanswered.clear();
        }
        info.open.clear();
        // Opens under way end with the session.
        self.openings.retain(|_, opening| opening.session != session);
        let (node, incarnation) = (info.node, info.incarnation);
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        for group in groups {
            let ticket = Ticket(self.name());
            self.tickets.insert(ticket, (node, incarnation, Waits::End { session }));
            let ended = SessionEnded { session, lost, ticket };
            self.request(node, incarnation, group, Request::SessionEnded(ended));
        }
    }

    /// A partition of a stopping node has nothing left to wait for.
    pub(crate) fn delivery_stopped(&mut self, id: NodeId, incarnation: u64) {
        let now = self.now;
        let Some(process) = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut()) else {
            return;
        };
        let Stopping::Delivery { missing, since } = process.stopping else { return };
        if missing > 1 {
            process.stopping = Stopping::Delivery { missing: missing - 1, since };
            return;
        }
        process.stopping = Stopping::Shard { since: now };
        // Sessions end before the shard does.
        let sessions: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, info)| info.node == id && info.incarnation == incarnation)
            .map(|(session, _)| *session)
            .collect();
        for session in sessions {
            self.end_session(session);
        }
        self.tell_now(id, incarnation, ShardInput::Stop);
    }
}

fn summary(request: &Request) -> String {
    match request {
        Request::Publish(publish) => {
            let keys: Vec<Key> = publish.puts.iter().map(|put| key_of(put.guid)).collect();
            format!("publishes {keys:x?} by {:?}", publish.puts.first().map(|put| put.handle))
        }
        Request::Confirm(confirms) => {
            let keys: Vec<Key> = confirms.iter().map(|confirm| key_of(confirm.guid)).collect();
            format!("confirms {keys:x?}")
        }
        Request::Configure(configure) => {
            format!("configures {:?} {:?}", configure.handle, configure.subscriptions.first())
        }
        Request::Close(close) => format!("closes {:?}", close.handles),
        other => format!("{other:?}"),
    }
}
