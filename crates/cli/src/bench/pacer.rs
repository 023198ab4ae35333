//! Wakes a producer when its next message is due. The runtime's own timer counts in milliseconds,
//! which would be most of the latency that is to be measured.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// A thread that sleeps for one producer, to some 50 microseconds. It ends with this value.
pub(crate) struct Pacer {
    due: Sender<Instant>,
    woken: Arc<Notify>,
    armed: Option<Instant>,
}

impl Pacer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (due, receiver) = channel();
        let woken = Arc::new(Notify::new());
        let notify = Arc::clone(&woken);
        std::thread::Builder::new().name("pacer".into()).spawn(move || run(&receiver, &notify))?;
        Ok(Self { due, woken, armed: None })
    }

    /// Waits for a time; may return early, never late by more than the thread's accuracy.
    /// Cancelling it costs nothing.
    pub(crate) async fn sleep(&mut self, pause: Duration) {
        let due = Instant::now() + pause;
        // The same message asks again after each acknowledgement that came meanwhile.
        let same = |armed: Instant| armed.max(due) - armed.min(due) < Duration::from_micros(50);
        if !self.armed.is_some_and(same) {
            self.armed = Some(due);
            // The thread lives as long as this sender.
            let _sleeping = self.due.send(due);
        }
        self.woken.notified().await;
        self.armed = None;
    }
}

fn run(due: &Receiver<Instant>, woken: &Notify) {
    while let Ok(due) = due.recv() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        woken.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn wakes_when_it_is_due_and_not_long_before() {
        let mut pacer = Pacer::start().unwrap();
        for _ in 0..3 {
            let began = Instant::now();
            pacer.sleep(Duration::from_millis(5)).await;
            assert!(began.elapsed() >= Duration::from_millis(5));
        }
    }
}
