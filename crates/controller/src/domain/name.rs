//! What domains and apps may be called: the parts of a queue's URI (docs: semantics, URIs).

use thiserror::Error;

/// Longest qualified domain name, in bytes. It must fit into a file name with the ending `.json`.
pub(super) const MAX_NAME_BYTES: usize = 250;

/// Why a text cannot be a domain's name or an app's id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing there.
    #[error("a name has at least one character")]
    Empty,
    /// Longer than 250 bytes.
    #[error("a name has at most {MAX_NAME_BYTES} characters length={0}")]
    TooLong(usize),
    /// A character that URIs do not allow there.
    #[error("a name has only letters, digits, '-', '_' and '.' value={0:?}")]
    Characters(String),
    /// A tier (after `.~`) that is empty or has other characters.
    #[error("a tier (after \".~\") has only letters, digits and '-', at least one value={0:?}")]
    Tier(String),
    /// An app id that the broker uses itself.
    #[error("this app id is the broker's own; choose another value={0:?}")]
    Reserved(String),
}

/// Checks a qualified domain name: `domain` or `domain.~tier`.
///
/// # Errors
/// [`NameError`] says which rule is broken.
pub fn check_domain_name(name: &str) -> Result<(), NameError> {
    check_length(name)?;
    let (domain, tier) = match name.split_once(".~") {
        Some((domain, tier)) => (domain, Some(tier)),
        None => (name, None),
    };
    check_characters(domain)?;
    let in_tier = |c: char| c.is_ascii_alphanumeric() || c == '-';
    match tier {
        Some(tier) if tier.is_empty() || !tier.chars().all(in_tier) => {
            Err(NameError::Tier(tier.to_owned()))
        }
        _ => Ok(()),
    }
}

/// Checks the id of a fanout queue's app.
///
/// # Errors
/// [`NameError`] says which rule is broken.
pub fn check_app_id(id: &str) -> Result<(), NameError> {
    check_length(id)?;
    check_characters(id)?;
    if id == "__default" { Err(NameError::Reserved(id.to_owned())) } else { Ok(()) }
}

fn check_length(name: &str) -> Result<(), NameError> {
    if name.len() > MAX_NAME_BYTES { Err(NameError::TooLong(name.len())) } else { Ok(()) }
}

fn check_characters(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.chars().all(allowed) { Ok(()) } else { Err(NameError::Characters(name.to_owned())) }
}
