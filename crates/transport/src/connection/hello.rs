//! The first words on a connection: who is there, which process, and which protocol.
//!
//! The dialling node opens a stream in both directions, says [`Hello`], and gets a [`Reply`]. Both
//! are a length of two bytes and that many bytes; what follows the fields that are known here is
//! left alone, so that a later version can add to it. Numbers are little-endian.

use std::io;

use flintmq_consensus::NodeId;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The protocol versions that this program speaks, first and last.
pub(crate) const VERSIONS: (u16, u16) = (1, 1);

const MAGIC: &[u8; 4] = b"FMQN";
/// Longest hello or reply.
const MAX_BYTES: usize = 1024;
/// Longest name of a cluster or text of a refusal in them.
const MAX_TEXT: usize = 255;

/// Who dials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) cluster: String,
    pub(crate) from: NodeId,
    /// Whom the sender takes the receiver for.
    pub(crate) to: NodeId,
    pub(crate) incarnation: u64,
    /// First and last protocol version that the sender speaks.
    pub(crate) versions: (u16, u16),
    /// Names the set of nodes that the sender's cluster began with; 0 when it is not known.
    pub(crate) formation: u64,
}

/// What the dialled node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Welcome { incarnation: u64, version: u16, formation: u64 },
    Refused(Refusal),
}

/// Why a node does not take a connection, as told to the other side.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    #[error(
        "the peer belongs to another cluster; correct `cluster` on one of the two nodes, or the \
         peer's address theirs={theirs:?}"
    )]
    OtherCluster { theirs: String },
    #[error(
        "another node answers at the peer's address; correct the address of the peer, or `node.id` \
         there answers={answers}"
    )]
    OtherNode { answers: NodeId },
    #[error(
        "the peer does not know this node; it was removed from the cluster, or is yet to be added, \
         `flintmq admin node add`"
    )]
    UnknownNode,
    #[error(
        "the peer does not take this node's certificate for its own; make one with the DNS name \
         {name}"
    )]
    Identity { name: String },
    #[error(
        "the two nodes have no protocol version in common; upgrade one release at a time \
         theirs={first}..={last}"
    )]
    Versions { first: u16, last: u16 },
    #[error(
        "the peer has met a later process of this node; two processes run as the same node, stop \
         one of them"
    )]
    Stale,
    #[error("the two nodes are connected already")]
    Duplicate,
    #[error("the peer dials this node itself, or has too much to do; this node tries again")]
    Busy,
    #[error(
        "the peer belongs to another formation of the cluster: one of the two was formed by nodes \
         that had lost their data directories. Keep the one that has the messages; give the nodes \
         of the other one new ids and empty directories, `flintmq admin node replace`"
    )]
    OtherFormation,
    #[error("the peer refused for a reason that this version does not know code={code}")]
    Other { code: u8 },
}

/// Why no hello or reply was read.
#[derive(Debug, Error)]
pub(crate) enum HelloError {
    #[error("the connection ended during the greeting: {0}")]
    Io(#[from] io::Error),
    #[error("the greeting is none of this protocol; check that a FlintMQ node listens there")]
    Malformed,
}

impl Hello {
    pub(crate) async fn send(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let mut body = MAGIC.to_vec();
        body.extend_from_slice(&self.versions.0.to_le_bytes());
        body.extend_from_slice(&self.versions.1.to_le_bytes());
        body.extend_from_slice(&self.incarnation.to_le_bytes());
        body.extend_from_slice(&self.from.0.to_le_bytes());
        body.extend_from_slice(&self.to.0.to_le_bytes());
        push_text(&mut body, &self.cluster);
        body.extend_from_slice(&self.formation.to_le_bytes());
        send(to, &body).await
    }

    pub(crate) async fn receive(from: &mut (impl AsyncRead + Unpin)) -> Result<Self, HelloError> {
        Self::parse(&receive(from).await?).ok_or(HelloError::Malformed)
    }

    fn parse(mut body: &[u8]) -> Option<Self> {
        let body = &mut body;
        if take::<4>(body)? != *MAGIC {
            return None;
        }
        let versions = (u16::from_le_bytes(take(body)?), u16::from_le_bytes(take(body)?));
        let incarnation = u64::from_le_bytes(take(body)?);
        let from = NodeId(u32::from_le_bytes(take(body)?));
        let to = NodeId(u32::from_le_bytes(take(body)?));
        let cluster = take_text(body)?;
        Some(Self { cluster, from, to, incarnation, versions, formation: take_formation(body) })
    }

