//! Where things are: the checkout, cargo's target directory, the Python environment.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The root of the checkout: the parent of this crate's folder.
pub(crate) fn checkout() -> Result<PathBuf> {
    // What cargo says now, not what it said when this was compiled: two checkouts may share a
    // target directory.
    let here = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let root = here.parent().context("the xtask crate has no parent folder")?;
    if !root.join("Cargo.toml").is_file() {
        bail!("the checkout has moved since xtask was built; run it through cargo: root={root:?}");
    }
    Ok(root.to_owned())
}

/// Cargo's target directory for this workspace, as cargo itself resolves it.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let output = cargo(&checkout()?)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let path = text
        .split_once("\"target_directory\":\"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map(|(path, _)| PathBuf::from(path.replace("\\\\", "\\")))
        .context("cargo metadata names no target directory")?;
    Ok(path)
}

/// The Python environment that holds the official client, below the target directory.
pub(crate) fn python_environment() -> Result<PathBuf> {
    Ok(target_directory()?.join("python-client"))
}

/// A `cargo` command that runs in the checkout as if a person had typed it.
///
/// What the outer `cargo run` put into the environment is taken out again: crates that watch it
/// (`CC` above all) would otherwise be compiled once for xtask and once for everybody else.
pub(crate) fn cargo(root: &Path) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root);
    for (name, compiler) in [("CC", "tools/cc"), ("CXX", "tools/cxx")] {
        if env::var_os(name).is_some_and(|value| Path::new(&value) == root.join(compiler)) {
            command.env_remove(name);
        }
    }
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let from_cargo_run = text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_MANIFEST_")
            || text == "CARGO_BIN_NAME"
            || text == "CARGO_CRATE_NAME"
            || text == "CARGO_PRIMARY_PACKAGE";
        if from_cargo_run {
            command.env_remove(&name);
        }
    }
    command
}
