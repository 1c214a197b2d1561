"""The broker door over paper accounts: strict MetaTrader 5 requests in, outcomes out, stale tokens refused.

Each call travels through the account's faults: their latency is awaited before the call reaches the broker and before
the answer reaches the caller. At the broker the token check and the send are one step without an await between them.
"""

from __future__ import annotations

from collections.abc import Mapping

from dtms_service.bars import ClosedBar
from dtms_service.broker.door import (
    AccountInfo,
    BrokerUnavailable,
    ClosingDeal,
    Command,
    CommandKind,
    OrderRecord,
    Outcome,
    OutcomeStatus,
    Position,
    Report,
    Side,
    SymbolSpec,
)
from dtms_service.broker.faults import Leg
from dtms_service.broker.fence import Fence
from dtms_service.broker.market import PaperPosition
from dtms_service.broker.mt5_enums import Action, OrderTime, OrderType
from dtms_service.broker.outcomes import NO_ECHO, STALE_TOKEN, UNSENT, status_of
from dtms_service.broker.paper import PaperBroker
from dtms_service.broker.paper_rules import default_filling
from dtms_service.broker.retcodes import COMMENTS, LastError, Retcode
from dtms_service.broker.structs import OrderSendResult
from dtms_service.broker.terminal import Terminal


class PaperDoor:
    """Implements :class:`door.BrokerDoor` for the given accounts.

    A command with a lower token than the highest seen for its (account, ticket) is REJECTED with retcode 0 and comment
    ``STALE_TOKEN``, and nothing is sent. ``fence`` keeps the tokens; without one they live as long as the door, which
    is enough where the broker does not outlive it either.
    """

    def __init__(self, brokers: Mapping[str, PaperBroker], fence: Fence | None = None) -> None:
        self._terminals = {account_id: Terminal(broker) for account_id, broker in brokers.items()}
        self._fence = fence or Fence(None)

    async def execute(self, command: Command) -> Outcome:
        """Send one command; a lost answer is UNKNOWN. Raises BrokerUnavailable for an unknown account only."""
        terminal = self._terminal("execute", command.account_id)
        await self._travel(terminal, "execute", Leg.REQUEST)
        outcome = self._execute_now(terminal, command)
        await self._travel(terminal, "execute", Leg.REPLY)
        return outcome

    async def account(self, account_id: str) -> AccountInfo:
        terminal = await self._arrive("account", account_id)
        info = terminal.account()
        await self._travel(terminal, "account", Leg.REPLY)
        return info

    async def symbol(self, account_id: str, name: str) -> SymbolSpec:
        terminal = await self._arrive("symbol", account_id)
        spec = terminal.broker.symbol(name)
        await self._travel(terminal, "symbol", Leg.REPLY)
        return spec

    async def positions(self, account_id: str) -> list[Position]:
        terminal = await self._arrive("positions", account_id)
        view = terminal.broker.book.view
        positions = [view(position) for position in terminal.positions()]
        await self._travel(terminal, "positions", Leg.REPLY)
        return positions

    async def report(self, account_id: str, since: int) -> Report:
        terminal = await self._arrive("positions", account_id)
        book = terminal.broker.book
        changed = book.changed_since(since)
        if changed is None:
            shown = terminal.positions()
        else:
            shown = [held for ticket in sorted(changed) if (held := terminal.position(ticket)) is not None]
        report = Report([book.view(position) for position in shown], changed)
        await self._travel(terminal, "positions", Leg.REPLY)
        return report

    async def past_bars(self, account_id: str, symbol: str, timeframe_s: int, count: int) -> list[ClosedBar]:  # noqa: ARG002  # see below
        """None: the account begins with its first price, and who feeds it feeds its history."""
        await self._arrive("past_bars", account_id)
        return []

    async def closing_deals(self, account_id: str, position: int) -> list[ClosingDeal]:
        terminal = await self._arrive("closing_deals", account_id)
        deals = terminal.broker.closing_deals(position)
        await self._travel(terminal, "closing_deals", Leg.REPLY)
        return deals

    @property
    def settles_at_once(self) -> bool:
        """The broker is at hand: what it does not show it never got."""
        return True

    async def orders(self, account_id: str, comment: str, since_msc: int) -> list[OrderRecord]:  # noqa: ARG002  # all
        terminal = await self._arrive("orders", account_id)
        found = terminal.broker.book.ledger.orders_with(comment)
        await self._travel(terminal, "orders", Leg.REPLY)
        return found

    # --- the way to the broker ----------------------------------------------------------------------------------------

    def _terminal(self, operation: str, account_id: str) -> Terminal:
        terminal = self._terminals.get(account_id)
        if terminal is None:
            raise BrokerUnavailable(operation, LastError.AUTH_FAILED, f"no account {account_id}")
        return terminal

    async def _travel(self, terminal: Terminal, operation: str, leg: Leg) -> None:
        latency = terminal.broker.faults.latency
        if latency is not None:
            await latency(operation, leg)

    async def _arrive(self, operation: str, account_id: str) -> Terminal:
        """Bring a query to the broker, or say that the broker could not be asked."""
        terminal = self._terminal(operation, account_id)
        await self._travel(terminal, operation, Leg.REQUEST)
        self._reopen(terminal)
        if not terminal.reach():
            raise BrokerUnavailable(operation, *terminal.last_error)
        if not terminal.broker.faults.connected:
            raise BrokerUnavailable(operation, Retcode.CONNECTION, COMMENTS[Retcode.CONNECTION])
        return terminal

    @staticmethod
    def _reopen(terminal: Terminal) -> None:
        """A broken pipe never mends by itself; the door opens it again as soon as a terminal runs."""
        faults = terminal.broker.faults
        if faults.pipe_broken and faults.terminal_runs:
            terminal.initialize()

    # --- commands -----------------------------------------------------------------------------------------------------

    def _execute_now(self, terminal: Terminal, command: Command) -> Outcome:
        if not self._fence.admit(command.account_id, command.ticket, command.token):
            return Outcome(OutcomeStatus.REJECTED, 0, STALE_TOKEN)
        self._reopen(terminal)
        result = terminal.order_send(_request(terminal, command))
        if result is None:
            code, text = terminal.last_error
            unsent = code in UNSENT
            return Outcome(OutcomeStatus.REJECTED if unsent else OutcomeStatus.UNKNOWN, code, text)
        return _outcome(terminal, command, result)


