//! Measures the message path and the memory of a partition; prints nanoseconds per message.
//!
//! `cargo run --release -p flintmq-queue --example rate [messages]`

// A measurement needs what the crate itself must not have: a clock, and somewhere to print to.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, clippy::disallowed_macros)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use flintmq_queue::*;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const QUEUE: QueueId = QueueId(1);
const SIZE: usize = 1024;

#[derive(Default)]
struct Times {
    build: Duration,
    apply: Duration,
    deliver: Duration,
    confirm: Duration,
    apply_confirms: Duration,
}

fn main() -> Result<()> {
    let messages = std::env::args().nth(1).map_or(Ok(2_000_000), |count| count.parse::<u64>())?;
    for batch in [1, 16, 64, 256] {
        path(messages / if batch == 1 { 4 } else { 1 }, batch, 1, 1)?;
    }
    path(messages, 64, 10, 1)?;
    path(messages / 4, 64, 1, 1000)?;
    backlog(messages, 64)?;
    backlog(messages / 4, 1)?;
    history(messages * 5, 1)?;
    history(messages * 5, 10)?;
    Ok(())
}

/// Publish, deliver and confirm with consumers that keep up; messages go to the queues in turn.
fn path(messages: u64, batch: u64, producers: u64, queues: u64) -> Result<()> {
    let mut partition = new_partition()?;
    let mut builder = EntryBuilder::default();
    let known = QueueDomain::Known(DOMAIN);
    (2..=queues).for_each(|id| builder.create_queue(QueueId(id as u32), "bmq://e/q", known));
    partition.apply(2, &builder.finish(1).payload, &mut Applied::default())?;
    let roles = Roles { reader: true, writer: false };
    for handle in 1..=4 * queues {
        partition.open(HandleId(handle), QueueId((handle.div_ceil(4)) as u32), roles, None)?;
        let filter = Filter::All;
        let (id, count, max_messages, max_bytes) = (handle as u32, 1, 1000, 32 << 20);
        let one = Subscription { id, priority: 0, count, max_messages, max_bytes, filter };
        partition.configure(HandleId(handle), vec![one])?;
    }
    let data = Bytes::from(vec![b'x'; SIZE]);
    let (mut times, mut applied) = (Times::default(), Applied::default());
    let mut out = Deliveries::default();
    let mut index = partition.applied();
    let cpu = cpu_nanos()?;
    for round in 0..messages / batch {
        let start = Instant::now();
        for n in round * batch..(round + 1) * batch {
            let attributes = Attributes::default();
            let guid = guid(n, producers);
            let queue = QueueId((n % queues) as u32 + 1);
            builder.publish(queue, Message { guid, attributes, app_data: data.clone() })?;
        }
        let payload = builder.finish(1_000_000 + index / 2).payload;
        times.build += start.elapsed();
        let start = Instant::now();
        index += 1;
        partition.apply(index, &payload, &mut applied)?;
        times.apply += start.elapsed();
        let start = Instant::now();
        while partition.deliver(1 << 20, &mut out) {}
        times.deliver += start.elapsed();
        let start = Instant::now();
        for delivery in out.messages.drain(..) {
            if let Some(item) = partition.confirm(delivery.handle, delivery.guid) {
                builder.confirm(item);
            }
        }
        let payload = builder.finish(1_000_000 + index / 2).payload;
        times.confirm += start.elapsed();
        let start = Instant::now();
        index += 1;
        partition.apply(index, &payload, &mut applied)?;
        times.apply_confirms += start.elapsed();
        if round % 4096 == 0 {
            std::hint::black_box(partition.take_checkpoint());
        }
    }
    let cpu = (cpu_nanos()? - cpu) / messages;
    let view = partition.view(QUEUE).ok_or("the queue is gone")?;
    assert_eq!((view.messages, out.loads.len()), (0, 0));
    let per = |time: Duration| time.as_nanos() as u64 / messages;
    let Times { build, apply, deliver, confirm, apply_confirms } = times;
    println!(
        "path batch={batch} producers={producers} queues={queues}: build {} apply {} deliver {} confirm {} \
         apply confirms {} total {} ns/message, {cpu} ns of CPU; history {} bytes for {} guids",
        per(build),
        per(apply),
        per(deliver),
        per(confirm),
        per(apply_confirms),
        per(build + apply + deliver + confirm + apply_confirms),
        view.history_bytes,
        view.history_guids,
    );
    Ok(())
}

