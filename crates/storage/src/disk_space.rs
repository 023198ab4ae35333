//! Watches the free space of the data directory, so that growing writes are refused while there is
//! still room for what frees space.

use flintmq_log_store::DiskState;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Where free space is learnt from.
pub trait FreeSpace: Send + Sync {
    /// Bytes that this process may still write to the file system of `dir`.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// Told when the disk state changes between ok and low; called by the monitor's thread, must not
/// block.
pub type DiskListener = Box<dyn Fn(DiskState) + Send + Sync>;

/// The real file system.
pub(crate) struct FileSystemSpace;

impl FreeSpace for FileSystemSpace {
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(dir)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

/// The last look at the disk, and who wants to hear of changes.
pub(crate) struct DiskMonitor {
    reserve: u64,
    free: AtomicU64,
    low: AtomicBool,
    listeners: Mutex<Vec<DiskListener>>,
}

impl DiskMonitor {
    pub(crate) fn new(reserve: u64) -> Self {
        Self {
            reserve,
            free: AtomicU64::new(u64::MAX),
            low: AtomicBool::new(false),
            listeners: Mutex::default(),
        }
    }

    pub(crate) fn state(&self) -> DiskState {
        if self.low.load(Ordering::Relaxed) {
            DiskState::Low { free: self.free(), reserve: self.reserve }
        } else {
            DiskState::Ok
        }
    }

    pub(crate) fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    pub(crate) fn subscribe(&self, listener: DiskListener) {
        lock(&self.listeners).push(listener);
    }

    /// Takes in a look at the disk. What is low gets ok again only a sixteenth above the reserve,
    /// so that the state does not flutter.
    pub(crate) fn observe(&self, free: u64) {
        self.free.store(free, Ordering::Relaxed);
        let was_low = self.low.load(Ordering::Relaxed);
        let enough = if was_low { self.reserve + self.reserve / 16 } else { self.reserve };
        let is_low = free < enough;
        if was_low == is_low {
            return;
        }
        self.low.store(is_low, Ordering::Relaxed);
        if is_low {
            tracing::warn!(
                free,
                reserve = self.reserve,
                "the disk is nearly full: new messages are refused"
            );
        } else {
            tracing::info!(
                free,
                reserve = self.reserve,
                "the disk has room again: new messages are taken"
            );
        }
        let state = self.state();
        for listener in lock(&self.listeners).iter() {
            listener(state);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, mpsc};

    #[test]
    fn refuses_below_the_reserve_and_recovers_above_it() {
        let monitor = Arc::new(DiskMonitor::new(1600));
        let (sender, seen) = mpsc::channel();
        monitor.subscribe(Box::new(move |state| sender.send(state).unwrap()));
        monitor.observe(1600);
        assert_eq!(monitor.state(), DiskState::Ok);
        monitor.observe(1599);
        let low = DiskState::Low { free: 1599, reserve: 1600 };
        assert_eq!((monitor.state(), seen.try_recv()), (low, Ok(low)));
        monitor.observe(1650);
        assert_eq!(monitor.state(), DiskState::Low { free: 1650, reserve: 1600 });
        assert!(seen.try_recv().is_err(), "no change, no call");
        monitor.observe(1700);
        assert_eq!((monitor.state(), seen.try_recv()), (DiskState::Ok, Ok(DiskState::Ok)));
    }

    #[test]
    fn the_real_file_system_has_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        assert!(FileSystemSpace.free_bytes(dir.path()).unwrap() > 0);
    }
}
