//! Events as they are stored and streamed: the bytes of `dtms.v1.Event`, as proto3 encodes it.
//!
//! A field's number is its place in its message, from one on, and a body's its place behind
//! [`FIRST_BODY`]; a contract test holds the proto files to that. Fields come in order of their
//! numbers, as every encoder writes them. What this version does not know is refused, not skipped.
use crate::event::{BODIES, Event};
use crate::message::{Malformed, Reader, Text};

/// Number of the first body; the fields before it are the envelope.
pub const FIRST_BODY: u32 = 10;

/// What its tag says about how a value is written.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const DELIMITED: u64 = 2;

#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Delimited(&'a [u8]),
}

/// An event of its bytes.
///
/// # Errors
/// They are cut off, damaged, or no event of this version.
pub fn event(bytes: &[u8]) -> Result<Event, Malformed> {
    let mut reader = Wire {
        levels: Vec::with_capacity(4),
    };
    reader.levels.push(Level::new("", bytes)?);
    let event = Event::read_fields(&mut reader)?;
    reader.close(&[])?;
    Ok(event)
}

/// The name of an event's body, by a look at no more than its envelope.
///
/// # Errors
/// As [`event`], as far as it looks.
pub fn body_of(bytes: &[u8]) -> Result<&'static str, Malformed> {
    let mut level = Level::new("body", bytes)?;
    while let Some((number, _)) = level.head {
        if let Some(place) = number.checked_sub(FIRST_BODY) {
            let name = usize::try_from(place)
                .ok()
                .and_then(|place| BODIES.get(place));
            return name
                .copied()
                .ok_or_else(|| Malformed::new("body", "is no event of this version"));
        }
        level.advance("body")?;
    }
    Err(Malformed::new("body", "is missing"))
}

/// A message that is being read.
struct Level<'a> {
    rest: &'a [u8],
    /// The field that comes next in the bytes.
    head: Option<(u32, Value<'a>)>,
    /// The number of the field that is asked for next.
    next: u32,
    /// The elements of a list bear one number.
    is_list: bool,
}

impl<'a> Level<'a> {
    fn new(name: &str, bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut level = Self {
            rest: bytes,
            head: None,
            next: 1,
            is_list: false,
        };
        level.advance(name)?;
        Ok(level)
    }

    fn advance(&mut self, name: &str) -> Result<(), Malformed> {
        self.head = field(name, &mut self.rest)?;
        Ok(())
    }

    /// The value of the field that is asked for next; `None` when it is absent.
    fn take(&mut self, name: &str) -> Result<Option<Value<'a>>, Malformed> {
        let number = self.next;
        if !self.is_list {
            self.next += 1;
        }
        match self.head {
            Some((found, value)) if found == number => {
                self.advance(name)?;
                Ok(Some(value))
            }
            Some((found, _)) if found < number => {
                Err(Malformed::new(name, "follows a field that is not known"))
            }
            Some(_) | None => Ok(None),
        }
    }
}

fn field<'a>(name: &str, rest: &mut &'a [u8]) -> Result<Option<(u32, Value<'a>)>, Malformed> {
    if rest.is_empty() {
        return Ok(None);
    }
    let cut_off = || Malformed::new(name, "is cut off");
    let tag = varint(name, rest)?;
    let number = u32::try_from(tag >> 3).map_err(|_| Malformed::new(name, "has no number"))?;
    let value = match tag & 7 {
        VARINT => Value::Varint(varint(name, rest)?),
        FIXED64 => {
            let (word, behind) = rest.split_first_chunk::<8>().ok_or_else(cut_off)?;
            *rest = behind;
            Value::Fixed64(u64::from_le_bytes(*word))
        }
        DELIMITED => {
            let length = usize::try_from(varint(name, rest)?).map_err(|_| cut_off())?;
            let (bytes, behind) = rest.split_at_checked(length).ok_or_else(cut_off)?;
            *rest = behind;
            Value::Delimited(bytes)
        }
        _ => return Err(other_kind(name)),
    };
    Ok(Some((number, value)))
}

fn varint(name: &str, rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest
            .split_first()
            .ok_or_else(|| Malformed::new(name, "is cut off"))?;
        *rest = behind;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed::new(name, "does not fit into 64 bits"))
}