def _outcome(terminal: Terminal, command: Command, result: OrderSendResult) -> Outcome:
    """The result with the levels that the broker shows afterwards, never those that were asked for."""
    status = status_of(command.kind, result.retcode)
    comment = result.comment
    echo = _echo(terminal, command, result) if status is OutcomeStatus.CONFIRMED else None
    if status is OutcomeStatus.CONFIRMED and command.kind is CommandKind.MODIFY and echo is None:
        status, comment = OutcomeStatus.UNKNOWN, NO_ECHO
    return Outcome(
        status=status,
        retcode=result.retcode,
        comment=comment,
        order=result.order,
        deal=result.deal,
        price=result.price if result.deal else None,
        volume=result.volume if result.deal else None,
        sl=echo.sl if echo is not None else None,
        tp=echo.tp if echo is not None else None,
    )


def _echo(terminal: Terminal, command: Command, result: OrderSendResult) -> PaperPosition | None:
    """The position as re-read after the command; None when it cannot be read or is gone."""
    if not terminal.reach():
        return None
    if command.kind is not CommandKind.OPEN:
        return terminal.position(command.position)
    if terminal.broker.config.hedging:
        return terminal.position(result.order)
    return next((p for p in terminal.positions() if p.market.spec.name == command.symbol), None)


def _request(terminal: Terminal, command: Command) -> dict[str, object]:
    """The request as the strict layer wants it: every level a float, both levels always, closes with their ticket."""
    if command.kind is CommandKind.MODIFY:
        if (position := terminal.position(command.position)) is not None:
            command = command.kept(position.sl, position.tp)
        return {
            "action": int(Action.SLTP),
            "symbol": command.symbol,
            "position": command.position,
            "sl": command.sl or 0.0,
            "tp": command.tp or 0.0,
            "magic": command.magic,
            "comment": command.comment,
        }
    closes = command.kind is CommandKind.CLOSE
    held = terminal.position(command.position) if closes else None
    side = (held.side if held is not None else command.side).opposite if closes else command.side
    market = terminal.broker.find_market(command.symbol)
    quote = terminal.quote(command.symbol) if market is not None else None
    return {
        "action": int(Action.DEAL),
        "symbol": command.symbol,
        "volume": command.volume,
        "type": int(OrderType.BUY if side is Side.BUY else OrderType.SELL),
        "price": 0.0 if quote is None else (quote[2] if side is Side.BUY else quote[1]),
        "sl": 0.0 if closes else command.sl or 0.0,
        "tp": 0.0 if closes else command.tp or 0.0,
        "deviation": command.deviation_points,
        "type_filling": int(default_filling(market)) if market is not None else 0,
        "type_time": int(OrderTime.GTC),
        "magic": command.magic,
        "comment": command.comment,
        "position": command.position if closes else 0,
    }
