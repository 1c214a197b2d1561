//! Proposals of managers: idempotency, arbitration, decision, intent, in one step.
use super::{About, Engine, Step};
use crate::arbiter::{Case, Change};
use crate::book::At;
use crate::enums::{ActionKind, DenialCode, Purpose};
use crate::error::{CoreError, Reason, Result};
use crate::event::{Action, Decision, DecisionMade, Outcome};
use crate::message::{Maybe, Text};
use crate::plan::Order;
use crate::symbol::{Points, Steps, Symbol};

/// Longest request id: a UUID has 36 characters.
const LONGEST_REQUEST_ID: usize = 64;

/// "May I?" by `manager`, who saw the trade under `owner_epoch`.
#[derive(Clone, Copy, Debug)]
pub struct Proposal<'a> {
    pub manager: &'a str,
    pub request_id: &'a str,
    pub account_id: &'a str,
    pub ticket: u64,
    pub owner_epoch: u64,
    pub action: &'a Action,
    pub dry_run: bool,
}

/// The answer: a decision; if granted, its intent; if already known, what became of that.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    pub decision: Decision,
    pub intent_id: Option<u64>,
    pub outcome: Option<Outcome>,
}

impl Engine {
    /// Decides a proposal. The same request again is answered as before, without events.
    ///
    /// # Errors
    /// `FIELD_INVALID` names the field; `REQUEST_ID_REUSED` when the id was used for another body.
    /// An unknown trade is a denial.
    pub fn propose(
        &mut self,
        asked: &Proposal<'_>,
        now_ns: i64,
        mono_ns: i64,
    ) -> Result<Step<Reply>> {
        self.check_manager(asked.manager)?;
        check_action(asked.action)?;
        let (manager, request_id) = (Text::from(asked.manager), Text::from(asked.request_id));
        if !asked.dry_run {
            if request_id.is_empty() || asked.request_id.chars().count() > LONGEST_REQUEST_ID {
                return Err(CoreError::field(
                    "request_id",
                    "is empty or longer than 64 characters",
                ));
            }
            if let Some(reply) = self.answered(asked, &manager, &request_id)? {
                return Ok(self.step(reply));
            }
        }
        let Some(at) = self.book.find(asked.account_id, asked.ticket) else {
            return self.deny_unknown(asked, manager, request_id, now_ns);
        };
        let change = self.change(at, asked.action)?;
        if !asked.dry_run {
            self.settle_lease(at, now_ns, mono_ns)?;
        }
        let case = Case {
            asker: self.asker(at, asked.manager)?,
            manager: asked.manager,
            change,
            allow_loosen: asked.action.allow_loosen,
            asked_epoch: asked.owner_epoch,
            brakes: self.brakes(at, asked.manager)?,
            trade: self.book.trade(at)?,
            scene: self.scene(at)?,
            config: &self.book.config,
            now_ns,
        };
        let denial = case.denial();
        let halt = case.halt().filter(|_| denial == Some(DenialCode::Halted));
        let mut decision = self.decision(
            at,
            &manager,
            &request_id,
            asked.action.clone(),
            asked.owner_epoch,
            denial,
            now_ns,
        )?;
        decision.halted_by = self.halted_by(at, asked.manager, halt)?;
        if asked.dry_run {
            (decision.decision_id, decision.revision, decision.dry_run) = (0, 0, true);
            return Ok(self.step(Reply {
                decision,
                intent_id: None,
                outcome: None,
            }));
        }
        self.emit(
            About::Trade(at),
            now_ns,
            DecisionMade {
                decision: decision.clone(),
            },
        )?;
        let mut intent_id = None;
        if denial.is_none() {
            let order = self.order(at, change, asked.action)?;
            self.intend(at, &manager, 0, &order, 0, now_ns)?;
            intent_id = Some(self.book.last_intent);
        }
        self.watch(at, now_ns)?;
        Ok(self.step(Reply {
            decision,
            intent_id,
            outcome: None,
        }))
    }

