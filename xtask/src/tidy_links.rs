//! Links between the Markdown pages: the file must be there, and so must the heading.

use std::fs;
use std::path::{Path, PathBuf};

use crate::tidy::Finding;

/// Adds a finding for every relative link of `text` that leads nowhere. Links to other sites are
/// not followed: a check must not depend on the network.
pub(crate) fn check(root: &Path, file: &Path, text: &str, found: &mut Vec<Finding>) {
    for (line, target) in links(text) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (path, heading) = target.split_once('#').unwrap_or((target, ""));
        let page = if path.is_empty() {
            root.join(file)
        } else {
            root.join(file).parent().map_or_else(PathBuf::new, |folder| folder.join(path))
        };
        if !page.exists() {
            found.push(Finding {
                file: file.to_owned(),
                line,
                rule: format!("link leads nowhere: {target}"),
            });
        } else if !heading.is_empty() && page.extension().is_some_and(|kind| kind == "md") {
            let there = fs::read_to_string(&page)
                .is_ok_and(|text| headings(&text).iter().any(|anchor| anchor == heading));
            if !there {
                found.push(Finding {
                    file: file.to_owned(),
                    line,
                    rule: format!("no such heading: {target}"),
                });
            }
        }
    }
}

/// `(line, target)` of every inline link outside code.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let mut rest = line;
        while let Some((_, after)) = rest.split_once("](") {
            let before = &line[..line.len() - after.len()];
            let inside_code = before.matches('`').count() % 2 == 1;
            let Some((target, tail)) = after.split_once(')') else { break };
            if !inside_code {
                let target = target.split_whitespace().next().unwrap_or_default();
                found.push((number, target));
            }
            rest = tail;
        }
    }
    found
}

/// The anchors that a page offers, as the usual Markdown renderers make them from headings.
pub(crate) fn headings(text: &str) -> Vec<String> {
    prose(text)
        .filter_map(|(_, line)| {
            let title = line.trim_start_matches('#');
            (title.len() < line.len() && title.starts_with(' ')).then(|| {
                title
                    .trim()
                    .chars()
                    .filter_map(|letter| match letter {
                        ' ' | '-' => Some('-'),
                        letter if letter.is_alphanumeric() || letter == '_' => {
                            Some(letter.to_ascii_lowercase())
                        }
                        _ => None,
                    })
                    .collect()
            })
        })
        .collect()
}

fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        (!fenced).then_some((index + 1, line))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# A page\n\n[here](#a-page) [there](b.md#two-words) [site](https://x.y)\n\
                        ```\n[not](a-link.md)\n```\n`[nor](this.md)` [gone](gone.md)\n";

    #[test]
    fn only_dead_links_are_found() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("a.md"), PAGE).expect("written");
        fs::write(folder.path().join("b.md"), "## Two words\n").expect("written");
        let mut found = Vec::new();
        check(folder.path(), Path::new("a.md"), PAGE, &mut found);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].line, 7);
        assert!(found[0].rule.contains("gone.md"));
    }

    #[test]
    fn a_missing_heading_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("b.md"), "## Two words\n").expect("written");
        let mut found = Vec::new();
        check(folder.path(), Path::new("a.md"), "[x](b.md#three-words)\n", &mut found);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].rule.contains("no such heading"));
    }
}
