//! Publishes a thousand messages, all on their way at once, and waits for their acknowledgements.
//!
//! `cargo run -p flintmq-client --example produce -- tcp://127.0.0.1:30114 bmq://demo/greetings`

use flintmq_client::{OutgoingMessage, ProducerOptions, Session, SessionOptions};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let broker = arguments.next().unwrap_or_else(|| "tcp://127.0.0.1:30114".to_owned());
    let uri = arguments.next().unwrap_or_else(|| "bmq://demo/greetings".to_owned());

    let session = Session::connect(SessionOptions::new([broker.parse()?])).await?;
    let producer = session.producer(&uri, ProducerOptions::default()).await?;

    // Enqueue everything first: what waits for the socket leaves in one write.
    let mut acks = Vec::new();
    for number in 0..1000 {
        let message =
            OutgoingMessage::new(format!("hello {number}")).with_property("number", number)?;
        acks.push(producer.enqueue(message).await?);
    }
    let mut last = None;
    for ack in acks {
        last = Some(ack.await?.guid);
    }
    println!("stored 1000 messages, the last one is {last:?}");
    session.disconnect().await?;
    Ok(())
}