    fn answered(
        &self,
        asked: &Proposal<'_>,
        manager: &Text,
        request_id: &Text,
    ) -> Result<Option<Reply>> {
        let Some(answer) = self.book.answers.get(manager, request_id) else {
            return Ok(None);
        };
        if !answer.is_to(
            asked.account_id,
            asked.ticket,
            asked.owner_epoch,
            asked.action,
        ) {
            return Err(CoreError::new(
                Reason::RequestIdReused,
                "the request_id was used with another body",
            ));
        }
        let (decision, intent_id, outcome) = (
            answer.decision.clone(),
            answer.intent_id,
            answer.outcome.clone(),
        );
        Ok(Some(Reply {
            decision,
            intent_id,
            outcome,
        }))
    }

    fn deny_unknown(
        &mut self,
        asked: &Proposal<'_>,
        manager: Text,
        request_id: Text,
        now_ns: i64,
    ) -> Result<Step<Reply>> {
        let code = DenialCode::TradeUnknown;
        let mut decision = Decision {
            decision_id: self.book.last_decision + 1,
            request_id,
            account_id: Text::from(asked.account_id),
            ticket: asked.ticket,
            rank: Maybe(
                self.roster
                    .rank(asked.manager, crate::enums::TradeState::Healthy),
            ),
            manager,
            action: asked.action.clone(),
            granted: false,
            denial: Maybe(Some(code)),
            retryable: code.is_retryable(),
            owner: Text::default(),
            owner_rank: Maybe(None),
            owner_epoch: 0,
            asked_epoch: asked.owner_epoch,
            defensive: false,
            bid: None,
            ask: None,
            confirmed_sl: None,
            time_ns: now_ns,
            dry_run: asked.dry_run,
            revision: self.book.revision + 1,
            halted_by: Text::default(),
            gave_way_to: Text::default(),
        };
        if asked.dry_run {
            (decision.decision_id, decision.revision) = (0, 0);
        } else {
            let about = About::Unknown(asked.account_id, asked.ticket);
            self.emit(
                about,
                now_ns,
                DecisionMade {
                    decision: decision.clone(),
                },
            )?;
        }
        Ok(self.step(Reply {
            decision,
            intent_id: None,
            outcome: None,
        }))
    }

