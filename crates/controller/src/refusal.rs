//! Why a change of the metadata was not made.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::membership::MembershipRefusal;

/// What did not fit when a change came to be applied. It is the same on every node.
///
/// The commands of the change before the one that did not fit stay applied, those behind it are
/// not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The domain is not defined.
    #[error(
        "the domain is not defined: create it with `flintmq admin domain create`, domain={domain}"
    )]
    UnknownDomain {
        /// Its name.
        domain: String,
    },
    /// A domain of that name exists.
    #[error("the domain is defined already: use `flintmq admin domain update`, domain={domain}")]
    DomainExists {
        /// Its name.
        domain: String,
    },
    /// Queues of the domain exist.
    #[error("the domain has queues: delete them first, domain={domain} queues={queues}")]
    DomainInUse {
        /// Its name.
        domain: String,
        /// How many queues it has.
        queues: usize,
    },
    /// The new definition changes what cannot change.
    #[error("{reason}")]
    DomainUpdate {
        /// The field, its value and the wanted one.
        reason: String,
    },
    /// The domain's `maxQueues` is reached.
    #[error(
        "the domain's limit of queues is reached: delete unused queues or raise maxQueues, \
         domain={domain} limit={limit}"
    )]
    TooManyQueues {
        /// The domain.
        domain: String,
        /// Its limit.
        limit: u32,
    },
    /// The cluster has as many queues as a node may hold.
    #[error(
        "this node's limit of queues is reached: delete unused queues or raise \
         limits.max_queues, limit={limit}"
    )]
    TooManyQueuesInAll {
        /// The limit.
        limit: u32,
    },
    /// The membership does not allow it.
    #[error("{0}")]
    Membership(MembershipRefusal),
    /// A newer process of the same node has made changes since.
    #[error("another process of this node has made changes since: check its process number")]
    Superseded,
}

impl From<MembershipRefusal> for Refusal {
    fn from(refusal: MembershipRefusal) -> Self {
        Self::Membership(refusal)
    }
}
