//! Messages as Python dicts: fields by name, enumerations as ints, absent optionals left out.
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use dtms_core::event::{Event, schema};
use dtms_core::message::{Malformed, Message, Reader, Text, Writer};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString};

/// Hashes the short names of fields, eight bytes at a time.
#[derive(Default)]
struct NameHasher(u64);

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            if let Some(place) = word.get_mut(..chunk.len()) {
                place.copy_from_slice(chunk);
            }
            self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(word))
                .wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        self.0 ^= self.0 >> 32;
    }
}

type Keyed<T> = HashMap<&'static str, T, BuildHasherDefault<NameHasher>>;

/// Names made once: a dict hashes and compares an interned key by address.
struct Names {
    by_name: Keyed<Py<PyString>>,
    /// The keys of each message, in order of its fields.
    by_message: Keyed<Vec<Py<PyString>>>,
}

static NAMES: PyOnceLock<Names> = PyOnceLock::new();

fn names(py: Python<'_>) -> &Names {
    NAMES.get_or_init(py, || {
        let intern = |name: &'static str| PyString::intern(py, name).unbind();
        let mut names = Names {
            by_name: Keyed::default(),
            by_message: Keyed::default(),
        };
        for (message, fields) in schema() {
            let keys: Vec<_> = fields.iter().map(|(name, _)| intern(name)).collect();
            for ((name, _), key) in fields.iter().zip(&keys) {
                names.by_name.insert(name, key.clone_ref(py));
            }
            names.by_message.insert(message, keys);
        }
        names
    })
}

fn key<'py>(py: Python<'py>, names: &Names, name: &'static str) -> Bound<'py, PyString> {
    names.by_name.get(name).map_or_else(
        || PyString::intern(py, name),
        |interned| interned.bind(py).clone(),
    )
}

enum Level<'py> {
    /// `keys` are those of the fields still to come, where the message is known.
    Dict {
        dict: Bound<'py, PyDict>,
        keys: &'py [Py<PyString>],
    },
    List(Bound<'py, PyList>),
}

/// Builds dicts; the first failure of Python (no memory) is kept and reported at the end.
struct DictWriter<'py> {
    py: Python<'py>,
    names: &'py Names,
    levels: Vec<(&'static str, Level<'py>)>,
    failure: Option<PyErr>,
}

impl<'py> DictWriter<'py> {
    /// `message` is the type at the top; empty for one that is not in the schema.
    fn new(py: Python<'py>, message: &'static str) -> Self {
        let mut writer = Self {
            py,
            names: names(py),
            levels: Vec::with_capacity(4),
            failure: None,
        };
        writer.enter("", message);
        writer
    }

    fn enter(&mut self, name: &'static str, message: &'static str) {
        let keys = self.names.by_message.get(message);
        let level = Level::Dict {
            dict: PyDict::new(self.py),
            keys: keys.map_or(&[], Vec::as_slice),
        };
        self.levels.push((name, level));
    }

    fn put(&mut self, name: &'static str, value: &Bound<'py, PyAny>) {
        let done = match self.levels.last_mut() {
            Some((_, Level::List(list))) => list.append(value),
            Some((_, Level::Dict { dict, keys })) => {
                if let Some((key, rest)) = keys.split_first() {
                    *keys = rest;
                    dict.set_item(key.bind(self.py), value)
                } else {
                    dict.set_item(key(self.py, self.names, name), value)
                }
            }
            None => Ok(()),
        };
        if let Err(error) = done {
            self.failure.get_or_insert(error);
        }
    }

    fn leave(&mut self) {
        let Some((name, level)) = self.levels.pop() else {
            return;
        };
        let value = match level {
            Level::Dict { dict, .. } => dict.into_any(),
            Level::List(list) => list.into_any(),
        };
        self.put(name, &value);
    }

    fn finish(mut self) -> PyResult<Bound<'py, PyDict>> {
        match (self.failure.take(), self.levels.pop()) {
            (Some(error), _) => Err(error),
            (None, Some((_, Level::Dict { dict, .. }))) => Ok(dict),
            (None, Some((_, Level::List(_))) | None) => Ok(PyDict::new(self.py)),
        }
    }
}

