//! Prints the messages of a queue, and confirms each, until nothing has come for two seconds.
//!
//! `cargo run -p flintmq-client --example consume -- tcp://127.0.0.1:30114 bmq://demo/greetings`

use std::time::Duration;

use flintmq_client::{ConsumerOptions, Session, SessionOptions};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let broker = arguments.next().unwrap_or_else(|| "tcp://127.0.0.1:30114".to_owned());
    let uri = arguments.next().unwrap_or_else(|| "bmq://demo/greetings".to_owned());

    let session = Session::connect(SessionOptions::new([broker.parse()?])).await?;
    let mut consumer = session.consumer(&uri, ConsumerOptions::default()).await?;
    while let Ok(message) = tokio::time::timeout(Duration::from_secs(2), consumer.recv()).await {
        let Some(message) = message? else { break };
        let payload = message.payload()?;
        println!("{} {}", message.guid(), String::from_utf8_lossy(&payload));
        if let Err(error) = message.confirm() {
            // The connection was lost meanwhile: the message will come again.
            eprintln!("{error}");
        }
    }
    consumer.close().await?;
    session.disconnect().await?;
    Ok(())
}
