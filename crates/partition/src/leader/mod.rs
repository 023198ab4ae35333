//! What a partition does while this node leads it: it collects what clients ask for into entries,
//! proposes them, answers what is committed, and delivers.
//!
//! | file | step |
//! | --- | --- |
//! | `opening` | open, configure, close handles; the end of sessions |
//! | `publishing` | PUTs and confirmations become entries, which are proposed |
//! | `applying` | committed entries become acknowledgements; what waited for them is done |
//! | `delivering` | messages go to consumers, here and behind forwarders |
//! | `forwarders` | clients of other nodes, served through these nodes |
//! | `administration` | purge, delete |
//! | `handover` | when and to whom the leadership goes |

mod administration;
mod applying;
mod delivering;
mod forwarders;
mod handover;
mod opening;
mod publishing;

use std::collections::{BTreeMap, VecDeque};

use flintmq_consensus::{NodeId, Term, Time};
use flintmq_queue::{Deliveries, EntryBuilder, HandleId, QueueId};
use flintmq_shard::Group;

use crate::FastMap;
use crate::FastSet;
use crate::context::Context;
use crate::effect::{AdminRefusal, Answer};
use crate::peer_message::AttachmentId;
use crate::pending::AdminRequest;
use crate::request::Ticket;
use applying::Deferred;
use forwarders::ServedForwarder;
use publishing::{Collected, Proposed, ReadyEntry, WaitingPut};

/// What administrators are told whose request came to nothing because the leadership moved.
pub(crate) const LEADER_CHANGED: &str = "the leader changed meanwhile: look again";

/// Who asked for something that only the leader does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requester {
    /// A part of this node.
    Here(Ticket),
    /// A part of another node, through its forwarder.
    Node { node: NodeId, attachment: AttachmentId, number: u64 },
}

/// A handle of a client of another node.
#[derive(Clone, Copy, Debug)]
struct RemoteHandle {
    node: NodeId,
    queue: QueueId,
    /// The way out to its client is full.
    paused: bool,
}

/// The leader.
pub(crate) struct Leader {
    /// Of this leadership: an entry of another term is not one of ours.
    pub(crate) term: Term,
    since: Time,

    /// The entry that is being collected, at most about [`publishing::MAX_ENTRY_BYTES`].
    builder: EntryBuilder,
    /// The PUTs in it.
    collected: Vec<Collected>,
    /// When the first of them came.
    collecting_since: Option<Time>,
    /// PUTs that did not fit into it. Requests are not taken while there are any; those of
    /// forwarders are bounded by what their clients may have in flight.
    waiting: VecDeque<WaitingPut>,
    /// The last confirmation of a client of this node that is in the entry.
    confirmed_upto: u64,
    /// When confirmations are proposed at the latest, if nothing else is.
    confirms_due: Option<Time>,
    /// Proposed entries, at most [`publishing::MAX_UNDER_WAY`].
    under_way: VecDeque<Proposed>,
    /// A finished entry that was not taken: nothing is proposed before it.
    refused: Option<Box<ReadyEntry>>,
    /// Counts commands and PUTs in the order in which they were taken.
    taken: u64,
    /// Up to which count they are applied or answered.
    done: u64,
    /// What is done once everything before it is, in order. At most one for each request that
    /// somebody waits for.
    deferred: VecDeque<(u64, Deferred)>,
    /// Queues whose creation is on its way through the log.
    creating: FastSet<QueueId>,
    /// Purges on their way through the log; bounded as administrators' requests are.
    purges: VecDeque<(QueueId, Requester)>,
    /// The nodes whose clients are served here: at most one per node of the cluster.
    forwarders: BTreeMap<NodeId, ServedForwarder>,
    /// What these clients have open.
    remote: FastMap<HandleId, RemoteHandle>,
    /// All nodes in reach have attached: what is closed here is closed everywhere.
    attended: bool,

    /// Entries carry a wall clock that never goes back within a leadership.
    last_arrival_ms: u64,
    /// An entry without commands is due, so that the history of an idle partition grows old.
    ageing_due: bool,
    last_proposal: Time,
    /// Told when the leadership is handed over, because the node stops; since when that is tried.
    handing_over: Option<(Time, Ticket)>,
    /// Told when nothing is unconfirmed any more: the node stops, and no other can lead.
    draining: Option<Ticket>,
    /// Nothing is delivered any more.
    drained: bool,
    deliveries: Deliveries,
}

impl Leader {
    /// Begins a leadership: takes up what clients of this node have open and wait for.
    pub(crate) fn begin(cx: &mut Context, group: &mut dyn Group) -> Box<Self> {
        let now = group.now();
        let mut leader = Box::new(Self {
            term: group.term(),
            since: now,
            builder: EntryBuilder::default(),
            collected: Vec::new(),
            collecting_since: None,
            waiting: VecDeque::new(),
            confirmed_upto: 0,
            confirms_due: None,
            under_way: VecDeque::new(),
            refused: None,
            taken: 0,
            done: 0,
            deferred: VecDeque::new(),
            creating: FastSet::default(),
            purges: VecDeque::new(),
            forwarders: BTreeMap::new(),
            remote: FastMap::default(),
            attended: false,
            last_arrival_ms: 0,
            ageing_due: false,
            last_proposal: now,
            handing_over: None,
            draining: None,
            drained: false,
            deliveries: Deliveries::default(),
        });
        cx.machine.lead();
        cx.queues.touch_all();
        leader.take_up(cx, group);
        leader.announce(group, None);
        leader
    }

