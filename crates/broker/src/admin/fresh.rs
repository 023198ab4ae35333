//! Answers from this node's copy of the metadata that deny nothing that another node has already
//! shown to a client: before one says "there is no such thing", the copy is brought up to date.

use super::Node;
use super::answer::Failure;

/// Waits until this node's metadata are at least as new as what the controller had committed when
/// this was called; what any node has answered before is among that.
///
/// # Errors
/// The controller has no leader that can be asked, or this node does not catch up in time.
pub(super) async fn fresh_metadata(node: &Node) -> Result<(), Failure> {
    if node.peers.is_some() {
        node.controller.catch_up().await?;
    }
    Ok(())
}

/// [`fresh_metadata`] where the controller has a leader, as far as is known here; without one an
/// election is not waited for: what this node knows is better than nothing.
pub(super) async fn fresh_if_led(node: &Node) {
    if node.controller.status().led {
        // What this node knows is shown all the same.
        let _old = fresh_metadata(node).await;
    }
}

/// Looks something up, and before it is missed looks again in metadata that are fresh.
///
/// # Errors
/// It is not there as far as is known, but the metadata may be old.
pub(super) async fn find<T>(
    node: &Node,
    look: impl Fn(&Node) -> Option<T>,
) -> Result<Option<T>, Failure> {
    if let Some(found) = look(node) {
        return Ok(Some(found));
    }
    fresh_metadata(node).await?;
    Ok(look(node))
}
