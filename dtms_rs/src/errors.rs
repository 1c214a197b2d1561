//! Errors of the core as Python exceptions, and the guard that makes a panic fatal.
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};

use dtms_core::error::{CoreError as Refusal, Reason};
use pyo3::create_exception;
use pyo3::exceptions::{PyBaseException, PyException};
use pyo3::prelude::*;

create_exception!(
    dtms_service._core,
    CoreError,
    PyException,
    "A call that could not be decided; args are (reason, field, message)."
);
create_exception!(
    dtms_service._core,
    CorePanic,
    PyBaseException,
    "The core contradicts itself: the process has to stop and start again by replay."
);

pub fn refused(refusal: Refusal) -> PyErr {
    CoreError::new_err((refusal.reason.as_str(), refusal.field, refusal.message))
}

/// Runs `work` on what the mutex guards. After a panic, or a contradiction that the core found
/// itself, the mutex stays poisoned: nobody decides on a state that may be half changed.
pub fn guarded<S, R>(
    state: &Mutex<S>,
    work: impl FnOnce(&mut S) -> Result<R, Refusal>,
) -> Result<R, Fault> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut state = state.lock().map_err(|poisoned: PoisonError<_>| {
            drop(poisoned);
            Fault::Panic("the core has stopped after an earlier panic".to_owned())
        })?;
        work(&mut state).map_err(|refusal| {
            if refusal.reason == Reason::CorePanic {
                resume_unwind(Box::new(refusal.message));
            }
            Fault::Refused(refusal)
        })
    }));
    outcome.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| {
            payload
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
        });
        Err(Fault::Panic(
            text.unwrap_or_else(|| "panic without a message".to_owned()),
        ))
    })
}

/// Why a guarded call gave no answer.
pub enum Fault {
    Refused(Refusal),
    Panic(String),
}

impl From<Fault> for PyErr {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(refusal) => refused(refusal),
            Fault::Panic(text) => CorePanic::new_err(text),
        }
    }
}
