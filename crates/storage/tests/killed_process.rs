//! A process that is killed in the middle of its work loses nothing that it was told is written.
#![allow(clippy::unwrap_used)]

use flintmq_consensus::{GroupId, LogPosition, NodeId};
use flintmq_storage::conformance::{Reports, batch, entry, hard_state};
use flintmq_storage::{
    CheckpointBatch, LogStore, NodeIdentity, Report, Shutdown, Store, StoreOptions,
};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

const GROUP: GroupId = GroupId(1);
/// Tells the test binary that it is the process to be killed, and where to write.
const CHILD: &str = "FLINTMQ_STORAGE_TEST_CHILD";

/// Where its witness lies, in RAM.
const MEMORY: &str = "FLINTMQ_STORAGE_TEST_MEMORY";

fn options(place: &Path, memory: &Path) -> StoreOptions {
    let identity = NodeIdentity { cluster: "test".to_owned(), node: NodeId(1) };
    let mut options = StoreOptions::new(place.join("data"), identity);
    options.disk_reserve = 0;
    options.witness_dir = Some(memory.to_owned());
    options
}

/// Writes until it is killed; one line of output for everything that was reported.
#[test]
fn the_process_to_be_killed() {
    let Some(place) = std::env::var_os(CHILD) else { return };
    let memory = std::env::var_os(MEMORY).unwrap();
    let store = Store::open(options(Path::new(&place), Path::new(&memory))).unwrap().store;
    let reports = Reports::of(&store, GROUP);
    store.create_group(GROUP, hard_state(1)).unwrap();
    assert_eq!(reports.next(), Report::Created);
    let mut output = std::io::stderr();
    for last in (4..).step_by(4) {
        store.try_append(GROUP, batch(1, last - 3, last)).unwrap();
        reports.appended(last);
        writeln!(output, "appended {last}").unwrap();
        let applied = LogPosition { term: 1, index: last - 1 };
        let dead_entries = vec![last - 2];
        let puts = vec![(b"last".to_vec(), last.to_be_bytes().to_vec())];
        let batch = CheckpointBatch { applied, dead_entries, puts, ..Default::default() };
        store.try_checkpoint(GROUP, batch).unwrap();
        assert_eq!(reports.next(), Report::Checkpointed { applied });
        writeln!(output, "checkpointed {last}").unwrap();
    }
}

#[test]
fn what_was_reported_is_there() {
    for lines in [1, 2, 50, 501] {
        let place = tempfile::tempdir().unwrap();
        let memory = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_process_to_be_killed", "--nocapture"])
            .env(CHILD, place.path())
            .env(MEMORY, memory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stderr.take().unwrap());
        let (mut appended, mut checkpointed) = (0_u64, 0_u64);
        for line in output.lines().take(lines) {
            let line = line.unwrap();
            match line.split_once(' ') {
                Some(("appended", last)) => appended = last.parse().unwrap(),
                Some(("checkpointed", last)) => checkpointed = last.parse().unwrap(),
                _ => panic!("{line}"),
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let opened = Store::open(options(place.path(), memory.path())).unwrap();
        assert_eq!(opened.shutdown, Shutdown::ProcessCrash);
        let store = &opened.store;
        let last = store.bounds(GROUP).unwrap().last.index;
        assert!(last >= appended, "{last} of {appended}");
        let applied = store.applied(GROUP).unwrap().unwrap_or_default().index;
        assert!(applied + 1 >= checkpointed, "{applied} of {checkpointed}");
        for index in 1..=appended {
            let dead = index % 4 == 2 && index <= applied;
            let expected = if dead { None } else { Some(entry(1, index)) };
            assert_eq!(store.entry(GROUP, index).unwrap(), expected, "index {index}");
        }
    }
}
