//! Messages as bytes: fields in order of definition, little endian, for snapshots.
use crate::message::{Malformed, Reader, Text, Writer};

#[derive(Debug, Default)]
pub struct Bytes(pub Vec<u8>);

impl Writer for Bytes {
    fn boolean(&mut self, _name: &'static str, value: bool) {
        self.0.push(u8::from(value));
    }
    fn int(&mut self, _name: &'static str, value: i64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    fn uint(&mut self, _name: &'static str, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    fn float(&mut self, _name: &'static str, value: f64) {
        self.0.extend_from_slice(&value.to_bits().to_le_bytes());
    }
    fn text(&mut self, name: &'static str, value: &Text) {
        self.open_list(name, value.as_str().len());
        self.0.extend_from_slice(value.as_str().as_bytes());
    }
    fn presence(&mut self, present: bool) {
        self.0.push(u8::from(present));
    }
    fn choice(&mut self, index: u8) {
        self.0.push(index);
    }
    fn open(&mut self, _name: &'static str, _message: &'static str) {}
    fn close(&mut self) {}
    fn open_list(&mut self, name: &'static str, length: usize) {
        self.uint(name, length as u64);
    }
    fn close_list(&mut self) {}
}

/// Reads what [`Bytes`] wrote.
#[derive(Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[must_use]
    pub const fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, name: &str, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| Malformed::new(name, "is cut off"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn word(&mut self, name: &str) -> Result<[u8; 8], Malformed> {
        let bytes = self.take(name, 8)?;
        bytes
            .try_into()
            .map_err(|_| Malformed::new(name, "is cut off"))
    }

    fn flag(&mut self, name: &str) -> Result<bool, Malformed> {
        match self.take(name, 1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Malformed::new(name, "is neither true nor false")),
        }
    }
}

impl Reader for Cursor<'_> {
    fn boolean(&mut self, name: &'static str) -> Result<bool, Malformed> {
        self.flag(name)
    }
    fn int(&mut self, name: &'static str) -> Result<i64, Malformed> {
        self.word(name).map(i64::from_le_bytes)
    }
    fn uint(&mut self, name: &'static str) -> Result<u64, Malformed> {
        self.word(name).map(u64::from_le_bytes)
    }
    fn float(&mut self, name: &'static str) -> Result<f64, Malformed> {
        self.uint(name).map(f64::from_bits)
    }
    fn text(&mut self, name: &'static str) -> Result<Text, Malformed> {
        let length = self.open_list(name)?;
        let bytes = self.take(name, length)?;
        std::str::from_utf8(bytes)
            .map(Text::from)
            .map_err(|_| Malformed::new(name, "is no text"))
    }
    fn presence(&mut self, name: &'static str) -> Result<bool, Malformed> {
        self.flag(name)
    }
    fn choice(&mut self, names: &[&'static str]) -> Result<usize, Malformed> {
        match self.take("body", 1)? {
            [index] if usize::from(*index) < names.len() => Ok(usize::from(*index)),
            _ => Err(Malformed::new("body", "is no event of this version")),
        }
    }
    fn open(&mut self, _name: &'static str, _message: &'static str) -> Result<(), Malformed> {
        Ok(())
    }
    fn close(&mut self, _known: &[&'static str]) -> Result<(), Malformed> {
        Ok(())
    }
    fn open_list(&mut self, name: &'static str) -> Result<usize, Malformed> {
        let length = self.uint(name)?;
        // Every element takes at least a byte: a damaged length cannot ask for more than there is.
        usize::try_from(length)
            .ok()
            .filter(|length| *length <= self.rest.len())
            .ok_or_else(|| Malformed::new(name, "is longer than what is left"))
    }
    fn close_list(&mut self) -> Result<(), Malformed> {
        Ok(())
    }
}
