//! The record of one trade, in integers, and how its own facts change it.
use crate::config::{Config, NS_PER_S};
use crate::enums::{LegKind, Origin, Rank, RiskSource, Side, StatePhase, Timer, TradeState};
use crate::error::Result;
use crate::event::{Event, OwnershipGranted, TradeRegistered};
use crate::event::{ManagerRecord, PlannedAction, Score, StateChanged};
use crate::message::{Maybe, Text};
use crate::messages;
use crate::symbol::Symbol;
use crate::symbol::{Points, Steps, scaled_up};

messages! {
    /// A leg in integers.
    LegRecord { ticket: u64, volume: Steps, entry: Points, sl: Option<Points> }

    /// A position that an order of DTMS opened when the trade had no place for it any more: it is closed.
    StrayRecord { ticket: u64, side: Side, volume: Steps, entry: Points }

    /// An entry action in the queue, how often it was tried and not before when it is tried again.
    Queued { action: PlannedAction, attempt: u32, not_before_ns: i64 }

    /// A registered position and its defensive state. `sl` and `tp` are the confirmed levels;
    /// `realised` is what closed volume of the trade and its legs has earned, in points x steps.
    TradeRecord {
        ticket: u64, side: Side, entry: Points, initial_volume: Steps, volume: Steps,
        initial_sl: Option<Points>, initial_tp: Option<Points>, sl: Option<Points>,
        tp: Option<Points>, confirmed_at_ns: i64, set_by_rank: Maybe<Rank>, risk: Option<Points>,
        risk_source: RiskSource, state: TradeState, phase: StatePhase, state_since_ns: i64,
        armed: bool, breakeven_triggered: bool, managed_by: Text, owner_epoch: u64,
        displaced: Text, flat_timer_ends_ns: Option<i64>, recovery_timer_ends_ns: Option<i64>,
        better_since_ns: Option<i64>, partial_taken: bool, closed_volume: Steps,
        hedge_reduction: Steps, hedge: Option<LegRecord>, readd: Option<LegRecord>,
        hedges: u32, hedge_ended_ns: Option<i64>, realised: i64,
        strategy_type: Text, opened_ns: i64, registered_ns: i64, origin: Origin,
        last_score: Option<Score>, queue: Vec<Queued>, current: Option<Queued>,
        in_flight: Option<u64>, managers: Vec<ManagerRecord>, quarantined: bool,
        main_closed: bool, close_price: Option<f64>, revision: u64, registered_revision: u64,
        risk_budget_r: f64, strays: Vec<StrayRecord>, rules: u64,
    }
}

impl TradeRecord {
    /// As it is at registration.
    pub(crate) fn registered(
        event: &Event,
        registered: &TradeRegistered,
        symbol: &Symbol,
        rules: u64,
    ) -> Result<Self> {
        let level = |name: &str, price: Option<f64>| {
            price
                .map(|price| symbol.exact_price(name, price))
                .transpose()
        };
        let (sl, tp) = (level("sl", registered.sl)?, level("tp", registered.tp)?);
        let volume = symbol.exact_volume("volume", registered.volume)?;
        Ok(Self {
            ticket: event.ticket,
            side: registered.side,
            entry: symbol.exact_price("entry_price", registered.entry_price)?,
            initial_volume: volume,
            volume,
            initial_sl: sl,
            initial_tp: tp,
            sl,
            tp,
            confirmed_at_ns: event.time_ns,
            set_by_rank: Maybe(None),
            risk: registered
                .risk_distance
                .and_then(|distance| symbol.distance(distance)),
            risk_source: registered.risk_source,
            state: TradeState::Healthy,
            phase: StatePhase::Confirmed,
            state_since_ns: event.time_ns,
            armed: false,
            breakeven_triggered: false,
            managed_by: Text::default(),
            owner_epoch: 0,
            displaced: Text::default(),
            flat_timer_ends_ns: None,
            recovery_timer_ends_ns: None,
            better_since_ns: None,
            partial_taken: false,
            closed_volume: Steps(0),
            hedge_reduction: Steps(0),
            hedge: None,
            readd: None,
            hedges: 0,
            hedge_ended_ns: None,
            realised: 0,
            strategy_type: registered.strategy_type.clone(),
            opened_ns: registered.opened_ns,
            registered_ns: event.time_ns,
            origin: registered.origin,
            last_score: None,
            queue: Vec::new(),
            current: None,
            in_flight: None,
            managers: Vec::new(),
            quarantined: false,
            main_closed: false,
            close_price: None,
            revision: event.revision,
            registered_revision: event.revision,
            risk_budget_r: 1.0,
            strays: Vec::new(),
            rules,
        })
    }

