//! Re-fills comments whose lines are too long, paragraph by paragraph.
//!
//! The stable rustfmt leaves comments as they are. A paragraph here is a run of comment lines with
//! the same indentation and marker; lists, tables, headings and code blocks are never joined with
//! what stands around them, and only a paragraph with a line that is too long is touched.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Re-fills the Rust files among `files`; returns how many were changed.
pub(crate) fn wrap_all(root: &Path, files: &[PathBuf], width: usize) -> Result<usize> {
    let mut changed = 0;
    for file in files.iter().filter(|file| file.extension().is_some_and(|kind| kind == "rs")) {
        let path = root.join(file);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let wrapped = wrap(&text, width);
        if wrapped != text {
            fs::write(&path, wrapped)
                .with_context(|| format!("cannot write {}", path.display()))?;
            changed += 1;
        }
    }
    Ok(changed)
}

/// Number of the first line of a comment that is too long and can be broken.
pub(crate) fn first_too_long(text: &str, width: usize) -> Option<usize> {
    let wrapped = wrap(text, width);
    let same = text.lines().zip(wrapped.lines()).take_while(|(old, new)| old == new).count();
    (wrapped != text).then_some(same + 1)
}

/// The text with its too long comments re-filled.
fn wrap(text: &str, width: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut out = String::with_capacity(text.len() + 256);
    let mut index = 0;
    let mut fenced = false;
    while index < lines.len() {
        let end = if fenced { index } else { paragraph_end(&lines, index) };
        if end == index {
            if let Some((_, body)) = split(lines[index]) {
                fenced ^= body.trim_start().starts_with("```");
            } else {
                fenced = false;
            }
            out.push_str(lines[index]);
            out.push('\n');
            index += 1;
            continue;
        }
        let paragraph = &lines[index..end];
        if paragraph.iter().any(|line| line.chars().count() > width) {
            fill(paragraph, width, &mut out);
        } else {
            for line in paragraph {
                out.push_str(line);
                out.push('\n');
            }
        }
        index = end;
    }
    if !text.ends_with('\n') {
        out.pop();
    }
    out
}

/// One past the last line of the paragraph that begins at `begin`; `begin` when none does.
fn paragraph_end(lines: &[&str], begin: usize) -> usize {
    let Some((prefix, body)) = split(lines[begin]) else { return begin };
    if !is_prose(body) && item_indent(body).is_none() {
        return begin;
    }
    let indent = item_indent(body).unwrap_or(0);
    let mut end = begin + 1;
    while end < lines.len() {
        match split(lines[end]) {
            Some((other, body)) if other == prefix => {
                let leading = body.len() - body.trim_start().len();
                let continues =
                    is_prose(body.trim_start()) && item_indent(body).is_none() && leading == indent;
                if !continues {
                    break;
                }
            }
            _ => break,
        }
        end += 1;
    }
    end
}

/// Writes one paragraph anew.
fn fill(paragraph: &[&str], width: usize, out: &mut String) {
    let Some((prefix, first)) = split(paragraph[0]) else { return };
    let indent = item_indent(first).unwrap_or(0);
    let words = paragraph
        .iter()
        .filter_map(|line| split(line))
        .flat_map(|(_, body)| words(body.trim_start()));
    let mut line = prefix.to_owned();
    let mut empty = true;
    for word in words {
        if !empty && line.chars().count() + 1 + word.chars().count() > width {
            out.push_str(&line);
            out.push('\n');
            line = format!("{prefix}{}", " ".repeat(indent));
            empty = true;
        }
        if empty {
            if line.ends_with('/') || line.ends_with('!') {
                line.push(' ');
            }
            empty = false;
        } else {
            line.push(' ');
        }
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

/// Words, with what stands in backquotes or in a link kept together.
fn words(body: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut begin = None;
    let (mut quoted, mut brackets) = (false, 0usize);
    for (at, letter) in body.char_indices() {
        match letter {
            '`' => quoted = !quoted,
            '[' if !quoted => brackets += 1,
            ']' if !quoted => brackets = brackets.saturating_sub(1),
            _ => {}
        }
        if letter == ' ' && !quoted && brackets == 0 {
            if let Some(from) = begin.take() {
                found.push(&body[from..at]);
            }
        } else if begin.is_none() {
            begin = Some(at);
        }
    }
    if let Some(from) = begin {
        found.push(&body[from..]);
    }
    found
}

/// Indentation with marker and its space, and what follows; `None` when the line is no comment.
fn split(line: &str) -> Option<(&str, &str)> {
    let trimmed = line.trim_start();
    let marker = ["///", "//!", "//"].into_iter().find(|marker| trimmed.starts_with(marker))?;
    let body = &trimmed[marker.len()..];
    // `////` and the like are ornaments.
    if body.starts_with('/') {
        return None;
    }
    let begin = line.len() - body.len();
    let space = usize::from(body.starts_with(' '));
    Some((&line[..begin + space], &body[space..]))
}

fn is_prose(body: &str) -> bool {
    !body.is_empty() && !body.starts_with([' ', '|', '#', '>', '`', '\t'])
        || (body.starts_with('`') && !body.starts_with("```"))
}

/// For an item of a list, where its text begins.
fn item_indent(body: &str) -> Option<usize> {
    for marker in ["* ", "- ", "+ "] {
        if body.starts_with(marker) {
            return Some(2);
        }
    }
    let digits = body.chars().take_while(char::is_ascii_digit).count();
    (digits > 0 && body[digits..].starts_with(". ")).then_some(digits + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn becomes(text: &str, expected: &str) {
        assert_eq!(wrap(text, 30), expected);
        assert_eq!(wrap(expected, 30), expected, "once is enough");
    }

    #[test]
    fn a_long_paragraph_is_filled_and_a_short_one_left() {
        becomes(
            "    /// One two three four five six\n    /// seven.\n    ///\n    /// Short\n    /// x.\n",
            "    /// One two three four\n    /// five six seven.\n    ///\n    /// Short\n    /// x.\n",
        );
    }

    #[test]
    fn items_keep_their_indentation() {
        becomes(
            "// * one two three four five six\n//   seven\n// * eight\n",
            "// * one two three four five\n//   six seven\n// * eight\n",
        );
    }

    #[test]
    fn code_tables_and_strings_are_left() {
        let text = "//! ```\n//! let a_long_line_of_code = it_stays_as_it_is();\n//! ```\n\
                    //! | a | table with a long row, which stays |\n\
                    let text = \"// no comment, but it is a long line\";\n";
        becomes(text, text);
    }

    #[test]
    fn quoted_words_stay_together() {
        becomes(
            "// Some words and `a b c d e f` more\n",
            "// Some words and\n// `a b c d e f` more\n",
        );
    }

    #[test]
    fn other_markers_end_a_paragraph() {
        becomes(
            "/// One two three four five six.\n// Seven.\nfn f() {}",
            "/// One two three four five\n/// six.\n// Seven.\nfn f() {}",
        );
    }
}