fn other_kind(name: &str) -> Malformed {
    Malformed::new(name, "is of another kind")
}

struct Wire<'a> {
    levels: Vec<Level<'a>>,
}

impl<'a> Wire<'a> {
    fn level(&mut self) -> Result<&mut Level<'a>, Malformed> {
        self.levels
            .last_mut()
            .ok_or_else(|| Malformed::new("", "is no message"))
    }

    fn varint(&mut self, name: &'static str) -> Result<u64, Malformed> {
        match self.level()?.take(name)? {
            Some(Value::Varint(value)) => Ok(value),
            None => Ok(0),
            Some(Value::Fixed64(_) | Value::Delimited(_)) => Err(other_kind(name)),
        }
    }

    fn bytes(&mut self, name: &'static str) -> Result<Option<&'a [u8]>, Malformed> {
        match self.level()?.take(name)? {
            Some(Value::Delimited(bytes)) => Ok(Some(bytes)),
            None => Ok(None),
            Some(Value::Fixed64(_) | Value::Varint(_)) => Err(other_kind(name)),
        }
    }
}

impl Reader for Wire<'_> {
    fn boolean(&mut self, name: &'static str) -> Result<bool, Malformed> {
        self.varint(name).map(|value| value != 0)
    }
    fn int(&mut self, name: &'static str) -> Result<i64, Malformed> {
        self.varint(name)
            .map(|value| i64::from_ne_bytes(value.to_ne_bytes()))
    }
    fn uint(&mut self, name: &'static str) -> Result<u64, Malformed> {
        self.varint(name)
    }
    fn float(&mut self, name: &'static str) -> Result<f64, Malformed> {
        match self.level()?.take(name)? {
            Some(Value::Fixed64(bits)) => Ok(f64::from_bits(bits)),
            None => Ok(0.0),
            Some(Value::Varint(_) | Value::Delimited(_)) => Err(other_kind(name)),
        }
    }
    fn text(&mut self, name: &'static str) -> Result<Text, Malformed> {
        let bytes = self.bytes(name)?.unwrap_or_default();
        std::str::from_utf8(bytes)
            .map(Text::from)
            .map_err(|_| Malformed::new(name, "is no text"))
    }
    fn presence(&mut self, _name: &'static str) -> Result<bool, Malformed> {
        let level = self.level()?;
        let present = level.head.is_some_and(|(found, _)| found == level.next);
        if !present {
            level.next += 1;
        }
        Ok(present)
    }
    fn choice(&mut self, names: &[&'static str]) -> Result<usize, Malformed> {
        let level = self.level()?;
        let (found, _) = level
            .head
            .ok_or_else(|| Malformed::new("body", "is missing"))?;
        level.next = found;
        found
            .checked_sub(FIRST_BODY)
            .and_then(|place| usize::try_from(place).ok())
            .filter(|place| *place < names.len())
            .ok_or_else(|| Malformed::new("body", "is no event of this version"))
    }
    fn open(&mut self, name: &'static str, _message: &'static str) -> Result<(), Malformed> {
        let bytes = self
            .bytes(name)?
            .ok_or_else(|| Malformed::new(name, "is missing"))?;
        self.levels.push(Level::new(name, bytes)?);
        Ok(())
    }
    fn close(&mut self, _known: &[&'static str]) -> Result<(), Malformed> {
        match self.levels.pop() {
            Some(Level { head: None, .. }) => Ok(()),
            Some(_) | None => Err(Malformed::new("", "has a field that is not known")),
        }
    }
    fn open_list(&mut self, name: &'static str) -> Result<usize, Malformed> {
        let level = self.level()?;
        level.is_list = true;
        let number = level.next;
        let is_element = |head: &Option<(u32, Value<'_>)>| {
            head.as_ref().is_some_and(|(found, _)| *found == number)
        };
        if !is_element(&level.head) {
            return Ok(0);
        }
        let mut ahead = level.rest;
        let mut length = 1;
        while is_element(&field(name, &mut ahead)?) {
            length += 1;
        }
        Ok(length)
    }
    fn close_list(&mut self) -> Result<(), Malformed> {
        let level = self.level()?;
        level.is_list = false;
        level.next += 1;
        Ok(())
    }
}
