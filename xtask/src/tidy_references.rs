//! References from code, tests and deployment files to the pages in `docs`: the page must be there,
//! and so must the heading. A number of a section refers to a text that nothing checks, so it is
//! refused.

use std::fs;
use std::path::Path;

use crate::tidy::Finding;
use crate::tidy_links::headings;

/// The folder of the pages. Split so that this file passes its own check.
const PAGES: &str = concat!("do", "cs/");
/// Folders whose files Markdown pages name in inline code.
const FOLDERS: [&str; 7] = ["crates/", "deploy/", "docs/", "spec/", "tests/", "tools/", "xtask/"];

/// Adds a finding for every reference of `text`, which is no Markdown page, that leads nowhere.
pub(crate) fn check(root: &Path, file: &Path, text: &str, found: &mut Vec<Finding>) {
    for (index, line) in text.lines().enumerate() {
        let mut broken = |rule: String| {
            found.push(Finding { file: file.to_owned(), line: index + 1, rule });
        };
        for reference in references(line) {
            if let Some(rule) = dead(root, reference) {
                broken(rule);
            }
        }
        if let Some(number) = numbered_section(line) {
            broken(format!("`{number}` of which text? Refer to a page of {PAGES} and its heading"));
        }
    }
}

/// Adds a finding for every file or folder that a Markdown page names in inline code and that does
/// not exist. Placeholders in capitals (`crates/NAME`) and patterns (`tests/*.rs`) are left alone.
pub(crate) fn check_paths(root: &Path, file: &Path, text: &str, found: &mut Vec<Finding>) {
    for (line, path) in paths(text) {
        // A page inside a crate may name its neighbours.
        let near = root.join(file).parent().is_some_and(|folder| folder.join(path).exists());
        if !near && !root.join(path).exists() {
            found.push(Finding {
                file: file.to_owned(),
                line,
                rule: format!("no such file: {path}"),
            });
        }
    }
}

/// `(line, path)` of every file or folder of the repository that stands in inline code.
pub(crate) fn paths(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for code in line.split('`').skip(1).step_by(2) {
            let path = code.split('#').next().unwrap_or_default();
            let placeholder = path.split(['/', '.']).any(|part| {
                part.len() > 2 && part.chars().all(|letter| letter.is_ascii_uppercase())
            }) && !path.ends_with(".md");
            let named = FOLDERS.iter().any(|folder| path.starts_with(folder));
            if named && !placeholder && !path.contains([' ', '*', '<', '{', '…']) {
                found.push((index + 1, path));
            }
        }
    }
    found
}

/// What is wrong with a reference such as `docs/domains.md#fields`.
fn dead(root: &Path, reference: &str) -> Option<String> {
    let (page, heading) = reference.split_once('#').unwrap_or((reference, ""));
    match fs::read_to_string(root.join(page)) {
        Err(_) => Some(format!("reference leads nowhere: {reference}")),
        Ok(text) if !heading.is_empty() && !headings(&text).iter().any(|one| one == heading) => {
            Some(format!("no such heading: {reference}"))
        }
        Ok(_) => None,
    }
}

/// Every `docs/….md` of a line, with its heading if there is one.
fn references(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = line[from..].find(PAGES) {
        let begin = from + at;
        let rest = &line[begin..];
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || "/._-#".contains(letter);
        let end = rest.find(|letter| !allowed(letter)).unwrap_or(rest.len());
        let reference = rest[..end].trim_end_matches(['.', '-', '#']);
        let page = reference.split('#').next().unwrap_or_default();
        // Behind another site's name it is another page; behind `../` it is one of ours.
        let before = line[..begin].trim_end_matches("../");
        let ours = !before.ends_with(|letter: char| letter.is_alphanumeric() || letter == '/');
        if ours && page.ends_with(".md") {
            found.push(reference);
        }
        from = begin + end.max(1);
    }
    found
}

/// The number of a section that a comment names; an RFC's number says where to find its sections.
fn numbered_section(line: &str) -> Option<&str> {
    let comment = line.find("//").map(|at| &line[at..])?;
    if comment.contains("RFC ") {
        return None;
    }
    ["section ", "sections "].iter().find_map(|word| {
        let at = comment.find(word)?;
        let number = &comment[at + word.len()..];
        let digits = number.chars().take_while(|c| c.is_ascii_digit() || *c == '.').count();
        number
            .starts_with(|letter: char| letter.is_ascii_digit())
            .then(|| comment[at..at + word.len() + digits].trim_end_matches('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<String> {
        let checkout = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(checkout.path().join("docs/internals")).expect("made");
        fs::write(checkout.path().join(PAGES).join("internals/log.md"), "# Log\n\n## Lost tails\n")
            .expect("written");
        let mut found = Vec::new();
        check(checkout.path(), Path::new("a.rs"), text, &mut found);
        found.into_iter().map(|finding| format!("{}: {}", finding.line, finding.rule)).collect()
    }

    #[test]
    fn references_to_pages_and_headings_pass() {
        let text = format!(
            "//! Terms ({PAGES}internals/log.md#lost-tails).\n\
             let page = include_str!(\"../../{PAGES}internals/log.md\");\n\
             // See {PAGES}internals/log.md.\n// https://a.org/{PAGES}other.md\n\
             // Codes of TLS (RFC 9001, {} 4.8).\n",
            "section"
        );
        assert_eq!(rules(&text), Vec::<String>::new());
    }

    #[test]
    fn a_page_that_is_not_there_is_found() {
        let text = format!("// ok\n/// As in `{PAGES}internals/gone.md`.\n");
        assert_eq!(rules(&text), [format!("2: reference leads nowhere: {PAGES}internals/gone.md")]);
    }

    #[test]
    fn a_heading_that_is_not_there_is_found() {
        let text = format!("x = 1 # {PAGES}internals/log.md#found-tails\n");
        assert_eq!(
            rules(&text),
            [format!("1: no such heading: {PAGES}internals/log.md#found-tails")]
        );
    }

    #[test]
    fn a_number_of_a_section_is_found() {
        let found = rules(&format!("/// Votes (design, {} 5.2 and 6).\n", "sections"));
        assert_eq!(found.len(), 1);
        assert!(found[0].contains(&format!("`{} 5.2`", "sections")), "{found:?}");
    }

    #[test]
    fn a_file_that_a_page_names_must_exist() {
        let checkout = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(checkout.path().join("crates/queue")).expect("made");
        let page = "In `crates/queue` and `crates/NAME`, `tests/*.rs`,\n`crates/line` too.\n\
                    ```sh\nls `crates/not`\n```\n";
        let mut found = Vec::new();
        check_paths(checkout.path(), Path::new("a.md"), page, &mut found);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].line, found[0].rule.as_str()), (2, "no such file: crates/line"));
    }
}
