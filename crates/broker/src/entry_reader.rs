//! Reads log entries beside the shard, on threads of its own.
//!
//! Few threads that stay, rather than the runtime's pool: a thread that read a large entry keeps
//! memory for the next one, and a pool of dozens keeps dozens of them.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flintmq_consensus::{GroupId, Index};
use flintmq_storage::{LogStore, ReadError};

/// Two, so that one slow read does not hold up everybody.
const THREADS: usize = 2;

/// Told what was read.
pub(crate) type OnRead = Box<dyn FnOnce(Result<Bytes, ReadError>) + Send>;

/// A way to the reading threads; cheap to clone. They end when the last one is dropped. What waits
/// here is bounded by those who ask: a partition asks for so many entries at a time and no more.
#[derive(Clone)]
pub(crate) struct EntryReader {
    jobs: Sender<Job>,
}

struct Job {
    group: GroupId,
    index: Index,
    then: OnRead,
}

impl EntryReader {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(store: &Arc<dyn LogStore>) -> std::io::Result<Self> {
        let (jobs, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..THREADS {
            let (store, receiver) = (Arc::clone(store), Arc::clone(&receiver));
            let thread = std::thread::Builder::new().name(format!("entry-reader-{number}"));
            thread.spawn(move || run(&*store, &receiver))?;
        }
        Ok(Self { jobs })
    }

    /// Reads an entry's payload and calls `then` with it, on a reading thread.
    pub(crate) fn read(&self, group: GroupId, index: Index, then: OnRead) {
        // The threads outlive every sender: there is always somebody to take it.
        let _taken = self.jobs.send(Job { group, index, then });
    }
}

fn run(store: &dyn LogStore, jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { group, index, then }) = job else { return };
        then(match store.entry(group, index) {
            Ok(Some(entry)) => Ok(entry.payload),
            Ok(None) => Err(ReadError::Missing { group, index }),
            Err(error) => Err(error),
        });
    }
}
