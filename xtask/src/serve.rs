//! `cargo xtask serve`: from a checkout to a running broker.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::{places, setup};

/// Sets up, builds in release mode, and runs `flintmq serve` with `arguments` in the caller's
/// folder (so that the default data directory `./flintmq-data` is where the caller is).
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    setup::compilers()?;
    let root = places::checkout()?;
    let built = places::cargo(&root)
        .args(["build", "--release", "--package", "flintmq"])
        .status()
        .context("cannot run cargo build")?;
    if !built.success() {
        return Ok(ExitCode::from(1));
    }
    let binary = places::target_directory()?.join("release/flintmq");
    let mut command = std::process::Command::new(&binary);
    command.arg("serve").args(arguments);
    replace_process(command).with_context(|| format!("cannot run {}", binary.display()))
}

/// Becomes the broker, so that signals and the exit code are the broker's own.
#[cfg(unix)]
fn replace_process(mut command: std::process::Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt as _;
    Err(command.exec().into())
}

#[cfg(not(unix))]
fn replace_process(mut command: std::process::Command) -> Result<ExitCode> {
    let status = command.status()?;
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)))
}
