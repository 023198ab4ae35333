//! Why an order was not carried out.

use std::borrow::Cow;

use super::peer_calls::{NoReply, Reply};

/// A refusal: what is the matter, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub(crate) struct Refused {
    pub(crate) reason: Reason,
    pub(crate) error: String,
    pub(crate) hint: Cow<'static, str>,
}

/// Of which kind a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// What the order is about does not exist.
    NotFound,
    /// It does not fit what there is.
    Conflict,
    /// Not now: something is missing that may come.
    Unavailable,
    /// This node does not lead the group. Only other nodes get this answer, and look for the leader
    /// again.
    Moved,
    /// Another node refused, with this status of HTTP.
    ByAnotherNode(u16),
}

impl Refused {
    pub(crate) fn new(
        reason: Reason,
        error: impl Into<String>,
        hint: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { reason, error: error.into(), hint: hint.into() }
    }

    pub(crate) fn conflict(error: impl Into<String>, hint: &'static str) -> Self {
        Self::new(Reason::Conflict, error, hint)
    }

    pub(crate) fn unavailable(error: impl Into<String>, hint: &'static str) -> Self {
        Self::new(Reason::Unavailable, error, hint)
    }

    /// A group that does not exist.
    pub(crate) fn unknown_group(group: u32) -> Self {
        let error = format!("there is no such group, id={group}");
        Self::new(Reason::NotFound, error, "`flintmq admin group list`")
    }

    /// The leader is elsewhere.
    pub(crate) fn moved(group: u32) -> Self {
        let error = format!("this node does not lead the group now, group={group}");
        Self::new(Reason::Moved, error, "ask the leader")
    }

    /// There is no leader that could answer.
    pub(crate) fn leaderless(group: u32) -> Self {
        Self::unavailable(
            format!("the group has no leader that can be asked, group={group}"),
            "ask again; `flintmq admin node list` shows which nodes are missing",
        )
    }

    pub(crate) fn stopping() -> Self {
        Self::unavailable("the node is stopping", "ask another node")
    }

    /// What another node answered, in its words.
    pub(crate) fn of_reply(reply: &Reply) -> Self {
        let said = |field: &str| reply.body[field].as_str().unwrap_or_default().to_owned();
        let error = match said("error") {
            none if none.is_empty() => "the node that leads gave no reason: see its log".to_owned(),
            error => error,
        };
        Self::new(Reason::ByAnotherNode(reply.status.as_u16()), error, said("hint"))
    }

    /// Whether it says that another node leads.
    pub(crate) fn is_moved(&self) -> bool {
        self.reason == Reason::Moved
    }
}

impl From<NoReply> for Refused {
    fn from(error: NoReply) -> Self {
        Self::unavailable(error.to_string(), "`flintmq admin node list`")
    }
}
