//! Reading of records that begin with a format byte and hold fields of fixed length.

use flintmq_consensus::NodeId;

/// The format of every value but those that need more.
pub const FORMAT: u8 = 1;

/// Reads fields off the front of a value.
pub struct Fields<'a> {
    /// What is left.
    pub rest: &'a [u8],
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (field, rest) =
            self.rest.split_first_chunk::<N>().ok_or_else(|| "record too short".to_owned())?;
        self.rest = rest;
        Ok(*field)
    }

    /// The format byte, which must be [`FORMAT`].
    ///
    /// # Errors
    /// Another format, or nothing left.
    pub fn format(&mut self) -> Result<(), String> {
        self.format_up_to(FORMAT).map(drop)
    }

    /// The format byte, from [`FORMAT`] up to `newest`.
    ///
    /// # Errors
    /// Another format, or nothing left.
    pub fn format_up_to(&mut self, newest: u8) -> Result<u8, String> {
        match self.u8()? {
            known if (FORMAT..=newest).contains(&known) => Ok(known),
            other => Err(format!("unknown record format format={other}")),
        }
    }

    /// A byte.
    ///
    /// # Errors
    /// Too few bytes are left, or they are no such value.
    pub fn u8(&mut self) -> Result<u8, String> {
        self.take::<1>().map(|[byte]| byte)
    }

    /// A byte that is 0 or 1.
    ///
    /// # Errors
    /// Too few bytes are left, or they are no such value.
    pub fn flag(&mut self) -> Result<bool, String> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(format!("not a flag value={other}")),
        }
    }

    /// A big-endian number.
    ///
    /// # Errors
    /// Too few bytes are left, or they are no such value.
    pub fn u16(&mut self) -> Result<u16, String> {
        self.take().map(u16::from_be_bytes)
    }

    /// A big-endian number.
    ///
    /// # Errors
    /// Too few bytes are left, or they are no such value.
    pub fn u32(&mut self) -> Result<u32, String> {
        self.take().map(u32::from_be_bytes)
    }

    /// A big-endian number.
    ///
    /// # Errors
    /// Too few bytes are left, or they are no such value.
    pub fn u64(&mut self) -> Result<u64, String> {
        self.take().map(u64::from_be_bytes)
    }

    /// A counted list of nodes.
    ///
    /// # Errors
    /// Too few bytes are left.
    pub fn nodes(&mut self) -> Result<Vec<NodeId>, String> {
        let count = self.u32()? as usize;
        // A damaged count must not reserve memory: what is there bounds it.
        if count > self.rest.len() / 4 {
            return Err(format!("more members than bytes members={count}"));
        }
        (0..count).map(|_| self.u32().map(NodeId)).collect()
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// Bytes are left.
    pub fn end(&self) -> Result<(), String> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(format!("bytes behind the record bytes={}", self.rest.len()))
        }
    }
}