    /// An adopted trade gets what its client registers it with. What happened since stays.
    pub(crate) fn claim(&mut self, claimed: Self) {
        self.origin = claimed.origin;
        self.strategy_type = claimed.strategy_type;
        self.opened_ns = claimed.opened_ns;
        (self.initial_sl, self.initial_tp) = (claimed.initial_sl, claimed.initial_tp);
        (self.risk, self.risk_source) = (claimed.risk, claimed.risk_source);
        self.revision = claimed.revision;
    }

    pub(crate) fn own(&mut self, granted: &OwnershipGranted) {
        use crate::enums::GrantCause::{
            Acquired, Defensive, Expired, Killed, Registered, Released, Restored, Returned,
        };
        self.managed_by = granted.managed_by.clone();
        self.owner_epoch = granted.owner_epoch;
        self.displaced = match granted.cause {
            Defensive | Restored => granted.displaced.clone(),
            Registered | Acquired | Returned | Released | Expired | Killed => Text::default(),
        };
    }

    #[must_use]
    pub const fn is_defensive(&self) -> bool {
        self.state.is_defensive()
    }

    /// Whether another hedge is allowed now: not too many, and not right after the last.
    #[must_use]
    pub fn may_hedge(&self, config: &Config, now_ns: i64) -> bool {
        let rested = self
            .hedge_pause_ends_ns(config)
            .is_none_or(|ends_ns| ends_ns <= now_ns);
        rested && i64::from(self.hedges) < config.max_hedges
    }

    fn hedge_pause_ends_ns(&self, config: &Config) -> Option<i64> {
        let pause_ns = config.hedge_pause_slow_bars * config.slow_s * NS_PER_S;
        self.hedge_ended_ns.map(|ended_ns| ended_ns + pause_ns)
    }

    /// Books what closing `volume` of one of the trade's positions has earned, in points x steps.
    pub(crate) fn realise(&mut self, side: Side, entry: Points, price: Points, volume: Steps) {
        self.realised += (price - entry).0 * side.sign() * volume.0;
    }

    /// Takes closed volume off a leg; the result is booked where the price is known.
    pub(crate) fn reduce(&mut self, kind: LegKind, volume: Steps, price: Option<Points>) {
        let (leg, side) = match kind {
            LegKind::Hedge => (self.hedge.as_mut(), self.side.opposite()),
            LegKind::ReAdd => (self.readd.as_mut(), self.side),
            LegKind::Main | LegKind::Stray => return,
        };
        let Some(leg) = leg else { return };
        leg.volume = Steps((leg.volume - volume).0.max(0));
        let entry = leg.entry;
        if let Some(price) = price {
            self.realise(side, entry, price, volume);
        }
    }

    /// Books the rest of a leg that is gone.
    pub(crate) fn end_leg(&mut self, kind: LegKind, price: Points) {
        let leg = match kind {
            LegKind::Hedge => self.hedge.as_ref(),
            LegKind::ReAdd => self.readd.as_ref(),
            LegKind::Main | LegKind::Stray => None,
        };
        if let Some(volume) = leg.map(|leg| leg.volume) {
            self.reduce(kind, volume, Some(price));
        }
    }

    pub(crate) fn stray(&mut self, ticket: u64, side: Side, volume: Steps, entry: Points) {
        self.strays.push(StrayRecord {
            ticket,
            side,
            volume,
            entry,
        });
    }

