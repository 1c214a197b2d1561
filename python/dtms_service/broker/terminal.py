"""The client terminal between a program and the paper broker's server: the pipe, the link, the switches.

It behaves as the MetaTrader5 package's C extension does: every call first resets ``last_error``, a failed call
answers None and leaves the cause there. Both the package facade and the door stand on it.
"""

from __future__ import annotations

from collections.abc import Mapping

from dtms_service.broker.door import AccountInfo
from dtms_service.broker.market import PaperPosition
from dtms_service.broker.mt5_enums import Action
from dtms_service.broker.paper import PaperBroker
from dtms_service.broker.requests import InvalidArgument, parse_request
from dtms_service.broker.retcodes import LAST_ERROR_TEXTS, LastError, Retcode
from dtms_service.broker.structs import OrderSendResult


class Terminal:
    """One program's handle on a broker. ``last_error`` is (code, text)."""

    def __init__(self, broker: PaperBroker) -> None:
        self.broker = broker
        self.last_error: tuple[int, str] = (int(LastError.OK), LAST_ERROR_TEXTS[LastError.OK])

    def begin(self) -> None:
        self.last_error = (int(LastError.OK), LAST_ERROR_TEXTS[LastError.OK])

    def fail(self, code: LastError, text: str | None = None) -> None:
        self.last_error = (int(code), text if text is not None else LAST_ERROR_TEXTS[code])

    def initialize(self) -> bool:
        """Open the pipe again. False with -10003 while no terminal runs."""
        self.begin()
        if not self.broker.faults.terminal_runs:
            self.fail(LastError.INTERNAL_FAIL_INIT)
            return False
        self.broker.faults.pipe_broken = False
        return True

    def reach(self) -> bool:
        """Start a call: whether the pipe carries it."""
        self.begin()
        failure = self.broker.faults.take_ipc_failure()
        if failure is not None:
            self.fail(failure)
        return failure is None

    def order_send(self, fields: Mapping[str, object]) -> OrderSendResult | None:
        """Checks 1 and 2 of mt5.md section 4 (layer, terminal), then the server."""
        self.begin()
        try:
            request = parse_request(fields)
        except InvalidArgument as error:
            self.fail(LastError.INVALID_PARAMS, str(error))
            return None
        if not self.reach():
            return None
        broker, faults = self.broker, self.broker.faults
        if faults.tradeapi_disabled:
            self.fail(LastError.AUTO_TRADING_DISABLED)
            return None
        if not faults.trade_allowed:
            return broker.refuse(request, Retcode.CLIENT_DISABLES_AT)
        if not faults.connected:
            return broker.refuse(request, Retcode.CONNECTION)
        if not faults.server_allows:
            return broker.refuse(request, Retcode.SERVER_DISABLES_AT)
        injected = faults.take_retcode()
        if injected is not None and not injected.executes:
            return broker.refuse(request, injected.retcode)
        fill = faults.take_fill() if request.action == Action.DEAL else None
        result = broker.order_send(fields) if fill is None else broker.order_send(fields, fill=fill)
        if injected is not None:
            return broker.refuse(request, injected.retcode)
        if faults.take_lost_reply():
            self.fail(LastError.INTERNAL_FAIL_RECEIVE)
            return None
        return result

    # --- reads; call after reach() -----------------------------------------------------------------------------------

    def positions(self) -> list[PaperPosition]:
        """What positions_get shows: frozen while disconnected, late after a deal when so switched, else the truth."""
        faults = self.broker.faults
        view = faults.last_seen or faults.stale_view(self.broker.now_msc)
        return view.positions if view is not None else list(self.broker.book.positions.values())

    def position(self, ticket: int) -> PaperPosition | None:
        """One of :meth:`positions`."""
        faults = self.broker.faults
        view = faults.last_seen or faults.stale_view(self.broker.now_msc)
        if view is None:
            return self.broker.find_position(ticket)
        return next((position for position in view.positions if position.ticket == ticket), None)

    def quote(self, symbol: str) -> tuple[int, float, float] | None:
        """(time_msc UTC, bid, ask) last seen, or None without one. KeyError for an unknown symbol."""
        view = self.broker.faults.last_seen
        if view is not None:
            quote = view.quotes[symbol]
        else:
            market = self.broker.market(symbol)
            quote = (market.time_msc, market.bid, market.ask)
        return quote if quote[0] else None

    def account(self) -> AccountInfo:
        view = self.broker.faults.last_seen
        return view.account if view is not None else self.broker.account()
