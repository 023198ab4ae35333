//! `cargo xtask measure`: the figures that need a release build and some minutes.
//!
//! Each measurement is a test of the whole-system package that is ignored otherwise; it prints
//! what it found and fails where a promised bound is broken.

use anyhow::Result;

use crate::steps::Steps;
use crate::{places, setup};

/// Builds in release mode and runs every measurement, one after the other.
pub(crate) fn run() -> Result<()> {
    let root = places::checkout()?;
    let target = places::target_directory()?;
    let mut steps = Steps::new(3);
    steps.step("set up the machine", |_| setup::everything())?;
    steps.step("release build", |output| {
        output.run(places::cargo(&root).args(["build", "--release", "--package", "flintmq"]))
    })?;
    steps.step("measurements", |output| {
        output.run_tests(
            places::cargo(&root)
                .args(["test", "--package", "flintmq-system-tests", "--test", "measure"])
                .args(["--", "--ignored", "--nocapture", "--test-threads", "1"])
                .env("FLINTMQ_BIN", target.join("release/flintmq"))
                .env("FLINTMQ_PYTHON", places::python_environment()?.join("bin/python")),
        )
    })?;
    println!("\n{}", steps.summary());
    Ok(())
}
