//! Errors of the configuration, and where in the file (or among the flags) each key was set.

use super::check::Problem;
use flintmq_controller::domain::wording::reworded;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use thiserror::Error;
use toml::de::{DeTable, DeValue};

/// Why a node cannot run with a configuration. The text is complete: file, line, key and what is
/// allowed.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file is missing or may not be read.
    #[error("cannot read the configuration; check the path and its permissions file={}: {source}",
        file.display())]
    Unreadable {
        /// The file as it was named.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is far larger than a configuration can be.
    #[error("this is no node.toml: it is too long file={} limit_bytes={limit}", file.display())]
    TooLong {
        /// The file as it was named.
        file: PathBuf,
        /// Largest length that is read.
        limit: u64,
    },
    /// The file is not UTF-8.
    #[error("this is no node.toml: it is not UTF-8 text file={} offset={offset}", file.display())]
    NotText {
        /// The file as it was named.
        file: PathBuf,
        /// Place of the first wrong byte.
        offset: usize,
    },
    /// Not TOML, an unknown key or a value of the wrong type.
    #[error("{0}")]
    Syntax(String),
    /// Values that are impossible, or that this version does not serve; one line each.
    #[error("{0}")]
    Values(String),
}

impl ConfigError {
    pub(super) fn syntax(text: &str, name: &str, error: &toml::de::Error) -> Self {
        let what = reworded(error.message(), "key");
        Self::Syntax(match error.span() {
            Some(span) => format!("{name}:{}: {what}", line_of(text, span.start)),
            None => format!("{name}: {what}"),
        })
    }

    pub(super) fn problems(problems: &[Problem], places: &Places) -> Self {
        let mut text = String::new();
        for problem in problems {
            if !text.is_empty() {
                text.push('\n');
            }
            // Writing to a string cannot fail.
            let _ = write!(text, "{}{problem}", places.prefix(&problem.key));
        }
        Self::Values(text)
    }
}

/// Where each key was set: `clients.listen[1]` on line 7, or by a flag.
#[derive(Debug, Default)]
pub(super) struct Places {
    file: Option<String>,
    lines: BTreeMap<String, usize>,
    flags: BTreeMap<String, &'static str>,
}

impl Places {
    /// The places of all keys in a text that has been parsed before.
    pub(super) fn of(text: &str, name: &str) -> Self {
        let mut places = Self { file: Some(name.to_owned()), ..Self::default() };
        if let Ok(table) = DeTable::parse(text) {
            places.note_table(text, "", table.get_ref());
        }
        places
    }

    pub(super) fn set_flag(&mut self, key: &str, flag: &'static str) {
        self.flags.insert(key.to_owned(), flag);
    }

    /// What stands before a problem with `key`: the flag that set it, or the file and the line of
    /// the key or of the nearest table around it.
    fn prefix(&self, key: &str) -> String {
        let mut around = Some(key);
        while let Some(key) = around {
            if let Some(flag) = self.flags.get(key) {
                return format!("{flag}: ");
            }
            if let (Some(line), Some(file)) = (self.lines.get(key), &self.file) {
                return format!("{file}:{line}: ");
            }
            around = key.rfind(['.', '[']).map(|end| &key[..end]);
        }
        self.file.as_ref().map_or_else(String::new, |file| format!("{file}: "))
    }

    fn note_table(&mut self, text: &str, path: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = key.get_ref();
            let path = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
            self.lines.insert(path.clone(), line_of(text, key.span().start));
            self.note_value(text, &path, value.get_ref());
        }
    }

    fn note_value(&mut self, text: &str, path: &str, value: &DeValue<'_>) {
        match value {
            DeValue::Table(table) => self.note_table(text, path, table),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.lines.insert(path.clone(), line_of(text, item.span().start));
                    self.note_value(text, &path, item.get_ref());
                }
            }
            _ => {}
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|&&byte| byte == b'\n').count()
}
