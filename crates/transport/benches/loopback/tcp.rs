//! The same work over plain TCP: no encryption, one stream, the same framing and batches.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::{FRAME_BYTES, WINDOW};

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (one, two) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (one, two) = (one.unwrap(), two.unwrap().0);
    one.set_nodelay(true).unwrap();
    two.set_nodelay(true).unwrap();
    (one, two)
}

/// Frames that have arrived as a whole.
async fn receive(stream: &mut TcpStream, buffer: &mut BytesMut) -> Vec<Bytes> {
    let mut frames = Vec::new();
    while frames.is_empty() {
        if buffer.capacity() - buffer.len() < 8 << 10 {
            buffer.reserve(64 << 10);
        }
        assert_ne!(stream.read_buf(buffer).await.unwrap(), 0);
        while let Some(length) = buffer.first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            if buffer.len() < 4 + length {
                break;
            }
            buffer.advance(4);
            frames.push(buffer.split_to(length).freeze());
        }
    }
    frames
}

pub(crate) async fn throughput(frames: u32, batch: u32) {
    let (mut one, mut two) = pair().await;
    let window = Arc::new(Semaphore::new(WINDOW * batch as usize));
    let sender = {
        let window = Arc::clone(&window);
        tokio::spawn(async move {
            let payload = vec![7; FRAME_BYTES];
            let mut block = BytesMut::new();
            for _ in 0..frames / batch {
                window.acquire_many(batch).await.unwrap().forget();
                for _ in 0..batch {
                    block.put_u32_le(FRAME_BYTES as u32);
                    block.extend_from_slice(&payload);
                }
                one.write_all(&block.split()).await.unwrap();
            }
            one
        })
    };
    let mut buffer = BytesMut::new();
    let mut left = (frames / batch * batch) as usize;
    while left > 0 {
        let arrived = receive(&mut two, &mut buffer).await.len();
        window.add_permits(arrived);
        left -= arrived;
    }
    sender.await.unwrap();
}

pub(crate) async fn round_trips(count: usize) -> Vec<Duration> {
    let (mut one, mut two) = pair().await;
    let echo = tokio::spawn(async move {
        let mut buffer = BytesMut::new();
        loop {
            for frame in receive(&mut two, &mut buffer).await {
                let mut block = BytesMut::with_capacity(4 + frame.len());
                block.put_u32_le(frame.len() as u32);
                block.extend_from_slice(&frame);
                if two.write_all(&block).await.is_err() {
                    return;
                }
            }
        }
    });
    let mut block = BytesMut::new();
    block.put_u32_le(FRAME_BYTES as u32);
    block.extend_from_slice(&[7; FRAME_BYTES]);
    let mut buffer = BytesMut::new();
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        one.write_all(&block).await.unwrap();
        receive(&mut one, &mut buffer).await;
        times.push(begun.elapsed());
    }
    echo.abort();
    times
}
