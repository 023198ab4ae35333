//! The world: everything there is, and what happens next.

use std::collections::{BTreeMap, BTreeSet};

use flintmq_consensus::{GroupId, NodeId};
use flintmq_node::NodeRequest;
use flintmq_partition::{SessionId, Ticket};
use flintmq_queue::{HandleId, Position, QueueId};
use flintmq_shard::ShardInput;

use crate::client::{Client, Slot};
use crate::controller::ControllerOracle;
use crate::coverage::Coverage;
use crate::domains::SimDomain;
use crate::event::{Event, SessionInfo, Waits};
use crate::network::Net;
use crate::node::Node;
use crate::operators::Operators;
use crate::oracle::{GroupOracle, Key, Violation};
use crate::placing::Opening;
use crate::plan::{Fault, Profile};
use crate::random::{Random, Trace};
use crate::settle::Settling;

/// See the module.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) profile: Profile,
    pub(crate) faults: Vec<Fault>,
    pub(crate) now: u64,
    pub(crate) steps: u64,
    pub(crate) events: BTreeMap<(u64, u64), Event>,
    pub(crate) scheduled: u64,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) net: Net,
    pub(crate) net_random: Random,
    pub(crate) disk_random: Random,
    pub(crate) host_random: Random,
    pub(crate) admin_random: Random,
    pub(crate) operator_random: Random,
    pub(crate) clients: Vec<Client>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) domains: Vec<SimDomain>,
    pub(crate) sessions: BTreeMap<SessionId, SessionInfo>,
    /// Opens that sessions of nodes are busy with.
    pub(crate) openings: BTreeMap<u64, Opening>,
    pub(crate) tickets: BTreeMap<Ticket, (NodeId, u64, Waits)>,
    /// Counts tickets, sessions, handles, queue ids, subscriptions and requests.
    pub(crate) named: u64,
    /// The partitions.
    pub(crate) groups: BTreeMap<GroupId, GroupOracle>,
    pub(crate) controller: ControllerOracle,
    /// The slot that each message was published to.
    pub(crate) published_to: BTreeMap<Key, usize>,
    /// Messages that were acknowledged with success.
    pub(crate) acknowledged: BTreeMap<Key, (GroupId, QueueId)>,
    /// Pushes of a message without the flag, under a leadership: queue and message.
    pub(crate) pushed: BTreeMap<GroupId, BTreeSet<(u64, QueueId, Key)>>,
    pub(crate) pushed_upto: BTreeMap<(u64, HandleId), u64>,
    /// Consumers that ever opened a queue.
    pub(crate) readers: BTreeMap<(GroupId, QueueId), BTreeSet<HandleId>>,
    /// Positions of the messages that each consumer got, flagged or not.
    pub(crate) got: BTreeMap<HandleId, BTreeSet<Position>>,
    pub(crate) operators: Operators,
    pub(crate) settling: Settling,
    pub(crate) coverage: Coverage,
    pub(crate) trace: Trace,
    pub(crate) verbose: bool,
}

impl World {
    pub(crate) fn at(&mut self, when: u64, event: Event) {
        self.scheduled += 1;
        self.events.insert((when.max(self.now), self.scheduled), event);
    }

