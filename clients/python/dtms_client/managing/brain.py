"""One cycle of a manager: prices and trades in, proposals and memos out, results in. No clock, no I/O."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from dtms.v1.action_pb2 import (
    OUTCOME_STATUS_CONFIRMED,
    OUTCOME_STATUS_REJECTED,
    Decision,
    DenialCode,
    Outcome,
    OutcomeStatus,
    Purpose,
)
from dtms.v1.arbitration_service_pb2 import ProposeRequest, SetMemoRequest
from dtms.v1.event_pb2 import Index
from dtms.v1.market_data_service_pb2 import ClosedBar, Quote
from dtms_client.managing.tally import Tally
from dtms_client.managing.views import Instrument, Key, QuoteView, TradeView
from dtms_client.managing.wishes import Wish

NANOS: Final = 1_000_000_000
# After a "no" the same question comes again in a moment: each one is an event in the journal of DTMS.
PAUSE_NS: Final = 5 * NANOS
# The very same wish, where DTMS said that asking again will not help.
FINAL_PAUSE_NS: Final = 300 * NANOS

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A wish for a trade, as it was when it was wished."""

    trade: TradeView
    wish: Wish

    @property
    def key(self) -> Key:
        """The trade."""
        return self.trade.key

    def request(self, request_id: str) -> ProposeRequest:
        """As the wire wants it."""
        return ProposeRequest(
            request_id=request_id,
            account_id=self.trade.account_id,
            ticket=self.trade.ticket,
            owner_epoch=self.trade.owner_epoch,
            action=self.wish.action(),
        )

    def facts(self) -> dict[str, Any]:
        """For the log."""
        return {
            "account_id": self.trade.account_id,
            "ticket": self.trade.ticket,
            "symbol": self.trade.symbol,
            "purpose": Purpose.Name(self.wish.purpose).removeprefix("PURPOSE_"),
            "stop": getattr(self.wish, "stop", None),
            "target": getattr(self.wish, "target", None),
            "volume": getattr(self.wish, "volume", None),
        }


@dataclass(frozen=True, slots=True)
class Memo:
    """What DTMS is to keep for this manager on a trade; replaces what it keeps now."""

    trade: TradeView
    text: str

    def request(self) -> SetMemoRequest:
        """As the wire wants it."""
        return SetMemoRequest(account_id=self.trade.account_id, ticket=self.trade.ticket, memo=self.text)


@dataclass(frozen=True, slots=True)
class Pause:
    """After a "no", until the trade changes: nothing of that purpose for a moment, the very same wish for longer."""

    trade: TradeView
    wish: Wish
    any_until_ns: int
    same_until_ns: int

    def holds(self, trade: TradeView, wish: Wish, now_ns: int) -> bool:
        """The wish has to wait."""
        until_ns = self.same_until_ns if wish == self.wish else self.any_until_ns
        return now_ns < until_ns and trade == self.trade


class Standby(Protocol):
    """What may be done for trades while DTMS is away, past it. Most managers have none."""

    every_s: float
    """How often it looks, seconds."""

    async def prepare(self) -> None:
        """Once, before the first look."""

    async def act(self, trade: TradeView, *, now_ns: int) -> None:
        """Looks after a trade that DTMS does not answer for now, as it was known last. Nothing else is under way for
        it. Never raises on a failure."""

    async def close(self) -> None:
        """The manager ends."""


