//! The facts of the journal and what they are made of, field by field as in `proto/dtms/v1`.
//!
//! Prices are quote-currency doubles, volumes lots, times ns UTC, as on the wire.
use crate::enums::{
    ActionKind, AlarmCode, ArmCause, CloseReason, DenialCode, GrantCause, KillScope, LegKind,
    MarketStructure, Origin, OutcomeStatus, Purpose, Rail, Rank, RiskSource, Session, Side,
    SkipReason, Span, StatePhase, Timer, TradeState, TradingState, TransitionCause, Volatility,
};
use crate::message::{Malformed, Maybe, Message, Reader, Text, Writer};
use crate::messages;

messages! {
    /// The regime that weights the parts and scales the thresholds.
    Regime { session: Maybe<Session>, volatility: Maybe<Volatility>, structure: Maybe<MarketStructure> }

    /// The thresholds in force.
    Thresholds {
        multiplier: f64, warn1: f64, warn1_recovered: f64, warn2: f64, warn2_eased: f64,
        critical: f64, recovery_confirmed: f64,
    }

    /// Trade-relative score, parts weighted by the regime.
    Score {
        total: f64, structure: f64, vwap_volume: f64, momentum: f64, ema_alignment: f64,
        delta_pressure: f64, candle_conviction: f64, regime: Option<Regime>,
        thresholds: Option<Thresholds>, reported_by: Text,
    }

    /// Trading rules of a symbol.
    SymbolSpec {
        symbol: Text, digits: u32, point: f64, tick_size: f64, contract_size: f64, volume_min: f64,
        volume_max: f64, volume_step: f64, stops_level: i64, freeze_level: i64,
        vwap_slope_threshold: f64,
    }

    /// One change asked for.
    Action {
        kind: ActionKind, purpose: Maybe<Purpose>, stop: Option<f64>, target: Option<f64>,
        volume: Option<f64>, allow_loosen: bool,
    }

    /// An entry action waiting for its turn.
    PlannedAction { action_id: u64, kind: ActionKind, purpose: Purpose }

    /// The answer to "may I?" with everything that it was decided on.
    Decision {
        decision_id: u64, request_id: Text, account_id: Text, ticket: u64, manager: Text,
        rank: Maybe<Rank>, action: Action, granted: bool, denial: Maybe<DenialCode>, retryable: bool,
        owner: Text, owner_rank: Maybe<Rank>, owner_epoch: u64, asked_epoch: u64, defensive: bool,
        bid: Option<f64>, ask: Option<f64>, confirmed_sl: Option<f64>, time_ns: i64, dry_run: bool,
        revision: u64, halted_by: Text, gave_way_to: Text,
    }

    /// What the broker said.
    Outcome {
        intent_id: u64, status: OutcomeStatus, retcode: u32, comment: Text, price: Option<f64>,
        volume: Option<f64>, sl: Option<f64>, tp: Option<f64>, opened_ticket: u64, settled: bool,
    }

    /// Another position that belongs to the trade.
    Leg { ticket: u64, volume: f64, entry_price: f64, sl: Option<f64> }

    /// The levels that the broker last echoed.
    ConfirmedLevels { sl: Option<f64>, tp: Option<f64>, confirmed_at_ns: i64, set_by_rank: Maybe<Rank> }

    /// What one manager has done on the trade.
    ManagerRecord { manager: Text, partial_taken: bool, last_change_ns: i64, memo: Text }

    /// A trade as it is shown.
    Trade {
        account_id: Text, ticket: u64, symbol: Text, side: Side, entry_price: f64,
        initial_volume: f64, volume: f64, initial_sl: Option<f64>, initial_tp: Option<f64>,
        confirmed: ConfirmedLevels, risk_distance: Option<f64>, risk_source: RiskSource,
        state: TradeState, phase: StatePhase, state_since_ns: i64, armed: bool,
        breakeven_triggered: bool, managed_by: Text, owner_epoch: u64, owner_rank: Maybe<Rank>,
        displaced_owner: Text, flat_timer_ends_ns: Option<i64>, recovery_timer_ends_ns: Option<i64>,
        better_since_ns: Option<i64>, partial_taken: bool, closed_volume: f64, hedge: Option<Leg>,
        readd: Option<Leg>, strategy_type: Text, opened_ns: i64, registered_ns: i64, origin: Origin,
        last_score: Option<Score>, pending_actions: Vec<PlannedAction>, managers: Vec<ManagerRecord>,
        quarantined: bool, close_price: Option<f64>, revision: u64, risk_budget_r: f64, strays: Vec<Leg>,
        rules_revision: u64,
    }

    /// Who owns a trade.
    Ownership {
        account_id: Text, ticket: u64, managed_by: Text, owner_epoch: u64, owner_rank: Maybe<Rank>,
        lease_remaining_ms: Option<i64>, breakeven_triggered: bool, defensive: bool,
        displaced_owner: Text,
    }

    AccountDefined { hedging: bool, currency: Text }
    SymbolDefined { spec: SymbolSpec }
    TradeRegistered {
        side: Side, entry_price: f64, volume: f64, sl: Option<f64>, tp: Option<f64>,
        risk_distance: Option<f64>, risk_source: RiskSource, strategy_type: Text, opened_ns: i64,
        origin: Origin, registered_by: Text,
    }
    TradeUnregistered { by: Text }
    RiskDefined { risk_distance: f64, risk_source: RiskSource }
    TradeArmed { cause: ArmCause }
    StateChanged {
        from: TradeState, to: TradeState, cause: TransitionCause, phase: StatePhase,
        score: Option<Score>, actions: Vec<PlannedAction>, flat_timer_ends_ns: Option<i64>,
        recovery_timer_ends_ns: Option<i64>, bid: Option<f64>, ask: Option<f64>,
    }
    StateConfirmed { confirmed_state: TradeState }
    HoldChanged { better_since_ns: Option<i64> }
    TimerEnded { timer: Timer }
    DecisionMade { decision: Decision }
    IntentRecorded {
        intent_id: u64, decision_id: u64, action_id: u64, manager: Text, rank: Rank,
        owner_epoch: u64, kind: ActionKind, purpose: Maybe<Purpose>, leg: LegKind, position: u64,
        side: Side, volume: f64, sl: Option<f64>, tp: Option<f64>, attempt: u32,
    }
    OutcomeRecorded { outcome: Outcome, retry_at_ns: Option<i64> }
    ActionSkipped { action: PlannedAction, reason: SkipReason }
    OwnershipGranted {
        managed_by: Text, owner_epoch: u64, rank: Maybe<Rank>, displaced: Text, cause: GrantCause,
    }
    BreakevenTriggered { by: Text }
    PositionChanged { leg: LegKind, volume: f64, sl: Option<f64>, tp: Option<f64>, external: bool }
    LegClosed { leg: LegKind, position: u64, reason: CloseReason, price: f64, profit: f64 }
    QuarantineChanged { quarantined: bool }
    ScoreReported { score: Score, valid_until_ns: i64 }
    AlarmRaised { code: AlarmCode, detail: Text }
    TradingStateChanged { trading_state: TradingState, by: Text, reason: Text }
    KillSwitchChanged {
        scope: KillScope, value: Text, engaged: bool, by: Text, reason: Text, flatten: bool,
    }

    /// A number of the market that is no price of a symbol here.
    Index { name: Text, value: f64, time_ns: i64, valid_until_ns: i64 }

    MemoSet { manager: Text, memo: Text }
    IndexReported { index: Index, by: Text }
    RiskBudgetChanged { budget_r: f64, by: Text, reason: Text }
    RailChanged { rail: Rail, engaged: bool, value: f64, limit: f64, detail: Text }
    AccountMarked { span: Span, start_ns: i64, equity: f64 }
    BackupRestored { made_ns: i64, last_epoch: u64, last_decision: u64, last_intent: u64 }
    ActionPlanned { action: PlannedAction }
    LegFound {
        leg: LegKind, position: u64, side: Side, volume: f64, entry_price: f64, sl: Option<f64>,
        intent_id: u64,
    }

    /// One number of the engine's configuration.
    RuleNumber { key: Text, value: f64, before: Option<f64> }

    RulesChanged { numbers: Vec<RuleNumber>, by: Text }
}

