//! What the operating system knows of this process.

use super::definitions as d;
use super::exposition::Exposition;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use std::fs;

/// Figures of this process, read together. What the system does not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessFigures {
    /// CPU time, user and system, in seconds.
    pub cpu_seconds: f64,
    /// Physical memory in bytes.
    pub resident_bytes: Option<u64>,
    /// Address space in bytes.
    pub virtual_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// File descriptors that may be open; `None` is any number.
    pub max_fds: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
}

impl ProcessFigures {
    /// Reads the figures now, from the clock of the process and `/proc/self`.
    pub fn read() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kibibytes = |name| status_value(&status, name).map(|value| value.saturating_mul(1024));
        Self {
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            resident_bytes: kibibytes("VmRSS:"),
            virtual_bytes: kibibytes("VmSize:"),
            // The directory that is being listed is one of them, for a moment.
            open_fds: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|list| (list.count() as u64).saturating_sub(1)),
            max_fds: getrlimit(Resource::Nofile).current,
            threads: status_value(&status, "Threads:"),
        }
    }

    pub(super) fn render(&self, out: &mut Exposition) {
        out.single(&d::PROCESS_CPU, "", self.cpu_seconds);
        let known = [
            (d::PROCESS_RESIDENT, self.resident_bytes),
            (d::PROCESS_VIRTUAL, self.virtual_bytes),
            (d::PROCESS_OPEN_FDS, self.open_fds),
            (d::PROCESS_MAX_FDS, self.max_fds),
            (d::PROCESS_THREADS, self.threads),
        ];
        for (metric, value) in known {
            if let Some(value) = value {
                out.single(&metric, "", value);
            }
        }
    }
}

/// The number behind `name` in a text like `/proc/self/status`.
fn status_value(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
