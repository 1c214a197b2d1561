//! The transition table: what each guard does in each state. One line per edge, nothing implied.
use crate::enums::TradeState::{self, Closed, Healthy, Hedged, Recovering, WarningL1, WarningL2};
use crate::enums::{ActionKind, Purpose, Timer, TransitionCause};
use Guard::{
    BetterHeld, Bos, BrokerClosed, Choch, ChochConfirmed, ClosedByManager, ClosedByOperator,
    FlatTimerEnded, Flip, HedgeClosedByHand, HedgeImpossible, HedgeStopped, RecoveryConfirmed,
    RecoveryFailed, ScoreWorse,
};

/// What can happen to a trade, named from its own side. Whether it happens is decided in
/// [`crate::guard`] (market and timers) and by what the broker reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// A change of character against the trade.
    Choch,
    /// The close after it lies beyond the broken level too.
    ChochConfirmed,
    /// The score is at or below the state's next threshold.
    ScoreWorse,
    /// VWAP and volume flipped against the trade together.
    Flip,
    FlatTimerEnded,
    /// The recovery timer ended and the score confirms.
    RecoveryConfirmed,
    /// The recovery timer ended and it does not.
    RecoveryFailed,
    /// Structure broke in the trade's direction.
    Bos,
    /// A better score held long enough.
    BetterHeld,
    HedgeStopped,
    HedgeClosedByHand,
    HedgeImpossible,
    BrokerClosed,
    ClosedByManager,
    /// An operator closes everything at once, see `Engine::set_kill_switch`.
    ClosedByOperator,
}

impl Guard {
    pub const ALL: [Self; 15] = [
        Choch,
        ChochConfirmed,
        ScoreWorse,
        Flip,
        FlatTimerEnded,
        RecoveryConfirmed,
        RecoveryFailed,
        Bos,
        BetterHeld,
        HedgeStopped,
        HedgeClosedByHand,
        HedgeImpossible,
        BrokerClosed,
        ClosedByManager,
        ClosedByOperator,
    ];

    #[must_use]
    pub const fn cause(self) -> TransitionCause {
        match self {
            Choch | ChochConfirmed => TransitionCause::Choch,
            ScoreWorse => TransitionCause::ScoreWorse,
            Flip => TransitionCause::Flip,
            FlatTimerEnded => TransitionCause::FlatTimer,
            RecoveryConfirmed => TransitionCause::RecoveryConfirmed,
            RecoveryFailed => TransitionCause::RecoveryTimer,
            Bos => TransitionCause::Bos,
            BetterHeld => TransitionCause::ScoreBetter,
            HedgeStopped => TransitionCause::HedgeStopped,
            HedgeClosedByHand => TransitionCause::HedgeClosedByHand,
            HedgeImpossible => TransitionCause::HedgeImpossible,
            BrokerClosed => TransitionCause::BrokerClosed,
            ClosedByManager => TransitionCause::ClosedByManager,
            ClosedByOperator => TransitionCause::ClosedByOperator,
        }
    }
}

/// What an entry asks of the broker.
pub type Entry = (ActionKind, Purpose);

const TIGHTEN: Entry = (ActionKind::Stop, Purpose::Tighten);
const BREAKEVEN: Entry = (ActionKind::Stop, Purpose::Breakeven);
const TRAIL: Entry = (ActionKind::Stop, Purpose::Trail);
const PARTIAL: Entry = (ActionKind::PartialClose, Purpose::Partial);
const OPEN_HEDGE: Entry = (ActionKind::OpenHedge, Purpose::Hedge);
const CLOSE_HEDGE: Entry = (ActionKind::CloseHedge, Purpose::Recover);
const RE_ADD: Entry = (ActionKind::ReAdd, Purpose::Recover);
const DROP_HEDGE: Entry = (ActionKind::CloseHedge, Purpose::Flatten);
const DROP_RE_ADD: Entry = (ActionKind::CloseReAdd, Purpose::Flatten);
const CLOSE: Entry = (ActionKind::Close, Purpose::Flatten);