macro_rules! bodies {
    ($($name:ident => $key:literal = $number:literal),+ $(,)?) => {
        /// What happened: exactly one of these.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Body { $($name($name)),+ }

        /// The names of the bodies in [`Event`].
        pub const BODIES: &[&str] = &[$($key),+];

        $(impl From<$name> for Body {
            fn from(body: $name) -> Self {
                Self::$name(body)
            }
        })+

        impl Body {
            /// The message behind each name of [`BODIES`].
            pub const MESSAGES: &'static [&'static str] = &[$(stringify!($name)),+];

            fn write(&self, to: &mut impl Writer) {
                match self {
                    $(Self::$name(body) => {
                        to.choice($number);
                        crate::message::Field::write(body, $key, to);
                    })+
                }
            }

            fn read(from: &mut impl Reader) -> Result<Self, Malformed> {
                match from.choice(BODIES)? {
                    $($number => crate::message::Field::read($key, from).map(Self::$name),)+
                    _ => Err(Malformed::new("body", "is no event of this version")),
                }
            }
        }

        /// Every message of this file as (name, fields with their types).
        #[must_use]
        pub fn schema() -> Vec<(&'static str, Vec<(&'static str, String)>)> {
            let mut listed = vec![
                describe::<Regime>(), describe::<Thresholds>(), describe::<Score>(),
                describe::<SymbolSpec>(), describe::<Action>(), describe::<PlannedAction>(),
                describe::<Decision>(), describe::<Outcome>(), describe::<Leg>(),
                describe::<ConfirmedLevels>(), describe::<ManagerRecord>(), describe::<Trade>(),
                describe::<Ownership>(), describe::<Index>(), describe::<RuleNumber>(), $(describe::<$name>()),+
            ];
            let mut event: Vec<(&'static str, String)> =
                ENVELOPE.iter().map(|(name, kind)| (*name, (*kind).to_owned())).collect();
            event.extend(BODIES.iter().zip(Body::MESSAGES).map(|(key, name)| (*key, (*name).to_owned())));
            listed.push(("Event", event));
            listed
        }
    };
}

