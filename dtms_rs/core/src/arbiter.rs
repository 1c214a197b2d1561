//! "May this manager change this trade now?" One table of authority, one order of denials.
use crate::config::{Config, NS_PER_MS};
use crate::enums::{ActionKind, DenialCode, Rank, TradeState, TradingState};
use crate::plan::{Scene, is_frozen, least_distance, leaves_legal_rest};
use crate::risk;
use crate::symbol::{Points, Steps};
use crate::trade::TradeRecord;

/// The service itself.
pub const DTMS: &str = "dtms_manager";
/// The manager that owns trades with a managed strategy type.
pub const UNIVERSAL: &str = "universal_sl_tp_manager";

/// What a manager asks for, in integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// `None` removes the level.
    Stop(Option<Points>),
    Target(Option<Points>),
    /// `None`: not on the volume step.
    Partial(Option<Steps>),
    Close,
}

/// Who asks, and how he stands to the trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    pub rank: Rank,
    pub is_dtms: bool,
    pub is_owner: bool,
    pub owner_rank: Option<Rank>,
}

/// What stops managers, or new risk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brakes {
    pub trading: TradingState,
    /// A kill switch holds for this account, symbol or manager.
    pub killed: bool,
    /// A safety rail holds for this account or symbol.
    pub railed: bool,
}

/// What a denial HALTED is due to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    Killed,
    Quarantined,
    Trading,
    Railed,
}

/// The arbitration table: may the asker change stop, target or volume at all?
#[must_use]
pub fn authority(
    asker: Asker,
    is_defensive: bool,
    breakeven_triggered: bool,
) -> Option<DenialCode> {
    let owned_by_strategy = asker.owner_rank == Some(Rank::Strategy);
    let owned_by_dtms_or_nobody = matches!(
        asker.owner_rank,
        None | Some(Rank::DtmsNormal | Rank::DtmsDefensive)
    );
    let allowed = if asker.is_dtms {
        is_defensive || !owned_by_strategy
    } else if is_defensive {
        return Some(DenialCode::DtmsDefensive);
    } else if asker.rank == Rank::Strategy {
        asker.is_owner
    } else {
        asker.is_owner || owned_by_dtms_or_nobody || (owned_by_strategy && !breakeven_triggered)
    };
    (!allowed).then_some(DenialCode::OwnedByOther)
}

/// One proposal of a manager with everything it is decided on.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    pub asker: Asker,
    pub manager: &'a str,
    pub change: Change,
    pub allow_loosen: bool,
    pub asked_epoch: u64,
    pub brakes: Brakes,
    pub trade: &'a TradeRecord,
    pub scene: Scene<'a>,
    /// What holds for all trades alike.
    pub config: &'a Config,
    pub now_ns: i64,
}