    /// What clients of this node have open and wait for, in order: opens, confirmations,
    /// subscriptions, PUTs, closes. Nothing is delivered before all of it is known.
    fn take_up(&mut self, cx: &mut Context, group: &mut dyn Group) {
        let local = cx.handles.in_order();
        for (handle, open) in &local {
            self.reopen(cx, *handle, open);
        }
        let opening: Vec<HandleId> = cx.pending.opens.keys().copied().collect();
        for handle in opening {
            self.begin_open(cx, handle);
        }
        for confirm in cx.pending.confirms.clone() {
            self.take_confirm(cx, confirm.handle, confirm.guid);
            self.confirmed_upto = confirm.number;
        }
        for (handle, open) in &local {
            if !open.subscriptions.is_empty() {
                let _gone_with_its_queue =
                    cx.machine.configure(*handle, open.subscriptions.to_vec());
            }
        }
        for configure in std::mem::take(&mut cx.pending.configures).into_values() {
            self.configure(cx, configure);
        }
        let puts: Vec<u64> = cx.pending.puts.from(0).map(|(number, _)| number).collect();
        for number in puts {
            self.take_local_put(number);
        }
        self.fill_entry(cx, group);
        let closing: Vec<u64> = cx.pending.closes.keys().copied().collect();
        for number in closing {
            self.defer(Deferred::Close(number));
        }
        // Purges and deletions may have been carried out by the leader before: nobody repeats them
        // unasked.
        for request in std::mem::take(&mut cx.pending.admin).into_values() {
            refuse(cx, request, LEADER_CHANGED);
        }
        self.run_deferred(cx, group);
    }

    /// Ends the leadership. What was under way has an unknown outcome: it is still among what
    /// clients wait for.
    pub(crate) fn end(self, cx: &mut Context) {
        cx.machine.follow();
        cx.queues.touch_all();
        let refusal = || AdminRefusal::Failed(LEADER_CHANGED.to_owned());
        for (_, requester) in self.purges {
            if let Requester::Here(ticket) = requester {
                cx.answer(ticket, Answer::Purged(Err(refusal())));
            }
        }
        for (_, deferred) in self.deferred {
            if let Deferred::Deleted(queue, _) = &deferred
                && cx.machine.settings(*queue).is_some()
            {
                cx.queues.forget_deletion(*queue);
            }
            match deferred {
                Deferred::Settled(ticket) => cx.answer(ticket, Answer::Settled),
                Deferred::Deleted(_, Requester::Here(ticket)) => {
                    cx.answer(ticket, Answer::Deleted(Err(refusal())));
                }
                // What concerns clients of this node is still pending; other nodes attach to the
                // next leader and ask again.
                _ => {}
            }
        }
        let stopping = self.handing_over.map(|(_, ticket)| ticket).or(self.draining);
        if let Some(ticket) = stopping {
            cx.answer(ticket, Answer::Idle(Vec::new()));
        }
    }

    /// Whether one more request may be taken.
    pub(crate) fn takes_requests(&self) -> bool {
        self.waiting.is_empty() && self.builder.bytes() < publishing::MAX_ENTRY_BYTES
    }

    /// The end of a turn. True when more could be delivered at once.
    pub(crate) fn work(&mut self, cx: &mut Context, group: &mut dyn Group) -> bool {
        self.propose(cx, group);
        self.run_deferred(cx, group);
        let more = self.deliver(cx, group);
        self.flush_forwarders(cx, group);
        self.go_on_stopping(cx, group);
        more
    }

    /// When [`Self::work`] is wanted next.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.confirms_due
    }

    /// Once per tick.
    pub(crate) fn on_tick(&mut self, cx: &mut Context, group: &mut dyn Group) {
        self.expire(cx, group);
        self.give_leadership_back(group);
        self.announce_again(group);
        self.check_forwarders(cx, group);
        cx.machine.retry_loads();
        let attended = group.peers_in_reach().iter().all(|peer| self.forwarders.contains_key(peer));
        if attended != std::mem::replace(&mut self.attended, attended) {
            cx.queues.touch_all();
        }
    }

    /// Whether all who may have a queue open are known here.
    pub(crate) fn is_attended(&self) -> bool {
        self.attended
    }

    /// Nothing is collected or under way.
    pub(crate) fn is_settled(&self, group: &dyn Group) -> bool {
        self.builder.is_empty()
            && self.waiting.is_empty()
            && self.refused.is_none()
            && group.under_way() == 0
    }
}

/// Answers an administrator's request that was not carried out.
pub(crate) fn refuse(cx: &mut Context, request: AdminRequest, why: &str) {
    let refusal = AdminRefusal::Failed(why.to_owned());
    match request {
        AdminRequest::Purge { ticket, .. } => cx.answer(ticket, Answer::Purged(Err(refusal))),
        AdminRequest::Delete { ticket, .. } => cx.answer(ticket, Answer::Deleted(Err(refusal))),
    }
}