/// Memory of messages that nobody consumes, without their history; then checkpoint and restart.
fn backlog(messages: u64, batch: u64) -> Result<()> {
    let mut partition = new_partition()?;
    let settings = DomainSettings { dedup_window_ms: 0, ..DomainSettings::priority() };
    let mut builder = EntryBuilder::default();
    builder.set_domain(&domain(2, settings));
    let mut applied = Applied::default();
    partition.apply(2, &builder.finish(1).payload, &mut applied)?;
    let before = resident()?;
    for round in 0..messages / batch {
        publish(&mut partition, &mut builder, round * batch..(round + 1) * batch, round * 10, 1)?;
    }
    let memory = resident()?.saturating_sub(before);
    let start = Instant::now();
    let checkpoint = partition.take_checkpoint();
    let saved = start.elapsed();
    let stored: usize = checkpoint.puts.iter().map(|(key, value)| key.len() + value.len()).sum();
    let start = Instant::now();
    let back = Partition::restore(checkpoint.puts)?;
    let restored = start.elapsed();
    let view = back.view(QUEUE).ok_or("the queue is gone")?;
    println!(
        "backlog batch={batch} messages={}: {:.1} bytes/message in memory, {:.1} in the store; \
         checkpoint {saved:?} restore {restored:?}",
        view.messages,
        memory as f64 / messages as f64,
        stored as f64 / messages as f64,
    );
    Ok(())
}

/// Memory of the history.
fn history(messages: u64, producers: u64) -> Result<()> {
    let mut partition = new_partition()?;
    let mut builder = EntryBuilder::default();
    let mut applied = Applied::default();
    for round in 0..messages / 64 {
        publish(&mut partition, &mut builder, round * 64..(round + 1) * 64, 0, producers)?;
        builder.purge(QUEUE, None);
        let index = partition.applied() + 1;
        partition.apply(index, &builder.finish(1_000_000).payload, &mut applied)?;
        if round % 4096 == 0 {
            std::hint::black_box(partition.take_checkpoint());
        }
    }
    let view = partition.view(QUEUE).ok_or("the queue is gone")?;
    println!(
        "history producers={producers} guids={}: {:.2} bytes/guid, {} MB for 45 million",
        view.history_guids,
        view.history_bytes as f64 / view.history_guids as f64,
        view.history_bytes * 45 / (view.history_guids / 1_000_000).max(1) / 1_000_000,
    );
    for (what, from) in [("old", 0), ("new", messages)] {
        let start = Instant::now();
        let numbers = (0..100_000u64).map(|n| from + n * 7919 % messages);
        let admitted = numbers
            .map(|number| partition.admit(QUEUE, guid(number, producers), SIZE))
            .filter(|admission| *admission == Admission::Admit)
            .count();
        let each = start.elapsed().as_nanos() / 100_000;
        println!("  looking up 100000 {what} guids: {each} ns each, {admitted} admitted");
    }
    Ok(())
}

fn publish(
    partition: &mut Partition,
    builder: &mut EntryBuilder,
    numbers: std::ops::Range<u64>,
    time_ms: u64,
    producers: u64,
) -> Result<()> {
    for n in numbers {
        let app_data = Bytes::from_static(&[b'x'; 100]);
        let attributes = Attributes::default();
        let message = Message { guid: guid(n, producers), attributes, app_data };
        builder.publish(QUEUE, message)?;
    }
    let index = partition.applied() + 1;
    partition.apply(
        index,
        &builder.finish(1_000_000 + time_ms).payload,
        &mut Applied::default(),
    )?;
    Ok(())
}

const DOMAIN: DomainId = DomainId(1);

fn domain(version: u64, settings: DomainSettings) -> Domain {
    Domain { id: DOMAIN, version: DomainVersion { term: 1, index: version }, settings }
}

fn new_partition() -> Result<Partition> {
    let mut partition = Partition::default();
    partition.lead();
    let mut builder = EntryBuilder::default();
    let domain = domain(1, DomainSettings::priority());
    builder.create_queue(QUEUE, "bmq://example/rate", QueueDomain::Carried(&domain));
    partition.apply(1, &builder.finish(1).payload, &mut Applied::default())?;
    Ok(partition)
}

/// A GUID as the C++ client makes them: counter, nanoseconds, client.
fn guid(number: u64, producers: u64) -> Guid {
    let (producer, number) = (number % producers, number / producers);
    let mut bytes = [producer as u8; 16];
    let head = 0x40_0000 | (number as u32 & 0x3f_ffff);
    bytes[..3].copy_from_slice(&head.to_be_bytes()[1..]);
    let timer = 1 << 40 | (number * 6667 * producers + number % 7 * 100);
    bytes[3..10].copy_from_slice(&u64::to_be_bytes(timer)[1..]);
    Guid(bytes)
}

/// Resident memory of this process in bytes.
fn resident() -> Result<usize> {
    let pages = std::fs::read_to_string("/proc/self/statm")?;
    Ok(pages.split(' ').nth(1).ok_or("statm has a second field")?.parse::<usize>()? * 4096)
}

/// CPU time of this process so far, which other load on the machine does not inflate.
fn cpu_nanos() -> Result<u64> {
    let times = std::fs::read_to_string("/proc/self/schedstat")?;
    Ok(times.split(' ').next().ok_or("schedstat has a first field")?.parse()?)
}