impl Case<'_> {
    /// The first denial that applies; `None` grants. The lines stand in order of precedence.
    #[must_use]
    pub fn denial(&self) -> Option<DenialCode> {
        let trade = self.trade;
        let tests = [
            (
                trade.state == TradeState::Closed || trade.main_closed,
                DenialCode::TradeClosed,
            ),
            (self.halt().is_some(), DenialCode::Halted),
            (
                self.asked_epoch != trade.owner_epoch,
                DenialCode::StaleEpoch,
            ),
        ];
        if let Some((_, code)) = tests.into_iter().find(|(applies, _)| *applies) {
            return Some(code);
        }
        if let Some(code) = authority(self.asker, trade.is_defensive(), trade.breakeven_triggered) {
            return Some(code);
        }
        let tests = [
            (trade.in_flight.is_some(), DenialCode::InFlight),
            (self.is_too_soon(), DenialCode::Cooldown),
            (self.loosens() && !self.may_loosen(), DenialCode::Loosens),
            (
                self.loosens() && !self.fits_budget(),
                DenialCode::RiskBudget,
            ),
            (!self.is_legal_level(), DenialCode::InvalidStop),
            (self.is_frozen(), DenialCode::Frozen),
            (!self.is_legal_volume(), DenialCode::MinVolume),
            (self.is_no_change(), DenialCode::NoChange),
        ];
        tests
            .into_iter()
            .find(|(applies, _)| *applies)
            .map(|(_, code)| code)
    }

    /// What halts the change, the strongest first. A rail halts new risk and nothing else.
    #[must_use]
    pub fn halt(&self) -> Option<Halt> {
        let is_braked = match self.brakes.trading {
            TradingState::Active => false,
            TradingState::Reducing => self.loosens(),
            TradingState::Halted => !matches!(self.change, Change::Close | Change::Partial(_)),
        };
        if self.brakes.killed {
            Some(Halt::Killed)
        } else if self.trade.quarantined {
            Some(Halt::Quarantined)
        } else if is_braked {
            Some(Halt::Trading)
        } else {
            (self.brakes.railed && self.loosens()).then_some(Halt::Railed)
        }
    }

    fn is_too_soon(&self) -> bool {
        self.trade.manager(self.manager).is_some_and(|record| {
            self.now_ns - record.last_change_ns < self.config.cooldown_ms * NS_PER_MS
        })
    }

    /// A stop further from the profit side than the confirmed one, or its removal.
    fn loosens(&self) -> bool {
        let Change::Stop(new) = self.change else {
            return false;
        };
        match (self.trade.sl, new) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(now), Some(new)) => (new - now).0 * self.trade.side.sign() < 0,
        }
    }

    fn may_loosen(&self) -> bool {
        let set_by_higher = self
            .trade
            .set_by_rank
            .0
            .is_some_and(|rank| rank > self.asker.rank);
        self.allow_loosen && self.config.allow_loosen && !set_by_higher
    }

    fn fits_budget(&self) -> bool {
        let Change::Stop(new) = self.change else {
            return true;
        };
        risk::allows(self.trade, new, 0) == Some(true)
    }

    fn is_legal_level(&self) -> bool {
        let (level, is_stop) = match self.change {
            Change::Stop(Some(level)) => (level, true),
            Change::Target(Some(level)) => (level, false),
            Change::Stop(None) | Change::Target(None) | Change::Partial(_) | Change::Close => {
                return true;
            }
        };
        let Some(quote) = self.scene.quote else {
            return false;
        };
        let side = self.trade.side;
        let ahead = (level - quote.exit(side)) * side.sign();
        let least = least_distance(self.scene.symbol);
        self.scene.symbol.is_on_tick(level)
            && if is_stop {
                ahead <= -least
            } else {
                ahead >= least
            }
    }

    fn is_frozen(&self) -> bool {
        self.scene
            .quote
            .is_some_and(|quote| is_frozen(self.trade, self.scene.symbol, quote))
    }

    fn is_legal_volume(&self) -> bool {
        match self.change {
            Change::Partial(part) => part.is_some_and(|part| {
                part <= self.trade.volume
                    && leaves_legal_rest(part, self.trade.volume, self.scene.symbol)
            }),
            Change::Stop(_) | Change::Target(_) | Change::Close => true,
        }
    }

    fn is_no_change(&self) -> bool {
        match self.change {
            Change::Stop(new) => new == self.trade.sl,
            Change::Target(new) => new == self.trade.tp,
            Change::Partial(_) | Change::Close => false,
        }
    }
}

/// What halts an entry action of DTMS itself. A re-add is new risk; a hedge makes the net position
/// smaller, so only the trading state forbids to open one.
#[must_use]
pub const fn own_halt(kind: ActionKind, brakes: Brakes) -> Option<Halt> {
    let (opens, adds) = match kind {
        ActionKind::OpenHedge => (true, false),
        ActionKind::ReAdd => (true, true),
        ActionKind::Stop
        | ActionKind::Target
        | ActionKind::PartialClose
        | ActionKind::Close
        | ActionKind::CloseHedge
        | ActionKind::CloseReAdd
        | ActionKind::CloseStray
        | ActionKind::Acquire => (false, false),
    };
    let is_braked = match brakes.trading {
        TradingState::Active => false,
        TradingState::Reducing | TradingState::Halted => opens,
    };
    if adds && brakes.killed {
        Some(Halt::Killed)
    } else if is_braked {
        Some(Halt::Trading)
    } else if adds && brakes.railed {
        Some(Halt::Railed)
    } else {
        None
    }
}

/// What denies an entry action of DTMS itself. In CLOSED nobody owns anything any more, and DTMS
/// has to finish what CLOSED means.
#[must_use]
pub fn own_denial(asker: Asker, trade: &TradeRecord, halt: Option<Halt>) -> Option<DenialCode> {
    if halt.is_some() {
        return Some(DenialCode::Halted);
    }
    if trade.state == TradeState::Closed {
        return None;
    }
    authority(asker, trade.is_defensive(), trade.breakeven_triggered)
}

/// What halts a claim.
#[must_use]
pub const fn claim_halt(trade: &TradeRecord, brakes: Brakes) -> Option<Halt> {
    if brakes.killed {
        Some(Halt::Killed)
    } else if trade.quarantined {
        Some(Halt::Quarantined)
    } else if matches!(brakes.trading, TradingState::Halted) {
        Some(Halt::Trading)
    } else {
        None
    }
}

/// May `asker` take the trade over?
#[must_use]
pub fn claim_denial(asker: Asker, trade: &TradeRecord, brakes: Brakes) -> Option<DenialCode> {
    if trade.state == TradeState::Closed {
        Some(DenialCode::TradeClosed)
    } else if claim_halt(trade, brakes).is_some() {
        Some(DenialCode::Halted)
    } else if asker.is_owner {
        None
    } else if trade.is_defensive() {
        Some(DenialCode::DtmsDefensive)
    } else if asker.owner_rank.is_some_and(|owner| asker.rank <= owner) {
        Some(DenialCode::OwnedByOther)
    } else {
        trade.in_flight.is_some().then_some(DenialCode::InFlight)
    }
}