    pub(crate) fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    /// The next number for a ticket, a session, a handle or a request.
    pub(crate) fn name(&mut self) -> u64 {
        self.named += 1;
        self.named
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn process_of(&self, id: NodeId) -> Option<u64> {
        Some(self.nodes.get(&id)?.process.as_ref()?.incarnation)
    }

    pub(crate) fn say(&self, text: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>8} {:>10.3} {}", self.steps, self.now as f64 / 1000.0, text());
        }
    }

    /// The next event; false when the run is over.
    pub(crate) fn step(&mut self) -> Result<bool, Violation> {
        let Some(((at, _), event)) = self.events.pop_first() else { return Ok(false) };
        self.now = self.now.max(at);
        self.steps += 1;
        self.trace.fold(self.now);
        self.happen(event)?;
        Ok(!self.settling.done)
    }

    /// Forgets what was to end later: it ends now.
    pub(crate) fn forget_healing(&mut self) {
        self.events.retain(|_, event| !matches!(event, Event::Heal(_)));
    }

    pub(crate) fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Wake(id, incarnation) => self.wake(id, incarnation),
            Event::Live(id, incarnation) => {
                self.live(id, incarnation);
                Ok(())
            }
            Event::Disk(id, incarnation) => {
                self.work_disk(id, incarnation);
                Ok(())
            }
            Event::Sync(id, incarnation) => {
                self.sync_disk(id, incarnation);
                Ok(())
            }
            Event::Packet(packet, beat) => {
                self.packet_arrives(packet, beat);
                Ok(())
            }
            Event::Flow(from, to) => {
                self.flow(from, to);
                Ok(())
            }
            Event::Tell(id, incarnation, input) => {
                self.tell_now(id, incarnation, *input);
                Ok(())
            }
            Event::Boot(id) => self.boot(id),
            Event::Act(client) => {
                self.act(client);
                Ok(())
            }
            Event::ToNode(session, group, request) => {
                self.request_arrives(session, group, *request);
                Ok(())
            }
            Event::ToClient(client, session, item) => self.client_gets(client, session, item),
            Event::Fault(number) => self.inject(number),
            Event::Heal(healing) => {
                self.heal(healing);
                Ok(())
            }
            Event::Connect(a, b) => {
                self.connect(a, b);
                Ok(())
            }
            Event::LookAtLeaders => {
                self.after(200_000, Event::LookAtLeaders);
                self.check_leaders()
            }
            Event::RemoveIdle { uri, unused_ms } => {
                self.remove_anywhere(&uri, unused_ms);
                Ok(())
            }
            Event::Administer => {
                self.administer();
                Ok(())
            }
            Event::Asks(session, open) => {
                self.open_arrives(session, open);
                Ok(())
            }
            Event::PlaceAgain(number) => {
                self.place(number);
                Ok(())
            }
            Event::Operate(operation) => {
                self.operate(*operation);
                Ok(())
            }
            Event::Define(domain) => {
                self.define(domain);
                Ok(())
            }
            Event::SetDomain(process, group, domain, number) => {
                self.set_domain(process, group, domain, Some(number));
                Ok(())
            }
            Event::Join(id) => {
                self.ask_to_join(id);
                Ok(())
            }
            Event::LookAfterNodes => {
                self.look_after_nodes();
                Ok(())
            }
            Event::PartWith(id, peer) => {
                self.part_with(id, peer);
                Ok(())
            }
            Event::TurnOff(id) => {
                self.bury(id);
                Ok(())
            }
            Event::LoseMajority(choice) => {
                self.lose_majority(choice);
                Ok(())
            }
            Event::Recover(group) => {
                self.look_where_members_stand(group);
                Ok(())
            }
            Event::Settle => {
                self.begin_settling();
                Ok(())
            }
            Event::Look => self.look_whether_settled(),
        }
    }

    /// A node's liveness has something to do.
    pub(crate) fn wake_liveness(&mut self, id: NodeId, at: u64) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let at = at.max(node.paused_until).max(self.now);
        let Some(process) = &mut node.process else { return };
        if process.live_at.is_none_or(|due| at < due) {
            process.live_at = Some(at);
            let incarnation = process.incarnation;
            self.at(at, Event::Live(id, incarnation));
        }
    }

    /// A node's shard has something to do.
    pub(crate) fn wake_shard(&mut self, id: NodeId, at: u64) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let at = at.max(node.paused_until).max(node.shard_stalled_until).max(self.now);
        let Some(process) = &mut node.process else { return };
        if process.wake_at.is_none_or(|due| at < due) {
            process.wake_at = Some(at);
            let incarnation = process.incarnation;
            self.at(at, Event::Wake(id, incarnation));
        }
    }

    /// Gives a shard an input, after a moment.
    pub(crate) fn tell_now(
        &mut self,
        id: NodeId,
        incarnation: u64,
        input: ShardInput<NodeRequest>,
    ) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(process) = node.process.as_mut().filter(|p| p.incarnation == incarnation) else {
            return;
        };
        process.inbox.push_back(input);
        let soon = self.now + self.host_random.skewed(1, 200);
        self.wake_shard(id, soon);
    }
}
