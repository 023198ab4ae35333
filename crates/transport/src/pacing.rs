//! The bandwidth limit of snapshots.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How far a burst may run ahead of the rate.
const BURST: Duration = Duration::from_millis(20);

/// One rate for all bulk streams of a node: each write is given a place on a common time line.
#[derive(Debug)]
pub(crate) struct Pacer {
    bytes_per_second: AtomicU64,
    /// When all that was let through is paid for.
    paid: Mutex<Option<Instant>>,
}

impl Pacer {
    /// 0 for no limit.
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: AtomicU64::new(bytes_per_second), paid: Mutex::new(None) }
    }

    /// Holds from the next write on.
    pub(crate) fn set(&self, bytes_per_second: u64) {
        self.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Returns when this many bytes may leave.
    pub(crate) async fn pass(&self, bytes: usize) {
        if let Some(until) = self.book(Instant::now(), bytes) {
            sleep_until(until).await;
        }
    }

    /// Until when to wait with these bytes.
    fn book(&self, now: Instant, bytes: usize) -> Option<Instant> {
        let rate = self.bytes_per_second.load(Ordering::Relaxed);
        if rate == 0 {
            return None;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let mut paid = self.paid.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let begin = paid.map_or(now, |paid| paid.max(now));
        *paid = Some(begin + cost);
        begin.checked_sub(BURST).filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_leave_at_the_rate() {
        let pacer = Pacer::new(1_000_000);
        let begun = Instant::now();
        for _ in 0..20 {
            pacer.pass(100_000).await;
        }
        // The last write begins when the ones before it are paid for, less the burst.
        let expected = Duration::from_millis(1900) - BURST;
        let took = begun.elapsed();
        assert!(took >= expected && took < expected + BURST, "{took:?}");

        pacer.set(0);
        let begun = Instant::now();
        pacer.pass(usize::MAX).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_does_not_save_up() {
        let pacer = Pacer::new(1_000_000);
        pacer.pass(1000).await;
        tokio::time::advance(Duration::from_secs(60)).await;
        let begun = Instant::now();
        for _ in 0..10 {
            pacer.pass(100_000).await;
        }
        assert!(begun.elapsed() >= Duration::from_millis(850), "{:?}", begun.elapsed());
    }
}
