//! What operators order and what they are shown, below HTTP: plain requests, answers and refusals.
//! The handlers of [`crate::admin`] read requests and write answers; what is decided, is decided
//! here.
//!
//! | file | job |
//! | --- | --- |
//! | `node` | the parts of the node that orders work on |
//! | `peer_calls` | calls of other nodes' administration, and theirs of this one |
//! | `group_states` | all groups as their leaders see them |
//! | `queue_states` | queues as their leaders see them |
//! | `leadership` | who answers for a group; handing its leadership over |
//! | `recovery` | going on without members that are lost |
//! | `leaving` | forgetting nodes that leave, once nothing needs them |
//! | `refusal` | why an order was not carried out |

pub(crate) mod group_states;
pub(crate) mod leadership;
pub(crate) mod leaving;
mod node;
pub(crate) mod peer_calls;
pub(crate) mod queue_states;
pub(crate) mod recovery;
mod refusal;

pub(crate) use node::{Node, NodeCell};
pub(crate) use peer_calls::Peers;
pub(crate) use refusal::{Reason, Refused};
