//! The crates that do no I/O must not even be able to: their dependency trees are searched for
//! anything that reaches a socket, a disk, a clock service or the system's randomness, and the
//! lints that keep the standard library's ways out of them must be there.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::places;

/// Crates that take bytes, time and seeds as arguments (docs/ARCHITECTURE.md, "Layers").
const PURE: [&str; 6] = [
    "flintmq-protocol",
    "flintmq-consensus",
    "flintmq-queue",
    "flintmq-log-store",
    "flintmq-shard",
    "flintmq-controller",
];

/// What must not appear among a pure crate's normal dependencies, at any depth.
const FORBIDDEN: [&str; 25] = [
    "async-std",
    "axum",
    "chrono",
    "crossbeam-channel",
    "fastrand",
    "flintmq-broker",
    "flintmq-client",
    "flintmq-storage",
    "flintmq-transport",
    "getrandom",
    "hyper",
    "jiff",
    "mio",
    "parking_lot",
    "quinn",
    "rayon",
    "reqwest",
    "rust-librocksdb-sys",
    "rust-rocksdb",
    "rustix",
    "rustls",
    "smol",
    "socket2",
    "time",
    "tokio",
];

/// Fails with one line per forbidden dependency, or when a crate's lints are not those of the
/// others.
pub(crate) fn check(root: &Path) -> Result<()> {
    check_lints(root)?;
    let mut found = Vec::new();
    for package in PURE {
        let output = places::cargo(root)
            .args(["tree", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
            .arg("--all-features")
            .args(["--package", package])
            .output()
            .context("cannot run cargo tree")?;
        if !output.status.success() {
            bail!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let tree = String::from_utf8_lossy(&output.stdout);
        let count = names(&tree).len();
        println!("    {package}: {count} crates in its tree");
        found.extend(forbidden(&tree).iter().map(|name| format!("{package} depends on {name}")));
    }
    if !found.is_empty() {
        bail!(
            "these crates take time, randomness and bytes as arguments and do no I/O:\n  {}\n\
             `cargo tree -p PACKAGE -e normal -i CRATE` shows which way it came in",
            found.join("\n  ")
        );
    }
    Ok(())
}

/// The standard library's clocks, threads, files and sockets are forbidden by clippy, crate by
/// crate; a crate without the file would be held to nothing.
fn check_lints(root: &Path) -> Result<()> {
    let mut first: Option<(String, String)> = None;
    for package in PURE {
        let folder = package.strip_prefix("flintmq-").unwrap_or(package);
        let file = format!("crates/{folder}/clippy.toml");
        let lints = fs::read_to_string(root.join(&file))
            .with_context(|| format!("cannot read {file}, which keeps the crate pure"))?;
        match &first {
            None => first = Some((file, lints)),
            Some((other, expected)) if *expected != lints => {
                bail!("{file} differs from {other}: pure crates are held to the same lints");
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn names(tree: &str) -> Vec<&str> {
    let mut names: Vec<&str> =
        tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn forbidden(tree: &str) -> Vec<&str> {
    names(tree).into_iter().filter(|name| FORBIDDEN.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_runtime_at_any_depth() {
        let tree = "flintmq-queue v0.1.0 (/x)\nbytes v1.12.1\ntokio v1.54.1 (*)\nbytes v1.12.1\n";
        assert_eq!(names(tree), ["bytes", "flintmq-queue", "tokio"]);
        assert_eq!(forbidden(tree), ["tokio"]);
        assert!(forbidden("tokio-free v1.0.0\n").is_empty());
    }

    #[test]
    fn the_pure_crates_are_pure() {
        let root = places::checkout().expect("the tests run in a checkout");
        check(&root).expect("nothing forbidden");
    }

    #[test]
    fn a_pure_crate_without_its_lints_is_noticed() {
        let error = check_lints(Path::new("/nowhere")).expect_err("there is no such checkout");
        assert!(error.to_string().contains("crates/protocol/clippy.toml"), "{error}");
    }
}