    /// Takes closed volume off a stray; the result is booked where the price is known.
    pub(crate) fn reduce_stray(&mut self, ticket: u64, volume: Steps, price: Option<Points>) {
        let Some(stray) = self.strays.iter_mut().find(|stray| stray.ticket == ticket) else {
            return;
        };
        stray.volume = Steps((stray.volume - volume).0.max(0));
        let (side, entry) = (stray.side, stray.entry);
        if let Some(price) = price {
            self.realise(side, entry, price, volume);
        }
    }

    /// The trade's own position and its legs, as far as they are open: what each is, and its ticket.
    pub fn positions(&self) -> impl Iterator<Item = (LegKind, u64)> + '_ {
        [LegKind::Main, LegKind::Hedge, LegKind::ReAdd]
            .into_iter()
            .filter_map(|leg| self.position(leg).map(|ticket| (leg, ticket)))
            .chain(
                self.strays
                    .iter()
                    .map(|stray| (LegKind::Stray, stray.ticket)),
            )
    }

    /// Whether nothing of the trade is left at the broker.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.positions().next().is_none()
    }

    /// Whether everything that the state's entry asked for is settled and, where the state is a
    /// claim about the broker, true there: HEDGED iff the hedge exists, CLOSED iff nothing is left.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let claim_holds = match self.state {
            TradeState::Hedged => self.hedge.is_some() || self.hedge_reduction > Steps(0),
            TradeState::Closed => self.is_gone(),
            TradeState::Healthy
            | TradeState::WarningL1
            | TradeState::WarningL2
            | TradeState::Recovering => true,
        };
        claim_holds && self.queue.is_empty() && self.current.is_none()
    }

    /// The broker's ticket of one of the trade's positions, if it exists; there may be several strays.
    #[must_use]
    pub fn position(&self, leg: LegKind) -> Option<u64> {
        match leg {
            LegKind::Main => (!self.main_closed).then_some(self.ticket),
            LegKind::Hedge => self.hedge.as_ref().map(|hedge| hedge.ticket),
            LegKind::ReAdd => self.readd.as_ref().map(|readd| readd.ticket),
            LegKind::Stray => None,
        }
    }

    #[must_use]
    pub fn manager(&self, name: &str) -> Option<&ManagerRecord> {
        self.managers.iter().find(|record| record.manager == *name)
    }

    pub(crate) fn note_change(&mut self, manager: &Text, partial: bool, time_ns: i64) {
        self.amend(manager, |record| {
            record.last_change_ns = time_ns;
            record.partial_taken |= partial;
        });
    }

    pub(crate) fn note_memo(&mut self, manager: &Text, memo: &Text) {
        self.amend(manager, |record| record.memo = memo.clone());
    }

    fn amend(&mut self, manager: &Text, change: impl FnOnce(&mut ManagerRecord)) {
        let known = |record: &&mut ManagerRecord| record.manager == *manager;
        if let Some(record) = self.managers.iter_mut().find(known) {
            return change(record);
        }
        let mut record = ManagerRecord {
            manager: manager.clone(),
            partial_taken: false,
            last_change_ns: 0,
            memo: Text::default(),
        };
        change(&mut record);
        self.managers.push(record);
    }

    pub(crate) fn enter(&mut self, change: &StateChanged, time_ns: i64) {
        if change.from != change.to {
            self.state = change.to;
            self.state_since_ns = time_ns;
            self.flat_timer_ends_ns = change.flat_timer_ends_ns;
            self.recovery_timer_ends_ns = change.recovery_timer_ends_ns;
            self.better_since_ns = None;
        }
        self.phase = change.phase;
        self.last_score.clone_from(&change.score);
        let queued = |action: &PlannedAction| Queued {
            action: action.clone(),
            attempt: 0,
            not_before_ns: 0,
        };
        self.queue.extend(change.actions.iter().map(queued));
    }

    pub(crate) fn plan(&mut self, action: &PlannedAction) {
        self.phase = StatePhase::Pending;
        self.queue.push(Queued {
            action: action.clone(),
            attempt: 0,
            not_before_ns: 0,
        });
    }

    pub(crate) fn end_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Flat => self.flat_timer_ends_ns = None,
            Timer::Recovery => self.recovery_timer_ends_ns = None,
        }
    }

    pub(crate) fn settle(&mut self, action_id: u64) {
        self.queue
            .retain(|queued| queued.action.action_id != action_id);
        if self
            .current
            .as_ref()
            .is_some_and(|queued| queued.action.action_id == action_id)
        {
            self.current = None;
        }
    }
}

