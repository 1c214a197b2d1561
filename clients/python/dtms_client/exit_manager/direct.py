"""Direct mode: breakeven and partial past DTMS, on an operator's word, while DTMS is away.

Used only for trades of which DTMS has told in this life and does not answer for now, and whose last known state leaves
the exit manager a part (never in defence, with a change of DTMS under way, or in quarantine). Each step is decided on
the position as the terminal shows it, is taken once, and can only reduce the risk: see ADR 15 for what that costs.

A partial that was taken here is not repeated through DTMS, for three reasons: it is remembered; it is left with DTMS as
part of the memo; and DTMS shows a volume that nobody took through it (`TradeView.part_off_outside`). After a restart in
the middle of an outage the comment of the broker's deal says it.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Final

from dtms.v1.action_pb2 import Purpose
from dtms_client.exit_manager.rule_book import RuleBook, read_memo
from dtms_client.exit_manager.rules import decide_alone, deferral
from dtms_client.exit_manager.terminal import Failed, Held, Sent
from dtms_client.exit_manager.terminal_process import TerminalProcess
from dtms_client.managing.brain import NANOS
from dtms_client.managing.state_source import Source
from dtms_client.managing.views import Key, QuoteView, TradeView
from dtms_client.managing.wishes import MoveStop, TakePartial, Wish

# After a "no" of the broker the same is not asked of it in every look.
PAUSE_NS: Final = 30 * NANOS

logger = logging.getLogger(__name__)


class Direct:
    """A `Standby` for the exit manager."""

    every_s = 1.0

    def __init__(self, terminal: TerminalProcess, book: RuleBook) -> None:
        self._terminal = terminal
        self._book = book
        self._parts: set[Key] = set()
        """Trades whose partial was taken here, or may have been."""
        self._examined: set[Key] = set()
        """Trades whose deals were looked through for a partial of an earlier life."""
        self._paused_until_ns: dict[Key, int] = {}

    def took_part(self, key: Key) -> bool:
        """The partial of the trade was taken past DTMS."""
        return key in self._parts

    def forget(self, key: Key) -> None:
        """The trade is gone."""
        self._parts.discard(key)
        self._examined.discard(key)
        self._paused_until_ns.pop(key, None)

    async def prepare(self) -> None:
        """Says at the start whether the terminal can be reached, not only when it is needed."""
        try:
            await self._terminal.see(0)
        except Failed as failed:
            logger.warning("direct mode cannot reach the terminal", extra={"facts": {"error": str(failed)}})
        else:
            logger.warning("direct mode: breakeven and partial go to the terminal while DTMS is away")

    async def close(self) -> None:
        """Ends the terminal's process."""
        await self._terminal.close()

    async def act(self, trade: TradeView, *, now_ns: int) -> None:
        """One step, where one is due."""
        if deferral(trade) is not None or now_ns < self._paused_until_ns.get(trade.key, 0):
            return
        try:
            await self._look_after(trade, now_ns)
        except Failed as failed:
            self._pause(trade, now_ns)
            logger.warning("direct step failed", extra={"facts": _facts(trade) | {"error": str(failed)}})

    async def _look_after(self, trade: TradeView, now_ns: int) -> None:
        held = await self._terminal.see(trade.ticket)
        if held is None:
            return
        if (held.account_id, held.symbol, held.sign) != (trade.account_id, trade.symbol, trade.sign):
            raise Failed(f"the terminal has another position: {held.account_id} {held.symbol}, sign {held.sign}")
        await self._examine(trade.key)
        wish = decide_alone(self._as_held(trade, held), _quote(held), self._book.rules(trade))
        if wish is None:
            return
        if held.frozen:
            raise Failed(f"position {trade.ticket} is inside the freeze level")
        sent = await self._send(trade, held, wish)
        if not sent.done:
            self._pause(trade, now_ns)
        facts = {"retcode": sent.retcode, "comment": sent.comment, "done": sent.done}
        logger.warning("direct step", extra={"facts": _facts(trade, wish) | facts})

    async def _examine(self, key: Key) -> None:
        """Reads from the deals whether a partial was taken here, in an earlier life or by a call without an answer."""
        if key in self._examined:
            return
        if await self._terminal.part_taken(key[1]):
            self._parts.add(key)
        else:
            self._parts.discard(key)
        self._examined.add(key)

    def _as_held(self, trade: TradeView, held: Held) -> TradeView:
        """The trade with what the terminal says of it."""
        # Whoever has closed a part since DTMS was last heard of: a second part is not taken blindly.
        closed = abs(held.volume - trade.volume) > held.volume_step / 2
        taken = closed or trade.key in self._parts or read_memo(trade.memo).part
        return replace(
            trade,
            stop=held.stop,
            target=held.target,
            volume=held.volume,
            partial_taken=trade.partial_taken or taken,
        )

    async def _send(self, trade: TradeView, held: Held, wish: Wish) -> Sent:
        match wish:
            case MoveStop():
                return await self._terminal.protect(trade.ticket, wish.stop)
            case TakePartial():
                # Before it is sent: an answer that is lost must not lead to a second part.
                self._parts.add(trade.key)
                try:
                    sent = await self._terminal.take_part(trade.ticket, wish.volume, held.volume)
                except Failed as failed:
                    if failed.uncertain:
                        self._examined.discard(trade.key)
                    else:
                        self._parts.discard(trade.key)
                    raise
                if not sent.done:
                    self._parts.discard(trade.key)
                return sent
            case _:
                raise AssertionError(f"{wish} is not for direct mode")

    def _pause(self, trade: TradeView, now_ns: int) -> None:
        self._paused_until_ns[trade.key] = now_ns + PAUSE_NS


def _quote(held: Held) -> QuoteView:
    return QuoteView(
        bid=held.bid,
        ask=held.ask,
        atr=None,
        atr_fast=None,
        swing_high=None,
        swing_low=None,
        point=held.point,
        tick_size=held.tick_size,
        volume_min=held.volume_min,
        volume_step=held.volume_step,
        stops_level=held.stops_level,
        freeze_level=held.freeze_level,
    )


def _facts(trade: TradeView, wish: Wish | None = None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "source": Source.ASSUMED,
        "account_id": trade.account_id,
        "ticket": trade.ticket,
        "symbol": trade.symbol,
    }
    if wish is not None:
        facts["purpose"] = Purpose.Name(wish.purpose).removeprefix("PURPOSE_")
        facts["stop"] = getattr(wish, "stop", None)
        facts["volume"] = getattr(wish, "volume", None)
    return facts