// Numbered in the order of Event.body.
bodies! {
    AccountDefined => "account_defined" = 0,
    SymbolDefined => "symbol_defined" = 1,
    TradeRegistered => "trade_registered" = 2,
    TradeUnregistered => "trade_unregistered" = 3,
    RiskDefined => "risk_defined" = 4,
    TradeArmed => "trade_armed" = 5,
    StateChanged => "state_changed" = 6,
    StateConfirmed => "state_confirmed" = 7,
    HoldChanged => "hold_changed" = 8,
    TimerEnded => "timer_ended" = 9,
    DecisionMade => "decision_made" = 10,
    IntentRecorded => "intent_recorded" = 11,
    OutcomeRecorded => "outcome_recorded" = 12,
    ActionSkipped => "action_skipped" = 13,
    OwnershipGranted => "ownership_granted" = 14,
    BreakevenTriggered => "breakeven_triggered" = 15,
    PositionChanged => "position_changed" = 16,
    LegClosed => "leg_closed" = 17,
    QuarantineChanged => "quarantine_changed" = 18,
    ScoreReported => "score_reported" = 19,
    AlarmRaised => "alarm_raised" = 20,
    TradingStateChanged => "trading_state_changed" = 21,
    KillSwitchChanged => "kill_switch_changed" = 22,
    MemoSet => "memo_set" = 23,
    IndexReported => "index_reported" = 24,
    RiskBudgetChanged => "risk_budget_changed" = 25,
    RailChanged => "rail_changed" = 26,
    AccountMarked => "account_marked" = 27,
    BackupRestored => "backup_restored" = 28,
    ActionPlanned => "action_planned" = 29,
    LegFound => "leg_found" = 30,
    RulesChanged => "rules_changed" = 31,
}

const ENVELOPE: &[(&str, &str)] = &[
    ("revision", "uint64"),
    ("time_ns", "int64"),
    ("account_id", "string"),
    ("ticket", "uint64"),
    ("symbol", "string"),
    ("state", "TradeState"),
];

fn describe<M: Message>() -> (&'static str, Vec<(&'static str, String)>) {
    (M::NAME, M::FIELDS.iter().copied().zip(M::kinds()).collect())
}

/// One fact. `state` is the state of the trade after it, `None` where it is not about a trade.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub revision: u64,
    pub time_ns: i64,
    pub account_id: Text,
    pub ticket: u64,
    pub symbol: Text,
    pub state: Maybe<TradeState>,
    pub body: Body,
}

impl Event {
    /// Envelope and body, side by side.
    pub fn write_fields(&self, to: &mut impl Writer) {
        to.uint("revision", self.revision);
        to.int("time_ns", self.time_ns);
        to.text("account_id", &self.account_id);
        to.uint("ticket", self.ticket);
        to.text("symbol", &self.symbol);
        crate::message::Field::write(&self.state, "state", to);
        self.body.write(to);
    }

    /// # Errors
    /// A field does not fit, or there is not exactly one body.
    pub fn read_fields(from: &mut impl Reader) -> Result<Self, Malformed> {
        Ok(Self {
            revision: from.uint("revision")?,
            time_ns: from.int("time_ns")?,
            account_id: from.text("account_id")?,
            ticket: from.uint("ticket")?,
            symbol: from.text("symbol")?,
            state: crate::message::Field::read("state", from)?,
            body: Body::read(from)?,
        })
    }

    /// Names that may stand in an event.
    #[must_use]
    pub fn known() -> Vec<&'static str> {
        ENVELOPE
            .iter()
            .map(|(name, _)| *name)
            .chain(BODIES.iter().copied())
            .collect()
    }
}
