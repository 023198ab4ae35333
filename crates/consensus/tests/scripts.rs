//! Stories of the protocol, as text files with everything that is said and done in them.
//!
//! Each file in `tests/scripts` is a list of commands; below `----` stands the full trace of what
//! they cause. Read them to learn the protocol. After a change of behaviour,
//! `FLINTMQ_WRITE_SCRIPTS=1 cargo test -p flintmq-consensus --test scripts` writes the traces anew:
//! read the difference before you keep it.

// Scripts are files, and the switch that writes them is the environment's.
#![allow(clippy::disallowed_methods)]

mod script_cluster;

use script_cluster::Cluster;
use std::path::Path;

/// Splits a file into blocks: comments and commands, then the trace.
fn blocks(text: &str) -> Vec<(Vec<&str>, Vec<&str>)> {
    let mut blocks = Vec::new();
    for block in text.split("\n\n") {
        let mut lines = block.lines().skip_while(|line| line.is_empty());
        let before: Vec<&str> = lines.by_ref().take_while(|line| *line != "----").collect();
        if !before.is_empty() {
            blocks.push((before, lines.collect()));
        }
    }
    blocks
}

fn play(text: &str) -> Result<String, String> {
    let mut cluster = Cluster::default();
    let mut out = Vec::new();
    for (before, _) in blocks(text) {
        let mut block: Vec<String> = before.iter().map(|line| (*line).to_owned()).collect();
        let commands: Vec<&&str> = before.iter().filter(|line| !line.starts_with('#')).collect();
        if !commands.is_empty() {
            block.push("----".to_owned());
            for command in commands {
                cluster.command(command).map_err(|why| format!("{command:?}: {why}"))?;
            }
            block.extend(cluster.take_trace());
        }
        out.push(block.join("\n"));
    }
    Ok(out.join("\n\n") + "\n")
}

#[test]
fn every_script_plays_as_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let rewrite = std::env::var_os("FLINTMQ_WRITE_SCRIPTS").is_some();
    let mut names: Vec<_> = std::fs::read_dir(&directory)
        .expect("the scripts are part of the crate")
        .map(|entry| entry.expect("a directory entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    names.sort();
    let count = names.len();
    let mut wrong = Vec::new();
    for path in names {
        let text = std::fs::read_to_string(&path).expect("a readable script");
        let played = play(&text).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        if played == text {
            continue;
        }
        if rewrite {
            std::fs::write(&path, &played).expect("a writable script");
            continue;
        }
        let at = played.lines().zip(text.lines()).position(|(new, old)| new != old);
        let at = at.unwrap_or_else(|| played.lines().count().min(text.lines().count()));
        wrong.push(format!(
            "{}:{}: written {:?}, played {:?}",
            path.display(),
            at + 1,
            text.lines().nth(at),
            played.lines().nth(at)
        ));
    }
    assert!(wrong.is_empty(), "FLINTMQ_WRITE_SCRIPTS=1 writes them anew:\n{}", wrong.join("\n"));
    assert!(count >= 10, "the stories are there: {count}");
}
