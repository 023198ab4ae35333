//! What all clients of a test saw, and the search for what may not have happened.
//!
//! A [`History`] is one list of [`Record`]s, by time: which messages were sent and acknowledged,
//! which were delivered to whom, which were confirmed, whose connection broke. [`History::check`]
//! holds it against the promises of a priority queue:
//!
//! | violation | the promise that it breaks |
//! | --- | --- |
//! | [`Lost`](Violation::Lost) | an acknowledged message is delivered (asked for when the queue was drained) |
//! | [`Invented`](Violation::Invented) | what is delivered was sent |
//! | [`Damaged`](Violation::Damaged) | with the bytes that were sent |
//! | [`RefusedButDelivered`](Violation::RefusedButDelivered) | a negative acknowledgement means "not stored" |
//! | [`StoredTwice`](Violation::StoredTwice) | a message that is sent again after a reconnect is stored once |
//! | [`OutOfOrder`](Violation::OutOfOrder) | first deliveries to one consumer are in the producer's order |
//! | [`CameBack`](Violation::CameBack) | a confirmed message is never delivered again |
//! | [`Repeated`](Violation::Repeated) | nothing is delivered twice over one unbroken connection |
//! | [`Retaken`](Violation::Retaken) | while leaders change, too, only what is unconfirmed is delivered again |
//! | [`Abandoned`](Violation::Abandoned) | what a lost consumer had not confirmed goes to another one |
//!
//! A producer's name is part of the message id (`name:sequence`), one name per queue. A confirm has
//! no answer in the protocol, so it only counts as settled when the client that sent it ended its
//! session properly afterwards: the broker answers that last of all.

use std::collections::{BTreeMap, BTreeSet};

use crate::python::Report;

/// One thing that one client saw or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Monotonic time in nanoseconds.
    pub at: u64,
    /// The client.
    pub client: String,
    /// What.
    pub what: What,
}

/// What a client saw or did. Ids are `producer:sequence`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Handed a message to its library.
    Sent(String),
    /// Got a positive acknowledgement.
    Acknowledged(String),
    /// Got a negative one that says the message was not stored.
    Refused(String),
    /// Got a message.
    Delivered {
        /// Its id.
        id: String,
        /// The GUID that it came with.
        guid: String,
        /// Whether payload and properties were exactly as sent.
        intact: bool,
    },
    /// Confirmed a message.
    Confirmed(String),
    /// Could not send the confirm after all: the queue was closing or the connection down.
    NotConfirmed(String),
    /// Lost its connection; it may get another one by itself.
    Interrupted,
    /// Ended its session properly: everything it had sent before is processed.
    Ended,
    /// Died.
    Died,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// Acknowledged and never delivered.
    Lost(String),
    /// Delivered and never sent.
    Invented(String),
    /// Delivered with other bytes than were sent.
    Damaged(String),
    /// Refused and delivered all the same.
    RefusedButDelivered(String),
    /// Delivered under two GUIDs.
    StoredTwice(String),
    /// Delivered for the first time after a later one of the same producer, to the same consumer.
    OutOfOrder {
        /// The message that came too late.
        id: String,
        /// The one that came before it.
        after: String,
    },
    /// Delivered again after its confirm was settled.
    CameBack(String),
    /// Delivered twice to a client whose connection was not interrupted in between.
    Repeated(String),
    /// Delivered again long after its confirm, over a connection that never broke.
    Retaken(String),
    /// Unconfirmed at a consumer that is gone, and never delivered to another one.
    Abandoned(String),
}

/// What a test knows about its own history.
#[derive(Clone, Copy, Debug)]
pub struct Expectations {
    /// The queues were read to their end: whatever was acknowledged must have been delivered.
    pub drained: bool,
    /// No consumer died with messages on their way to it, so that the order of first deliveries,
    /// as the clients saw them, is the broker's.
    pub ordered: bool,
    /// Partitions got other leaders on the way. Then a message that a client holds unconfirmed
    /// comes to it again over the same connection, which is no [`Violation::Repeated`].
    pub leaders_changed: bool,
    /// No client's broker was halted or cut off: a confirm over a connection that stands is with
    /// the broker within [`CONFIRM_TRAVEL`], and what comes again later is a
    /// [`Violation::Retaken`].
    pub confirms_arrive: bool,
}

/// How long a confirm can be on its way on a machine that has much else to do, in nanoseconds.
pub const CONFIRM_TRAVEL: u64 = 3_000_000_000;

impl Expectations {
    /// Of one broker that is killed at will: drained, and in order.
    pub const ONE_BROKER: Self =
        Self { drained: true, ordered: true, leaders_changed: false, confirms_arrive: false };

    /// Of a cluster whose nodes are killed at will, with clients that are elsewhere.
    pub const CLUSTER: Self =
        Self { drained: true, ordered: true, leaders_changed: true, confirms_arrive: true };
}

/// The records of all clients.
#[derive(Clone, Debug, Default)]
pub struct History {
    records: Vec<Record>,
}

