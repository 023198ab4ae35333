//! Thousands of queues, many to a session, with some messages in each.

use std::ops::Range;

use flintmq_client::{Consumer, ConsumerOptions, Producer, ProducerOptions, Session};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::rust_client::{connect, runtime};
use crate::wait::LIMIT;

/// Queues of one session.
const PER_SESSION: usize = 2_000;

/// Queues that a session opens at a time; brokers take 256.
const AT_ONCE: usize = 64;

/// Opens these queues of `domain` for writing at the first of `brokers`, publishes so many messages
/// to each, and waits for all acknowledgements.
///
/// # Panics
/// When a queue cannot be opened or a message is refused.
#[track_caller]
pub fn publish(brokers: &[String], domain: &str, queues: Range<usize>, messages: usize) {
    in_parts(brokers, "many-writes", queues, |session, queue| {
        let uri = uri(domain, queue);
        async move { write(&session, queue, &uri, messages).await }
    });
}

/// Opens these queues for reading at the first of `brokers`, and requires that each holds what
/// [`publish`] put into it, in its order and nothing else. Confirms all of it.
///
/// # Panics
/// When a queue cannot be opened, or holds anything else.
#[track_caller]
pub fn consume(brokers: &[String], domain: &str, queues: Range<usize>, messages: usize) {
    in_parts(brokers, "many-reads", queues, |session, queue| {
        let uri = uri(domain, queue);
        async move { read(&session, queue, &uri, messages).await }
    });
}

/// Does something with each queue, several at a time, with a session for each part of them.
#[track_caller]
fn in_parts<Done: Future<Output = ()> + Send + 'static>(
    brokers: &[String],
    name: &str,
    queues: Range<usize>,
    act: impl Fn(Session, usize) -> Done,
) {
    for part in parts(queues) {
        let (session, _events) = connect(brokers, name);
        runtime().block_on(async {
            let mut opening = JoinSet::new();
            for queue in part {
                opening.spawn(act(session.clone(), queue));
                if opening.len() >= AT_ONCE {
                    opening.join_next().await.expect("one is there").expect("the queue is done");
                }
            }
            while let Some(done) = opening.join_next().await {
                done.expect("the queue is done");
            }
            session.disconnect().await.expect("the session ends");
        });
    }
}

fn parts(queues: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = queues.end;
    queues.step_by(PER_SESSION).map(move |first| first..end.min(first + PER_SESSION))
}

fn uri(domain: &str, queue: usize) -> String {
    format!("bmq://{domain}/many-{queue}")
}

fn payload(queue: usize, message: usize) -> Vec<u8> {
    format!("{queue}:{message}").into_bytes()
}

async fn write(session: &Session, queue: usize, uri: &str, messages: usize) {
    let opening = session.producer(uri, ProducerOptions::default());
    let producer: Producer = within(uri, opening).await.expect("the queue opens");
    let mut answers = Vec::new();
    for message in 0..messages {
        answers.push(producer.enqueue(payload(queue, message)).await.expect("there is room"));
    }
    for answer in answers {
        within(uri, answer).await.expect("acknowledged");
    }
    within(uri, producer.close()).await.expect("the queue closes");
}

async fn read(session: &Session, queue: usize, uri: &str, messages: usize) {
    let opening = session.consumer(uri, ConsumerOptions::default());
    let mut consumer: Consumer = within(uri, opening).await.expect("the queue opens");
    for message in 0..messages {
        let delivered = within(uri, consumer.recv()).await.expect("open").expect("a message");
        let bytes = delivered.payload().expect("readable");
        assert_eq!(bytes, payload(queue, message), "{uri}");
        delivered.confirm().expect("connected");
    }
    assert!(consumer.try_recv().is_none(), "{uri} holds more than was published");
    within(uri, consumer.close()).await.expect("the queue closes");
}

async fn within<T>(uri: &str, what: impl Future<Output = T>) -> T {
    timeout(LIMIT, what).await.unwrap_or_else(|_| panic!("{uri}: nothing within {LIMIT:?}"))
}