    /// A decision about a trade with all its inputs; it becomes the next event.
    #[expect(
        clippy::too_many_arguments,
        reason = "a decision records everything it was made on"
    )]
    pub(super) fn decision(
        &self,
        at: At,
        manager: &Text,
        request_id: &Text,
        action: Action,
        asked_epoch: u64,
        denial: Option<DenialCode>,
        now_ns: i64,
    ) -> Result<Decision> {
        let trade = self.book.trade(at)?;
        let asker = self.asker(at, manager.as_str())?;
        let (bid, ask) = self.quoted(at.instrument)?;
        let symbol = &self.book.instrument(at.instrument)?.symbol;
        Ok(Decision {
            decision_id: self.book.last_decision + 1,
            request_id: request_id.clone(),
            account_id: self.book.account_of(at.instrument)?.id.clone(),
            ticket: trade.ticket,
            manager: manager.clone(),
            rank: asker.rank.into(),
            action,
            granted: denial.is_none(),
            denial: Maybe(denial),
            retryable: denial.is_some_and(DenialCode::is_retryable),
            owner: trade.managed_by.clone(),
            owner_rank: Maybe(asker.owner_rank),
            owner_epoch: trade.owner_epoch,
            asked_epoch,
            defensive: trade.is_defensive(),
            bid,
            ask,
            confirmed_sl: trade.sl.map(|sl| symbol.price(sl)),
            time_ns: now_ns,
            dry_run: false,
            revision: self.book.revision + 1,
            halted_by: Text::default(),
            gave_way_to: self.prevailing(at, manager, denial)?,
        })
    }

    /// Whom a denial gives way to.
    fn prevailing(&self, at: At, manager: &Text, denial: Option<DenialCode>) -> Result<Text> {
        let trade = self.book.trade(at)?;
        let in_flight = || trade.in_flight.and_then(|id| self.book.intents.get(&id));
        let other = match denial {
            Some(DenialCode::DtmsDefensive) => self.dtms.clone(),
            Some(DenialCode::OwnedByOther | DenialCode::StaleEpoch) => trade.managed_by.clone(),
            Some(DenialCode::InFlight) => {
                in_flight().map_or_else(Text::default, |open| open.intent.manager.clone())
            }
            Some(_) | None => Text::default(),
        };
        Ok(if other == *manager {
            Text::default()
        } else {
            other
        })
    }

    /// The decision on a proposal, by its key, if it is still remembered.
    #[must_use]
    pub fn decision_on(&self, manager: &str, request_id: &str) -> Option<&Decision> {
        let key = (Text::from(manager), Text::from(request_id));
        let answer = self.book.answers.get(&key.0, &key.1);
        answer.map(|answer| &answer.decision)
    }

    /// The action in integers.
    fn change(&self, at: At, action: &Action) -> Result<Change> {
        let symbol = &self.book.instrument(at.instrument)?.symbol;
        Ok(match action.kind {
            ActionKind::Stop => Change::Stop(level(symbol, "action.stop", action.stop)?),
            ActionKind::Target => Change::Target(level(symbol, "action.target", action.target)?),
            ActionKind::PartialClose => {
                let volume = action
                    .volume
                    .ok_or_else(|| CoreError::field("action.volume", "is missing"))?;
                Change::Partial(symbol.exact_volume("action.volume", volume).ok())
            }
            ActionKind::Close => Change::Close,
            ActionKind::OpenHedge
            | ActionKind::CloseHedge
            | ActionKind::ReAdd
            | ActionKind::CloseReAdd
            | ActionKind::CloseStray
            | ActionKind::Acquire => {
                return Err(CoreError::field("action.kind", "is for DTMS only"));
            }
        })
    }

    /// The command of a granted change. Both levels go with every change of levels; the one that was
    /// not named stays as the broker last echoed it.
    fn order(&self, at: At, change: Change, action: &Action) -> Result<Order> {
        let trade = self.book.trade(at)?;
        let (volume, sl, tp) = match change {
            Change::Stop(sl) => (Steps(0), sl, trade.tp),
            Change::Target(tp) => (Steps(0), trade.sl, tp),
            Change::Partial(part) => (part.unwrap_or(trade.volume), None, None),
            Change::Close => (trade.volume, None, None),
        };
        Ok(Order {
            kind: action.kind,
            purpose: action.purpose.0.unwrap_or(Purpose::Other),
            leg: super::queue::MAIN,
            position: trade.ticket,
            side: trade.side,
            volume,
            sl,
            tp,
        })
    }
}

/// What can be said to be wrong without knowing the trade.
fn check_action(action: &Action) -> Result<()> {
    let given = |field: &str, value: Option<f64>, may_be_zero: bool| match value {
        None => Err(CoreError::field(field, "is missing")),
        Some(value) if value.is_finite() && (value > 0.0 || (may_be_zero && value == 0.0)) => {
            Ok(())
        }
        Some(_) => Err(CoreError::field(field, "is not a positive number")),
    };
    match action.kind {
        ActionKind::Stop => given("action.stop", action.stop, true),
        ActionKind::Target => given("action.target", action.target, true),
        ActionKind::PartialClose => given("action.volume", action.volume, false),
        ActionKind::Close => Ok(()),
        ActionKind::OpenHedge
        | ActionKind::CloseHedge
        | ActionKind::ReAdd
        | ActionKind::CloseReAdd
        | ActionKind::CloseStray => Err(CoreError::field("action.kind", "is for DTMS only")),
        ActionKind::Acquire => Err(CoreError::field(
            "action.kind",
            "is asked by AcquireOwnership",
        )),
    }
}

/// 0 removes a level.
fn level(symbol: &Symbol, field: &str, price: Option<f64>) -> Result<Option<Points>> {
    match price {
        None => Err(CoreError::field(field, "is missing")),
        Some(0.0) => Ok(None),
        Some(price) => symbol.exact_price(field, price).map(Some),
    }
}
