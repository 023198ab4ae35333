//! What a frame costs between two nodes on one machine, beside plain TCP in the same run: processor
//! time of both ends together, and the time of a round trip.
//!
//! `cargo bench -p flintmq-transport --bench loopback [-- throughput | round-trip]`
//!
//! Other work on the machine changes the figures from run to run, so look at the ratios.

// A measurement gives up when anything fails, and prints.
#![allow(clippy::unwrap_used, missing_docs)]

mod tcp;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flintmq_transport::{
    Authority, Event, Inbound, Lane, NodeId, QuicSettings, Routes, Settings, Transport,
};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Semaphore;

const FRAME_BYTES: usize = 1024;
const BATCHES: [u32; 3] = [1, 32, 256];
/// Batches that are under way at one time.
const WINDOW: usize = 4;
const ROUND_TRIPS: usize = 20_000;

fn main() {
    let chosen = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let is_chosen = |name| chosen.as_deref().is_none_or(|chosen| chosen == name);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if is_chosen("throughput") {
        for batch in BATCHES {
            let frames = if batch == 1 { 300_000 } else { 2_000_000 };
            let tcp = runtime.block_on(measure(frames, tcp::throughput(frames, batch)));
            tcp.print("tcp", batch, &tcp);
            for max_udp_payload in [6500, 1452] {
                let name = format!("quic, packets of {max_udp_payload}");
                let nodes = runtime.block_on(pair(max_udp_payload));
                let quic = runtime.block_on(measure(frames, throughput(nodes, frames, batch)));
                quic.print(&name, batch, &tcp);
            }
        }
    }
    if is_chosen("round-trip") {
        let tcp = runtime.block_on(tcp::round_trips(ROUND_TRIPS));
        print_times("tcp", tcp);
        let nodes = runtime.block_on(pair(6500));
        let quic = runtime.block_on(round_trips(nodes));
        print_times("quic", quic);
        let nodes = runtime.block_on(pair(6500));
        let loaded = runtime.block_on(urgent_under_load(nodes));
        print_times("quic, urgent while appends fill the link", loaded);
    }
}

/// Processor and wall time of so many frames.
struct Cost {
    frames: u32,
    cpu: Duration,
    wall: Duration,
}

async fn measure(frames: u32, work: impl Future<Output = ()>) -> Cost {
    let (cpu, wall) = (cpu_time(), Instant::now());
    work.await;
    Cost { frames, cpu: cpu_time() - cpu, wall: wall.elapsed() }
}

impl Cost {
    fn per_million(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / f64::from(self.frames)
    }

    fn print(&self, name: &str, batch: u32, tcp: &Self) {
        println!(
            "throughput: {name}: {FRAME_BYTES} B, batches of {batch}: {:.2} CPU-s per million frames, \
             {:.1} times TCP; {:.2} M frames/s",
            self.per_million(),
            self.per_million() / tcp.per_million(),
            f64::from(self.frames) / self.wall.as_secs_f64() / 1e6,
        );
    }
}

/// Of the whole process.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn print_times(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| times[(times.len() as f64 * share) as usize].as_secs_f64() * 1e6;
    println!("round trip: {name}: p50 {:.0} us, p99 {:.0} us", at(0.5), at(0.99));
}

struct Pair {
    one: Transport,
    two: Transport,
    of_one: Inbound,
    of_two: Inbound,
}

async fn pair(max_udp_payload: u16) -> Pair {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::throw_away().unwrap();
    let quic = |node| QuicSettings {
        max_udp_payload,
        ..QuicSettings::new(
            "127.0.0.1:0".parse().unwrap(),
            authority.write_node(dir.path(), "bench", NodeId(node)).unwrap(),
        )
    };
    let (routes, mut of_one) = Routes::by_class(1024);
    let settings = Settings::new("bench", NodeId(1), 1);
    let one = Transport::bind(settings, quic(1), routes).await.unwrap();
    let address = one.local_address().unwrap().to_string();
    let (routes, mut of_two) = Routes::by_class(1024);
    let settings = Settings::new("bench", NodeId(2), 1).with_peer(NodeId(1), address);
    let two = Transport::bind(settings, quic(2), routes).await.unwrap();
    one.add_peer(NodeId(2), two.local_address().unwrap().to_string());
    assert!(matches!(of_one.events.recv().await, Some(Event::PeerUp { .. })));
    assert!(matches!(of_two.events.recv().await, Some(Event::PeerUp { .. })));
    Pair { one, two, of_one, of_two }
}

/// A few batches at a time are sent, and the next ones when those have arrived.
async fn throughput(mut pair: Pair, frames: u32, batch: u32) {
    let window = Arc::new(Semaphore::new(WINDOW * batch as usize));
    let sender = {
        let (window, transport) = (Arc::clone(&window), pair.one.clone());
        tokio::spawn(async move {
            let payload = Bytes::from(vec![7; FRAME_BYTES]);
            for _ in 0..frames / batch {
                window.acquire_many(batch).await.unwrap().forget();
                for _ in 0..batch {
                    transport.send(NodeId(2), Lane::append(0), payload.clone()).unwrap();
                }
            }
        })
    };
    let mut left = (frames / batch * batch) as usize;
    while left > 0 {
        let arrived = pair.of_two.append.recv().await.unwrap().frames.len();
        window.add_permits(arrived);
        left -= arrived;
    }
    sender.await.unwrap();
}

/// Heartbeats while as many entries are sent as pass.
async fn urgent_under_load(mut pair: Pair) -> Vec<Duration> {
    let flood = {
        let transport = pair.one.clone();
        tokio::spawn(async move {
            let payload = Bytes::from(vec![7; 100 * FRAME_BYTES]);
            loop {
                let lane = Lane::append(0);
                transport.send_when_room(NodeId(2), lane, payload.clone()).await.unwrap();
            }
        })
    };
    let drain = tokio::spawn(async move { while pair.of_two.append.recv().await.is_some() {} });
    let echo = tokio::spawn(async move {
        while let Some(batch) = pair.of_two.urgent.recv().await {
            for frame in batch.frames {
                pair.two.send(NodeId(1), Lane::URGENT, frame).unwrap();
            }
        }
    });
    let mut times = Vec::new();
    for _ in 0..ROUND_TRIPS / 10 {
        let begun = Instant::now();
        pair.one.send(NodeId(2), Lane::URGENT, vec![7; 50]).unwrap();
        pair.of_one.urgent.recv().await.unwrap();
        times.push(begun.elapsed());
    }
    for task in [flood, drain, echo] {
        task.abort();
    }
    times
}

async fn round_trips(mut pair: Pair) -> Vec<Duration> {
    let lane = Lane::append(0);
    let echo = tokio::spawn(async move {
        while let Some(batch) = pair.of_two.append.recv().await {
            for frame in batch.frames {
                pair.two.send(NodeId(1), lane, frame).unwrap();
            }
        }
    });
    let payload = Bytes::from(vec![7; FRAME_BYTES]);
    let mut times = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS {
        let begun = Instant::now();
        pair.one.send(NodeId(2), lane, payload.clone()).unwrap();
        pair.of_one.append.recv().await.unwrap();
        times.push(begun.elapsed());
    }
    echo.abort();
    times
}