impl History {
    /// Adds one record.
    pub fn add(&mut self, at: u64, client: &str, what: What) {
        self.records.push(Record { at, client: client.to_owned(), what });
    }

    /// Adds what another client recorded.
    pub fn add_records(&mut self, records: Vec<Record>) {
        self.records.extend(records);
    }

    /// Everything recorded, in the order in which it was added.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Adds everything that a script reported. A report without a proper end counts as a death.
    pub fn add_report(&mut self, client: &str, report: &Report) {
        let mut last = 0;
        for event in &report.events {
            last = event.at;
            let id = event.text("id").to_owned();
            let what = match event.name.as_str() {
                "sent" => What::Sent(id),
                "acked" => match event.text("status") {
                    "SUCCESS" => What::Acknowledged(id),
                    "LIMIT_MESSAGES" | "LIMIT_BYTES" | "STORAGE_FAILURE" => What::Refused(id),
                    // Anything else leaves open what became of the message.
                    _ => continue,
                },
                "delivered" => What::Delivered {
                    id,
                    guid: event.text("guid").to_owned(),
                    intact: event.facts["intact"] == true,
                },
                "confirmed" => What::Confirmed(id),
                "unconfirmable" => What::NotConfirmed(id),
                "session" if event.text("kind") == "ConnectionLost" => What::Interrupted,
                "ended" => What::Ended,
                _ => continue,
            };
            self.add(event.at, client, what);
        }
        if report.events.last().is_none_or(|event| event.name != "ended") {
            self.add(last, client, What::Died);
        }
    }

    /// The messages that were acknowledged.
    pub fn acknowledged(&self) -> BTreeSet<&str> {
        self.ids(|what| match what {
            What::Acknowledged(id) => Some(id),
            _ => None,
        })
    }

    /// The messages that were delivered at least once.
    pub fn delivered(&self) -> BTreeSet<&str> {
        self.ids(|what| match what {
            What::Delivered { id, .. } => Some(id),
            _ => None,
        })
    }

    /// Every broken promise, each message at most once per kind, in a fixed order.
    pub fn check(&self, expectations: Expectations) -> Vec<Violation> {
        let mut records: Vec<&Record> = self.records.iter().collect();
        records.sort_by_key(|record| record.at);
        let mut search = Search::default();
        for record in &records {
            if let What::Sent(id) = &record.what {
                search.sent.insert(id);
            }
        }
        for record in records {
            search.look_at(record, expectations);
        }
        search.close(expectations);
        search.found.into_iter().collect()
    }

    /// Fails the test when a promise was broken.
    ///
    /// # Panics
    /// With the first violations of each kind.
    #[track_caller]
    pub fn assert_kept(&self, expectations: Expectations) {
        let found = self.check(expectations);
        assert!(
            found.is_empty(),
            "{} broken promises among {} records ({}), the first: {:#?}",
            found.len(),
            self.records.len(),
            self.keep(),
            &found[..found.len().min(20)]
        );
    }

    /// Writes the records, by time, to a file that outlives the test, and says where it is.
    fn keep(&self) -> String {
        use std::fmt::Write as _;
        let mut records: Vec<&Record> = self.records.iter().collect();
        records.sort_by_key(|record| record.at);
        let mut text = String::new();
        for record in records {
            let _ = writeln!(text, "{} {} {:?}", record.at, record.client, record.what);
        }
        let name = format!("flintmq-history-{}-{}.txt", std::process::id(), text.len());
        let path = std::env::temp_dir().join(name);
        match std::fs::write(&path, text) {
            Ok(()) => format!("all of them in {}", path.display()),
            Err(error) => format!("not kept: {error}"),
        }
    }

    fn ids<'history>(
        &'history self,
        pick: impl Fn(&'history What) -> Option<&'history String>,
    ) -> BTreeSet<&'history str> {
        self.records.iter().filter_map(|record| pick(&record.what)).map(String::as_str).collect()
    }
}

/// The state of one pass over the records, in the order of time.
#[derive(Default)]
struct Search<'history> {
    found: BTreeSet<Violation>,
    sent: BTreeSet<&'history str>,
    acknowledged: BTreeSet<&'history str>,
    refused: BTreeSet<&'history str>,
    /// Every GUID under which a message was delivered.
    guids: BTreeMap<&'history str, &'history str>,
    /// Confirmed and settled.
    settled: BTreeSet<&'history str>,
    /// Confirmed by anybody, settled or not.
    confirmed: BTreeSet<&'history str>,
    /// Per client: confirmed since its session began, not settled yet.
    unsettled: BTreeMap<&'history str, BTreeSet<&'history str>>,
    /// Per client: when it confirmed what, over its present connection or a session that ended
    /// well.
    confirmed_at: BTreeMap<&'history str, BTreeMap<&'history str, u64>>,
    /// Per client: delivered over its present connection.
    over_this_connection: BTreeMap<&'history str, BTreeSet<&'history str>>,
    /// Per client: delivered and not confirmed by it.
    held: BTreeMap<&'history str, BTreeSet<&'history str>>,
    /// Unconfirmed at a client that is gone, waiting for another delivery.
    orphans: BTreeSet<&'history str>,
    /// Per client and producer: the highest first delivery.
    highest: BTreeMap<(&'history str, &'history str), (u64, &'history str)>,
}

