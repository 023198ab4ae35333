//! Rules that no compiler checks: sizes and names of files, line lengths, words that mark
//! unfinished work, links and references that lead nowhere, figures and lists that are out of date.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{comments, how_to, layers, tidy_links, tidy_references};

/// Longest line of a comment, in characters, where it can be broken.
pub(crate) const MAX_LINE: usize = 100;
/// Longest line of any program text, in characters.
const MAX_CODE_LINE: usize = 120;
/// Longest program text, in lines.
const MAX_LINES: usize = 800;
/// Largest file of any kind, in bytes.
const MAX_BYTES: u64 = 768 * 1024;
/// Names that say nothing about what a file is for.
const EMPTY_NAMES: [&str; 8] =
    ["utils", "util", "common", "helpers", "helper", "misc", "impls", "stuff"];
/// Marks of work that must not be merged. Split so that this file passes its own check.
const BANNED: [&str; 6] = [
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("HA", "CK:"),
    concat!("NO", "COMMIT"),
    concat!("<<<<", "<<< "),
    concat!(">>>>", ">>> "),
];
const TO_DO: &str = concat!("TO", "DO");

/// One broken rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) file: PathBuf,
    /// 1-based; 0 when the file as a whole is meant.
    pub(crate) line: usize,
    pub(crate) rule: String,
}

/// Checks every file of the checkout; returns what breaks a rule.
pub(crate) fn check(root: &Path) -> Result<Vec<Finding>> {
    let files = files(root)?;
    let mut found = Vec::new();
    for file in &files {
        let path = root.join(file);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        check_name(file, &mut found);
        check_bytes(file, &bytes, &mut found);
        let Ok(text) = std::str::from_utf8(&bytes) else { continue };
        check_lines(file, text, &mut found);
        if has_extension(file, &["md"]) {
            tidy_links::check(root, file, text, &mut found);
            tidy_references::check_paths(root, file, text, &mut found);
        } else {
            tidy_references::check(root, file, text, &mut found);
        }
    }
    how_to::check(root, &files, &mut found)?;
    layers::check(root, &mut found)?;
    println!("    {} files looked at", files.len());
    Ok(found)
}

/// One line per finding, in the form that editors jump to.
pub(crate) fn report(found: &[Finding]) -> String {
    let mut text = format!("{} rule(s) broken:", found.len());
    for finding in found {
        text.push_str(&format!(
            "\n  {}:{}: {}",
            finding.file.display(),
            finding.line.max(1),
            finding.rule
        ));
    }
    text
}

fn check_name(file: &Path, found: &mut Vec<Finding>) {
    for part in file.components() {
        let Component::Normal(name) = part else { continue };
        let name = name.to_string_lossy();
        let stem = name.split('.').next().unwrap_or_default();
        if EMPTY_NAMES.contains(&stem) {
            found.push(Finding {
                file: file.to_owned(),
                line: 0,
                rule: format!("`{name}` says nothing; name the file by the job it does"),
            });
        }
    }
}

fn check_bytes(file: &Path, bytes: &[u8], found: &mut Vec<Finding>) {
    let mut broken = |rule: String| {
        found.push(Finding { file: file.to_owned(), line: 0, rule });
    };
    if bytes.len() as u64 > MAX_BYTES {
        broken(format!("file too large: bytes={} allowed={MAX_BYTES}", bytes.len()));
    }
    // Fuzz seeds are wire bytes by nature; everything else in a repository is text.
    let seed = file
        .components()
        .any(|part| matches!(part, Component::Normal(name) if name == "corpus" || name == "seeds"));
    if !seed && bytes.iter().take(8192).any(|byte| *byte == 0) {
        broken("binary file; keep it out of the repository".to_owned());
    }
}

