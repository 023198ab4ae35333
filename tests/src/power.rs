//! A machine that loses its power, pretended: the process is killed, what was not synced goes from
//! the end of its log, and so does what vouches for that end in RAM.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::broker_process::Broker;
use crate::wait::until;

/// What a node logs at a start that follows a power loss.
pub const TOLD: &str = "acknowledged messages may be missing";

/// A part of a node's log that is on its disk for sure.
#[derive(Clone, Debug)]
pub struct Synced {
    file: PathBuf,
    bytes: u64,
}

/// Waits until everything that the node had applied when this was called is on its disk.
///
/// # Panics
/// When it never is.
#[track_caller]
pub fn synced(broker: &Broker) -> Synced {
    let (file, bytes) = newest_log(broker);
    // Whatever is in the file by now has a lower index than what is applied after this.
    let applied = indexes(broker, "applied_index");
    until("the log to be synced up to what was applied", || {
        let synced = indexes(broker, "fsynced_index");
        synced.iter().zip(&applied).all(|(synced, applied)| synced >= applied).then_some(())
    });
    Synced { file, bytes }
}

/// Takes from a killed node everything behind `synced`, and its witness. Returns how many bytes of
/// the log were lost.
///
/// # Panics
/// When the node has begun another log file since, which takes more traffic than tests make.
#[track_caller]
pub fn lose_tail(broker: &Broker, synced: &Synced) -> u64 {
    assert!(!broker.runs(), "the node is killed first");
    let (newest, length) = newest_log(broker);
    assert_eq!(newest, synced.file, "so little traffic does not begin a new file");
    let file = OpenOptions::new().write(true).open(&synced.file).expect("the log opens");
    file.set_len(synced.bytes).expect("the log is cut");
    drop(file);
    forget_witness(&broker.data_dir());
    length - synced.bytes
}

/// The write-ahead log file that was written last, and its length.
fn newest_log(broker: &Broker) -> (PathBuf, u64) {
    let files = fs::read_dir(broker.data_dir().join("db")).expect("the database's folder");
    let logs = files.filter_map(|file| {
        let path = file.expect("a file").path();
        (path.extension().is_some_and(|kind| kind == "log")).then_some(path)
    });
    let newest = logs.max().expect("a write-ahead log");
    let length = fs::metadata(&newest).expect("the file").len();
    (newest, length)
}

/// A number that each of the node's replicas shows.
fn indexes(broker: &Broker, name: &str) -> Vec<u64> {
    let groups = broker.admin().get_json("/api/v1/groups?here=true");
    let groups = groups.as_array().expect("a list of groups");
    let index =
        |group: &Value| group[name].as_u64().unwrap_or_else(|| panic!("no {name} in {group}"));
    groups.iter().map(index).collect()
}

/// Removes what vouches, in RAM, for the end of a killed node's log: a power loss takes it.
///
/// # Panics
/// When the directory is not that of a node that ran.
#[track_caller]
pub fn forget_witness(data_dir: &Path) {
    let marker = fs::read_to_string(data_dir.join("marker")).expect("the marker");
    let (_, body) = marker.split_once('\n').expect("a checksum, then the rest");
    let marker: Value = serde_json::from_str(body).expect("the marker is JSON");
    let node = marker["node_uuid"].as_str().expect("the marker names the node");
    for file in fs::read_dir("/dev/shm").expect("a file system in RAM").flatten() {
        if file.file_name().to_string_lossy().starts_with(&format!("flintmq-{node}-")) {
            fs::remove_file(file.path()).expect("the witness is removed");
        }
    }
}