    /// The newest version that both sides speak.
    pub(crate) fn version(&self) -> Result<u16, Refusal> {
        let newest = self.versions.1.min(VERSIONS.1);
        if newest < self.versions.0.max(VERSIONS.0) {
            return Err(Refusal::Versions { first: VERSIONS.0, last: VERSIONS.1 });
        }
        Ok(newest)
    }
}

impl Reply {
    pub(crate) async fn send(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let mut body = MAGIC.to_vec();
        match self {
            Self::Welcome { incarnation, version, formation } => {
                body.push(0);
                body.extend_from_slice(&version.to_le_bytes());
                body.extend_from_slice(&incarnation.to_le_bytes());
                body.extend_from_slice(&formation.to_le_bytes());
            }
            Self::Refused(refusal) => {
                body.push(refusal.code());
                match refusal {
                    Refusal::OtherCluster { theirs: text } | Refusal::Identity { name: text } => {
                        push_text(&mut body, text);
                    }
                    Refusal::OtherNode { answers } => {
                        body.extend_from_slice(&answers.0.to_le_bytes());
                    }
                    Refusal::Versions { first, last } => {
                        body.extend_from_slice(&first.to_le_bytes());
                        body.extend_from_slice(&last.to_le_bytes());
                    }
                    Refusal::UnknownNode
                    | Refusal::Stale
                    | Refusal::Duplicate
                    | Refusal::Busy
                    | Refusal::OtherFormation
                    | Refusal::Other { .. } => {}
                }
            }
        }
        send(to, &body).await
    }

    pub(crate) async fn receive(from: &mut (impl AsyncRead + Unpin)) -> Result<Self, HelloError> {
        Self::parse(&receive(from).await?).ok_or(HelloError::Malformed)
    }

    fn parse(mut body: &[u8]) -> Option<Self> {
        let body = &mut body;
        if take::<4>(body)? != *MAGIC {
            return None;
        }
        let [code] = take(body)?;
        if code == 0 {
            let version = u16::from_le_bytes(take(body)?);
            let incarnation = u64::from_le_bytes(take(body)?);
            return Some(Self::Welcome { incarnation, version, formation: take_formation(body) });
        }
        Some(Self::Refused(match code {
            1 => Refusal::OtherCluster { theirs: take_text(body)? },
            2 => Refusal::OtherNode { answers: NodeId(u32::from_le_bytes(take(body)?)) },
            3 => Refusal::UnknownNode,
            4 => Refusal::Identity { name: take_text(body)? },
            5 => Refusal::Versions {
                first: u16::from_le_bytes(take(body)?),
                last: u16::from_le_bytes(take(body)?),
            },
            6 => Refusal::Stale,
            7 => Refusal::Duplicate,
            8 => Refusal::Busy,
            9 => Refusal::OtherFormation,
            code => Refusal::Other { code },
        }))
    }
}

impl Refusal {
    /// Also the code that the connection is closed with.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::OtherCluster { .. } => 1,
            Self::OtherNode { .. } => 2,
            Self::UnknownNode => 3,
            Self::Identity { .. } => 4,
            Self::Versions { .. } => 5,
            Self::Stale => 6,
            Self::Duplicate => 7,
            Self::Busy => 8,
            Self::OtherFormation => 9,
            Self::Other { code } => *code,
        }
    }

    /// For metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::OtherCluster { .. } => "other_cluster",
            Self::OtherNode { .. } => "other_node",
            Self::UnknownNode => "unknown_node",
            Self::Identity { .. } => "identity",
            Self::Versions { .. } => "versions",
            Self::Stale => "stale",
            Self::Duplicate => "duplicate",
            Self::Busy => "busy",
            Self::OtherFormation => "other_formation",
            Self::Other { .. } => "other",
        }
    }
}

async fn send(to: &mut (impl AsyncWrite + Unpin), body: &[u8]) -> io::Result<()> {
    let mut whole = Vec::with_capacity(body.len() + 2);
    whole.extend_from_slice(&(body.len() as u16).to_le_bytes());
    whole.extend_from_slice(body);
    to.write_all(&whole).await?;
    to.flush().await
}

