//! The end of a session that its client asked for. The client closes the connection: an SDK that
//! sees the node close first takes that for a lost connection, and connects again although its
//! application has stopped the session.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::sync::CancellationToken;

/// How long a client may take to close a connection that it said goodbye on. All clients close as
/// soon as they have read the answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes read at a time of what a client still sends and nobody needs.
const DROPPED_BYTES: usize = 4096;

/// Waits until the client closes the connection, and drops what it sends before. Ends at the latest
/// after [`PATIENCE`], and at once when `closing` is cancelled.
pub(super) async fn client_closes<R>(mut socket: R, closing: &CancellationToken)
where
    R: AsyncRead + Unpin,
{
    let mut dropped = [0; DROPPED_BYTES];
    let closes = async { while matches!(socket.read(&mut dropped).await, Ok(1..)) {} };
    tokio::select! {
        () = closing.cancelled() => {}
        _late = tokio::time::timeout(PATIENCE, closes) => {}
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_over_as_soon_as_the_client_closes() {
        let (mut client, node) = tokio::io::duplex(16);
        let closing = CancellationToken::new();
        let began = Instant::now();
        let talks = async {
            client.write_all(&[7; 100]).await.unwrap();
            drop(client);
        };
        tokio::join!(client_closes(node, &closing), talks);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stays_is_waited_for_only_so_long_whatever_it_sends() {
        let (mut client, node) = tokio::io::duplex(16);
        let closing = CancellationToken::new();
        let began = Instant::now();
        let talks = async {
            while client.write_all(&[7; 10]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let waits = async {
            client_closes(node, &closing).await;
            began.elapsed()
        };
        let (waited, ()) = tokio::join!(waits, talks);
        assert_eq!(waited, PATIENCE);
    }
}
