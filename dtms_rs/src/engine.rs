//! The engine as Python sees it: arguments in, [`Step`]s out, one lock around it.
use std::sync::Mutex;

use dtms_core::book::OpenIntent;
use dtms_core::engine::{self, Proposal, Registration, TickBatch};
use dtms_core::enums::{AlarmCode, CloseReason, KillScope, LegKind, Origin, Side, TradingState};
use dtms_core::error::CoreError;
use dtms_core::event::{Action, LegFound, Outcome, SymbolSpec};
use dtms_core::market::Bar;
use dtms_core::message::{Number, Text};
use dtms_core::rails::Blackout;
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict, PyMapping};

use crate::columns::slice;
use crate::dicts::{event_from_dict, message_from_dict, message_to_dict};
use crate::errors::{Fault, guarded, refused};
use crate::step::{Answer, Step};

/// From so many trades on, a call lets other Python threads run: below, that costs more than it gives.
const TRADES_TO_DETACH: usize = 500;

/// States, arbitration, registry and scoring. Times are ns UTC (`now_ns`) and ns of the service's
/// monotonic clock (`mono_ns`); prices are doubles, volumes lots.
#[pyclass(frozen, module = "dtms_service._core")]
pub struct Engine {
    state: Mutex<engine::Engine>,
}

type Core = engine::Engine;
type Refused<T> = Result<T, CoreError>;

impl Engine {
    fn ask<R>(&self, work: impl FnOnce(&mut Core) -> Refused<R>) -> PyResult<R> {
        Ok(guarded(&self.state, work)?)
    }

    /// As [`Self::ask`], letting other threads run where there is much to evaluate.
    fn evaluate<R: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Core) -> Refused<R> + Send,
    ) -> PyResult<R> {
        let trades = self.ask(|core| Ok(core.trade_count()))?;
        if trades < TRADES_TO_DETACH {
            return self.ask(work);
        }
        py.detach(|| guarded(&self.state, work))
            .map_err(Fault::into)
    }

    fn act(&self, work: impl FnOnce(&mut Core) -> Refused<engine::Step<()>>) -> PyResult<Step> {
        Ok(Step::new(self.ask(work)?, |()| Answer::Nothing))
    }
}

fn number<T: Number>(field: &str, number: i64) -> PyResult<T> {
    T::from_number(number)
        .ok_or_else(|| refused(CoreError::field(field, "is no value of its enumeration")))
}

fn pairs<'py, T>(mapping: &Bound<'py, PyMapping>) -> PyResult<Vec<(String, T)>>
where
    T: FromPyObjectOwned<'py>,
{
    let mut listed = Vec::new();
    for item in mapping.items()?.iter() {
        let (name, value) = item.extract::<(String, Bound<'py, PyAny>)>()?;
        let value = value
            .extract::<T>()
            .map_err(|_| refused(CoreError::field(&name, "is no number")))?;
        listed.push((name, value));
    }
    Ok(listed)
}

fn borrowed<T: Copy>(listed: &[(String, T)]) -> Vec<(&str, T)> {
    listed
        .iter()
        .map(|(name, value)| (name.as_str(), *value))
        .collect()
}

/// The numbers of a `Score`; the rest of the message is the service's to say.
fn numbers_of(score: &Bound<'_, PyMapping>) -> PyResult<Vec<(String, f64)>> {
    let named = pairs::<Bound<'_, PyAny>>(score)?.into_iter();
    let named =
        named.filter(|(name, _)| !["regime", "thresholds", "reported_by"].contains(&name.as_str()));
    named
        .map(|(name, value)| {
            let number = value.extract::<f64>();
            let number = number.map_err(|_| refused(CoreError::field(&name, "is no number")))?;
            Ok((name, number))
        })
        .collect()
}

/// Intents with the trade that they are of, as dicts.
fn intents<'py>(py: Python<'py>, listed: &[OpenIntent]) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let dict = |open: &OpenIntent| {
        let dict = message_to_dict(py, &open.intent)?;
        dict.set_item("account_id", open.account_id.as_str())?;
        dict.set_item("ticket", open.ticket)?;
        dict.set_item("symbol", open.symbol.as_str())?;
        dict.set_item("recorded_ns", open.recorded_ns)?;
        Ok(dict)
    };
    listed.iter().map(dict).collect()
}

