//! Messages as Python dicts: fields by name, enumerations as ints, absent optionals left out.
use std::collections::HashMap;

use dtms_core::event::{BODIES, Event, schema};
use dtms_core::message::{Malformed, Message, Reader, Text, Writer};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString};

/// Names of fields, made once: a dict hashes and compares an interned key by address.
static NAMES: PyOnceLock<HashMap<&'static str, Py<PyString>>> = PyOnceLock::new();

fn names(py: Python<'_>) -> &HashMap<&'static str, Py<PyString>> {
    NAMES.get_or_init(py, || {
        let fields = schema()
            .into_iter()
            .flat_map(|(_, fields)| fields)
            .map(|(name, _)| name);
        fields
            .chain(BODIES.iter().copied())
            .map(|name| (name, PyString::intern(py, name).unbind()))
            .collect()
    })
}

enum Level<'py> {
    Dict(Bound<'py, PyDict>),
    List(Bound<'py, PyList>),
}

/// Builds dicts; the first failure of Python (no memory) is kept and reported at the end.
struct DictWriter<'py> {
    py: Python<'py>,
    names: &'py HashMap<&'static str, Py<PyString>>,
    levels: Vec<(&'static str, Level<'py>)>,
    failure: Option<PyErr>,
}

impl<'py> DictWriter<'py> {
    fn new(py: Python<'py>) -> Self {
        let levels = vec![("", Level::Dict(PyDict::new(py)))];
        Self {
            py,
            names: names(py),
            levels,
            failure: None,
        }
    }

    fn put(&mut self, name: &'static str, value: &Bound<'py, PyAny>) {
        let done = match self.levels.last() {
            Some((_, Level::List(list))) => list.append(value),
            Some((_, Level::Dict(dict))) => match self.names.get(name) {
                Some(key) => dict.set_item(key.bind(self.py), value),
                None => dict.set_item(PyString::intern(self.py, name), value),
            },
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
            Level::Dict(dict) => dict.into_any(),
            Level::List(list) => list.into_any(),
        };
        self.put(name, &value);
    }

    fn finish(mut self) -> PyResult<Bound<'py, PyDict>> {
        match (self.failure.take(), self.levels.pop()) {
            (Some(error), _) => Err(error),
            (None, Some((_, Level::Dict(dict)))) => Ok(dict),
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
    fn presence(&mut self, _present: bool) {}
    fn choice(&mut self, _index: u8) {}
    fn open(&mut self, name: &'static str) {
        self.levels.push((name, Level::Dict(PyDict::new(self.py))));
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

pub fn message_to_dict<'py>(
    py: Python<'py>,
    message: &impl Message,
) -> PyResult<Bound<'py, PyDict>> {
    let mut writer = DictWriter::new(py);
    message.write_fields(&mut writer);
    writer.finish()
}

pub fn event_to_dict<'py>(py: Python<'py>, event: &Event) -> PyResult<Bound<'py, PyDict>> {
    let mut writer = DictWriter::new(py);
    event.write_fields(&mut writer);
    writer.finish()
}

enum Place<'py> {
    Dict(Bound<'py, PyDict>),
    List {
        list: Bound<'py, PyList>,
        next: usize,
    },
}

struct DictReader<'py> {
    places: Vec<Place<'py>>,
}

impl<'py> DictReader<'py> {
    fn new(dict: Bound<'py, PyDict>) -> Self {
        Self {
            places: vec![Place::Dict(dict)],
        }
    }

    /// The value of `name`, or the next element inside of a list; `None` when absent or None.
    fn find(&mut self, name: &'static str) -> Result<Option<Bound<'py, PyAny>>, Malformed> {
        let found = match self.places.last_mut() {
            Some(Place::Dict(dict)) => dict.get_item(name),
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
            Some(Place::Dict(dict)) => Ok(dict),
            Some(Place::List { .. }) | None => Err(Malformed::new("", "is no dict")),
        }
    }

    fn refuse_unknown(&self, known: &[&'static str]) -> Result<(), Malformed> {
        for key in self.dict()?.keys() {
            let name = key
                .extract::<String>()
                .map_err(|_| Malformed::new("", "has a key that is no text"))?;
            if !known.contains(&name.as_str()) {
                return Err(Malformed::new(&name, "is not known"));
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
        let found = self
            .dict()?
            .get_item(name)
            .map_err(|_| Malformed::new(name, "cannot be read"))?;
        Ok(found.is_some_and(|value| !value.is_none()))
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
    fn open(&mut self, name: &'static str) -> Result<(), Malformed> {
        let value = self
            .find(name)?
            .ok_or_else(|| Malformed::new(name, "is missing"))?;
        let dict = value
            .cast_into::<PyDict>()
            .map_err(|_| Malformed::new(name, "is no dict"))?;
        self.places.push(Place::Dict(dict));
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
    let mut reader = DictReader::new(as_dict(mapping)?);
    let message = M::read_fields(&mut reader)?;
    reader.refuse_unknown(M::FIELDS)?;
    Ok(message)
}

pub fn event_from_dict(mapping: &Bound<'_, PyMapping>) -> Result<Event, Malformed> {
    let mut reader = DictReader::new(as_dict(mapping)?);
    let event = Event::read_fields(&mut reader)?;
    reader.refuse_unknown(&Event::known())?;
    Ok(event)
}
