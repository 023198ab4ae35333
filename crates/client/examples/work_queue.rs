//! A queue of jobs with two workers: each takes one job at a time, and what a worker leaves behind
//! goes to the other one.
//!
//! `cargo run -p flintmq-client --example work_queue -- tcp://127.0.0.1:30114 bmq://demo/jobs`

use std::sync::Arc;

use flintmq_client::{ConsumerOptions, ProducerOptions, Session, SessionEvent, SessionOptions};
use tokio::sync::Semaphore;

const JOBS: u32 = 20;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let broker = arguments.next().unwrap_or_else(|| "tcp://127.0.0.1:30114".to_owned());
    let uri = arguments.next().unwrap_or_else(|| "bmq://demo/jobs".to_owned());
    let options = SessionOptions::new([broker.parse()?]);

    let done = Arc::new(Semaphore::new(0));
    let mut workers = tokio::task::JoinSet::new();
    for worker in 1..=2 {
        let session = Session::connect(options.clone()).await?;
        workers.spawn(work(worker, session, uri.clone(), Arc::clone(&done)));
    }

    let session = Session::connect(options).await?;
    let mut events = session.events();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let SessionEvent::ConnectionLost { reason } = event {
                eprintln!("connection lost, the session repairs itself: {reason}");
            }
        }
    });
    let producer = session.producer(&uri, ProducerOptions::default()).await?;
    for job in 1..=JOBS {
        producer.publish(format!("job {job}")).await?;
    }

    // Wait until every job is done, then send the workers home.
    done.acquire_many(JOBS).await?.forget();
    workers.shutdown().await;
    session.disconnect().await?;
    Ok(())
}

async fn work(
    worker: u32,
    session: Session,
    uri: String,
    done: Arc<Semaphore>,
) -> anyhow::Result<()> {
    // One job at a time: the broker gives the next one when this one is confirmed.
    let options = ConsumerOptions { max_unconfirmed_messages: 1, ..ConsumerOptions::default() };
    let mut consumer = session.consumer(&uri, options).await?;
    while let Some(job) = consumer.recv().await? {
        println!("worker {worker}: {}", String::from_utf8_lossy(&job.payload()?));
        if job.confirm().is_ok() {
            done.add_permits(1);
        }
    }
    Ok(())
}
