//! What a machine needs before anything can be built or tested: installed where that is possible
//! (root on Debian or Ubuntu), named exactly where it is not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::places;

/// The release of the official client that the tests run against.
///
/// Its wheels exist for Linux and CPython 3.8 to 3.13.
const PYTHON_CLIENT: &str = "blazingmq==1.2.2";

/// Something that has to be on the machine, and the Debian package that brings it.
struct Need {
    package: &'static str,
    why: &'static str,
    present: fn() -> bool,
}

const COMPILERS: &[Need] = &[
    Need { package: "gcc", why: "C compiler and linker", present: || runs("gcc", "--version") },
    Need { package: "g++", why: "compiles RocksDB", present: || runs("g++", "--version") },
    Need {
        package: "libc6-dev",
        why: "C headers",
        present: || Path::new("/usr/include/stdio.h").is_file(),
    },
    Need { package: "libclang1-14", why: "generates RocksDB's bindings", present: has_libclang },
    Need {
        package: "libclang-common-14-dev",
        why: "clang's own headers, for the same",
        present: has_clang_headers,
    },
    Need {
        package: "ccache",
        why: "spares the second compilation of RocksDB",
        present: || runs("ccache", "--version"),
    },
];

const PYTHON: &[Need] = &[Need {
    package: "python3-venv",
    why: "runs the official Python client in the tests",
    present: || {
        Command::new("python3")
            .args(["-c", "import venv, ensurepip"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    },
}];

const CLOCKS: &[Need] = &[Need {
    package: "faketime",
    why: "moves the wall clock of a broker in the tests",
    present: || runs("faketime", "--version"),
}];

const JAVA: &[Need] = &[Need {
    package: "default-jre-headless",
    why: "runs TLC, which checks the model of the protocol",
    present: || runs("java", "-version"),
}];

/// Everything that `verify` needs.
pub(crate) fn everything() -> Result<()> {
    let needs: Vec<&Need> = COMPILERS.iter().chain(PYTHON).chain(CLOCKS).chain(JAVA).collect();
    system_packages(&needs)?;
    rust_components()?;
    python_client()?;
    println!("set up: compilers, rustfmt, clippy and {PYTHON_CLIENT} are in place");
    Ok(())
}

/// What a build needs, and no more.
pub(crate) fn compilers() -> Result<()> {
    system_packages(&COMPILERS.iter().collect::<Vec<_>>())
}

/// What the model checker needs: Java, and pip to fetch it with.
pub(crate) fn model_checker() -> Result<()> {
    system_packages(&PYTHON.iter().chain(JAVA).collect::<Vec<_>>())?;
    let own = places::python_environment()?.join("bin/python").is_file();
    if own || runs("pip3", "--version") { Ok(()) } else { python_client() }
}

fn system_packages(needs: &[&Need]) -> Result<()> {
    let missing: Vec<&&Need> = needs.iter().filter(|need| !(need.present)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    let command = format!("apt-get install -y --no-install-recommends {}", packages.join(" "));
    if !is_root() || !runs("apt-get", "--version") {
        let list: Vec<String> =
            missing.iter().map(|need| format!("  {} ({})", need.package, need.why)).collect();
        bail!(
            "this machine lacks what the build needs:\n{}\non Debian 12 or Ubuntu run: \
             sudo {command}\nelsewhere install the same by your system's means, then run this \
             command again",
            list.join("\n")
        );
    }
    println!("installing: {}", packages.join(" "));
    apt(&["update", "-q"])?;
    let mut arguments = vec!["install", "-y", "-q", "--no-install-recommends"];
    arguments.extend(&packages);
    apt(&arguments)?;
    if let Some(need) = missing.iter().find(|need| !(need.present)()) {
        bail!("{} was installed, but this is still missing: {}", need.package, need.why);
    }
    Ok(())
}

fn apt(arguments: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .context("cannot run apt-get")?;
    if !status.success() {
        bail!("apt-get {} failed; install the packages by hand and retry", arguments.join(" "));
    }
    Ok(())
}

/// rustfmt and clippy are not part of rustup's minimal profile.
fn rust_components() -> Result<()> {
    let root = places::checkout()?;
    let missing: Vec<&str> = [("fmt", "rustfmt"), ("clippy", "clippy")]
        .iter()
        .filter(|(command, _)| {
            !places::cargo(&root)
                .args([command, "--version"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        })
        .map(|(_, component)| *component)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let added = Command::new("rustup").args(["component", "add"]).args(&missing).status();
    if !added.is_ok_and(|status| status.success()) {
        bail!("install these parts of the Rust toolchain: {}", missing.join(", "));
    }
    Ok(())
}

/// Makes the Python environment anew when the wanted release of the client is not in it.
fn python_client() -> Result<()> {
    let environment = places::python_environment()?;
    let marker = environment.join("installed");
    if fs::read_to_string(&marker).is_ok_and(|text| text == PYTHON_CLIENT)
        && imports_client(&environment)
    {
        return Ok(());
    }
    println!("installing {PYTHON_CLIENT} in {}", environment.display());
    if environment.exists() {
        fs::remove_dir_all(&environment)
            .with_context(|| format!("cannot remove {}", environment.display()))?;
    }
    let made = Command::new("python3").args(["-m", "venv"]).arg(&environment).status();
    if !made.context("cannot run python3")?.success() {
        bail!("python3 -m venv failed; on Debian install the package python3-venv");
    }
    let installed = Command::new(environment.join("bin/python"))
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(["--only-binary", ":all:", PYTHON_CLIENT])
        .status()
        .context("cannot run pip")?;
    if !installed.success() || !imports_client(&environment) {
        bail!(
            "{PYTHON_CLIENT} does not install here (pip's reason is above); it has wheels for Linux \
             with CPython 3.8 to 3.13 only, so put such a python3 first in PATH"
        );
    }
    fs::write(&marker, PYTHON_CLIENT)
        .with_context(|| format!("cannot write {}", marker.display()))?;
    Ok(())
}

fn imports_client(environment: &Path) -> bool {
    Command::new(environment.join("bin/python"))
        .args(["-c", "import blazingmq"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn runs(program: &str, argument: &str) -> bool {
    Command::new(program)
        .arg(argument)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn is_root() -> bool {
    // The owner of this process, without a crate for one system call.
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == "0")
}

fn has_libclang() -> bool {
    std::env::var_os("LIBCLANG_PATH").is_some()
        || library_folders().iter().any(|folder| {
            file_names(folder).iter().any(|name| {
                (name.starts_with("libclang.so") || name.starts_with("libclang-"))
                    && name.contains(".so")
                    && !name.starts_with("libclang-cpp")
            })
        })
}

fn has_clang_headers() -> bool {
    let mut candidates = vec![PathBuf::from("/usr/lib/clang")];
    candidates.extend(llvm_folders().iter().map(|folder| folder.join("lib/clang")));
    candidates.iter().any(|folder| {
        file_names(folder)
            .iter()
            .any(|version| folder.join(version).join("include/stddef.h").is_file())
    })
}

fn library_folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/lib/x86_64-linux-gnu"]
            .iter()
            .chain(&["/usr/lib/aarch64-linux-gnu"])
            .map(PathBuf::from)
            .collect();
    folders.extend(llvm_folders().iter().map(|folder| folder.join("lib")));
    folders
}

fn llvm_folders() -> Vec<PathBuf> {
    let lib = Path::new("/usr/lib");
    file_names(lib)
        .iter()
        .filter(|name| name.starts_with("llvm"))
        .map(|name| lib.join(name))
        .collect()
}

fn file_names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).map_or_else(
        |_| Vec::new(),
        |entries| {
            entries
                .filter_map(Result::ok)
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect()
        },
    )
}
