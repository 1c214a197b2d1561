//! An engine under test with a clock, a broker that obeys, a mirror, and a twin that lives on events.
//!
//! Prices are integers, written for a BUY. A mirrored rig turns every price about [`PIVOT`] and every
//! side round, so one scenario tests both. A point is 2^-16: mirrored doubles are exact.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::too_many_arguments,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "test support: a failed expectation is a failed test"
)]
pub mod rails;
pub mod text;

use dtms_core::engine::{Engine, Proposal, Registration, Reply, Step};
use dtms_core::enums::{
    ActionKind, CloseReason, KillScope, LegKind, Origin, OutcomeStatus, Purpose, Side, TradeState,
    TradingState,
};
use dtms_core::error::{CoreError, Result};
use dtms_core::event::{
    Action, Body, Event, IntentRecorded, Outcome, PlannedAction, SymbolSpec, Trade,
};
use dtms_core::market::Bar;
use dtms_core::message::{Maybe, Text};
use dtms_core::rails::Blackout;

pub const ACCOUNT: &str = "7@paper";
pub const SYMBOL: &str = "EURUSD";
pub const TICKET: u64 = 77;
pub const PIVOT: i64 = 110_000;
pub const SCALE: f64 = 65_536.0;
pub const S: i64 = 1_000_000_000;
/// Tuesday, 14 November 2023, 08:30 UTC: London, where the multiplier of the thresholds is 1.
pub const START_S: i64 = 1_699_950_600;
pub const EXIT: &str = "intelligent_exit_manager";
pub const UNIVERSAL: &str = "universal_sl_tp_manager";
pub const MANAGED: &str = "trend_continuation_pullback";
const FOR_EVER: i64 = i64::MAX;

/// The numbers of the default configuration, on bars of one minute.
pub const CONFIG: [(&str, f64); 36] = [
    ("warn1", -2.0),
    ("warn1_recovered", 0.0),
    ("warn2", -4.0),
    ("warn2_eased", -2.0),
    ("critical", -6.0),
    ("recovery_confirmed", 1.0),
    ("tighten_r", 0.3),
    ("arm_gain_r", 0.2),
    ("arm_loss_r", -0.5),
    ("arm_after_s", 900.0),
    ("hold_s", 60.0),
    ("partial_fraction", 0.5),
    ("hedge_ratio", 0.5),
    ("hedge_stop_atr", 0.5),
    ("flat_timer_slow_bars", 5.0),
    ("recovery_timer_slow_bars", 2.0),
    ("readd_fraction", 0.5),
    ("fast_s", 60.0),
    ("slow_s", 60.0),
    ("trail_buffer_atr", 0.1),
    ("lease_ttl_ms", 30_000.0),
    ("cooldown_ms", 0.0),
    ("deviation_points", 20.0),
    ("magic", 1.0),
    ("max_retries", 3.0),
    ("hedge_pause_slow_bars", 2.0),
    ("max_hedges", 3.0),
    ("stale_after_s", 300.0),
    ("daily_loss_percent", 2.0),
    ("hourly_loss_percent", 1.0),
    ("consecutive_stops", 3.0),
    ("spread_factor", 2.0),
    ("request_ids_kept", 100.0),
    ("decisions_kept", 100.0),
    ("close_on_flat_timer_l1", 0.0),
    ("allow_loosen", 1.0),
];

pub struct Setup {
    pub mirror: bool,
    pub hedging: bool,
    pub config: Vec<(&'static str, f64)>,
    pub spec: SymbolSpec,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            mirror: false,
            hedging: true,
            config: CONFIG.to_vec(),
            spec: spec(),
        }
    }
}

impl Setup {
    pub fn mirrored(mirror: bool) -> Self {
        Self {
            mirror,
            ..Self::default()
        }
    }

    pub fn with(mut self, key: &str, value: f64) -> Self {
        self.config
            .iter_mut()
            .find(|(name, _)| *name == key)
            .unwrap()
            .1 = value;
        self
    }

    pub fn rig(self) -> Rig {
        Rig::new(self)
    }
}

pub fn spec() -> SymbolSpec {
    SymbolSpec {
        symbol: Text::from(SYMBOL),
        digits: 5,
        point: 1.0 / SCALE,
        tick_size: 1.0 / SCALE,
        contract_size: 100_000.0,
        volume_min: 0.01,
        volume_max: 100.0,
        volume_step: 0.01,
        stops_level: 10,
        freeze_level: 0,
        vwap_slope_threshold: 0.001,
    }
}

