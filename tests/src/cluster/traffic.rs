//! Messages that flow while nodes break: one producer and one consumer per queue.

use crate::cluster::{Cluster, NODES};
use crate::history::{History, Record};
use crate::rust_client::{RustConsumer, RustProducer};
use crate::silence;

/// Messages per second and queue: enough to meet every moment, and little for a loaded machine.
const RATE: u32 = 500;

/// Producers and consumers that run.
#[derive(Debug, Default)]
pub struct Traffic {
    flows: Vec<Flow>,
    /// What other producers for the same consumers did.
    others: Vec<Record>,
}

#[derive(Debug)]
struct Flow {
    queue: String,
    producer: RustProducer,
    consumer: RustConsumer,
}

impl Traffic {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a queue (`domain/queue`), its producer at the first of `publish`, its consumer at the
    /// first of `consume`. `name` is part of all message ids and comes once in a test.
    ///
    /// # Panics
    /// When they cannot start.
    #[must_use]
    #[track_caller]
    pub fn flow(mut self, name: &str, queue: &str, publish: &[String], consume: &[String]) -> Self {
        let uri = format!("bmq://{queue}");
        let consumer = RustConsumer::start(consume, &format!("{name}-reads"), &uri);
        let producer = RustProducer::start(publish, name, &uri, RATE);
        self.flows.push(Flow { queue: queue.to_owned(), producer, consumer });
        self
    }

    /// A producer and a consumer at each of the first nodes, each at another one, with a queue
    /// `PREFIXn` of their own in `bmq.test`; they know all nodes. Waits until messages flow.
    ///
    /// # Panics
    /// When they do not.
    #[track_caller]
    pub fn everywhere(cluster: &Cluster, prefix: &str) -> Self {
        let queue = |node: usize| format!("bmq.test/{prefix}{node}");
        for node in NODES {
            cluster.create_queue(node, &queue(node));
        }
        let mut traffic = Self::new();
        for node in NODES {
            let consume = cluster.urls_from(cluster.others(node)[0]);
            let publish = cluster.urls_from(node);
            traffic = traffic.flow(&format!("p{node}"), &queue(node), &publish, &consume);
        }
        traffic.wait_for(200);
        traffic
    }

    /// Adds what a producer of the test's own did that published to one of the queues, and has
    /// ended.
    pub fn keep(&mut self, produced: Vec<Record>) {
        self.others.extend(produced);
    }

    /// Waits until so many more messages were acknowledged and delivered in every queue.
    ///
    /// # Panics
    /// When they are not.
    #[track_caller]
    pub fn wait_for(&self, more: usize) {
        for flow in &self.flows {
            flow.producer.wait_for(more);
        }
        for flow in &self.flows {
            flow.consumer.wait_for(more);
        }
    }

    /// How often the connections of all clients broke.
    pub fn interruptions(&self) -> usize {
        let of_flow = |flow: &Flow| flow.producer.interruptions() + flow.consumer.interruptions();
        self.flows.iter().map(of_flow).sum()
    }

    /// The same of those clients that are not connected to this broker, by client.
    pub fn interruptions_elsewhere(&self, broker: &str) -> Vec<(usize, usize)> {
        let producers = self.flows.iter().map(|flow| &flow.producer).enumerate();
        let consumers = self.flows.iter().map(|flow| &flow.consumer).enumerate();
        let producers = producers
            .filter(|(_, client)| client.broker() != broker)
            .map(|(number, client)| (number * 2, client.interruptions()));
        let consumers = consumers
            .filter(|(_, client)| client.broker() != broker)
            .map(|(number, client)| (number * 2 + 1, client.interruptions()));
        producers.chain(consumers).collect()
    }

    /// Ends: stops publishing, waits until everything is acknowledged, read and confirmed on all
    /// running nodes, and adds what was seen to `history`. Returns the longest gap between two
    /// acknowledgements of a producer that ended after the time `from`.
    ///
    /// # Panics
    /// When a message was refused, or the queues do not become empty.
    #[track_caller]
    pub fn finish(
        self,
        cluster: &Cluster,
        from: u64,
        history: &mut History,
    ) -> std::time::Duration {
        history.add_records(self.others);
        let mut produced: Vec<Record> = Vec::new();
        let mut reading = Vec::new();
        for Flow { queue, producer, consumer } in self.flows {
            produced.extend(producer.stop());
            reading.push((queue, consumer));
        }
        for (queue, _) in &reading {
            cluster.wait_until_empty(queue);
        }
        for (_, consumer) in reading {
            history.add_records(consumer.stop());
        }
        let silence = silence::longest(&produced, from);
        history.add_records(produced);
        silence
    }
}
