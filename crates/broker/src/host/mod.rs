//! The task that owns the node's shard, and the ways to it.
//!
//! One task runs all groups of the node: it collects what sessions, other nodes and the store
//! have for them, lets the shard take a turn, and does what comes out. What decides is in
//! `flintmq_shard`, `flintmq_partition` and `flintmq_controller`; here are channels, clocks and
//! sockets.
//!
//! | file | job |
//! | --- | --- |
//! | `run` | the loop: inputs in, a turn, effects out |
//! | `inbox` | what waits for the shard, with its bounds |
//! | `fitness` | the cluster's time, and why this node should not lead |
//! | `effects` | answers, bytes for sessions, logs |
//! | `partition_handle`, `controller_handle`, `group_admin` | what others ask, and how they wait |
//! | `tickets` | answers on their way to those who asked |
//! | `session_table` | the sessions that groups answer |
//! | `queue_series` | queues' counts and levels on their way to the metrics |
//! | `network` | the way to other nodes |

mod clock;
mod controller_handle;
mod effects;
mod fitness;
mod group_admin;
mod inbox;
mod network;
mod partition_handle;
mod queue_series;
mod run;
mod session_table;
mod tickets;

pub(crate) use clock::{Alarm, CoreClock};
pub(crate) use controller_handle::{ControllerHandle, controller};
pub(crate) use fitness::{Fitness, REASONS, names};
pub(crate) use group_admin::GroupAdmin;
pub(crate) use inbox::{FromPeer, ShardSender, Signal, inbox};
pub(crate) use network::ShardNetwork;
pub(crate) use partition_handle::{PartitionHandle, Peeked, partition_of};
pub(crate) use run::{CreatedQueue, HostParts, ShardHost};
pub(crate) use session_table::SessionTable;
pub(crate) use tickets::Tickets;
