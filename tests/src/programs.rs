//! Finds the programs that the tests run.

use std::env;
use std::path::{Path, PathBuf};

/// The broker's binary: `FLINTMQ_BIN`, else `flintmq` in the folder that cargo builds into.
///
/// # Panics
/// When there is none; the text says how to make one.
#[track_caller]
pub fn flintmq() -> PathBuf {
    if let Some(path) = env::var_os("FLINTMQ_BIN") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "FLINTMQ_BIN is not a file: {}", path.display());
        return path;
    }
    let path = profile_folder().join("flintmq");
    assert!(
        path.is_file(),
        "no broker at {}: build it with `cargo build -p flintmq` or set FLINTMQ_BIN",
        path.display()
    );
    path
}

/// The Python interpreter that has the official client: `FLINTMQ_PYTHON`, else the environment in
/// the target folder.
///
/// # Panics
/// When there is none; the text says how to make one.
#[track_caller]
pub fn python() -> PathBuf {
    if let Some(path) = env::var_os("FLINTMQ_PYTHON") {
        return PathBuf::from(path);
    }
    let target = profile_folder();
    let target = target.parent().expect("a profile folder is inside the target folder");
    let path = target.join("python-client/bin/python");
    assert!(
        path.is_file(),
        "no Python environment at {}: run `cargo xtask setup` or set FLINTMQ_PYTHON",
        path.display()
    );
    path
}

/// The library that moves the wall clock of a process (Debian's package `faketime`).
///
/// # Panics
/// When there is none; the text says how to get it.
#[track_caller]
pub fn libfaketime() -> PathBuf {
    let folders = ["x86_64-linux-gnu", "aarch64-linux-gnu"].map(|arch| format!("/usr/lib/{arch}"));
    let mut found =
        folders.iter().map(|folder| Path::new(folder).join("faketime/libfaketime.so.1"));
    found
        .find(|path| path.is_file())
        .expect("no libfaketime: run `cargo xtask setup` or `apt-get install faketime`")
}

/// The folder with the Python scripts.
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python")
}

/// `target/debug` for a test program `target/debug/deps/name-hash`.
fn profile_folder() -> PathBuf {
    let program = env::current_exe().expect("a test program knows where it is");
    let folder = program.parent().expect("a program is in a folder");
    if folder.ends_with("deps") {
        folder.parent().expect("deps is inside the profile's folder").to_owned()
    } else {
        folder.to_owned()
    }
}
