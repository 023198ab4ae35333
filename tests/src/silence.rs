//! How long producers heard nothing: the gaps between acknowledgements.

use std::time::Duration;

use crate::history::{Record, What};

/// Silence that no slow machine explains: something hung until it was noticed by chance. What a
/// failure costs on a quiet machine is measured and not tested; see `docs/performance.md`.
const HUNG: Duration = Duration::from_secs(60);

/// Requires that no silence was one of something that hangs.
///
/// # Panics
/// When one was.
#[track_caller]
pub fn assert_nothing_hung(silences: &[Duration]) {
    assert!(silences.iter().all(|silence| *silence < HUNG), "{silences:?}");
}

/// The longest time between two acknowledgements in a row of which the second came after `from`,
/// by a clock of nanoseconds; over all producers of `records`, each for itself. Zero when there was
/// none.
pub fn longest(records: &[Record], from: u64) -> Duration {
    let mut last = std::collections::BTreeMap::new();
    let mut longest = 0;
    for record in records {
        if !matches!(record.what, What::Acknowledged(_)) {
            continue;
        }
        if let Some(before) = last.insert(record.client.as_str(), record.at)
            && record.at > from
        {
            longest = longest.max(record.at.saturating_sub(before));
        }
    }
    Duration::from_nanos(longest)
}

/// Prints times of the same kind: the least, the middle, the most, and all of them.
pub fn print(what: &str, times: &[Duration]) {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else { return };
    let middle = sorted[sorted.len() / 2];
    let all: Vec<u128> = times.iter().map(Duration::as_millis).collect();
    println!("{what}: least {least:.0?}, middle {middle:.0?}, most {most:.0?}; in ms: {all:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_ends_after_the_start_and_each_producer_alone() {
        let record = |at, client: &str| Record {
            at,
            client: client.to_owned(),
            what: What::Acknowledged("m".to_owned()),
        };
        let records = [
            record(0, "p"),
            record(100, "p"),
            record(101, "q"),
            record(130, "p"),
            record(190, "q"),
        ];
        assert_eq!(longest(&records, 0), Duration::from_nanos(100));
        assert_eq!(longest(&records, 100), Duration::from_nanos(89));
        assert_eq!(longest(&records, 190), Duration::ZERO);
    }
}
