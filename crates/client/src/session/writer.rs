//! The writing half of a connection: takes whatever has gathered and writes it in large pieces.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::session::core::Core;

/// Writes until the connection breaks.
pub(crate) async fn write_loop(
    core: Arc<Core>,
    mut socket: Box<dyn AsyncWrite + Send + Unpin>,
) -> io::Error {
    let mut work = Vec::new();
    let mut buffer = BytesMut::with_capacity(2 * WRITE_SIZE);
    loop {
        if !core.lock().outbox.take(&mut work) {
            core.writer.notified().await;
            continue;
        }
        for segment in &mut work {
            let mut from = 0;
            while !segment.encode(&mut from, &mut buffer, WRITE_SIZE) {
                if let Err(error) = write(&mut socket, &mut buffer).await {
                    return error;
                }
            }
        }
        if let Err(error) = write(&mut socket, &mut buffer).await {
            return error;
        }
    }
}

async fn write(
    socket: &mut (impl AsyncWrite + Unpin),
    buffer: &mut BytesMut,
) -> Result<(), io::Error> {
    socket.write_all(buffer).await?;
    socket.flush().await?;
    if buffer.capacity() > MOST_KEPT {
        *buffer = BytesMut::with_capacity(2 * WRITE_SIZE);
    } else {
        buffer.clear();
    }
    Ok(())
}

/// About how much is encoded before it is written.
const WRITE_SIZE: usize = 256 << 10;
/// A buffer that one huge message has made larger than this is given back.
const MOST_KEPT: usize = 4 << 20;