pub fn managers() -> [(&'static str, i64); 2] {
    [(UNIVERSAL, 3), (EXIT, 1)]
}

pub struct Rig {
    pub engine: Engine,
    twin: Engine,
    pub mirror: bool,
    pub now_s: i64,
    pub mono_ns: i64,
    pub log: Vec<Event>,
    config: Vec<(&'static str, f64)>,
    next_position: u64,
    next_request: u32,
    last_close: i64,
    bar_s: i64,
}

impl Rig {
    pub fn new(setup: Setup) -> Self {
        let build = || Engine::try_new(&setup.config, &managers(), &[MANAGED]).unwrap();
        let mut rig = Self {
            engine: build(),
            twin: build(),
            mirror: setup.mirror,
            now_s: START_S,
            mono_ns: 0,
            log: Vec::new(),
            config: setup.config.clone(),
            next_position: 900,
            next_request: 0,
            last_close: PIVOT,
            bar_s: START_S,
        };
        rig.engine.start(0).unwrap();
        let now_ns = rig.now_ns();
        let step = rig
            .engine
            .define_account(ACCOUNT, setup.hedging, "USD", now_ns);
        rig.take(step).unwrap();
        let step = rig.engine.define_symbol(ACCOUNT, setup.spec, now_ns);
        rig.take(step).unwrap();
        rig
    }

    pub fn now_ns(&self) -> i64 {
        self.now_s * S
    }

    pub fn price(&self, points: i64) -> f64 {
        let points = if self.mirror {
            2 * PIVOT - points
        } else {
            points
        };
        points as f64 / SCALE
    }

    pub fn points(&self, price: f64) -> i64 {
        #[allow(clippy::cast_possible_truncation, reason = "prices of tests are small")]
        let points = (price * SCALE).round() as i64;
        if self.mirror {
            2 * PIVOT - points
        } else {
            points
        }
    }

    pub fn side(&self, side: Side) -> Side {
        if self.mirror { side.opposite() } else { side }
    }

    /// Keeps the events, folds them into the twin, and demands that both agree at once.
    pub fn take<R>(&mut self, step: Result<Step<R>>) -> Result<(Vec<Event>, R)> {
        let step = step?;
        for event in &step.events {
            self.twin.apply(event).unwrap();
            self.log.push(event.clone());
        }
        assert_eq!(
            self.engine.revision(),
            self.log.len() as u64,
            "revisions have gaps"
        );
        Ok((step.events, step.reply))
    }

    /// State = fold of the events, and a snapshot restores it.
    pub fn check_fold(&self) {
        let snapshot = self.engine.snapshot();
        assert_eq!(
            snapshot,
            self.twin.snapshot(),
            "the twin that only saw events differs"
        );
        let mut restored = Engine::try_new(&CONFIG, &managers(), &[MANAGED]).unwrap();
        restored.restore(&snapshot).unwrap();
        assert_eq!(snapshot, restored.snapshot(), "the restored engine differs");
    }

    /// These numbers in place of those before, while the engine runs.
    pub fn reload(&mut self, numbers: &[(&str, f64)]) -> Result<Vec<Event>> {
        let mut config = self.config.clone();
        for (key, value) in numbers {
            config.iter_mut().find(|(name, _)| name == key).unwrap().1 = *value;
        }
        let step =
            self.engine
                .reconfigure(&config, &managers(), &[MANAGED], "operator", self.now_ns());
        let (events, ()) = self.take(step)?;
        self.config = config;
        Ok(events)
    }

    /// The process ends, and starts with these numbers: it records them where they are others.
    pub fn restart_with(&mut self, numbers: &[(&str, f64)]) -> Vec<Event> {
        for (key, value) in numbers {
            let known = self.config.iter_mut().find(|(name, _)| name == key);
            known.unwrap().1 = *value;
        }
        self.restart();
        let step = self.engine.record_rules("", self.now_ns());
        self.take(step).unwrap().0
    }

    /// The process dies and comes back: state from a snapshot, the market from nothing.
    pub fn restart(&mut self) {
        let snapshot = self.engine.snapshot();
        self.engine = Engine::try_new(&self.config, &managers(), &[MANAGED]).unwrap();
        self.engine.restore(&snapshot).unwrap();
        self.engine.start(self.mono_ns).unwrap();
        // The twin's market is as old; only its state is compared.
    }

    /// The same from the journal alone: every event from the first on.
    pub fn refold(&mut self) {
        self.engine = Engine::try_new(&self.config, &managers(), &[MANAGED]).unwrap();
        for event in &self.log {
            self.engine.apply(event).unwrap();
        }
        self.engine.start(self.mono_ns).unwrap();
    }

    pub fn tick(&mut self, points: i64) -> Vec<Event> {
        self.quote(points, points).unwrap()
    }

    pub fn quote(&mut self, bid: i64, ask: i64) -> Result<Vec<Event>> {
        let (bid, ask) = if self.mirror { (ask, bid) } else { (bid, ask) };
        let (bid, ask) = (self.price(bid), self.price(ask));
        let step = self.engine.on_tick(
            ACCOUNT,
            SYMBOL,
            self.now_s * 1_000,
            bid,
            ask,
            1.0,
            self.now_ns(),
        );
        Ok(self.take(step)?.0)
    }

    /// A closed bar of the minute that is forming, from the last close to `close`; time goes on to
    /// its end.
    pub fn bar(&mut self, close: i64, volume: f64) -> Vec<Event> {
        self.bar_s = self.bar_s.max(self.now_s - self.now_s.rem_euclid(60));
        let open = self.last_close;
        let (high, low) = (open.max(close) + 20, open.min(close) - 20);
        let (high, low) = if self.mirror {
            (low, high)
        } else {
            (high, low)
        };
        let bar = Bar {
            time_s: self.bar_s,
            open: self.price(open),
            high: self.price(high),
            low: self.price(low),
            close: self.price(close),
            volume,
        };
        self.last_close = close;
        self.bar_s += 60;
        self.now_s = self.now_s.max(self.bar_s);
        let step = self.engine.on_bar(ACCOUNT, SYMBOL, 60, bar, self.now_ns());
        let (events, taken) = self.take(step).unwrap();
        assert!(taken, "the bar was ignored");
        events
    }

    /// 18 minutes of zigzag within 109,700..=110,300: ATR is warm (about 240 points), swings are
    /// known, nothing is broken.
    pub fn warm(&mut self) {
        for leg in 0..6 {
            let step = if leg % 2 == 0 { 200 } else { -200 };
            for _ in 0..3 {
                let close = if leg == 0 {
                    self.last_close + step / 2
                } else {
                    self.last_close + step
                };
                self.bar(close, 10.0);
            }
        }
    }

    pub fn pass(&mut self, seconds: i64) -> Vec<Event> {
        self.now_s += seconds;
        self.mono_ns += seconds * S;
        let step = self.engine.on_time(self.now_ns(), self.mono_ns);
        self.take(step).unwrap().0
    }

    /// A score of the trade's side, valid for ever.
    pub fn score(&mut self, total: f64) -> Vec<Event> {
        let total = if self.mirror { -total } else { total };
        let step = self.engine.report_score(
            ACCOUNT,
            SYMBOL,
            &[("total", total)],
            "test",
            FOR_EVER,
            self.now_ns(),
        );
        self.take(step).unwrap().0
    }

    /// A BUY of one lot at 110,000, R = 1,000, old enough to be armed at once.
    pub fn register(&mut self) -> Vec<Event> {
        self.register_as("", 1_000, Some(109_000), Some(113_000), 1.0)
    }

    pub fn register_as(
        &mut self,
        strategy: &str,
        age_s: i64,
        sl: Option<i64>,
        tp: Option<i64>,
        volume: f64,
    ) -> Vec<Event> {
        self.try_register(TICKET, strategy, age_s, sl, tp, volume)
            .unwrap()
    }

    pub fn try_register(
        &mut self,
        ticket: u64,
        strategy_type: &str,
        age_s: i64,
        sl: Option<i64>,
        tp: Option<i64>,
        volume: f64,
    ) -> Result<Vec<Event>> {
        self.try_register_from(Origin::Client, ticket, strategy_type, age_s, sl, tp, volume)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a registration has so many fields"
    )]
    pub fn try_register_from(
        &mut self,
        origin: Origin,
        ticket: u64,
        strategy_type: &str,
        age_s: i64,
        sl: Option<i64>,
        tp: Option<i64>,
        volume: f64,
    ) -> Result<Vec<Event>> {
        let asked = Registration {
            account_id: ACCOUNT,
            ticket,
            symbol: SYMBOL,
            side: self.side(Side::Buy),
            entry_price: self.price(PIVOT),
            volume,
            sl: sl.map(|sl| self.price(sl)),
            tp: tp.map(|tp| self.price(tp)),
            strategy_type,
            opened_ns: (START_S - age_s) * S,
            origin,
            registered_by: "test",
        };
        let step = self.engine.register(&asked, self.now_ns(), self.mono_ns);
        Ok(self.take(step)?.0)
    }

    pub fn trade(&self) -> Trade {
        self.engine.trade(ACCOUNT, TICKET).unwrap().unwrap()
    }

    pub fn state(&self) -> TradeState {
        self.trade().state
    }

    pub fn intents(&self) -> Vec<IntentRecorded> {
        self.engine
            .open_intents()
            .map(|open| open.intent.clone())
            .collect()
    }

    pub fn intent(&self) -> IntentRecorded {
        let intents = self.intents();
        assert_eq!(
            intents.len(),
            1,
            "one command is expected at the broker: {intents:?}"
        );
        intents[0].clone()
    }

    /// What an obedient broker answers.
    pub fn done(&mut self, intent: &IntentRecorded) -> Outcome {
        let mut outcome = outcome(intent.intent_id, OutcomeStatus::Confirmed, 10_009);
        match intent.kind {
            ActionKind::Stop | ActionKind::Target => {
                (outcome.sl, outcome.tp) = (intent.sl, intent.tp);
            }
            ActionKind::PartialClose
            | ActionKind::Close
            | ActionKind::OpenHedge
            | ActionKind::CloseHedge
            | ActionKind::ReAdd
            | ActionKind::CloseReAdd
            | ActionKind::CloseStray => {
                outcome.price = Some(self.price(PIVOT));
                outcome.volume = Some(intent.volume);
                if intent.position == 0 {
                    outcome.opened_ticket = self.next_position;
                    outcome.sl = intent.sl;
                    self.next_position += 1;
                }
            }
            ActionKind::Acquire => panic!("a claim never reaches a broker"),
        }
        outcome
    }

    pub fn answer(&mut self, outcome: Outcome) -> Result<Vec<Event>> {
        let step = self.engine.on_outcome(outcome, self.now_ns());
        Ok(self.take(step)?.0)
    }

    pub fn confirm(&mut self) -> Vec<Event> {
        let intent = self.intent();
        let outcome = self.done(&intent);
        self.answer(outcome).unwrap()
    }

    pub fn refuse(&mut self, retcode: u32) -> Vec<Event> {
        let intent = self.intent();
        self.answer(outcome(intent.intent_id, OutcomeStatus::Rejected, retcode))
            .unwrap()
    }

    /// Confirms until nothing is left at the broker.
    pub fn settle(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while !self.intents().is_empty() {
            events.extend(self.confirm());
        }
        events
    }

    pub fn closed(&mut self, position: u64, reason: CloseReason, price: i64) -> Vec<Event> {
        let price = self.price(price);
        let step = self
            .engine
            .on_closed(ACCOUNT, position, reason, price, 0.0, self.now_ns());
        self.take(step).unwrap().0
    }

    /// The main position is closed with this result, in account currency.
    pub fn closed_with(&mut self, ticket: u64, reason: CloseReason, profit: f64) -> Vec<Event> {
        let price = self.price(PIVOT);
        let step = self
            .engine
            .on_closed(ACCOUNT, ticket, reason, price, profit, self.now_ns());
        self.take(step).unwrap().0
    }

    pub fn equity(&mut self, equity: f64) -> Vec<Event> {
        let step = self.engine.on_account(ACCOUNT, equity, self.now_ns());
        self.take(step).unwrap().0
    }

    /// News from `start_s` to `end_s`, seconds from now.
    pub fn news(&mut self, blackouts: &[(i64, i64, &str)]) -> Vec<Event> {
        let at = |seconds: i64| (self.now_s + seconds) * S;
        let blackouts = blackouts
            .iter()
            .map(|(start_s, end_s, label)| Blackout {
                start_ns: at(*start_s),
                end_ns: at(*end_s),
                label: Text::from(*label),
            })
            .collect();
        let step = self
            .engine
            .set_news(ACCOUNT, SYMBOL, blackouts, self.now_ns());
        self.take(step).unwrap().0
    }

    pub fn trading(&mut self, state: TradingState) -> Vec<Event> {
        let step = self
            .engine
            .set_trading_state(state, "op", "test", self.now_ns());
        self.take(step).unwrap().0
    }

    pub fn kill(&mut self, scope: KillScope, value: &str, engaged: bool) -> Vec<Event> {
        let step =
            self.engine
                .set_kill_switch(scope, value, engaged, false, "op", "test", self.now_ns());
        self.take(step).unwrap().0
    }

    pub fn hedge(&self) -> u64 {
        self.trade().hedge.unwrap().ticket
    }

    pub fn propose(&mut self, manager: &str, action: &Action) -> Reply {
        let epoch = self
            .engine
            .ownership(ACCOUNT, TICKET, self.mono_ns)
            .unwrap()
            .map_or(0, |it| it.owner_epoch);
        self.next_request += 1;
        let request_id = format!("r{}", self.next_request);
        self.try_propose(manager, &request_id, epoch, action)
            .unwrap()
            .1
    }

    pub fn try_propose(
        &mut self,
        manager: &str,
        request_id: &str,
        owner_epoch: u64,
        action: &Action,
    ) -> Result<(Vec<Event>, Reply)> {
        let asked = Proposal {
            manager,
            request_id,
            account_id: ACCOUNT,
            ticket: TICKET,
            owner_epoch,
            action,
            dry_run: false,
        };
        let step = self.engine.propose(&asked, self.now_ns(), self.mono_ns);
        self.take(step)
    }

    pub fn stop(&self, points: i64, allow_loosen: bool) -> Action {
        Action {
            stop: Some(self.price(points)),
            allow_loosen,
            ..action(ActionKind::Stop)
        }
    }

    /// A trade that has come to `state` through the table, every action done, the score neutral.
    pub fn bring_to(&mut self, state: TradeState) {
        self.score(-1.0);
        self.register();
        self.tick(PIVOT);
        let scores: &[f64] = match state {
            TradeState::Healthy | TradeState::Closed => &[],
            TradeState::WarningL1 => &[-3.0, -1.0],
            TradeState::WarningL2 => &[-5.0, -3.0],
            TradeState::Hedged | TradeState::Recovering => &[-7.0, -3.0],
        };
        for score in scores {
            self.score(*score);
            self.settle();
        }
        match state {
            TradeState::Recovering => {
                let hedge = self.hedge();
                self.closed(hedge, CloseReason::StopLoss, PIVOT + 120);
            }
            TradeState::Closed => {
                self.closed(TICKET, CloseReason::StopLoss, 109_000);
            }
            TradeState::Healthy
            | TradeState::WarningL1
            | TradeState::WarningL2
            | TradeState::Hedged => {}
        }
        assert_eq!(self.state(), state);
        assert!(self.intents().is_empty());
    }

    pub fn leg(&self, leg: LegKind) -> Option<u64> {
        let trade = self.trade();
        match leg {
            LegKind::Main => Some(trade.ticket),
            LegKind::Hedge => trade.hedge.map(|leg| leg.ticket),
            LegKind::ReAdd => trade.readd.map(|leg| leg.ticket),
            LegKind::Stray => trade.strays.first().map(|leg| leg.ticket),
        }
    }
}

pub fn action(kind: ActionKind) -> Action {
    Action {
        kind,
        purpose: Maybe(Some(Purpose::Other)),
        stop: None,
        target: None,
        volume: None,
        allow_loosen: false,
    }
}

pub fn outcome(intent_id: u64, status: OutcomeStatus, retcode: u32) -> Outcome {
    Outcome {
        intent_id,
        status,
        retcode,
        comment: Text::from(""),
        price: None,
        volume: None,
        sl: None,
        tp: None,
        opened_ticket: 0,
        settled: false,
    }
}

pub fn refused<T>(result: Result<T>) -> CoreError {
    result.err().unwrap_or_else(|| panic!("it was accepted"))
}

/// The bodies of one kind in order.
#[macro_export]
macro_rules! bodies {
    ($events:expr, $kind:ident) => {
        $events
            .iter()
            .filter_map(|event| {
                if let dtms_core::event::Body::$kind(body) = &event.body {
                    Some(body.clone())
                } else {
                    None
                }
            })
            .collect::<Vec<_>>()
    };
}

pub fn kinds(actions: &[PlannedAction]) -> Vec<(ActionKind, Purpose)> {
    actions
        .iter()
        .map(|action| (action.kind, action.purpose))
        .collect()
}

pub fn is_body(event: &Event, name: &str) -> bool {
    format!("{:?}", event.body).starts_with(&format!("{name}("))
}

/// Names of the bodies, for assertions about order.
pub fn names(events: &[Event]) -> Vec<String> {
    events
        .iter()
        .map(|event| {
            format!("{:?}", event.body)
                .split('(')
                .next()
                .unwrap()
                .to_owned()
        })
        .collect()
}

pub fn body_is_about(event: &Event) -> &Body {
    &event.body
}
