//! Why a call could not be decided. A denial is no error: it is data.
use crate::message::Malformed;

/// Machine code of an error: the name of proto's `ErrorReason` without its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    FieldInvalid,
    TradeUnknown,
    AccountUnknown,
    SymbolUnknown,
    TradeDiffers,
    RequestIdReused,
    StaleEpoch,
    TradeClosed,
    FutureRevision,
    /// The engine contradicts itself: the process has to stop and start again by replay.
    CorePanic,
}

impl Reason {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FieldInvalid => "FIELD_INVALID",
            Self::TradeUnknown => "TRADE_UNKNOWN",
            Self::AccountUnknown => "ACCOUNT_UNKNOWN",
            Self::SymbolUnknown => "SYMBOL_UNKNOWN",
            Self::TradeDiffers => "TRADE_DIFFERS",
            Self::RequestIdReused => "REQUEST_ID_REUSED",
            Self::StaleEpoch => "STALE_EPOCH",
            Self::TradeClosed => "TRADE_CLOSED",
            Self::FutureRevision => "FUTURE_REVISION",
            Self::CorePanic => "CORE_PANIC",
        }
    }
}

/// An error with its facts; `field` names what was wrong where the reason is about a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreError {
    pub reason: Reason,
    pub field: String,
    pub message: String,
}

impl CoreError {
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            field: String::new(),
            message: message.into(),
        }
    }

    #[must_use]
    pub fn field(field: &str, message: impl Into<String>) -> Self {
        Self {
            reason: Reason::FieldInvalid,
            field: field.to_owned(),
            message: message.into(),
        }
    }

    #[must_use]
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(Reason::CorePanic, message)
    }
}

impl std::fmt::Display for CoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} {}: {}",
            self.reason.as_str(),
            self.field,
            self.message
        )
    }
}

impl std::error::Error for CoreError {}

impl From<Malformed> for CoreError {
    fn from(malformed: Malformed) -> Self {
        Self::field(&malformed.field, malformed.why)
    }
}

pub type Result<T> = std::result::Result<T, CoreError>;
