//! `cargo xtask verify`: every check and every test, cheapest first, stopping at the first failure.
//!
//! Everything runs in cargo's dev profile, so that RocksDB is compiled once.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::steps::Steps;
use crate::tla_table::Size;
use crate::{comments, places, purity, setup, tidy, tla};

/// The package of the whole-system tests: it runs the finished binary, so it comes last.
const SYSTEM_TESTS: &str = "flintmq-system-tests";

/// What only checks the replicated log and what is built on it. Tested by itself: its tests need
/// crates whose rules can be broken, which must not get into the binary that the whole-system tests
/// run.
const CHECKERS: [&str; 3] =
    ["flintmq-consensus-model", "flintmq-consensus-simulator", "flintmq-cluster-simulator"];

/// The features that let tests break a rule of the protocol, and follow simulated groups in the
/// model.
const BROKEN_RULES: &str = "flintmq-consensus-simulator/model,flintmq-cluster-simulator/mutants";

/// Runs everything. Does not change a file of the checkout.
pub(crate) fn run() -> Result<()> {
    let root = places::checkout()?;
    let target = places::target_directory()?;
    let mut steps = Steps::new(11);
    steps.step("set up the machine", |_| setup::everything())?;
    steps.step("files, names, lines and links", |_| {
        let found = tidy::check(&root)?;
        if !found.is_empty() {
            bail!("{}", tidy::report(&found));
        }
        Ok(())
    })?;
    steps.step("format (`cargo xtask fix` mends it)", |output| {
        output.run(cargo(&root).args(["fmt", "--all", "--check"]))
    })?;
    steps.step("crates without I/O stay without", |_| purity::check(&root))?;
    steps.step("lints", |output| {
        output.run(
            cargo(&root)
                .args(["clippy", "--workspace", "--all-targets", "--locked"])
                .args(["--features", BROKEN_RULES])
                .args(["--", "--deny", "warnings"]),
        )
    })?;
    steps.step("documentation", |output| {
        output.run(
            cargo(&root)
                .args(["doc", "--workspace", "--no-deps", "--locked"])
                .env("RUSTDOCFLAGS", "--deny warnings"),
        )
    })?;
    steps.step("build", |output| {
        output.run(without(cargo(&root).args(["build", "--workspace", "--locked"]), &CHECKERS))
    })?;
    steps.step("unit, property and documentation tests", |output| {
        output.run_tests(without(
            cargo(&root)
                .args(["test", "--workspace", "--locked", "--no-fail-fast"])
                .args(["--exclude", SYSTEM_TESTS]),
            &CHECKERS,
        ))
    })?;
    steps.step("the replicated log: models, simulator, every rule broken once", |output| {
        let packages = CHECKERS.iter().flat_map(|package| ["--package", package]);
        output.run_tests(
            cargo(&root)
                .args(["test", "--locked", "--no-fail-fast", "--features", BROKEN_RULES])
                .args(packages),
        )
    })?;
    steps.step("the model of the protocol, small bounds", |_| {
        tla::check(&root, Some(Size::Small), None)
    })?;
    steps.step("whole-system tests: real processes, the official client", |output| {
        output.run_tests(
            cargo(&root)
                .args(["test", "--package", SYSTEM_TESTS, "--locked", "--no-fail-fast"])
                .env("FLINTMQ_BIN", target.join("debug/flintmq"))
                .env("FLINTMQ_PYTHON", places::python_environment()?.join("bin/python")),
        )
    })?;
    println!("\nverify: everything passed\n{}", steps.summary());
    Ok(())
}

/// Mends what a tool can mend.
pub(crate) fn fix() -> Result<()> {
    let root = places::checkout()?;
    let mut steps = Steps::new(3);
    steps.step("comments", |_| fix_comments(&root))?;
    steps.step("lints", |output| {
        output.run(
            cargo(&root)
                .args(["clippy", "--fix", "--workspace", "--all-targets"])
                .args(["--allow-dirty", "--allow-staged"]),
        )
    })?;
    steps.step("format", |output| output.run(cargo(&root).args(["fmt", "--all"])))?;
    println!("\n{}", steps.summary());
    Ok(())
}

/// Re-fills the comments whose lines are too long.
pub(crate) fn fix_comments(root: &Path) -> Result<()> {
    let changed = comments::wrap_all(root, &tidy::files(root)?, tidy::MAX_LINE)?;
    println!("    {changed} files changed");
    Ok(())
}

fn without<'a>(command: &'a mut Command, packages: &[&str]) -> &'a mut Command {
    command.args(packages.iter().flat_map(|package| ["--exclude", package]))
}

fn cargo(root: &Path) -> Command {
    places::cargo(root)
}
