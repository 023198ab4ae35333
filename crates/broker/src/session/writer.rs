//! Writes a session's outbox to its socket: everything that waits in one system call, until the
//! outbox is closed.

use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Buf, Bytes};
use metrics::Counter;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::link::Outbox;

/// Chunks handed to one `writev`; more gain nothing, the kernel's own limit is 1024.
const SLICES: usize = 64;

/// Runs until the outbox is closed and empty, or the client takes nothing for `stall` with bytes
/// waiting for it. The socket stays open: who closes it depends on why the session ends.
///
/// # Errors
/// The socket's error; `TimedOut` for a client that does not read.
pub(crate) async fn run<W: AsyncWrite + Unpin>(
    socket: &mut W,
    outbox: &Outbox,
    stall: Duration,
    sent: &Counter,
) -> io::Result<()> {
    let mut chunks: Vec<Bytes> = Vec::new();
    while outbox.take(&mut chunks).await.is_some() {
        let mut first = 0;
        while first < chunks.len() {
            let written = {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = chunks.len().min(first + SLICES) - first;
                for (slice, chunk) in slices.iter_mut().zip(&chunks[first..first + count]) {
                    *slice = IoSlice::new(chunk);
                }
                let write = socket.write_vectored(&slices[..count]);
                tokio::time::timeout(stall, write).await.map_err(|_| {
                    io::Error::new(io::ErrorKind::TimedOut, "the client has stopped reading")
                })??
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            outbox.written(written);
            sent.increment(written as u64);
            first = skip(&mut chunks, first, written);
        }
        chunks.clear();
        socket.flush().await?;
    }
    Ok(())
}

/// Drops `written` bytes from the front; the index of the first chunk that still has some.
fn skip(chunks: &mut [Bytes], mut first: usize, mut written: usize) -> usize {
    while written > 0 && first < chunks.len() {
        let length = chunks[first].len();
        if written < length {
            chunks[first].advance(written);
            return first;
        }
        written -= length;
        chunks[first] = Bytes::new();
        first += 1;
    }
    first
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn writes_all_chunks_in_order_through_a_narrow_pipe() {
        let (mut client, mut server) = tokio::io::duplex(7);
        let outbox = Outbox::new(1 << 20);
        let mut expected = Vec::new();
        for number in 0..500_u32 {
            let chunk = Bytes::from(number.to_be_bytes().repeat(3));
            expected.extend_from_slice(&chunk);
            outbox.push(chunk);
        }
        outbox.close();
        let mut got = Vec::new();
        let sent = Counter::noop();
        let writing = async {
            run(&mut server, &outbox, Duration::from_secs(60), &sent).await.unwrap();
            server.shutdown().await.unwrap();
        };
        let ((), read) = tokio::join!(writing, client.read_to_end(&mut got));
        read.unwrap();
        assert_eq!(got, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_on_a_client_that_does_not_read() {
        let (_client, mut server) = tokio::io::duplex(4);
        let outbox = Outbox::new(1 << 20);
        outbox.push(Bytes::from_static(b"more than fits"));
        let error =
            run(&mut server, &outbox, Duration::from_secs(5), &Counter::noop()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
