//! The developer's commands: `cargo xtask setup | serve | verify | fix | …`.
//!
//! One command builds and runs the broker, one command checks everything; the same ones are used
//! on a laptop and by continuous integration. `verify` never writes to the checkout, `fix` does.

mod comments;
mod how_to;
mod layers;
mod measure;
mod places;
mod purity;
mod serve;
mod setup;
mod steps;
mod tidy;
mod tidy_links;
mod tidy_references;
mod tla;
mod tla_table;
mod tla_tools;
mod verify;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
FlintMQ developer commands

Usage: cargo xtask <command>

Commands:
  setup            install (as root on Debian) or name what a build and the tests need
  serve [-- ARGS]  set up, build in release mode and run the broker with ARGS
  verify           set up, then run every check and every test
  fix              format the code and apply the machine-applicable lint suggestions
  comments         only re-fill the comments whose lines are too long
  measure          release-only measurements: large backlogs, disk bounds, throughput (minutes)
  spec [SIZE] [NAME]
                   model-check the protocol: small (minutes), medium, large, or the run NAME
  tidy             only the rules about files, names, line lengths, links and references
  layers           make the figure of layers in docs/ARCHITECTURE.md from what the crates use

The target directory is cargo's own (CARGO_TARGET_DIR is honoured).
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn run(arguments: &[String]) -> Result<ExitCode> {
    let Some((command, rest)) = arguments.split_first() else {
        eprint!("{USAGE}");
        return Ok(ExitCode::from(2));
    };
    let rest = match rest.split_first() {
        Some((first, others)) if first == "--" => others,
        _ => rest,
    };
    if !matches!(command.as_str(), "serve" | "spec") && !rest.is_empty() {
        eprintln!("error: `{command}` takes no arguments, found: {}\n", rest.join(" "));
        eprint!("{USAGE}");
        return Ok(ExitCode::from(2));
    }
    match command.as_str() {
        "setup" => setup::everything()?,
        "serve" => return serve::run(rest),
        "verify" => verify::run()?,
        "fix" => verify::fix()?,
        "comments" => verify::fix_comments(&places::checkout()?)?,
        "measure" => measure::run()?,
        "spec" => tla::run(rest)?,
        "layers" => layers::write(&places::checkout()?)?,
        "tidy" => {
            let found = tidy::check(&places::checkout()?)?;
            if !found.is_empty() {
                bail!("{}", tidy::report(&found));
            }
        }
        "help" | "--help" | "-h" => print!("{USAGE}"),
        other => {
            eprintln!("error: unknown command `{other}`\n");
            eprint!("{USAGE}");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}
