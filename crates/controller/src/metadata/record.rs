//! The records of a checkpoint: their keys.

/// What one record of a checkpoint is about. Names are text, numbers decimal text: records can be
/// read with a tool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RecordKey {
    /// A domain, by name.
    Domain(String),
    /// A queue, by URI.
    Queue(String),
    /// A node, by number.
    Node(u32),
    /// Which nodes hold a group.
    Assignment(u32),
    /// What belongs to the membership besides.
    MembershipHead,
    /// The number of the newest queue.
    NextQueue,
    /// The number of the newest domain.
    NextDomain,
    /// A node's latest changes.
    Window(u32),
    /// Up to where the log's entries were given up.
    Released,
}

const DOMAIN: u8 = b'd';
const QUEUE: u8 = b'q';
const NODE: u8 = b'm';
const ASSIGNMENT: u8 = b'p';
const WINDOW: u8 = b'c';
const MEMBERSHIP_HEAD: &[u8] = b"nr";
const NEXT_QUEUE: &[u8] = b"nq";
const NEXT_DOMAIN: &[u8] = b"nd";
const RELEASED: &[u8] = b"ne";

impl RecordKey {
    /// The key as it is stored.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let named = |kind: u8, name: &str| [&[kind], name.as_bytes()].concat();
        match self {
            Self::Domain(name) => named(DOMAIN, name),
            Self::Queue(uri) => named(QUEUE, uri),
            Self::Node(id) => named(NODE, &id.to_string()),
            Self::Assignment(group) => named(ASSIGNMENT, &group.to_string()),
            Self::Window(node) => named(WINDOW, &node.to_string()),
            Self::MembershipHead => MEMBERSHIP_HEAD.to_vec(),
            Self::NextQueue => NEXT_QUEUE.to_vec(),
            Self::NextDomain => NEXT_DOMAIN.to_vec(),
            Self::Released => RELEASED.to_vec(),
        }
    }

    /// The key from its bytes; none for a kind that this version does not know.
    pub(super) fn from_bytes(key: &[u8]) -> Option<Self> {
        match key {
            MEMBERSHIP_HEAD => return Some(Self::MembershipHead),
            NEXT_QUEUE => return Some(Self::NextQueue),
            NEXT_DOMAIN => return Some(Self::NextDomain),
            RELEASED => return Some(Self::Released),
            _ => {}
        }
        let (kind, name) = key.split_first()?;
        let name = std::str::from_utf8(name).ok()?;
        let number = || name.parse().ok();
        match *kind {
            DOMAIN => Some(Self::Domain(name.to_owned())),
            QUEUE => Some(Self::Queue(name.to_owned())),
            NODE => number().map(Self::Node),
            ASSIGNMENT => number().map(Self::Assignment),
            WINDOW => number().map(Self::Window),
            _ => None,
        }
    }
}
