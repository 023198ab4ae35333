//! Fear: a data directory of which a part was lost, exchanged or restored from a backup is taken
//! for whole, and the node votes twice.
#![allow(clippy::unwrap_used)]

mod damage;

use damage::{Place, copy_dir, options, truncate, wal_files};
use flintmq_consensus::GroupId;
use flintmq_storage::conformance::{Reports, batch, hard_state};
use flintmq_storage::{LogStore, OpenError, Opened, Report, Shutdown, Store, StoreOptions};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const GROUP: GroupId = GroupId(1);

/// A store that was closed twice, with a copy of it as it was after the first time.
fn closed_twice(place: &Place) -> (PathBuf, PathBuf) {
    let (now, before) = (place.path().join("a"), place.path().join("before"));
    let store = Store::open(options(place, "a")).unwrap().store;
    write(&store, 1);
    store.close().unwrap();
    drop(store);
    copy_dir(&now, &before);
    let store = Store::open(options(place, "a")).unwrap().store;
    write(&store, 2);
    store.close().unwrap();
    (now, before)
}

fn write(store: &Store, round: u64) {
    let reports = Reports::of(store, GROUP);
    if round == 1 {
        store.create_group(GROUP, hard_state(1)).unwrap();
        assert_eq!(reports.next(), Report::Created);
    }
    let last = store.bounds(GROUP).unwrap().last.index;
    store.try_append(GROUP, batch(round, last + 1, last + 3)).unwrap();
    reports.appended(last + 3);
    store.save_hard_state(GROUP, 1, hard_state(round + 1)).unwrap();
    assert_eq!(reports.next(), Report::HardStateSynced { save: 1 });
}

fn open(place: &Place) -> Result<Opened, OpenError> {
    Store::open(options(place, "a"))
}

fn refused(place: &Place) -> OpenError {
    match open(place) {
        Ok(opened) => panic!("it was taken: {:?}", opened.shutdown),
        Err(error) => error,
    }
}

/// Puts a part of another directory in place of the present one.
fn exchange(part: &str, from: &Path, to: &Path) {
    let (from, to) = (from.join(part), to.join(part));
    if from.is_dir() {
        fs::remove_dir_all(&to).unwrap();
        copy_dir(&from, &to);
    } else {
        fs::copy(&from, &to).unwrap();
    }
}

#[test]
fn each_part_is_missed() {
    let place = Place::new();
    let (now, _) = closed_twice(&place);
    fs::remove_file(now.join("marker")).unwrap();
    assert!(matches!(refused(&place), OpenError::MarkerMissing { .. }));
    let place = Place::new();
    let (now, _) = closed_twice(&place);
    fs::remove_dir_all(now.join("db")).unwrap();
    let error = refused(&place);
    assert!(matches!(error, OpenError::DatabaseMissing { .. }), "{error}");
    assert!(!now.join("db").exists(), "nothing was changed");
}

#[test]
fn a_directory_without_marker_and_database_is_new_under_another_name() {
    let place = Place::new();
    let (now, _) = closed_twice(&place);
    let whole = open(&place).unwrap();
    let uuid = whole.uuid.clone();
    assert!(whole.last_process > 0);
    drop(whole);
    fs::remove_file(now.join("marker")).unwrap();
    fs::remove_dir_all(now.join("db")).unwrap();
    let opened = open(&place).unwrap();
    assert_eq!((&opened.shutdown, opened.last_process), (&Shutdown::New, 0));
    assert_ne!(opened.uuid, uuid, "so that others of the node's files notice");
}

#[test]
fn a_part_of_before_is_noticed() {
    for part in ["marker", "db"] {
        let place = Place::new();
        let (now, before) = closed_twice(&place);
        exchange(part, &before, &now);
        let error = refused(&place);
        assert!(matches!(error, OpenError::Mismatch { .. }), "{part}: {error}");
        let older = if part == "marker" { "the marker is older" } else { "the database is older" };
        assert!(error.to_string().contains(older), "{error}");
    }
}

#[test]
fn a_part_of_another_node_is_noticed() {
    let other = Place::new();
    let (foreign, _) = closed_twice(&other);
    let place = Place::new();
    let (now, _) = closed_twice(&place);
    exchange("db", &foreign, &now);
    assert!(matches!(refused(&place), OpenError::Mismatch { .. }));
}

#[test]
fn a_directory_of_before_is_noticed_while_the_machine_remembers() {
    let place = Place::new();
    let (now, before) = closed_twice(&place);
    // It ran once more and was killed, then all of it was restored.
    let store = open(&place).unwrap().store;
    write(&store, 3);
    drop(store);
    fs::remove_dir_all(&now).unwrap();
    copy_dir(&before, &now);
    let error = refused(&place);
    assert!(matches!(error, OpenError::Behind { synced, there } if there < synced), "{error}");
}

#[test]
fn a_database_without_what_was_synced_is_refused() {
    let place = Place::new();
    let store = open(&place).unwrap().store;
    write(&store, 1);
    drop(store);
    // The hard state was the last thing written.
    let wal = wal_files(&place.path().join("a")).pop().unwrap();
    truncate(&wal, fs::metadata(&wal).unwrap().len() - 1);
    let error = refused(&place);
    assert!(matches!(error, OpenError::Behind { .. }), "{error}");
}

#[test]
fn a_start_that_was_cut_short_is_none_of_these() {
    let place = Place::new();
    closed_twice(&place);
    // The marker names the new run, the database does not yet.
    let store = open(&place).unwrap().store;
    drop(store);
    let marker = place.path().join("a/marker");
    let starting = fs::read_to_string(&marker).unwrap().replace("\"Open\"", "\"Starting\"");
    let (_, body) = starting.split_once('\n').unwrap();
    let sum = crc32c::crc32c(body.as_bytes());
    fs::write(&marker, format!("crc32c {sum:08x}\n{body}")).unwrap();
    assert_eq!(open(&place).unwrap().shutdown, Shutdown::ProcessCrash);
}

#[test]
fn every_run_has_a_higher_number_whatever_the_clock_says() {
    let place = Place::new();
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    let day = Duration::from_secs(86_400);
    let mut last = 0;
    for now in [start, start + day, start, start - 365 * day, SystemTime::UNIX_EPOCH] {
        let at = StoreOptions { now: Some(now), ..options(&place, "a") };
        let opened = Store::open(at).unwrap();
        assert_eq!(opened.last_process, last);
        assert!(opened.process > last, "{} after {last}", opened.process);
        last = opened.process;
    }
    assert_eq!(last, 2_000_000_000_000 + 86_400_000 + 3);
}

#[test]
fn a_witness_directory_that_is_of_no_use_is_done_without() {
    let on_disk = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let file = on_disk.path().join("file");
    fs::write(&file, b"").unwrap();
    let missing = on_disk.path().join("missing");
    for dir in [on_disk.path(), &file, &missing, Path::new("/proc")] {
        let place = Place::new();
        let with = || StoreOptions { witness_dir: Some(dir.to_owned()), ..options(&place, "a") };
        drop(Store::open(with()).unwrap());
        assert_eq!(Store::open(with()).unwrap().shutdown, Shutdown::ProcessCrash, "{dir:?}");
    }
    assert_eq!(fs::read_dir(on_disk.path()).unwrap().count(), 1, "no witness was left there");
}
