//! The pages in `docs/internals/how-to`: each lists the files that a kind of change touches, and
//! follows one example through them. A file that has the example and is not in the list makes the
//! list incomplete; that the listed files exist is checked as on every page.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::tidy::Finding;
use crate::tidy_references::paths;

/// The folder of the pages.
const FOLDER: &str = "docs/internals/how-to";
/// How a page names its example, in inline code behind it. Several words are separated by commas.
const EXAMPLE: &str = "Example: ";
/// Fewest files of a list that is worth a page.
const FEWEST: usize = 3;

/// Adds a finding for every page without a list or an example, and for every file that a list
/// lacks.
pub(crate) fn check(root: &Path, files: &[PathBuf], found: &mut Vec<Finding>) -> Result<()> {
    let pages: Vec<_> = files.iter().filter(|file| file.starts_with(FOLDER)).collect();
    if pages.is_empty() {
        bail!("there is no page in {FOLDER}");
    }
    for page in pages {
        let text = fs::read_to_string(root.join(page))
            .with_context(|| format!("cannot read {}", page.display()))?;
        let mut broken = |line: usize, rule: String| {
            found.push(Finding { file: page.clone(), line, rule });
        };
        let listed: Vec<&str> = paths(&text).into_iter().map(|(_, path)| path).collect();
        if listed.len() < FEWEST {
            broken(
                0,
                format!("list the files to change: listed={} at least={FEWEST}", listed.len()),
            );
        }
        let Some((line, words)) = example(&text) else {
            broken(0, format!("name an example to follow: {EXAMPLE}`word`"));
            continue;
        };
        let with_example = with_words(root, files, &words)?;
        if with_example.is_empty() {
            broken(line, format!("the example is gone, choose another: {}", words.join(", ")));
        }
        for file in with_example {
            if !listed.iter().any(|path| file.starts_with(path)) {
                broken(line, format!("the list lacks a file of the example: {}", file.display()));
            }
        }
    }
    Ok(())
}

/// The line of the example and its words.
fn example(text: &str) -> Option<(usize, Vec<&str>)> {
    text.lines().enumerate().find_map(|(index, line)| {
        let rest = line.strip_prefix(EXAMPLE)?;
        let words: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
        (!words.is_empty()).then_some((index + 1, words))
    })
}

/// The files that have one of the words, but for these pages and records of past runs.
fn with_words<'files>(
    root: &Path,
    files: &'files [PathBuf],
    words: &[&str],
) -> Result<Vec<&'files PathBuf>> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| !file.starts_with(FOLDER)) {
        let bytes =
            fs::read(root.join(file)).with_context(|| format!("cannot read {}", file.display()))?;
        if std::str::from_utf8(&bytes).is_ok_and(|text| words.iter().any(|w| text.contains(w))) {
            found.push(file);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# How to\n\nExample: `depth_total`.\n\n| file | what |\n| --- | --- |\n\
                        | `crates/a.rs` | define |\n| `crates/b` | count |\n| `deploy/m.yml` | say |\n";

    fn rules(page: &str) -> Vec<String> {
        let checkout = tempfile::tempdir().expect("a folder");
        let page_file = format!("{FOLDER}/metric.md");
        let files = [
            (page_file.as_str(), page),
            ("crates/a.rs", "depth_total"),
            ("crates/b/src/x.rs", "let depth_total = 0;"),
            ("crates/c.rs", "nothing"),
            ("deploy/m.yml", "| depth_total |"),
        ];
        for (file, text) in files {
            let path = checkout.path().join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        }
        let files: Vec<PathBuf> = files.iter().map(|(file, _)| PathBuf::from(file)).collect();
        let mut found = Vec::new();
        check(checkout.path(), &files, &mut found).expect("checked");
        found.into_iter().map(|finding| format!("{}: {}", finding.line, finding.rule)).collect()
    }

    #[test]
    fn a_complete_list_passes() {
        assert_eq!(rules(GOOD), Vec::<String>::new());
    }

    #[test]
    fn a_file_that_the_list_lacks_is_found() {
        let page = GOOD.replace("crates/a.rs", "crates/c.rs");
        assert_eq!(rules(&page), ["3: the list lacks a file of the example: crates/a.rs"]);
    }

    #[test]
    fn a_page_needs_a_list_and_an_example_that_is_there() {
        assert_eq!(rules(&GOOD.replace("depth_", "width_")).len(), 1);
        assert_eq!(rules("# How to\n").len(), 2);
    }
}