impl Writer for DictWriter<'_> {
    fn boolean(&mut self, name: &'static str, value: bool) {
        self.put(name, &PyBool::new(self.py, value).to_owned().into_any());
    }
    fn int(&mut self, name: &'static str, value: i64) {
        self.put(name, &PyInt::new(self.py, value).into_any());
    }
    fn uint(&mut self, name: &'static str, value: u64) {
        self.put(name, &PyInt::new(self.py, value).into_any());
    }
    fn float(&mut self, name: &'static str, value: f64) {
        self.put(name, &PyFloat::new(self.py, value).into_any());
    }
    fn text(&mut self, name: &'static str, value: &Text) {
        self.put(name, &PyString::new(self.py, value.as_str()).into_any());
    }
    fn presence(&mut self, present: bool) {
        if let (false, Some((_, Level::Dict { keys, .. }))) = (present, self.levels.last_mut()) {
            *keys = keys.get(1..).unwrap_or_default();
        }
    }
    fn choice(&mut self, _index: u8) {}
    fn open(&mut self, name: &'static str, message: &'static str) {
        self.enter(name, message);
    }
    fn close(&mut self) {
        self.leave();
    }
    fn open_list(&mut self, name: &'static str, _length: usize) {
        self.levels
            .push((name, Level::List(PyList::empty(self.py))));
    }
    fn close_list(&mut self) {
        self.leave();
    }
}

pub fn message_to_dict<'py, M: Message>(
    py: Python<'py>,
    message: &M,
) -> PyResult<Bound<'py, PyDict>> {
    let mut writer = DictWriter::new(py, M::NAME);
    message.write_fields(&mut writer);
    writer.finish()
}

pub fn event_to_dict<'py>(py: Python<'py>, event: &Event) -> PyResult<Bound<'py, PyDict>> {
    // Its fields are the envelope and one body of many: written by name.
    let mut writer = DictWriter::new(py, "");
    event.write_fields(&mut writer);
    writer.finish()
}

enum Place<'py> {
    /// `keys` are those of the fields still to come, where the message is known.
    Dict {
        dict: Bound<'py, PyDict>,
        keys: &'py [Py<PyString>],
    },
    List {
        list: Bound<'py, PyList>,
        next: usize,
    },
}

struct DictReader<'py> {
    names: &'py Names,
    places: Vec<Place<'py>>,
    /// What an optional field was just found to be.
    found: Option<Bound<'py, PyAny>>,
}

impl<'py> DictReader<'py> {
    /// `message` is the type at the top; empty where fields are not asked in order.
    fn new(dict: Bound<'py, PyDict>, message: &'static str) -> Self {
        let mut reader = Self {
            names: names(dict.py()),
            places: Vec::with_capacity(4),
            found: None,
        };
        reader.enter(dict, message);
        reader
    }

    fn enter(&mut self, dict: Bound<'py, PyDict>, message: &'static str) {
        let keys = self.names.by_message.get(message);
        let keys = keys.map_or(&[][..], Vec::as_slice);
        self.places.push(Place::Dict { dict, keys });
    }