fn check_lines(file: &Path, text: &str, found: &mut Vec<Finding>) {
    let program = is_program(file);
    if program {
        let lines = text.lines().count();
        if lines > MAX_LINES {
            found.push(Finding {
                file: file.to_owned(),
                line: MAX_LINES,
                rule: format!("file too long, split it: lines={lines} allowed={MAX_LINES}"),
            });
        }
    }
    if let Some(line) =
        has_extension(file, &["rs"]).then(|| comments::first_too_long(text, MAX_LINE)).flatten()
    {
        found.push(Finding {
            file: file.to_owned(),
            line,
            rule: "comment too long; `cargo xtask comments` mends it".to_owned(),
        });
    }
    for (index, line) in text.lines().enumerate() {
        let mut broken = |rule: String| {
            found.push(Finding { file: file.to_owned(), line: index + 1, rule });
        };
        if program {
            let length = line.chars().count();
            // rustfmt keeps code below the width, except inside macros; nobody breaks a text.
            if length > MAX_CODE_LINE && !line.contains(['"', '|']) && !line.contains("://") {
                broken(format!("line too long: characters={length} allowed={MAX_CODE_LINE}"));
            }
            if line.ends_with([' ', '\t']) {
                broken("white space at the end of the line".to_owned());
            }
        }
        if !program && !has_extension(file, &["md", "toml", "yml", "yaml", "json"]) {
            continue;
        }
        for word in BANNED {
            if line.contains(word) {
                broken(format!("`{}` must not be merged", word.trim()));
            }
        }
        if let Some((_, rest)) = line.split_once(TO_DO) {
            let issue = rest.strip_prefix("(#").and_then(|rest| rest.split_once(')'));
            let named = issue.is_some_and(|(number, _)| number.parse::<u32>().is_ok());
            if !named {
                broken(format!("`{TO_DO}` needs an issue: {TO_DO}(#123)"));
            }
        }
    }
}

fn is_program(file: &Path) -> bool {
    has_extension(file, &["rs", "py", "sh", "js", "css", "tla"]) || file == Path::new(".ci/run")
}

fn has_extension(file: &Path, extensions: &[&str]) -> bool {
    file.extension().is_some_and(|found| extensions.iter().any(|wanted| found == *wanted))
}

/// The files that git knows or would add; without git, everything but build output.
pub(crate) fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let listed = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output();
    let mut files = match listed {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout)
            .split('\0')
            .filter(|name| !name.is_empty())
            .map(PathBuf::from)
            .collect(),
        _ => walk(root)?,
    };
    files.retain(|file| root.join(file).is_file());
    files.sort();
    Ok(files)
}

fn walk(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let skipped = ["target", "flintmq-data", ".git", "__pycache__"];
            if skipped.iter().any(|skip| name == *skip) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if let Ok(relative) = entry.path().strip_prefix(root) {
                files.push(relative.to_owned());
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(file: &str, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        check_name(Path::new(file), &mut found);
        check_bytes(Path::new(file), text.as_bytes(), &mut found);
        check_lines(Path::new(file), text, &mut found);
        found.into_iter().map(|finding| format!("{}: {}", finding.line, finding.rule)).collect()
    }

    #[test]
    fn a_good_file_passes() {
        assert!(rules("crates/queue/src/redelivery.rs", "//! Redelivery.\n").is_empty());
        let with_issue = format!("// {TO_DO}(#12): later\n");
        assert!(rules("a.rs", &with_issue).is_empty());
    }

    #[test]
    fn each_rule_finds_its_offender() {
        assert_eq!(rules("crates/x/src/utils.rs", "").len(), 1);
        assert_eq!(rules("crates/common/src/a.rs", "").len(), 1);
        assert_eq!(rules("a.rs", &format!("// {}\n", "x ".repeat(50).trim_end())).len(), 1);
        assert_eq!(rules("a.py", &format!("# {}\n", "x ".repeat(60).trim_end())).len(), 1);
        assert_eq!(rules("a.rs", "fn a() {} \n").len(), 1);
        assert_eq!(rules("a.rs", &"\n".repeat(801)).len(), 1);
        assert_eq!(rules("a.rs", &format!("// {TO_DO}: soon\n")).len(), 1);
        assert_eq!(rules("a.md", &format!("{}\n", BANNED[0])).len(), 1);
        assert_eq!(rules("logo.bin", "a\0b").len(), 1);
    }

    #[test]
    fn bytes_are_allowed_where_they_are_meant() {
        assert!(rules("crates/protocol/fuzz/corpus/put/one", "a\0b").is_empty());
    }

    #[test]
    fn without_git_the_folder_is_walked() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("target/debug")).expect("made");
        fs::write(folder.path().join("target/debug/x.rs"), "").expect("written");
        fs::write(folder.path().join("a.rs"), "").expect("written");
        assert_eq!(walk(folder.path()).expect("walked"), [PathBuf::from("a.rs")]);
    }
}
