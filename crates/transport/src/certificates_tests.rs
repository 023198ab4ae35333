//! Identities from files: what is accepted, what is refused and how, and replacement.

use super::*;
use crate::Authority;
use std::fs;
use tempfile::TempDir;

fn made(node: u32) -> (TempDir, CertificateFiles) {
    let dir = TempDir::new().unwrap();
    let files =
        Authority::throw_away().unwrap().write_node(dir.path(), "test", NodeId(node)).unwrap();
    (dir, files)
}

fn load(files: &CertificateFiles) -> Result<Credentials, CertificateError> {
    Credentials::load(files.clone(), certificate_name("test", NodeId(1)))
}

#[test]
fn a_certificate_is_good_for_its_own_node_and_cluster_only() {
    let (_dir, files) = made(1);
    let certificate = certificates(&files.certificate).unwrap().remove(0);
    assert!(is_for(&certificate, &certificate_name("test", NodeId(1))));
    assert!(!is_for(&certificate, &certificate_name("test", NodeId(2))));
    assert!(!is_for(&certificate, &certificate_name("other", NodeId(1))));
    assert!(!is_for(&certificate, "not a name"));
}

#[test]
fn the_certificate_of_another_node_is_refused_at_the_start() {
    let (_dir, files) = made(2);
    let error = load(&files).unwrap_err().to_string();
    assert!(error.contains("make one with the DNS name node-1.test.flintmq"), "{error}");
}

#[test]
fn files_that_are_of_no_use_are_named() {
    let (dir, files) = made(1);
    let (_other_dir, other) = made(1);
    let mixed = CertificateFiles { key: other.key, ..files.clone() };
    assert!(matches!(load(&mixed), Err(CertificateError::Unusable { .. })));
    let missing = CertificateFiles { certificate: dir.path().join("none"), ..files.clone() };
    assert!(matches!(load(&missing), Err(CertificateError::Unreadable { .. })));
    let keyless = CertificateFiles { key: files.certificate.clone(), ..files.clone() };
    assert!(matches!(load(&keyless), Err(CertificateError::Empty { .. })));
    let empty = CertificateFiles { authority: files.key.clone(), ..files };
    assert!(matches!(load(&empty), Err(CertificateError::Empty { .. })));
}

#[test]
fn a_reload_that_fails_changes_nothing() {
    let (_dir, files) = made(1);
    let credentials = load(&files).unwrap();
    let before = credentials.current();
    fs::write(&files.certificate, "nothing").unwrap();
    assert!(credentials.reload().is_err());
    assert!(Arc::ptr_eq(&before, &credentials.current()));
    let (_other_dir, other) = made(1);
    for (from, to) in [
        (&other.certificate, &files.certificate),
        (&other.key, &files.key),
        (&other.authority, &files.authority),
    ] {
        fs::copy(from, to).unwrap();
    }
    credentials.reload().unwrap();
    assert!(!Arc::ptr_eq(&before, &credentials.current()));
}
