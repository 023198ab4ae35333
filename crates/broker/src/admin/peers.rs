//! Requests that another node has to answer, because it leads what they are about, and those of
//! other nodes that this one has to.
//!
//! They travel over the connections that nodes have anyway: whoever is at the other end has shown
//! its certificate, so that nodes need to know neither addresses nor tokens of each other's
//! administration. A request and its answer are one frame each, in JSON: the paths are those of
//! `/api/v1`, and what a node does not know it answers as it would answer a client.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use bytes::Bytes;
use flintmq_consensus::{GroupId, NodeId};
use flintmq_transport::SendError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::cluster::{FromAdministration, PeerLinks};

/// The number under which nodes ask each other; no group has it.
pub(crate) const ADMINISTRATION: GroupId = GroupId(u32::MAX - 1);

/// Requests of other nodes that are answered at a time; those beyond are refused.
const MAX_ANSWERING: usize = 64;

/// How long an answer may wait for room on the connection.
const MAX_TELLING: Duration = Duration::from_secs(5);

/// Bytes of an answer at most.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// Marks a request that another node handed on: its sender has checked who may ask, and it must
/// not be handed on again.
#[derive(Clone, Copy, Debug)]
pub(super) struct HandedOn;

/// What goes from node to node.
#[derive(Serialize, Deserialize)]
enum Word {
    Ask { number: u64, method: String, path: String, body: String },
    Answer { number: u64, status: u16, body: String },
}

/// What another node answered.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Value,
}

/// The other node did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node does not answer: is it up, and can it be reached from here? node={0}")]
pub(super) struct NoReply(pub(super) NodeId);

/// The other nodes, to be asked; cheap to clone.
#[derive(Clone)]
pub(crate) struct Peers(Arc<Shared>);

struct Shared {
    links: PeerLinks,
    reachable: watch::Receiver<BTreeSet<NodeId>>,
    asked: Mutex<BTreeMap<u64, Asked>>,
    next_number: AtomicU64,
}

struct Asked {
    of: NodeId,
    done: oneshot::Sender<Reply>,
}

impl Peers {
    pub(crate) fn new(links: PeerLinks, reachable: watch::Receiver<BTreeSet<NodeId>>) -> Self {
        Self(Arc::new(Shared {
            links,
            reachable,
            asked: Mutex::default(),
            next_number: AtomicU64::new(1),
        }))
    }

    /// Whether the node can be reached now.
    pub(super) fn is_reachable(&self, node: NodeId) -> bool {
        self.0.reachable.borrow().contains(&node)
    }

    /// Asks another node and waits for its answer.
    ///
    /// # Errors
    /// It cannot be reached, is lost meanwhile, or does not answer in time. What was asked for may
    /// have been done nevertheless.
    pub(super) async fn ask(
        &self,
        to: NodeId,
        method: Method,
        path: &str,
        body: &Value,
        limit: Duration,
    ) -> Result<Reply, NoReply> {
        let number = self.0.next_number.fetch_add(1, Ordering::Relaxed);
        let (done, answer) = oneshot::channel();
        lock(&self.0.asked).insert(number, Asked { of: to, done });
        let _forgotten = Forget { peers: self, number };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let word = Word::Ask { number, method: method.to_string(), path: path.to_owned(), body };
        if !self.is_reachable(to) {
            return Err(NoReply(to));
        }
        let asking = async { if self.tell(to, &word).await { answer.await.ok() } else { None } };
        tokio::time::timeout(limit, asking).await.ok().flatten().ok_or(NoReply(to))
    }

