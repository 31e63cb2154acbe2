//! The bytes of a file in Avro, of which only those are taken that are there (Avro specification, "Object container files").

/// What every file begins with.
pub(crate) const MAGIC: &[u8; 4] = b"Obj\x01";

/// What is left of a file.
pub(crate) struct Rest<'a>(pub(crate) &'a [u8]);

impl<'a> Rest<'a> {
    /// The names and values that stand before the blocks.
    pub(crate) fn header(&mut self) -> Option<Vec<(&'a [u8], &'a [u8])>> {
        let mut header = Vec::new();
        loop {
            let entries = self.long()?;
            if entries == 0 {
                return Some(header);
            }
            if entries < 0 {
                self.long()?;
            }
            for _ in 0..entries.unsigned_abs() {
                header.push((self.counted()?, self.counted()?));
            }
        }
    }

    /// So many bytes.
    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// As many bytes as the number before them says.
    pub(crate) fn counted(&mut self) -> Option<&'a [u8]> {
        let count = usize::try_from(self.long()?).ok()?;
        self.take(count)
    }

    /// A number of at most ten bytes, of which each but the last has its highest bit set.
    pub(crate) fn long(&mut self) -> Option<i64> {
        let mut bits: u64 = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            bits |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some((bits >> 1) as i64 ^ -((bits & 1) as i64));
            }
        }
        None
    }
}
