//! The enumerations of `dtms.v1`, with its numbers. 0, UNSPECIFIED, is [`crate::message::Maybe`].
use crate::message::Number;
use crate::numbers;

numbers! {
    /// Direction of a position.
    Side { Buy = 1, Sell = 2 }

    /// Defensive state of a trade; `Closed` is final.
    TradeState { Healthy = 1, WarningL1 = 2, WarningL2 = 3, Hedged = 4, Recovering = 5, Closed = 6 }

    /// Whether the broker has confirmed the entry actions of the state.
    StatePhase { Pending = 1, Confirmed = 2 }

    /// What R was taken from.
    RiskSource { Stop = 1, Atr = 2, Pending = 3 }

    /// How a trade came into the registry.
    Origin { Client = 1, External = 2 }

    /// Priority of a manager on a trade, lowest first.
    Rank { ProfitProtection = 1, DtmsNormal = 2, Strategy = 3, DtmsDefensive = 4 }

    /// Why ownership changed hands.
    GrantCause {
        Registered = 1, Acquired = 2, Defensive = 3, Returned = 4, Released = 5, Expired = 6, Killed = 7,
        Restored = 8
    }

    /// What is done to a position.
    ActionKind {
        Stop = 1, Target = 2, PartialClose = 3, Close = 4, OpenHedge = 5, CloseHedge = 6, ReAdd = 7,
        CloseReAdd = 8, CloseStray = 9, Acquire = 10
    }

    /// Why it is done.
    Purpose {
        Tighten = 1, Breakeven = 2, Trail = 3, Partial = 4, Widen = 5, Hedge = 6, Flatten = 7,
        Recover = 8, Other = 9
    }

    /// Why an entry action was settled without a command.
    SkipReason {
        MinVolume = 1, NoChange = 2, NotLegal = 3, Superseded = 4, Denied = 5, NoAtr = 6,
        RiskBudget = 7, AlreadyDone = 8, NoRisk = 9, NothingToDo = 10, Rejected = 11
    }

    /// Why a proposal was denied, in order of precedence.
    DenialCode {
        TradeUnknown = 1, TradeClosed = 2, Halted = 3, StaleEpoch = 4, DtmsDefensive = 5,
        OwnedByOther = 6, InFlight = 7, Cooldown = 8, Loosens = 9, RiskBudget = 10, InvalidStop = 11,
        Frozen = 12, MinVolume = 13, NoChange = 14
    }

    /// How a command ended at the broker.
    OutcomeStatus { Confirmed = 1, Rejected = 2, Unknown = 3 }

    /// Why a state was left.
    TransitionCause {
        ScoreWorse = 1, ScoreBetter = 2, Flip = 3, Bos = 4, Choch = 5, FlatTimer = 6,
        RecoveryTimer = 7, RecoveryConfirmed = 8, HedgeStopped = 9, HedgeClosedByHand = 10,
        BrokerClosed = 11, HedgeImpossible = 12, ClosedByManager = 13, ClosedByOperator = 14
    }

    /// What armed a trade.
    ArmCause { Gain = 1, Loss = 2, Time = 3 }

    /// Why a position went away.
    CloseReason { Client = 1, Dtms = 2, StopLoss = 3, TakeProfit = 4, StopOut = 5 }

    /// A timer of a trade.
    Timer { Flat = 1, Recovery = 2 }

    /// Which position of a trade.
    LegKind { Main = 1, Hedge = 2, ReAdd = 3, Stray = 4 }

    /// What an alarm is about.
    AlarmCode {
        ActionFailed = 1, TradingDisabled = 2, HedgeFailed = 3, DataStale = 4, Quarantined = 5, NewsCalendar = 6,
        GatewayFailed = 7, BrokerLinkLost = 8, AccountSwitched = 9, LateExecution = 10,
        JournalDamaged = 11, LostLeg = 12
    }

    /// Whether new risk may be taken.
    TradingState { Active = 1, Reducing = 2, Halted = 3 }

    /// A safety rail: while it is tripped, nothing that adds risk is allowed.
    Rail { DailyLoss = 1, HourlyLoss = 2, ConsecutiveStops = 3, News = 4, Spread = 5, StaleData = 6 }

    /// Over which time a loss is counted.
    Span { Day = 1, Hour = 2 }

    /// What a kill switch stops.
    KillScope { Account = 1, Symbol = 2, Manager = 3 }

    /// Trading session by UTC hour.
    Session { Asian = 1, London = 2, Overlap = 3, NewYork = 4, Off = 5 }

    /// ATR against its own mean.
    Volatility { Low = 1, Normal = 2, High = 3 }

    /// Width of the Bollinger band.
    MarketStructure { Range = 1, Trend = 2 }
}

impl Side {
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Buy => Self::Sell,
            Self::Sell => Self::Buy,
        }
    }

    /// +1 for a BUY, -1 for a SELL: multiplied by it, every rule is written once, for a BUY.
    #[must_use]
    pub const fn sign(self) -> i64 {
        match self {
            Self::Buy => 1,
            Self::Sell => -1,
        }
    }
}

impl TradeState {
    /// The states in which only DTMS acts. The one place that decides it.
    #[must_use]
    pub const fn is_defensive(self) -> bool {
        match self {
            Self::WarningL2 | Self::Hedged => true,
            Self::Healthy | Self::WarningL1 | Self::Recovering | Self::Closed => false,
        }
    }
}

impl DenialCode {
    /// Whether the same proposal may be granted later.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::Halted
            | Self::DtmsDefensive
            | Self::OwnedByOther
            | Self::InFlight
            | Self::Cooldown
            | Self::InvalidStop
            | Self::Frozen => true,
            Self::TradeUnknown
            | Self::TradeClosed
            | Self::StaleEpoch
            | Self::Loosens
            | Self::RiskBudget
            | Self::MinVolume
            | Self::NoChange => false,
        }
    }
}

/// Something to be done with every enumeration.
pub trait Visitor: Sized {
    #[must_use]
    fn visit<T: Number>(self) -> Self;
}

/// Shows every enumeration to `visitor`.
#[must_use]
pub fn all<V: Visitor>(visitor: V) -> V {
    visitor
        .visit::<Side>()
        .visit::<TradeState>()
        .visit::<StatePhase>()
        .visit::<RiskSource>()
        .visit::<Origin>()
        .visit::<Rank>()
        .visit::<GrantCause>()
        .visit::<ActionKind>()
        .visit::<Purpose>()
        .visit::<SkipReason>()
        .visit::<DenialCode>()
        .visit::<OutcomeStatus>()
        .visit::<TransitionCause>()
        .visit::<ArmCause>()
        .visit::<CloseReason>()
        .visit::<Timer>()
        .visit::<LegKind>()
        .visit::<AlarmCode>()
        .visit::<TradingState>()
        .visit::<Rail>()
        .visit::<Span>()
        .visit::<KillScope>()
        .visit::<Session>()
        .visit::<Volatility>()
        .visit::<MarketStructure>()
}
