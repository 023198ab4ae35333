//! What happens, and what is waited for.

use std::collections::BTreeMap;
use std::sync::Arc;

use flintmq_consensus::{GroupId, NodeId, Packet};
use flintmq_node::NodeRequest;
use flintmq_partition::{Request, SessionId};
use flintmq_queue::{Domain, HandleId, QueueId};
use flintmq_shard::ShardInput;

use crate::client::{Item, OpenRequest};
use crate::operators::Operation;
use crate::oracle::Key;

/// What happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// A shard runs.
    Wake(NodeId, u64),
    /// The liveness of a node runs.
    Live(NodeId, u64),
    /// A disk does something.
    Disk(NodeId, u64),
    /// A disk syncs.
    Sync(NodeId, u64),
    /// A packet of the liveness (true) or of the shards arrives.
    Packet(Packet, bool),
    /// Messages between two nodes arrive.
    Flow(NodeId, NodeId),
    /// Something for a shard.
    Tell(NodeId, u64, Box<ShardInput<NodeRequest>>),
    /// A node starts.
    Boot(NodeId),
    /// A client does something.
    Act(usize),
    /// A request of a session reaches its node.
    ToNode(SessionId, GroupId, Box<Request>),
    /// Something reaches a client.
    ToClient(usize, SessionId, Item),
    /// A fault happens.
    Fault(usize),
    /// What a fault did ends.
    Heal(Healing),
    /// Two nodes connect, if they can.
    Connect(NodeId, NodeId),
    /// Does any leader go on alone?
    LookAtLeaders,
    /// Some node removes a queue that was idle some time ago.
    RemoveIdle { uri: String, unused_ms: u64 },
    /// The administrator looks for idle queues.
    Administer,
    /// A client's request to open a queue reaches its node.
    Asks(SessionId, OpenRequest),
    /// A place for an open is looked for again.
    PlaceAgain(u64),
    /// An operator asks for something, at some node.
    Operate(Box<Operation>),
    /// A domain is defined for the first time.
    Define(usize),
    /// A partition is sent the settings of a domain once more, for an operator.
    SetDomain((NodeId, u64), GroupId, Arc<Domain>, u64),
    /// A node with a new directory asks to be admitted.
    Join(NodeId),
    /// Operators look after nodes that leave, and those that are lost.
    LookAfterNodes,
    /// A node ends its connection to one that was removed.
    PartWith(NodeId, NodeId),
    /// A node is turned off for good.
    TurnOff(NodeId),
    /// More than half of the nodes are lost.
    LoseMajority(u64),
    /// An operator looks whether a group can go on without members that are lost.
    Recover(GroupId),
    /// All is healed from now on.
    Settle,
    /// Has everything settled?
    Look,
}

/// What ends with a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Healing {
    Link(NodeId, NodeId, bool),
    Weather,
    Congestion,
    DiskLow(NodeId),
    StoreFull(NodeId),
    Snapshots(NodeId),
    Reads(NodeId),
    Wall(NodeId),
}

/// A session, as its node has it.
#[derive(Debug)]
pub(crate) struct SessionInfo {
    pub(crate) client: usize,
    pub(crate) node: NodeId,
    pub(crate) incarnation: u64,
    pub(crate) last_to_node: u64,
    pub(crate) last_to_client: u64,
    /// The broker has ended it.
    pub(crate) over: bool,
    /// PUTs that reached the node and are not answered: their queue, and since when.
    pub(crate) unanswered: BTreeMap<Key, (QueueId, u64)>,
    /// Handles that the node says are open, with the queue; closed ones are gone.
    pub(crate) open: BTreeMap<HandleId, (GroupId, QueueId)>,
    /// Names of queues and subscriptions that pushes were sent under: handle by queue id.
    pub(crate) names: BTreeMap<u32, (HandleId, GroupId, QueueId)>,
}

/// Who waits for the answer to a ticket.
#[derive(Clone, Debug)]
pub(crate) enum Waits {
    Open {
        opening: u64,
        handle: HandleId,
    },
    End {
        session: SessionId,
    },
    Idle {
        unused_ms: u64,
    },
    Delete {
        uri: String,
        queue: QueueId,
    },
    Purge,
    StopDelivery {
        node: NodeId,
        incarnation: u64,
    },
    Controller(Errand),
    Transfer,
    /// Whether a group needs a node that leaves, in this sweep.
    Needs {
        sweep: u64,
        group: GroupId,
    },
    /// Where a member of a group stands whose majority is lost.
    Standing {
        sweep: u64,
        group: GroupId,
        node: NodeId,
    },
    Recover,
    /// Whether a partition has taken settings, for an operator with this number.
    SetDomain {
        group: GroupId,
        domain: Arc<Domain>,
        enforcing: Option<u64>,
    },
}

/// What goes on when the controller has answered.
#[derive(Clone, Debug)]
pub(crate) enum Errand {
    /// An open gets a place.
    Place { opening: u64 },
    /// An idle queue is looked for once more.
    FindIdle { uri: String, unused_ms: u64 },
    /// A deleted queue's place is given up.
    GiveUp,
    /// An operator's node catches up before the operation is checked.
    Prepare(Box<Operation>),
    /// An operator's change is made.
    Operate(Box<Operation>),
    /// A node is admitted.
    Admit,
    /// A node that left is forgotten.
    Forget,
}