fn described(malformed: dtms_core::message::Malformed) -> PyErr {
    refused(malformed.into())
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (config, managers, managed_strategies))]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "PyO3 hands arguments over by value"
    )]
    fn new(
        config: &Bound<'_, PyMapping>,
        managers: &Bound<'_, PyMapping>,
        managed_strategies: Vec<String>,
    ) -> PyResult<Self> {
        let (config, managers) = (pairs::<f64>(config)?, pairs::<i64>(managers)?);
        let strategies: Vec<&str> = managed_strategies.iter().map(String::as_str).collect();
        let core = Core::try_new(&borrowed(&config), &borrowed(&managers), &strategies)
            .map_err(refused)?;
        Ok(Self {
            state: Mutex::new(core),
        })
    }

    #[getter]
    fn revision(&self) -> PyResult<u64> {
        self.ask(|core| Ok(core.revision()))
    }

    #[getter]
    fn trade_count(&self) -> PyResult<usize> {
        self.ask(|core| Ok(core.trade_count()))
    }

    fn start(&self, mono_ns: i64) -> PyResult<()> {
        self.ask(|core| core.start(mono_ns))
    }

    fn record_rules(&self, by: &str, now_ns: i64) -> PyResult<Step> {
        self.act(|core| core.record_rules(by, now_ns))
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "PyO3 hands arguments over by value"
    )]
    fn reconfigure(
        &self,
        config: &Bound<'_, PyMapping>,
        managers: &Bound<'_, PyMapping>,
        managed_strategies: Vec<String>,
        by: &str,
        now_ns: i64,
    ) -> PyResult<Step> {
        let (config, managers) = (pairs::<f64>(config)?, pairs::<i64>(managers)?);
        let strategies: Vec<&str> = managed_strategies.iter().map(String::as_str).collect();
        self.act(|core| {
            core.reconfigure(
                &borrowed(&config),
                &borrowed(&managers),
                &strategies,
                by,
                now_ns,
            )
        })
    }

    fn define_account(
        &self,
        account_id: &str,
        hedging: bool,
        currency: &str,
        now_ns: i64,
    ) -> PyResult<Step> {
        self.act(|core| core.define_account(account_id, hedging, currency, now_ns))
    }

    fn define_symbol(
        &self,
        account_id: &str,
        spec: &Bound<'_, PyMapping>,
        now_ns: i64,
    ) -> PyResult<Step> {
        let spec: SymbolSpec = message_from_dict(spec).map_err(described)?;
        self.act(|core| core.define_symbol(account_id, spec, now_ns))
    }

    #[expect(clippy::too_many_arguments, reason = "a registration is these facts")]
    fn register(
        &self,
        account_id: &str,
        ticket: u64,
        symbol: &str,
        side: i64,
        entry_price: f64,
        volume: f64,
        sl: Option<f64>,
        tp: Option<f64>,
        strategy_type: &str,
        opened_ns: i64,
        origin: i64,
        registered_by: &str,
        now_ns: i64,
        mono_ns: i64,
    ) -> PyResult<Step> {
        let asked = Registration {
            account_id,
            ticket,
            symbol,
            side: number::<Side>("side", side)?,
            entry_price,
            volume,
            sl,
            tp,
            strategy_type,
            opened_ns,
            origin: number::<Origin>("origin", origin)?,
            registered_by,
        };
        Ok(Step::new(
            self.ask(|core| core.register(&asked, now_ns, mono_ns))?,
            Answer::Created,
        ))
    }

    fn unregister(&self, account_id: &str, ticket: u64, by: &str, now_ns: i64) -> PyResult<Step> {
        self.act(|core| core.unregister(account_id, ticket, by, now_ns))
    }

    #[expect(clippy::too_many_arguments, reason = "a tick is these numbers")]
    fn on_tick(
        &self,
        py: Python<'_>,
        account_id: &str,
        symbol: &str,
        time_msc: i64,
        bid: f64,
        ask: f64,
        volume: f64,
        now_ns: i64,
    ) -> PyResult<Option<Step>> {
        let step = self.evaluate(py, |core| {
            core.on_tick(account_id, symbol, time_msc, bid, ask, volume, now_ns)
        })?;
        Ok(Step::if_any(step))
    }

    #[expect(clippy::too_many_arguments, reason = "a batch is these columns")]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "PyO3 hands arguments over by value"
    )]
    fn on_ticks(
        &self,
        py: Python<'_>,
        account_id: &str,
        symbol: &str,
        time_msc: PyBuffer<i64>,
        bid: PyBuffer<f64>,
        ask: PyBuffer<f64>,
        volume: PyBuffer<f64>,
        now_ns: i64,
    ) -> PyResult<Option<Step>> {
        let batch = TickBatch {
            time_msc: slice("time_msc", &time_msc)?,
            bid: slice("bid", &bid)?,
            ask: slice("ask", &ask)?,
            volume: slice("volume", &volume)?,
        };
        let taken = |core: &mut Core| core.on_ticks(account_id, symbol, batch, now_ns);
        let step = py.detach(|| guarded(&self.state, taken))?;
        let is_all = step.events.is_empty() && step.reply == batch.time_msc.len();
        Ok((!is_all).then(|| Step::new(step, Answer::Count)))
    }

    #[expect(clippy::too_many_arguments, reason = "a bar is these numbers")]
    fn on_bar(
        &self,
        py: Python<'_>,
        account_id: &str,
        symbol: &str,
        timeframe_s: u32,
        time_s: i64,
        open: f64,
        high: f64,
        low: f64,
        close: f64,
        volume: f64,
        now_ns: i64,
    ) -> PyResult<Step> {
        let bar = Bar {
            time_s,
            open,
            high,
            low,
            close,
            volume,
        };
        let step = self.evaluate(py, |core| {
            core.on_bar(account_id, symbol, timeframe_s, bar, now_ns)
        })?;
        Ok(Step::new(step, Answer::Created))
    }

    #[expect(clippy::too_many_arguments, reason = "a bar is these numbers")]
    fn recall_bar(
        &self,
        account_id: &str,
        symbol: &str,
        timeframe_s: u32,
        time_s: i64,
        open: f64,
        high: f64,
        low: f64,
        close: f64,
        volume: f64,
    ) -> PyResult<bool> {
        let bar = Bar {
            time_s,
            open,
            high,
            low,
            close,
            volume,
        };
        self.ask(|core| core.recall_bar(account_id, symbol, timeframe_s, bar))
    }

    #[expect(clippy::too_many_arguments, reason = "a tick is these numbers")]
    fn recall_tick(
        &self,
        account_id: &str,
        symbol: &str,
        time_msc: i64,
        bid: f64,
        ask: f64,
        volume: f64,
        now_ns: i64,
    ) -> PyResult<()> {
        self.ask(|core| core.recall_tick(account_id, symbol, time_msc, bid, ask, volume, now_ns))
    }

    fn recall_account(&self, account_id: &str, equity: f64, is_exposed: bool) -> PyResult<()> {
        self.ask(|core| core.recall_account(account_id, equity, is_exposed))
    }

    fn on_time(&self, py: Python<'_>, now_ns: i64, mono_ns: i64) -> PyResult<Option<Step>> {
        Ok(Step::if_any(
            self.evaluate(py, |core| core.on_time(now_ns, mono_ns))?,
        ))
    }

    fn next_deadline_ns(&self) -> PyResult<Option<i64>> {
        self.ask(|core| Ok(core.next_deadline_ns()))
    }

    fn acquire(
        &self,
        account_id: &str,
        ticket: u64,
        manager: &str,
        now_ns: i64,
        mono_ns: i64,
    ) -> PyResult<Step> {
        let step = self.ask(|core| core.acquire(account_id, ticket, manager, now_ns, mono_ns))?;
        Ok(Step::new(step, Answer::Claim))
    }

    fn renew<'py>(
        &self,
        py: Python<'py>,
        account_id: &str,
        ticket: u64,
        manager: &str,
        owner_epoch: u64,
        mono_ns: i64,
    ) -> PyResult<Bound<'py, PyDict>> {
        let ownership =
            self.ask(|core| core.renew(account_id, ticket, manager, owner_epoch, mono_ns))?;
        message_to_dict(py, &ownership)
    }

    fn release(
        &self,
        account_id: &str,
        ticket: u64,
        manager: &str,
        owner_epoch: u64,
        now_ns: i64,
        mono_ns: i64,
    ) -> PyResult<Step> {
        let step = self
            .ask(|core| core.release(account_id, ticket, manager, owner_epoch, now_ns, mono_ns))?;
        Ok(Step::new(step, Answer::Ownership))
    }

    #[expect(clippy::too_many_arguments, reason = "a proposal is these facts")]
    fn propose(
        &self,
        manager: &str,
        request_id: &str,
        account_id: &str,
        ticket: u64,
        owner_epoch: u64,
        action: &Bound<'_, PyMapping>,
        dry_run: bool,
        now_ns: i64,
        mono_ns: i64,
    ) -> PyResult<Step> {
        let action: Action = message_from_dict(action).map_err(|malformed| {
            refused(CoreError::field(
                &format!("action.{}", malformed.field),
                malformed.why,
            ))
        })?;
        let asked = Proposal {
            manager,
            request_id,
            account_id,
            ticket,
            owner_epoch,
            action: &action,
            dry_run,
        };
        let step = self.ask(|core| core.propose(&asked, now_ns, mono_ns))?;
        Ok(Step::new(step, |reply| Answer::Reply(Box::new(reply))))
    }

    fn on_outcome(&self, outcome: &Bound<'_, PyMapping>, now_ns: i64) -> PyResult<Step> {
        let outcome: Outcome = message_from_dict(outcome).map_err(|malformed| {
            refused(CoreError::field(
                &format!("outcome.{}", malformed.field),
                malformed.why,
            ))
        })?;
        self.act(|core| core.on_outcome(outcome, now_ns))
    }

    fn on_position(
        &self,
        account_id: &str,
        position: u64,
        volume: f64,
        sl: Option<f64>,
        tp: Option<f64>,
        now_ns: i64,
    ) -> PyResult<Option<Step>> {
        Ok(Step::if_any(self.ask(|core| {
            core.on_position(account_id, position, volume, sl, tp, now_ns)
        })?))
    }

    fn on_closed(
        &self,
        account_id: &str,
        position: u64,
        reason: i64,
        price: f64,
        profit: f64,
        now_ns: i64,
    ) -> PyResult<Option<Step>> {
        let reason = number::<CloseReason>("reason", reason)?;
        Ok(Step::if_any(self.ask(|core| {
            core.on_closed(account_id, position, reason, price, profit, now_ns)
        })?))
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a position")]
    fn on_lost_leg(
        &self,
        account_id: &str,
        ticket: u64,
        intent_id: u64,
        position: u64,
        side: i64,
        volume: f64,
        entry_price: f64,
        sl: Option<f64>,
        now_ns: i64,
    ) -> PyResult<Option<Step>> {
        let found = LegFound {
            leg: LegKind::Stray,
            position,
            side: number::<Side>("side", side)?,
            volume,
            entry_price,
            sl,
            intent_id,
        };
        Ok(Step::if_any(self.ask(|core| {
            core.on_lost_leg(account_id, ticket, &found, now_ns)
        })?))
    }

    fn is_lost(&self, intent_id: u64) -> PyResult<bool> {
        self.ask(|core| Ok(core.is_lost(intent_id)))
    }

    fn on_missing(&self, account_id: &str, ticket: u64, now_ns: i64) -> PyResult<Option<Step>> {
        Ok(Step::if_any(
            self.ask(|core| core.on_missing(account_id, ticket, now_ns))?,
        ))
    }

    fn on_account(&self, account_id: &str, equity: f64, now_ns: i64) -> PyResult<Option<Step>> {
        Ok(Step::if_any(
            self.ask(|core| core.on_account(account_id, equity, now_ns))?,
        ))
    }

    fn set_news(
        &self,
        account_id: &str,
        symbol: &str,
        blackouts: Vec<(i64, i64, String)>,
        now_ns: i64,
    ) -> PyResult<Option<Step>> {
        let blackouts = blackouts
            .into_iter()
            .map(|(start_ns, end_ns, label)| Blackout {
                start_ns,
                end_ns,
                label: Text::from(label.as_str()),
            })
            .collect();
        Ok(Step::if_any(self.ask(|core| {
            core.set_news(account_id, symbol, blackouts, now_ns)
        })?))
    }

    fn raise_alarm(
        &self,
        account_id: &str,
        code: i64,
        detail: &str,
        now_ns: i64,
    ) -> PyResult<Step> {
        let code = number::<AlarmCode>("code", code)?;
        self.act(|core| core.raise_alarm(account_id, code, detail, now_ns))
    }

    fn restored(&self, made_ns: i64, now_ns: i64) -> PyResult<Step> {
        self.act(|core| core.restored(made_ns, now_ns))
    }

    #[expect(clippy::too_many_arguments, reason = "a report is these facts")]
    fn report_score(
        &self,
        py: Python<'_>,
        account_id: &str,
        symbol: &str,
        score: &Bound<'_, PyMapping>,
        by: &str,
        valid_until_ns: i64,
        now_ns: i64,
    ) -> PyResult<Step> {
        let parts = numbers_of(score)?;
        let step = self.evaluate(py, |core| {
            core.report_score(
                account_id,
                symbol,
                &borrowed(&parts),
                by,
                valid_until_ns,
                now_ns,
            )
        })?;
        Ok(Step::new(step, |()| Answer::Nothing))
    }

    fn set_risk_budget(
        &self,
        account_id: &str,
        ticket: u64,
        budget_r: f64,
        by: &str,
        reason: &str,
        now_ns: i64,
    ) -> PyResult<Step> {
        self.act(|core| core.set_risk_budget(account_id, ticket, budget_r, by, reason, now_ns))
    }

    fn set_memo(
        &self,
        account_id: &str,
        ticket: u64,
        manager: &str,
        memo: &str,
        now_ns: i64,
    ) -> PyResult<Step> {
        self.act(|core| core.set_memo(account_id, ticket, manager, memo, now_ns))
    }

    fn report_index(
        &self,
        name: &str,
        value: f64,
        by: &str,
        valid_until_ns: i64,
        now_ns: i64,
    ) -> PyResult<Step> {
        self.act(|core| core.report_index(name, value, by, valid_until_ns, now_ns))
    }

    fn indices<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let known: Vec<_> = self.ask(|core| Ok(core.indices().cloned().collect()))?;
        known
            .iter()
            .map(|index| message_to_dict(py, index))
            .collect()
    }

    fn set_trading_state(&self, state: i64, by: &str, reason: &str, now_ns: i64) -> PyResult<Step> {
        let state = number::<TradingState>("trading_state", state)?;
        self.act(|core| core.set_trading_state(state, by, reason, now_ns))
    }

    #[expect(clippy::too_many_arguments, reason = "a switch is these facts")]
    fn set_kill_switch(
        &self,
        scope: i64,
        value: &str,
        engaged: bool,
        flatten: bool,
        by: &str,
        reason: &str,
        now_ns: i64,
    ) -> PyResult<Step> {
        let scope = number::<KillScope>("scope", scope)?;
        self.act(|core| core.set_kill_switch(scope, value, engaged, flatten, by, reason, now_ns))
    }

    fn trade<'py>(
        &self,
        py: Python<'py>,
        account_id: &str,
        ticket: u64,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let trade = self.ask(|core| core.trade(account_id, ticket))?;
        trade.map(|trade| message_to_dict(py, &trade)).transpose()
    }

    #[pyo3(signature = (open_only = false))]
    fn keys(&self, open_only: bool) -> PyResult<Vec<(String, u64)>> {
        let keys = self.ask(|core| Ok(core.keys(open_only)))?;
        Ok(keys
            .into_iter()
            .map(|(account_id, ticket)| (account_id.as_str().to_owned(), ticket))
            .collect())
    }

    fn open_positions(&self, account_id: &str) -> PyResult<Vec<(u64, u64)>> {
        self.ask(|core| core.open_positions(account_id))
    }

    fn is_exposed(&self, account_id: &str) -> PyResult<bool> {
        self.ask(|core| core.is_exposed(account_id))
    }

    fn ownership<'py>(
        &self,
        py: Python<'py>,
        account_id: &str,
        ticket: u64,
        mono_ns: i64,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let ownership = self.ask(|core| core.ownership(account_id, ticket, mono_ns))?;
        ownership
            .map(|ownership| message_to_dict(py, &ownership))
            .transpose()
    }

    fn decision_on<'py>(
        &self,
        py: Python<'py>,
        manager: &str,
        request_id: &str,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let decision = self.ask(|core| Ok(core.decision_on(manager, request_id).cloned()))?;
        decision
            .map(|decision| message_to_dict(py, &decision))
            .transpose()
    }

    fn open_intents<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let open: Vec<_> = self.ask(|core| Ok(core.open_intents().cloned().collect()))?;
        intents(py, &open)
    }

    fn abandoned<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let abandoned: Vec<_> = self.ask(|core| Ok(core.abandoned().cloned().collect()))?;
        intents(py, &abandoned)
    }

    fn score<'py>(
        &self,
        py: Python<'py>,
        account_id: &str,
        symbol: &str,
        side: i64,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let side = number::<Side>("side", side)?;
        let score = self.ask(|core| core.score(account_id, symbol, side))?;
        score.map(|score| message_to_dict(py, &score)).transpose()
    }

    fn quote<'py>(
        &self,
        py: Python<'py>,
        account_id: &str,
        symbol: &str,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let quote = self.ask(|core| core.quote(account_id, symbol))?;
        quote.map(|quote| message_to_dict(py, &quote)).transpose()
    }

    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let shown = self.ask(|core| Ok(core.status()))?;
        let switches = shown.kill_switches.iter().map(|(scope, value)| {
            let dict = PyDict::new(py);
            dict.set_item("scope", scope.number())?;
            dict.set_item("value", value.as_str())?;
            Ok(dict)
        });
        let rails = shown.rails.iter().map(|rail| message_to_dict(py, rail));
        let states = PyDict::new(py);
        for (state, trades) in &shown.trades_by_state {
            states.set_item(state.number(), trades)?;
        }
        let dict = PyDict::new(py);
        dict.set_item("revision", shown.revision)?;
        dict.set_item("trading_state", shown.trading_state.number())?;
        dict.set_item("kill_switches", switches.collect::<PyResult<Vec<_>>>()?)?;
        dict.set_item("rails", rails.collect::<PyResult<Vec<_>>>()?)?;
        dict.set_item("states", states)?;
        dict.set_item("open_intents", shown.open_intents)?;
        Ok(dict)
    }

    fn position_owner(&self, account_id: &str, position: u64) -> PyResult<Option<u64>> {
        self.ask(|core| Ok(core.position_owner(account_id, position)))
    }

    fn apply(&self, event: &Bound<'_, PyMapping>) -> PyResult<()> {
        let event = event_from_dict(event).map_err(described)?;
        self.ask(|core| core.apply(&event))
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "what is read out of Python is owned"
    )]
    fn fold(&self, py: Python<'_>, events: Vec<(u64, PyBackedBytes)>) -> PyResult<Vec<usize>> {
        let bodies = || events.iter().map(|(_revision, body)| &**body);
        py.detach(|| guarded(&self.state, |core| core.fold(bodies())))
            .map_err(Fault::into)
    }

    fn snapshot<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = py.detach(|| guarded(&self.state, |core| Ok(core.snapshot())))?;
        Ok(PyBytes::new(py, &bytes))
    }

    fn restore(&self, snapshot: &[u8]) -> PyResult<()> {
        self.ask(|core| core.restore(snapshot))
    }
}