    /// Hears what other nodes say, and answers what they ask through `router`, until `stop`.
    pub(crate) async fn run(
        self,
        mut heard: mpsc::Receiver<FromAdministration>,
        router: Router,
        stop: CancellationToken,
    ) {
        let room = Arc::new(Semaphore::new(MAX_ANSWERING));
        let mut reachable = self.0.reachable.clone();
        loop {
            let heard = tokio::select! {
                heard = heard.recv() => heard,
                Ok(()) = reachable.changed() => {
                    // Those who wait for a node that is gone hear so.
                    let there = reachable.borrow_and_update().clone();
                    lock(&self.0.asked).retain(|_, asked| there.contains(&asked.of));
                    continue;
                }
                () = stop.cancelled() => return,
            };
            let Some(FromAdministration { from, frame }) = heard else { return };
            match serde_json::from_slice(&frame) {
                Ok(Word::Answer { number, status, body }) => {
                    self.answered(from, number, status, &body)
                }
                Ok(Word::Ask { number, method, path, body }) => {
                    let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                        self.refuse(from, number);
                        continue;
                    };
                    let (peers, router) = (self.clone(), router.clone());
                    tokio::spawn(async move {
                        let (status, body) = answer(router, &method, &path, body).await;
                        let word = Word::Answer { number, status: status.as_u16(), body };
                        // Whoever waits for it gives up by then.
                        let telling = peers.tell(from, &word);
                        let _late = tokio::time::timeout(MAX_TELLING, telling).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(from = from.0, %error, "a request cannot be read: is the other node newer?");
                }
            }
        }
    }

    fn answered(&self, from: NodeId, number: u64, status: u16, body: &str) {
        let mut asked = lock(&self.0.asked);
        if asked.get(&number).is_none_or(|asked| asked.of != from) {
            return;
        }
        let Some(Asked { done, .. }) = asked.remove(&number) else { return };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        let _gone =
            done.send(Reply { status, body: serde_json::from_str(body).unwrap_or_default() });
    }

    fn refuse(&self, from: NodeId, number: u64) {
        let body = json!({
            "error": "the node answers too many other nodes' requests at present",
            "hint": "ask again in a moment",
        });
        let status = StatusCode::SERVICE_UNAVAILABLE.as_u16();
        let word = Word::Answer { number, status, body: body.to_string() };
        if let Ok(frame) = serde_json::to_vec(&word) {
            // What is lost by this was refused anyway.
            let _lost = self.0.links.send_gateway(from, ADMINISTRATION, Bytes::from(frame));
        }
    }

    /// Sends it once the connection has room. False when there is none.
    async fn tell(&self, to: NodeId, word: &Word) -> bool {
        let Ok(frame) = serde_json::to_vec(word).map(Bytes::from) else { return false };
        loop {
            match self.0.links.send_gateway(to, ADMINISTRATION, frame.clone()) {
                Ok(()) => return true,
                Err(SendError::Full { .. }) => {}
                Err(_) => return false,
            }
            if self.0.links.gateway_room(to, ADMINISTRATION).await.is_err() {
                return false;
            }
        }
    }
}

/// Whoever asked waits no more.
struct Forget<'a> {
    peers: &'a Peers,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(&self.peers.0.asked).remove(&self.number);
    }
}

async fn answer(router: Router, method: &str, path: &str, body: String) -> (StatusCode, String) {
    let failed = |status, error: &str, hint: &str| {
        (status, json!({ "error": error, "hint": hint }).to_string())
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .extension(HandedOn)
        .body(Body::from(body));
    let Ok(request) = request else {
        return failed(StatusCode::BAD_REQUEST, "the request cannot be read", "");
    };
    let response = match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let status = response.status();
    match axum::body::to_bytes(response.into_body(), MAX_ANSWER_BYTES).await {
        Ok(bytes) => (status, String::from_utf8_lossy(&bytes).into_owned()),
        Err(_) => failed(
            StatusCode::INSUFFICIENT_STORAGE,
            "the answer of the node that leads is too long to be handed on",
            "ask for less, or ask that node itself",
        ),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks leaves a map half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use axum::extract::Extension;
    use axum::routing::{get, post};

    use super::*;

    fn router() -> Router {
        let handed_on =
            |handed: Option<Extension<HandedOn>>| async move { axum::Json(handed.is_some()) };
        Router::new()
            .route("/handed", get(handed_on))
            .route("/echo", post(|body: String| async move { body }))
            .route("/long", get(|| async { "x".repeat(MAX_ANSWER_BYTES + 1) }))
    }

    async fn asked(method: &str, path: &str, body: &str) -> (u16, String) {
        let (status, body) = answer(router(), method, path, body.to_owned()).await;
        (status.as_u16(), body)
    }

    #[tokio::test]
    async fn what_other_nodes_ask_is_answered_as_for_clients_and_marked() {
        assert_eq!(asked("GET", "/handed", "").await, (200, "true".to_owned()));
        assert_eq!(asked("POST", "/echo", "{\"a\":1}").await, (200, "{\"a\":1}".to_owned()));
        assert_eq!(asked("GET", "/nothing", "").await.0, 404);
        assert_eq!(asked("DELETE", "/echo", "").await.0, 405);
    }

    #[tokio::test]
    async fn nothing_that_another_node_says_is_too_odd_or_too_long() {
        for (method, path) in [("GET ", "/echo"), ("GET", "no path\n"), ("", ""), ("GET", "")] {
            let (status, _) = asked(method, path, "").await;
            assert!((400..500).contains(&status), "{method:?} {path:?}: {status}");
        }
        let (status, body) = asked("GET", "/long", "").await;
        assert_eq!(status, 507, "{body}");
        assert!(body.contains("too long"), "{body}");
    }

    #[test]
    fn words_keep_their_form() {
        let ask = r#"{"Ask":{"number":1,"method":"GET","path":"/api/v1/groups","body":""}}"#;
        let answer = r#"{"Answer":{"number":1,"status":200,"body":"[]"}}"#;
        for text in [ask, answer] {
            let word: Word = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&word).unwrap(), text);
        }
        assert!(serde_json::from_str::<Word>(r#"{"Shout":{}}"#).is_err());
    }
}