impl<'history> Search<'history> {
    fn look_at(&mut self, record: &'history Record, expectations: Expectations) {
        let client = record.client.as_str();
        match &record.what {
            What::Sent(_) => {}
            What::Acknowledged(id) => {
                self.acknowledged.insert(id);
            }
            What::Refused(id) => {
                self.refused.insert(id);
            }
            What::Delivered { id, guid, intact } => {
                self.check_confirms(id, record.at, expectations);
                self.delivered(client, id, guid, *intact, expectations);
            }
            What::Confirmed(id) => {
                self.confirmed.insert(id);
                self.unsettled.entry(client).or_default().insert(id);
                self.confirmed_at.entry(client).or_default().entry(id).or_insert(record.at);
                self.held.entry(client).or_default().remove(id.as_str());
            }
            What::NotConfirmed(id) => {
                self.confirmed.remove(id.as_str());
                self.unsettled.entry(client).or_default().remove(id.as_str());
                self.confirmed_at.entry(client).or_default().remove(id.as_str());
                self.held.entry(client).or_default().insert(id);
            }
            What::Interrupted => {
                // Confirms on their way may be lost with the connection, so they never settle.
                self.unsettled.remove(client);
                self.confirmed_at.remove(client);
                self.over_this_connection.remove(client);
            }
            What::Ended => {
                self.settled.extend(self.unsettled.remove(client).unwrap_or_default());
                self.gone(client);
            }
            What::Died => {
                self.unsettled.remove(client);
                self.confirmed_at.remove(client);
                self.gone(client);
            }
        }
    }

    fn delivered(
        &mut self,
        client: &'history str,
        id: &'history str,
        guid: &'history str,
        intact: bool,
        expectations: Expectations,
    ) {
        if !self.sent.contains(id) {
            self.found.insert(Violation::Invented(id.to_owned()));
        } else if !intact {
            self.found.insert(Violation::Damaged(id.to_owned()));
        }
        if self.settled.contains(id) {
            self.found.insert(Violation::CameBack(id.to_owned()));
        }
        let repeated = !self.over_this_connection.entry(client).or_default().insert(id);
        if repeated && !expectations.leaders_changed {
            self.found.insert(Violation::Repeated(id.to_owned()));
        }
        let first = match self.guids.get(id) {
            None => {
                self.guids.insert(id, guid);
                true
            }
            Some(known) if *known != guid => {
                self.found.insert(Violation::StoredTwice(id.to_owned()));
                false
            }
            Some(_) => false,
        };
        if first && expectations.ordered {
            self.check_order(client, id);
        }
        self.orphans.remove(id);
        self.held.entry(client).or_default().insert(id);
    }

    fn check_confirms(&mut self, id: &str, at: u64, expectations: Expectations) {
        let long_ago = |confirmed: &u64| at.saturating_sub(*confirmed) > CONFIRM_TRAVEL;
        let mut clients = self.confirmed_at.values();
        if expectations.confirms_arrive
            && clients.any(|confirmed| confirmed.get(id).is_some_and(long_ago))
        {
            self.found.insert(Violation::Retaken(id.to_owned()));
        }
    }

    fn check_order(&mut self, client: &'history str, id: &'history str) {
        let Some((producer, sequence)) = id.rsplit_once(':') else { return };
        let Ok(sequence) = sequence.parse::<u64>() else { return };
        let highest = self.highest.entry((client, producer)).or_insert((sequence, id));
        if sequence < highest.0 {
            let after = highest.1.to_owned();
            self.found.insert(Violation::OutOfOrder { id: id.to_owned(), after });
        } else {
            *highest = (sequence, id);
        }
    }

    fn gone(&mut self, client: &'history str) {
        self.over_this_connection.remove(client);
        let left = self.held.remove(client).unwrap_or_default();
        // Somebody else may have got it already, and have it still.
        let elsewhere: BTreeSet<&str> = self.held.values().flatten().copied().collect();
        self.orphans.extend(
            left.into_iter().filter(|id| !self.confirmed.contains(id) && !elsewhere.contains(id)),
        );
    }

    fn close(&mut self, expectations: Expectations) {
        for id in &self.refused {
            if self.guids.contains_key(id) {
                self.found.insert(Violation::RefusedButDelivered((*id).to_owned()));
            }
        }
        if !expectations.drained {
            return;
        }
        for id in &self.acknowledged {
            if !self.guids.contains_key(id) {
                self.found.insert(Violation::Lost((*id).to_owned()));
            }
        }
        for id in &self.orphans {
            if !self.confirmed.contains(id) {
                self.found.insert(Violation::Abandoned((*id).to_owned()));
            }
        }
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