async fn receive(from: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, HelloError> {
    let length = usize::from(from.read_u16_le().await?);
    if length > MAX_BYTES {
        return Err(HelloError::Malformed);
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    Ok(body)
}

fn push_text(to: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let kept = &bytes[..bytes.len().min(MAX_TEXT)];
    to.push(kept.len() as u8);
    to.extend_from_slice(kept);
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*taken)
}

/// What an earlier version does not say is not known.
fn take_formation(from: &mut &[u8]) -> u64 {
    take(from).map_or(0, u64::from_le_bytes)
}

/// Whether two nodes can belong to one cluster: they know of the same formation, or one of them of
/// none yet.
pub(crate) fn formations_agree(one: u64, other: u64) -> bool {
    one == other || one == 0 || other == 0
}

fn take_text(from: &mut &[u8]) -> Option<String> {
    let [length] = take(from)?;
    let (taken, rest) = from.split_at_checked(usize::from(length))?;
    *from = rest;
    Some(String::from_utf8_lossy(taken).into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello() -> Hello {
        Hello {
            cluster: "test".to_owned(),
            from: NodeId(1),
            to: NodeId(2),
            incarnation: 1 << 40,
            versions: VERSIONS,
            formation: 1 << 50,
        }
    }

    #[tokio::test]
    async fn an_earlier_version_does_not_say_its_formation() {
        let mut bytes = Vec::new();
        hello().send(&mut bytes).await.unwrap();
        bytes.truncate(bytes.len() - 8);
        bytes[0] -= 8;
        let heard = Hello::receive(&mut &bytes[..]).await.unwrap();
        assert_eq!(heard, Hello { formation: 0, ..hello() });
        assert!(formations_agree(heard.formation, 7) && formations_agree(7, 7));
        assert!(!formations_agree(7, 8));
    }

    #[tokio::test]
    async fn greetings_arrive_as_they_were_sent() {
        let (mut here, mut there) = tokio::io::duplex(4096);
        hello().send(&mut here).await.unwrap();
        assert_eq!(Hello::receive(&mut there).await.unwrap(), hello());
        let refusals = [
            Refusal::OtherCluster { theirs: "x".repeat(255) },
            Refusal::OtherNode { answers: NodeId(7) },
            Refusal::UnknownNode,
            Refusal::Identity { name: "node-1.test.flintmq".to_owned() },
            Refusal::Versions { first: 2, last: 3 },
            Refusal::Stale,
            Refusal::Duplicate,
            Refusal::Busy,
            Refusal::OtherFormation,
            Refusal::Other { code: 200 },
        ];
        let mut replies = vec![Reply::Welcome { incarnation: 9, version: 1, formation: 3 }];
        replies.extend(refusals.map(Reply::Refused));
        for reply in replies {
            reply.send(&mut there).await.unwrap();
            assert_eq!(Reply::receive(&mut here).await.unwrap(), reply);
        }
    }

    #[test]
    fn the_newest_common_version_is_spoken() {
        let speaking = |first, last| Hello { versions: (first, last), ..hello() }.version();
        assert_eq!(speaking(1, 1), Ok(1));
        assert_eq!(speaking(1, 9), Ok(1));
        assert_eq!(speaking(2, 9), Err(Refusal::Versions { first: 1, last: 1 }));
        assert_eq!(speaking(0, 0), Err(Refusal::Versions { first: 1, last: 1 }));
    }

    #[tokio::test]
    async fn a_later_version_may_say_more() {
        let mut bytes = Vec::new();
        hello().send(&mut bytes).await.unwrap();
        bytes.extend_from_slice(b"more");
        bytes[0] += 4;
        assert_eq!(Hello::receive(&mut &bytes[..]).await.unwrap(), hello());
    }

    proptest! {
        #[test]
        fn arbitrary_greetings_do_no_harm(body in prop::collection::vec(any::<u8>(), 0..100)) {
            let greeting = [MAGIC.as_slice(), &body].concat();
            for body in [&body, &greeting] {
                let _ = Hello::parse(body);
                let _ = Reply::parse(body);
            }
        }
    }
}