/// By DTMS: everything goes. By the broker or a manager: the main position is gone already.
const ALL_POSITIONS: &[Entry] = &[DROP_HEDGE, DROP_RE_ADD, CLOSE];
const LEGS: &[Entry] = &[DROP_HEDGE, DROP_RE_ADD];
const FLAT: Option<Timer> = Some(Timer::Flat);
const RECOVERY: Option<Timer> = Some(Timer::Recovery);

/// Where an edge leads, what its entry asks of the broker and which timer it starts. Entering a
/// state ends the timers of the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    pub to: TradeState,
    pub entry: &'static [Entry],
    pub timer: Option<Timer>,
}

#[expect(clippy::unnecessary_wraps, reason = "keeps the table one column wide")]
const fn edge(to: TradeState, entry: &'static [Entry], timer: Option<Timer>) -> Option<Edge> {
    Some(Edge { to, entry, timer })
}

/// The edge of `state` under `guard`; `None`: the guard means nothing there.
#[must_use]
#[rustfmt::skip]
#[expect(clippy::match_same_arms, reason = "one line per edge")]
pub const fn next(state: TradeState, guard: Guard) -> Option<Edge> {
    match (state, guard) {
        (Healthy, ScoreWorse) => edge(WarningL1, &[TIGHTEN], FLAT),
        (Healthy, Bos) => edge(Healthy, &[TRAIL], None),
        (WarningL1, ScoreWorse) => edge(WarningL2, &[PARTIAL, BREAKEVEN], None),
        (WarningL1, BetterHeld) => edge(Healthy, &[], None),
        (WarningL1, FlatTimerEnded) => edge(Closed, ALL_POSITIONS, None),
        (WarningL2, ScoreWorse | Flip) => edge(Hedged, &[OPEN_HEDGE], FLAT),
        (WarningL2, BetterHeld) => edge(WarningL1, &[], None),
        (Hedged, Bos) => edge(Recovering, &[CLOSE_HEDGE], RECOVERY),
        (Hedged, HedgeStopped) => edge(Recovering, &[], RECOVERY),
        (Hedged, HedgeClosedByHand) => edge(WarningL2, &[], None),
        (Hedged, FlatTimerEnded | ChochConfirmed | HedgeImpossible) => edge(Closed, ALL_POSITIONS, None),
        (Recovering, ScoreWorse) => edge(WarningL2, &[BREAKEVEN], None),
        (Recovering, RecoveryConfirmed) => edge(Healthy, &[RE_ADD], None),
        (Recovering, RecoveryFailed | Choch) => edge(Closed, ALL_POSITIONS, None),
        (Healthy | WarningL1 | WarningL2 | Hedged | Recovering, BrokerClosed | ClosedByManager) => edge(Closed, LEGS, None),
        (Healthy | WarningL1 | WarningL2 | Hedged | Recovering, ClosedByOperator) => edge(Closed, ALL_POSITIONS, None),

        (Healthy, Choch | ChochConfirmed | Flip | FlatTimerEnded | RecoveryConfirmed | RecoveryFailed | BetterHeld) => None,
        (WarningL1, Choch | ChochConfirmed | Flip | RecoveryConfirmed | RecoveryFailed | Bos) => None,
        (WarningL2, Choch | ChochConfirmed | FlatTimerEnded | RecoveryConfirmed | RecoveryFailed | Bos) => None,
        (Hedged, Choch | ScoreWorse | Flip | RecoveryConfirmed | RecoveryFailed | BetterHeld) => None,
        (Recovering, ChochConfirmed | Flip | FlatTimerEnded | Bos | BetterHeld) => None,
        (Healthy | WarningL1 | WarningL2 | Recovering, HedgeStopped | HedgeClosedByHand | HedgeImpossible) => None,
        (Closed, Choch | ChochConfirmed | ScoreWorse | Flip | FlatTimerEnded | RecoveryConfirmed | RecoveryFailed
            | Bos | BetterHeld | HedgeStopped | HedgeClosedByHand | HedgeImpossible | BrokerClosed | ClosedByManager
            | ClosedByOperator) => None,
    }
}
