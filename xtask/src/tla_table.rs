//! The table of TLC runs, `spec/runs.txt`: what is checked with which constants, and what TLC has
//! to find.
//!
//! A line `module NAME` begins the defaults of a module, a line `run NAME SIZE` a run; the lines
//! after it, up to the next such line, are its settings. `NAME = VALUE` and `NAME <- DEFINITION`
//! are constants; `check`, `expect`, `distinct`, `symmetry` and `specification` are described at
//! [`Run`]. `#` begins a comment.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

/// How long a run takes: seconds, tens of minutes, an hour or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    Small,
    Medium,
    Large,
}

/// One run of TLC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) size: Size,
    pub(crate) module: String,
    /// `holds`, or the name of the invariant or property that TLC has to find broken.
    pub(crate) expect: String,
    /// Where the run holds: how many distinct states there are, if that is to be checked.
    pub(crate) distinct: Option<u64>,
    symmetry: bool,
    /// What to check: names of invariants; those after `always` are properties of behaviours.
    check: String,
    /// A temporal formula to explore in place of `Init` and `Next`.
    specification: Option<String>,
    constants: BTreeMap<String, String>,
}

impl Size {
    /// The size of that name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "small" => Some(Self::Small),
            "medium" => Some(Self::Medium),
            "large" => Some(Self::Large),
            _ => None,
        }
    }
}

impl Run {
    fn new(name: &str, size: Size, module: &str) -> Self {
        Self {
            name: name.to_owned(),
            size,
            module: module.to_owned(),
            expect: "holds".to_owned(),
            distinct: None,
            symmetry: false,
            check: String::new(),
            specification: None,
            constants: BTreeMap::new(),
        }
    }

    fn set(&mut self, line: &str) -> Result<()> {
        for sign in ["<-", "="] {
            if let Some((name, value)) = line.split_once(sign) {
                let value = match sign {
                    "=" => format!("= {}", value.trim()),
                    _ => format!("<- {}", value.trim()),
                };
                self.constants.insert(name.trim().to_owned(), value);
                return Ok(());
            }
        }
        let (word, rest) = line.split_once(' ').with_context(|| format!("no value: {line}"))?;
        let rest = rest.trim();
        match word {
            "check" => self.check = rest.to_owned(),
            "expect" => self.expect = rest.to_owned(),
            "specification" => self.specification = Some(rest.to_owned()),
            "distinct" => {
                let number = rest.replace('_', "").parse();
                self.distinct = Some(number.with_context(|| format!("no number: {rest}"))?);
            }
            "symmetry" => {
                self.symmetry = match rest {
                    "on" => true,
                    "off" => false,
                    _ => bail!("symmetry is on or off, not {rest}"),
                };
            }
            _ => bail!("unknown setting: {line}"),
        }
        Ok(())
    }

    /// TLC's configuration file.
    pub(crate) fn configuration(&self) -> String {
        let mut text = match &self.specification {
            Some(formula) => format!("SPECIFICATION {formula}\n"),
            None => "INIT Init\nNEXT Next\n".to_owned(),
        };
        text.push_str("CONSTANTS\n");
        for (name, value) in &self.constants {
            text.push_str(&format!("  {name} {value}\n"));
        }
        if self.symmetry {
            text.push_str("SYMMETRY Symmetry\n");
        }
        let (invariants, properties) =
            self.check.split_once("always").unwrap_or((self.check.as_str(), ""));
        for (word, names) in [("INVARIANTS", invariants), ("PROPERTIES", properties)] {
            if !names.trim().is_empty() {
                text.push_str(&format!("{word} {}\n", names.trim()));
            }
        }
        text
    }
}

/// Reads the table.
pub(crate) fn parse(text: &str) -> Result<Vec<Run>> {
    let mut defaults: Option<Run> = None;
    let mut runs: Vec<Run> = Vec::new();
    let mut in_run = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let here = || format!("spec/runs.txt:{}", number + 1);
        match words.as_slice() {
            ["module", module] => {
                defaults = Some(Run::new("", Size::Large, module));
                in_run = false;
            }
            ["run", name, size] => {
                let module = defaults.as_ref().with_context(here)?;
                let size = Size::from_name(size).with_context(here)?;
                if runs.iter().any(|run| run.name == *name) {
                    bail!("{}: the name {name} is taken", here());
                }
                runs.push(Run { name: (*name).to_owned(), size, ..module.clone() });
                in_run = true;
            }
            _ => {
                let run = if in_run { runs.last_mut() } else { defaults.as_mut() };
                run.with_context(here)?.set(line).with_context(here)?;
            }
        }
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
# runs
module Queue
  check Safe
  Node = {a, b}
  Limit = 2

run holds small
  symmetry on
  distinct 1_234
run mutant medium   # must be refuted
  expect Safe
  check Safe Other always Grows
  Limit = 3
  Script <- Short
";

    #[test]
    fn a_run_is_its_module_s_defaults_and_its_own_settings() {
        let runs = parse(TABLE).expect("the table is right");
        assert_eq!(runs.len(), 2);
        assert_eq!(runs[0].distinct, Some(1234));
        assert_eq!(
            runs[0].configuration(),
            "INIT Init\nNEXT Next\nCONSTANTS\n  Limit = 2\n  Node = {a, b}\n\
             SYMMETRY Symmetry\nINVARIANTS Safe\n"
        );
        assert_eq!(
            (runs[1].size, runs[1].module.as_str(), runs[1].expect.as_str()),
            (Size::Medium, "Queue", "Safe")
        );
        assert_eq!(
            runs[1].configuration(),
            "INIT Init\nNEXT Next\nCONSTANTS\n  Limit = 3\n  Node = {a, b}\n  Script <- Short\n\
             INVARIANTS Safe Other\nPROPERTIES Grows\n"
        );
    }

    #[test]
    fn a_wrong_line_is_named() {
        for table in
            ["run a small", "module M\nrun a tiny", "module M\nfrobnicate x", "module M\nx"]
        {
            let error = parse(table).expect_err("refused");
            assert!(format!("{error:#}").contains("spec/runs.txt:"), "{error:#}");
        }
        let twice = parse("module M\nrun a small\nrun a large").expect_err("refused");
        assert!(format!("{twice:#}").contains("taken"), "{twice:#}");
    }
}
