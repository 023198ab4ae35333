//! What clients do.

use std::collections::BTreeSet;

use flintmq_consensus::GroupId;
use flintmq_partition::{Request, SessionEnded, SessionId, Ticket};

use crate::client::{Connection, Use, UseState};
use crate::coverage::Situation;
use crate::event::Event;
use crate::event::SessionInfo;
use crate::publishing::MOST_OUTSTANDING;
use crate::world::World;

impl World {
    /// A client's turn.
    pub(crate) fn act(&mut self, number: usize) {
        let now = self.now;
        let pace = self.profile.pace;
        let Some(client) = self.clients.get_mut(number) else { return };
        let pace = if client.settles { pace.min(20_000) } else { pace };
        let next = client.random.between(pace / 2, pace * 3 / 2).max(1);
        self.after(next, Event::Act(number));
        let Some(client) = self.clients.get_mut(number) else { return };
        match client.connection {
            None if client.retry_at <= now => self.come(number),
            None => {}
            Some(connection) if connection.leaving > 0 => {}
            Some(connection) => self.use_session(number, connection),
        }
    }

    /// Connects to a node that runs, and opens everything.
    pub(crate) fn come(&mut self, number: usize) {
        let running = self.serving_nodes();
        let session = SessionId(self.name());
        let Some(client) = self.clients.get_mut(number) else { return };
        let Some((node, incarnation)) = client.random.pick(&running) else { return };
        client.connection = Some(Connection { session, node, incarnation, leaving: 0 });
        client.slow_until = None;
        client.uses.iter_mut().for_each(Use::forget);
        let uses = client.uses.len();
        let info = SessionInfo {
            client: number,
            node,
            incarnation,
            last_to_node: 0,
            last_to_client: 0,
            over: false,
            unanswered: Default::default(),
            open: Default::default(),
            names: Default::default(),
        };
        self.sessions.insert(session, info);
        self.say(|| format!("client {} comes to node {} as {session:?}", number + 1, node.0));
        (0..uses).for_each(|place| self.open(number, place));
    }

    /// Does something in a session that is up.
    pub(crate) fn use_session(&mut self, number: usize, connection: Connection) {
        let now = self.now;
        let Some(client) = self.clients.get_mut(number) else { return };
        let session = connection.session;
        if let Some(until) = client.slow_until
            && until <= now
        {
            client.slow_until = None;
            for group in self.groups_of(number) {
                self.hand_to_node(session, group, Request::SessionRoom(session));
            }
            return;
        }
        let settles = client.settles;
        let choice = client.random.below(1000);
        let Some(place) = pick_place(client) else { return };
        match choice {
            0..5 if !settles => self.leave(number, connection),
            5..9 if !settles => self.die(number),
            9..16 if !settles && client.slow_until.is_none() => {
                client.slow_until = Some(now + client.random.skewed(5_000, 3_000_000));
                self.coverage.saw(Situation::ClientSlow);
                for group in self.groups_of(number) {
                    self.hand_to_node(session, group, Request::SessionFull(session));
                }
            }
            16..40 if !settles => self.close(number, place),
            40..300 if !settles && self.profile.sparse => self.close(number, place),
            300..600 if !settles && self.profile.sparse => {
                if self.clients.get(number).is_some_and(|c| c.uses[place].reads) {
                    self.use_queue(number, place);
                }
            }
            _ => self.use_queue(number, place),
        }
    }

    pub(crate) fn groups_of(&self, number: usize) -> BTreeSet<GroupId> {
        let Some(client) = self.clients.get(number) else { return BTreeSet::new() };
        client.uses.iter().map(|one| one.group).collect()
    }

    pub(crate) fn use_queue(&mut self, number: usize, place: usize) {
        let now = self.now;
        let Some(client) = self.clients.get_mut(number) else { return };
        let settles = client.settles;
        let Some(one) = client.uses.get_mut(place) else { return };
        match one.state {
            UseState::Closed if one.rests_until > now && !settles => {}
            UseState::Closed => self.open(number, place),
            UseState::Opening | UseState::Closing => {}
            UseState::Open if !one.reads => {
                if settles || client.random.chance(100) {
                    self.send_again(number, place);
                } else if client.unacknowledged.len() < MOST_OUTSTANDING {
                    self.publish(number, place);
                }
            }
            UseState::Open => {
                let reconfigures = !settles && client.random.chance(30);
                if one.configuring.is_none() && (one.subscription == 0 || reconfigures) {
                    return self.configure(number, place);
                }
                let most = one.held.len();
                let count = if settles { most } else { client.random.below(8) as usize };
                let forgets = !settles && client.random.chance(200);
                if count > 0 && most > 0 && !forgets {
                    self.confirm(number, place, count.min(most));
                }
            }
        }
    }

    /// Says goodbye, and waits for the answers.
    pub(crate) fn leave(&mut self, number: usize, connection: Connection) {
        let groups = self.groups.len() as u32;
        let Some(client) = self.clients.get_mut(number) else { return };
        client.connection = Some(Connection { leaving: groups, ..connection });
        self.coverage.saw(Situation::ClientLeft);
        let session = connection.session;
        let ended = SessionEnded { session, lost: false, ticket: Ticket(0) };
        self.hand_to_node(session, GroupId(1), Request::SessionEnded(ended));
    }

    /// Vanishes. The node notices soon.
    pub(crate) fn die(&mut self, number: usize) {
        let Some(client) = self.clients.get_mut(number) else { return };
        let Some(connection) = client.connection.take() else { return };
        client.retry_at = self.now + client.random.skewed(1_000, 1_000_000);
        self.coverage.saw(Situation::ClientDied);
        let session = connection.session;
        let ended = SessionEnded { session, lost: true, ticket: Ticket(0) };
        self.hand_to_node(session, GroupId(1), Request::SessionEnded(ended));
    }
}

fn pick_place(client: &mut crate::client::Client) -> Option<usize> {
    let places: Vec<usize> = (0..client.uses.len()).collect();
    client.random.pick(&places)
}
