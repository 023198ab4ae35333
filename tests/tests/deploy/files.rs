//! The files of the checkout that these tests read.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A path of the checkout.
pub(crate) fn path(relative: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the checkout is above the tests").join(relative)
}

/// A file's text.
#[track_caller]
pub(crate) fn text(relative: &str) -> String {
    fs::read_to_string(path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// The documents of a YAML file.
#[track_caller]
pub(crate) fn documents(relative: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&text(relative))
        .unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// A YAML file of one document.
#[track_caller]
pub(crate) fn yaml(relative: &str) -> Value {
    let mut documents = documents(relative);
    assert_eq!(documents.len(), 1, "documents in {relative}");
    documents.remove(0)
}

/// A JSON file.
#[track_caller]
pub(crate) fn json(relative: &str) -> Value {
    serde_json::from_str(&text(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// The elements of a list; what is no list fails the test.
#[track_caller]
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}"))
}

/// A text; what is no text fails the test.
#[track_caller]
pub(crate) fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}