class Brain(ABC):
    """What a manager wishes, and what every manager keeps: the latest quotes, and what was refused.

    Trades are passed in. What must survive a restart is either a fact of the trade or the memo: DTMS keeps both.
    """

    timeframes_s: Sequence[int] = ()
    """Lengths of the closed bars that it wants, s; none unless it says so."""

    standby: Standby | None = None
    """None unless the operator wants one."""

    def __init__(self, name: str) -> None:
        """`name` is the manager of the credential: its partials and memos are found in the trade under it."""
        self.name = name
        self.tally = Tally()
        self._quotes: dict[Instrument, QuoteView] = {}
        self._pauses: dict[tuple[Key, Purpose.ValueType], Pause] = {}

    # ---- what a manager says

    @abstractmethod
    def wishes(self, trade: TradeView, quote: QuoteView, *, now_ns: int) -> Iterable[Wish]:
        """What it wants of the trade now, the most urgent first."""

    def memo(self, trade: TradeView, *, now_ns: int) -> str | None:  # noqa: ARG002  for those that have one
        """What DTMS is to keep of the trade from now on, at most 2048 characters; None leaves it as it is."""
        return None

    def claims(self, trade: TradeView) -> bool:  # noqa: ARG002  for those that own trades
        """The trade should be owned by this manager: its lease is kept alive, and it is acquired where it is lost."""
        return False

    # ---- what comes in

    def take_quotes(self, quotes: Iterable[Quote]) -> list[Instrument]:
        """Remembers quotes; returns whose they are."""
        touched: list[Instrument] = []
        for quote in quotes:
            instrument = (quote.account_id, quote.symbol)
            self._quotes[instrument] = QuoteView.of(quote)
            touched.append(instrument)
        return touched

    def take_bars(self, bars: Iterable[ClosedBar]) -> list[Instrument]:  # noqa: ARG002  for those that want some
        """Takes closed bars, oldest first, each once; returns whose trades are to be looked at."""
        return []

    def take_indices(self, indices: Iterable[Index]) -> bool:  # noqa: ARG002  for those that use some
        """Takes indices; true when all trades are to be looked at."""
        return False

    # ---- what goes out

    def propose(self, trades: Iterable[TradeView], *, now_ns: int) -> list[Proposal]:
        """What to propose now: one wish a trade, because a trade takes one change at a time and the next wish is
        decided on what the first one has changed."""
        proposals: list[Proposal] = []
        for trade in trades:
            quote = self._quotes.get(trade.instrument)
            if quote is None or not quote.usable:
                continue
            for wish in self.wishes(trade, quote, now_ns=now_ns):
                if not self._paused(trade, wish, now_ns):
                    proposals.append(Proposal(trade=trade, wish=wish))
                    break
        self.tally.proposals += len(proposals)
        return proposals

    def memos(self, trades: Iterable[TradeView], *, now_ns: int) -> list[Memo]:
        """Memos that differ from what DTMS keeps."""
        wanted = ((trade, self.memo(trade, now_ns=now_ns)) for trade in trades)
        return [Memo(trade, text) for trade, text in wanted if text is not None and text != trade.memo]

    # ---- what became of it

    def decided(self, proposal: Proposal, decision: Decision, outcome: Outcome | None, *, now_ns: int) -> None:
        """DTMS has answered."""
        if not decision.granted:
            code = DenialCode.Name(decision.denial).removeprefix("DENIAL_CODE_")
            self.tally.denied[code] += 1
            self._pause(proposal, now_ns, final=not decision.retryable)
            logger.info("denied", extra={"facts": proposal.facts() | {"denial": code}})
            return
        self.tally.granted += 1
        status = outcome.status if outcome is not None else None
        if status == OUTCOME_STATUS_CONFIRMED:
            self.tally.confirmed += 1
        elif status == OUTCOME_STATUS_REJECTED:
            self.tally.rejected += 1
            self._pause(proposal, now_ns, final=False)
        else:
            self.tally.unknown += 1
            self._pause(proposal, now_ns, final=False)
        facts = {
            "outcome": "UNDER_WAY" if status is None else OutcomeStatus.Name(status).removeprefix("OUTCOME_STATUS_"),
            "retcode": outcome.retcode if outcome is not None else None,
        }
        logger.info("granted", extra={"facts": proposal.facts() | facts})

    def undecided(self, proposal: Proposal, reason: str, *, now_ns: int) -> None:
        """DTMS could not decide, as on a stale owner_epoch: the trade is to be read again."""
        self.tally.undecided[reason] += 1
        self._pause(proposal, now_ns, final=False)
        logger.info("undecided", extra={"facts": proposal.facts() | {"reason": reason}})

    def expired(self, proposal: Proposal) -> None:
        """DTMS did not answer for too long: the wish is dropped, to be decided anew on its return."""
        self.tally.expired += 1
        logger.warning("expired", extra={"facts": proposal.facts()})

    def pauses(self, *, now_ns: int) -> list[Pause]:
        """Those that are not over."""
        return [pause for pause in self._pauses.values() if now_ns < max(pause.any_until_ns, pause.same_until_ns)]

    def resume(self, pauses: Iterable[Pause]) -> None:
        """Waits as another process of this manager did."""
        self._pauses |= {(pause.trade.key, pause.wish.purpose): pause for pause in pauses}

    def forget(self, key: Key) -> None:
        """The trade is gone."""
        for paused in [paused for paused in self._pauses if paused[0] == key]:
            del self._pauses[paused]

    def _pause(self, proposal: Proposal, now_ns: int, *, final: bool) -> None:
        self._pauses[proposal.key, proposal.wish.purpose] = Pause(
            trade=proposal.trade,
            wish=proposal.wish,
            any_until_ns=now_ns + PAUSE_NS,
            same_until_ns=now_ns + (FINAL_PAUSE_NS if final else PAUSE_NS),
        )

    def _paused(self, trade: TradeView, wish: Wish, now_ns: int) -> bool:
        pause = self._pauses.get((trade.key, wish.purpose))
        return pause is not None and pause.holds(trade, wish, now_ns)
