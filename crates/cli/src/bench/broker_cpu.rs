//! How much processor time the brokers have used, from `/proc/PID/stat`.

use anyhow::{Context as _, Result};

/// The brokers to watch.
#[derive(Debug)]
pub(crate) struct BrokerCpu {
    pids: Vec<u32>,
}

impl BrokerCpu {
    /// Checks that each process is there.
    pub(crate) fn new(pids: &[u32]) -> Result<Self> {
        let brokers = Self { pids: pids.to_vec() };
        brokers.seconds()?;
        Ok(brokers)
    }

    /// CPU seconds of all brokers since they started, user and system; `None` without brokers.
    pub(crate) fn seconds(&self) -> Result<Option<f64>> {
        if self.pids.is_empty() {
            return Ok(None);
        }
        let mut ticks = 0;
        for pid in &self.pids {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .with_context(|| format!("no such process: check --broker-pid pid={pid}"))?;
            ticks += cpu_ticks(&stat)
                .with_context(|| format!("cannot read the process' times pid={pid}"))?;
        }
        Ok(Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
    }
}

/// Fields 14 and 15. The name in field 2 is in brackets and may hold anything, brackets included.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_brackets_do_not_shift_the_fields() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 100 0 0 0 7 5 0 0 20 0 1 0 100 1 1";
        assert_eq!(cpu_ticks(stat), Some(12));
        assert_eq!(cpu_ticks("42 (x) S 1"), None);
    }

    #[test]
    fn this_process_has_used_some_time_and_a_missing_one_is_an_error() {
        let own = BrokerCpu::new(&[std::process::id()]).unwrap();
        assert!(own.seconds().unwrap().is_some());
        assert!(BrokerCpu::new(&[u32::MAX]).is_err());
        assert_eq!(BrokerCpu::new(&[]).unwrap().seconds().unwrap(), None);
    }
}