/// What the hot path compares for one trade: 40 bytes beside the record, so that a tick walks a
/// dense array and touches a record only when something is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The trade is armed when its closing price is at or above / below; beyond reach once armed.
    pub arm_above: i64,
    pub arm_below: i64,
    /// Earliest of timers, hold, arming by time and retries.
    pub deadline_ns: i64,
    pub class: u8,
    pub is_sell: bool,
}

/// Bits of the attention mask: 2 sides x 6 states x holding or not, then:
pub const CLASS_ALWAYS: u8 = 24;
const CLASS_NEVER: u8 = 25;

#[must_use]
pub const fn class(side: Side, state: TradeState, holding: bool) -> u8 {
    let state = match state {
        TradeState::Healthy => 0,
        TradeState::WarningL1 => 1,
        TradeState::WarningL2 => 2,
        TradeState::Hedged => 3,
        TradeState::Recovering => 4,
        TradeState::Closed => 5,
    };
    let side = match side {
        Side::Buy => 0,
        Side::Sell => 12,
    };
    side + state * 2 + holding as u8
}

impl Watch {
    /// What to watch for after everything due at `now_ns` was done.
    #[must_use]
    pub fn of(trade: &TradeRecord, config: &Config, now_ns: i64) -> Self {
        let is_sell = trade.side == Side::Sell;
        let mut watch = Self {
            arm_above: i64::MAX,
            arm_below: i64::MIN,
            deadline_ns: i64::MAX,
            class: CLASS_NEVER,
            is_sell,
        };
        if trade.quarantined {
            return watch;
        }
        let mut due_at = |time_ns: Option<i64>| {
            watch.deadline_ns = watch.deadline_ns.min(time_ns.unwrap_or(i64::MAX));
        };
        let mut waits = false;
        if trade.in_flight.is_none() {
            for queued in &trade.queue {
                if queued.not_before_ns <= now_ns {
                    waits = true;
                    continue;
                }
                due_at(Some(queued.not_before_ns));
                if trade.state != TradeState::Closed {
                    // What stands behind it waits with it.
                    break;
                }
            }
        }
        if trade.state != TradeState::Closed {
            due_at(trade.flat_timer_ends_ns);
            due_at(trade.recovery_timer_ends_ns);
            due_at(
                trade
                    .better_since_ns
                    .map(|since| since + config.hold_s * NS_PER_S),
            );
            if trade.state == TradeState::WarningL2 {
                due_at(
                    trade
                        .hedge_pause_ends_ns(config)
                        .filter(|ends_ns| *ends_ns > now_ns),
                );
            }
            if trade.armed {
                watch.class = class(trade.side, trade.state, trade.better_since_ns.is_some());
            } else {
                due_at(Some(trade.opened_ns + config.arm_after_s * NS_PER_S));
                if let Some(levels) = arm_levels(trade, config) {
                    (watch.arm_below, watch.arm_above) = levels;
                }
            }
            waits |= trade.risk.is_none();
        }
        if waits {
            watch.class = CLASS_ALWAYS;
        }
        watch
    }
}

/// The closing prices (at or below, at or above) that arm the trade; `None` without R.
fn arm_levels(trade: &TradeRecord, config: &Config) -> Option<(i64, i64)> {
    let risk = trade.risk?;
    let gain = scaled_up(config.arm_gain_r, risk.0);
    let loss = scaled_up(-config.arm_loss_r, risk.0);
    Some(match trade.side {
        Side::Buy => (trade.entry.0 - loss, trade.entry.0 + gain),
        Side::Sell => (trade.entry.0 - gain, trade.entry.0 + loss),
    })
}
