//! The double in memory against the contract.
#![allow(clippy::unwrap_used)]

use flintmq_consensus::GroupId;
use flintmq_log_store::conformance::{self, Reports, Subject, batch, hard_state};
use flintmq_log_store::{Delivery, LogStore, MemoryStore, RefusedReason, Report, StorageError};

struct Memory(MemoryStore);

impl Subject for Memory {
    fn store(&self) -> &dyn LogStore {
        &self.0
    }

    fn sync(&self) {
        self.0.sync();
    }

    fn reopen(&mut self) {
        self.0.crash();
    }
}

#[test]
fn the_double_keeps_the_contract() {
    conformance::run_all(|| Memory(MemoryStore::new(Delivery::Immediate)));
}

#[test]
fn a_failed_double_tells_every_group_and_takes_nothing_more() {
    let (store, group) = (MemoryStore::new(Delivery::Stepped), GroupId(1));
    let reports = Reports::of(&store, group);
    store.create_group(group, hard_state(1)).unwrap();
    assert!(store.step() && !store.step());
    assert_eq!(reports.next(), Report::Created);
    store.try_append(group, batch(1, 1, 1)).unwrap();
    let error = StorageError::Write { detail: "no".to_owned() };
    store.fail(error.clone());
    assert_eq!(reports.next(), Report::Failed(error));
    assert!(!store.step());
    let refused = store.try_append(group, batch(1, 1, 1)).unwrap_err();
    assert_eq!(refused.reason, RefusedReason::Stopped);
}
