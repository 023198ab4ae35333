//! Logs as lists of terms: an entry is known by its index and its term.

/// The longest log that the model can hold.
pub const MAX_LEN: usize = 12;

/// A log, without payloads.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub struct Log {
    len: u8,
    terms: [u8; MAX_LEN],
}

impl Log {
    /// The log with entries of these terms.
    ///
    /// # Panics
    /// When there are more than [`MAX_LEN`].
    #[must_use]
    pub fn of(terms: &[u8]) -> Self {
        terms.iter().fold(Self::default(), |log, term| log.push(*term))
    }

    /// Index of the last entry.
    #[must_use]
    pub fn len(&self) -> u8 {
        self.len
    }

    /// True without entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Term of the entry at this index, 0 where there is none.
    #[must_use]
    pub fn at(&self, index: u8) -> u8 {
        if index == 0 || index > self.len { 0 } else { self.terms[usize::from(index) - 1] }
    }

    /// Term of the last entry.
    #[must_use]
    pub fn last_term(&self) -> u8 {
        self.at(self.len)
    }

    /// What the sync phase compares: last term, then last index.
    #[must_use]
    pub fn rank(&self) -> (u8, u8) {
        (self.last_term(), self.len)
    }

    /// The log with one more entry.
    #[must_use]
    pub fn push(mut self, term: u8) -> Self {
        self.terms[usize::from(self.len)] = term;
        self.len += 1;
        self
    }

    /// The first entries.
    #[must_use]
    pub fn prefix(mut self, len: u8) -> Self {
        for index in len..self.len {
            self.terms[usize::from(index)] = 0;
        }
        self.len = self.len.min(len);
        self
    }

    /// True when some index has different entries in the two.
    #[must_use]
    pub fn contradicts(&self, other: &Self) -> bool {
        let both = usize::from(self.len.min(other.len));
        self.terms[..both] != other.terms[..both]
    }

    /// The append rule: cut only where the logs differ, never because a message is short.
    #[must_use]
    pub fn merge(&self, sent: &Self) -> Self {
        if self.contradicts(sent) || sent.len > self.len { *sent } else { *self }
    }

    /// The terms, first entry first.
    #[must_use]
    pub fn terms(&self) -> &[u8] {
        &self.terms[..usize::from(self.len)]
    }
}
