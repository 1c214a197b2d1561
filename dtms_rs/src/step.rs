//! What one call brought about, turned into Python objects when they are asked for.
use dtms_core::engine::{self, Claim, Reply};
use dtms_core::event::{Event, Ownership};
use dtms_core::message::Number;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList};

use crate::dicts::{event_to_dict, message_to_dict};

/// The reply of a call.
pub enum Answer {
    Nothing,
    Created(bool),
    Count(usize),
    Claim(Claim),
    Ownership(Ownership),
    Reply(Box<Reply>),
}

impl Answer {
    fn to_object<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let dict = match self {
            Self::Nothing => return Ok(py.None().into_bound(py)),
            Self::Created(created) => return Ok(created.into_pyobject(py)?.to_owned().into_any()),
            Self::Count(count) => return Ok(count.into_pyobject(py)?.into_any()),
            Self::Ownership(ownership) => message_to_dict(py, ownership)?,
            Self::Claim(claim) => {
                let dict = PyDict::new(py);
                dict.set_item(intern!(py, "granted"), claim.denial.is_none())?;
                dict.set_item(
                    intern!(py, "denial"),
                    claim.denial.map_or(0, Number::number),
                )?;
                dict.set_item(intern!(py, "decision_id"), claim.decision_id)?;
                dict.set_item(
                    intern!(py, "ownership"),
                    message_to_dict(py, &claim.ownership)?,
                )?;
                dict
            }
            Self::Reply(reply) => {
                let dict = PyDict::new(py);
                dict.set_item(
                    intern!(py, "decision"),
                    message_to_dict(py, &reply.decision)?,
                )?;
                dict.set_item(intern!(py, "intent_id"), reply.intent_id)?;
                let outcome = reply
                    .outcome
                    .as_ref()
                    .map(|outcome| message_to_dict(py, outcome));
                dict.set_item(intern!(py, "outcome"), outcome.transpose()?)?;
                dict
            }
        };
        Ok(dict.into_any())
    }
}

/// The events of one call, in order, and its reply.
#[pyclass(frozen, module = "dtms_service._core")]
pub struct Step {
    events: Vec<Event>,
    answer: Answer,
    events_made: PyOnceLock<Py<PyList>>,
    reply_made: PyOnceLock<Py<PyAny>>,
}

impl Step {
    pub fn new<R>(step: engine::Step<R>, answer: impl FnOnce(R) -> Answer) -> Self {
        Self {
            events: step.events,
            answer: answer(step.reply),
            events_made: PyOnceLock::new(),
            reply_made: PyOnceLock::new(),
        }
    }

    /// `None` where nothing happened.
    pub fn if_any(step: engine::Step<()>) -> Option<Self> {
        (!step.events.is_empty()).then(|| Self::new(step, |()| Answer::Nothing))
    }
}

#[pymethods]
impl Step {
    #[getter]
    fn events<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let made = self
            .events_made
            .get_or_try_init(py, || -> PyResult<Py<PyList>> {
                let dicts = self
                    .events
                    .iter()
                    .map(|event| event_to_dict(py, event))
                    .collect::<PyResult<Vec<_>>>()?;
                Ok(PyList::new(py, dicts)?.unbind())
            })?;
        Ok(made.bind(py).clone())
    }

    #[getter]
    fn reply<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let made = self
            .reply_made
            .get_or_try_init(py, || -> PyResult<Py<PyAny>> {
                Ok(self.answer.to_object(py)?.unbind())
            })?;
        Ok(made.bind(py).clone())
    }

    fn __repr__(&self) -> String {
        format!("Step({} events)", self.events.len())
    }
}