    /// The value of `name`, or the next element inside of a list; `None` when absent or None.
    fn find(&mut self, name: &'static str) -> Result<Option<Bound<'py, PyAny>>, Malformed> {
        if let Some(found) = self.found.take() {
            return Ok(Some(found));
        }
        let found = match self.places.last_mut() {
            Some(Place::Dict { dict, keys }) => {
                if let Some((key, rest)) = keys.split_first() {
                    *keys = rest;
                    dict.get_item(key)
                } else {
                    dict.get_item(key(dict.py(), self.names, name))
                }
            }
            Some(Place::List { list, next }) => {
                *next += 1;
                list.get_item(*next - 1).map(Some)
            }
            None => Ok(None),
        };
        let found = found.map_err(|_| Malformed::new(name, "cannot be read"))?;
        Ok(found.filter(|value| !value.is_none()))
    }

    fn number<T>(&mut self, name: &'static str, why: &str) -> Result<Option<T>, Malformed>
    where
        T: for<'a> FromPyObject<'a, 'py>,
    {
        let Some(value) = self.find(name)? else {
            return Ok(None);
        };
        value
            .extract::<T>()
            .map(Some)
            .map_err(|_| Malformed::new(name, why))
    }

    fn dict(&self) -> Result<&Bound<'py, PyDict>, Malformed> {
        match self.places.last() {
            Some(Place::Dict { dict, .. }) => Ok(dict),
            Some(Place::List { .. }) | None => Err(Malformed::new("", "is no dict")),
        }
    }

    fn refuse_unknown(&self, known: &[&'static str]) -> Result<(), Malformed> {
        for (key, _) in self.dict()? {
            let name = key.cast::<PyString>();
            let name = name
                .map_err(|_| Malformed::new("", "has a key that is no text"))?
                .to_str()
                .map_err(|_| Malformed::new("", "has a key that is no valid text"))?;
            if !known.contains(&name) {
                return Err(Malformed::new(name, "is not known"));
            }
        }
        Ok(())
    }
}

impl Reader for DictReader<'_> {
    fn boolean(&mut self, name: &'static str) -> Result<bool, Malformed> {
        Ok(self.number::<bool>(name, "is no bool")?.unwrap_or(false))
    }
    fn int(&mut self, name: &'static str) -> Result<i64, Malformed> {
        Ok(self.number::<i64>(name, "is no int64")?.unwrap_or(0))
    }
    fn uint(&mut self, name: &'static str) -> Result<u64, Malformed> {
        Ok(self.number::<u64>(name, "is no uint64")?.unwrap_or(0))
    }
    fn float(&mut self, name: &'static str) -> Result<f64, Malformed> {
        Ok(self.number::<f64>(name, "is no number")?.unwrap_or(0.0))
    }
    fn text(&mut self, name: &'static str) -> Result<Text, Malformed> {
        let Some(value) = self.find(name)? else {
            return Ok(Text::default());
        };
        let text = value
            .cast::<PyString>()
            .map_err(|_| Malformed::new(name, "is no text"))?;
        text.to_str()
            .map(Text::from)
            .map_err(|_| Malformed::new(name, "is no valid text"))
    }
    fn presence(&mut self, name: &'static str) -> Result<bool, Malformed> {
        self.found = self.find(name)?;
        Ok(self.found.is_some())
    }
    fn choice(&mut self, names: &[&'static str]) -> Result<usize, Malformed> {
        let dict = self.dict()?;
        let mut present = names
            .iter()
            .enumerate()
            .filter(|(_, name)| dict.contains(**name).unwrap_or(false))
            .map(|(index, _)| index);
        match (present.next(), present.next()) {
            (Some(index), None) => Ok(index),
            (None, _) => Err(Malformed::new("body", "is missing")),
            (Some(_), Some(_)) => Err(Malformed::new("body", "is there twice")),
        }
    }
    fn open(&mut self, name: &'static str, message: &'static str) -> Result<(), Malformed> {
        let value = self
            .find(name)?
            .ok_or_else(|| Malformed::new(name, "is missing"))?;
        let dict = value
            .cast_into::<PyDict>()
            .map_err(|_| Malformed::new(name, "is no dict"))?;
        self.enter(dict, message);
        Ok(())
    }
    fn close(&mut self, known: &[&'static str]) -> Result<(), Malformed> {
        self.refuse_unknown(known)?;
        self.places.pop();
        Ok(())
    }
    fn open_list(&mut self, name: &'static str) -> Result<usize, Malformed> {
        let list = match self.find(name)? {
            Some(value) => {
                let items = value
                    .try_iter()
                    .and_then(Iterator::collect::<PyResult<Vec<_>>>);
                let items = items.map_err(|_| Malformed::new(name, "is no list"))?;
                PyList::new(value.py(), items).map_err(|_| Malformed::new(name, "is no list"))?
            }
            None => PyList::empty(self.dict()?.py()),
        };
        let length = list.len();
        self.places.push(Place::List { list, next: 0 });
        Ok(length)
    }
    fn close_list(&mut self) -> Result<(), Malformed> {
        self.places.pop();
        Ok(())
    }
}

/// A mapping as a dict; a dict is taken as it is.
fn as_dict<'py>(mapping: &Bound<'py, PyMapping>) -> Result<Bound<'py, PyDict>, Malformed> {
    if let Ok(dict) = mapping.cast::<PyDict>() {
        return Ok(dict.clone());
    }
    let items = mapping
        .items()
        .and_then(|items| PyDict::from_sequence(items.as_any()));
    items.map_err(|_| Malformed::new("", "is no mapping of names"))
}

pub fn message_from_dict<M: Message>(mapping: &Bound<'_, PyMapping>) -> Result<M, Malformed> {
    let mut reader = DictReader::new(as_dict(mapping)?, M::NAME);
    let message = M::read_fields(&mut reader)?;
    reader.refuse_unknown(M::FIELDS)?;
    Ok(message)
}

pub fn event_from_dict(mapping: &Bound<'_, PyMapping>) -> Result<Event, Malformed> {
    let mut reader = DictReader::new(as_dict(mapping)?, "");
    let event = Event::read_fields(&mut reader)?;
    reader.refuse_unknown(&Event::known())?;
    Ok(event)
}
