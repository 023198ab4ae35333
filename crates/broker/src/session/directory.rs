//! Who is connected: what clients said of themselves, for administrators and for the log.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use flintmq_protocol::control::{ClientIdentity, ClientLanguage, DEVELOPMENT_VERSION};

use crate::link::SessionId;

/// Characters that are kept of each text that a client says of itself.
const MAX_TEXT: usize = 128;

/// The node's sessions, by number; bounded by `limits.max_connections`.
#[derive(Debug, Default)]
pub(crate) struct SessionDirectory(Mutex<BTreeMap<SessionId, Arc<SessionEntry>>>);

/// One session, as long as it is up.
#[derive(Debug)]
pub(crate) struct SessionEntry {
    /// Its number in this process.
    pub(crate) id: SessionId,
    /// Where it is connected from.
    pub(crate) peer: SocketAddr,
    /// What the client said of itself.
    pub(crate) client: ClientInfo,
    /// When it had negotiated, by this node's clock.
    pub(crate) since: SystemTime,
    handles: AtomicUsize,
}

/// What a client says of itself: cut to a bounded length, and nothing that could be relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientInfo {
    /// Its process.
    pub(crate) process: String,
    /// The number of its process; 0 where it does not tell.
    pub(crate) pid: i32,
    /// Its machine; empty from clients that do not tell.
    pub(crate) host: String,
    /// The language of its library.
    pub(crate) language: &'static str,
    /// The release of its library.
    pub(crate) version: String,
    /// Name and release of its library; empty from older ones.
    pub(crate) user_agent: String,
}

/// A session's place in the directory, until dropped.
pub(crate) struct Listed {
    directory: Arc<SessionDirectory>,
    entry: Arc<SessionEntry>,
}

impl SessionDirectory {
    /// A session is up as long as the result lives.
    pub(crate) fn enter(
        self: &Arc<Self>,
        id: SessionId,
        peer: SocketAddr,
        client: ClientInfo,
    ) -> Listed {
        let (since, handles) = (SystemTime::now(), AtomicUsize::new(0));
        let entry = Arc::new(SessionEntry { id, peer, client, since, handles });
        self.lock().insert(id, Arc::clone(&entry));
        Listed { directory: Arc::clone(self), entry }
    }

    /// How many sessions there are, and the oldest of them, at most `limit`, by number.
    pub(crate) fn first(&self, limit: usize) -> (usize, Vec<Arc<SessionEntry>>) {
        let sessions = self.lock();
        (sessions.len(), sessions.values().take(limit).cloned().collect())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionId, Arc<SessionEntry>>> {
        // No change of the map is ever half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionEntry {
    /// How many queue handles the session has: one for each queue and app that it reads, one for
    /// each queue that it writes.
    pub(crate) fn handles(&self) -> usize {
        self.handles.load(Ordering::Relaxed)
    }
}

impl Listed {
    /// Tells how many queue handles the session has now.
    pub(crate) fn set_handles(&self, count: usize) {
        self.entry.handles.store(count, Ordering::Relaxed);
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.directory.lock().remove(&self.entry.id);
    }
}

impl ClientInfo {
    /// What `identity` says.
    pub(crate) fn new(identity: &ClientIdentity) -> Self {
        let cut = |text: &str| text.chars().take(MAX_TEXT).collect();
        Self {
            process: cut(&identity.process_name),
            pid: identity.pid,
            host: cut(&identity.host_name),
            language: match identity.sdk_language {
                ClientLanguage::Unknown => "unknown",
                ClientLanguage::Cpp => "C++",
                ClientLanguage::Java => "Java",
            },
            version: version(identity.sdk_version),
            user_agent: cut(&identity.user_agent),
        }
    }
}

fn version(number: i32) -> String {
    if number == DEVELOPMENT_VERSION {
        return "development".to_owned();
    }
    let number = number.max(0);
    format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(identity: ClientIdentity) -> ClientInfo {
        ClientInfo::new(&identity)
    }

    #[test]
    fn what_clients_say_is_cut_and_put_in_words() {
        let said = client(ClientIdentity {
            sdk_version: 9_205,
            sdk_language: ClientLanguage::Java,
            process_name: "é".repeat(10_000),
            ..ClientIdentity::default()
        });
        assert_eq!((said.version.as_str(), said.language), ("0.92.5", "Java"));
        assert_eq!(said.process, "é".repeat(MAX_TEXT));
        assert_eq!(client(ClientIdentity::default()).version, "development");
        let odd = ClientIdentity { sdk_version: i32::MIN, ..ClientIdentity::default() };
        assert_eq!(client(odd).version, "0.0.0");
    }

    #[test]
    fn sessions_are_listed_in_order_while_they_are_up() {
        let directory = Arc::new(SessionDirectory::default());
        let enter = |id| {
            let peer = SocketAddr::from(([10, 0, 0, 7], 4242));
            directory.enter(SessionId(id), peer, client(ClientIdentity::default()))
        };
        let listed: Vec<Listed> = [3, 1, 2].into_iter().map(enter).collect();
        listed[1].set_handles(5);
        let (count, first) = directory.first(2);
        let shown: Vec<(u64, usize)> = first.iter().map(|s| (s.id.0, s.handles())).collect();
        assert_eq!((count, shown), (3, vec![(1, 5), (2, 0)]));
        drop(listed);
        assert_eq!(directory.first(2).0, 0);
    }
}
