"""``dtms gateway --broker mt5``: the process that owns a MetaTrader 5 terminal and lends it to the service.

The terminal's prices go up as they come, commands and queries are answered, and when either side goes away the gateway
comes back by itself: to the terminal with the next call, to the service with growing pauses. Nothing is buffered for a
service that is away: prices of the past are no ground for a decision.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from dtms.v1 import gateway_service_pb2, market_data_service_pb2
from dtms_client import DtmsError
from dtms_client._channel import Backoff, Target, target
from dtms_client.errors import OUTAGE
from dtms_service import gateway_messages as messages
from dtms_service.broker.door import AccountInfo, BrokerUnavailable, SymbolSpec
from dtms_service.broker.fence import Fence
from dtms_service.broker.mt5_door import Mt5Door
from dtms_service.broker.mt5_package import loader
from dtms_service.broker.mt5_prices import Look, Price
from dtms_service.broker.mt5_session import Health, Login, OtherAccount
from dtms_service.broker.retcodes import LastError
from dtms_service.broker.server_time import OBSERVATIONS, ServerTime
from dtms_service.clock import SystemClock
from dtms_service.errors import DtmsError as Undecided
from dtms_service.errors import FatalError
from dtms_service.gateway.link import Attachment, AttachmentLost
from dtms_service.gateway.parent import end_with_parent
from dtms_service.gateway.process import Exit
from dtms_service.gateway.watchdog import ended_after
from dtms_service.journal.lock import DataDirectoryLock

FENCE_FILE: Final = "fence.db"
TIME_FILE: Final = "server_time.json"

POLL_S: Final = 0.1  # between two looks at the terminal: a price is at most so old when it leaves
ACCOUNT_TURNS: Final = 10  # looks between two tellings of the account's figures: a second
BEAT_S: Final = 2.0  # between two signs of life; the service misses them after gateways.SILENT_S

T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """``account_id`` is login@server; ``terminal`` and ``password`` as in :class:`Login`.

    ``package`` is a module with the functions of MetaTrader5, or MODULE:CLASS to call for an object that has them.

    ``symbols`` are those whose prices are sent, besides the symbols of open positions. ``offset_s`` is the server's
    time minus UTC where an operator must say it (first start with a closed market), else it is detected. One that is
    ``supervised`` ends with the process at the other end of its standard input.
    """

    service: str
    token_file: Path
    root_certificates: Path | None
    data_dir: Path
    account_id: str
    terminal: str | None
    password: str | None
    package: str
    symbols: tuple[str, ...]
    offset_s: int | None
    supervised: bool = False


def run_live(options: LiveOptions) -> int:
    """Serve the terminal until the process is told to end, or the service refuses it: the exit code."""
    if options.supervised:
        end_with_parent()
    try:
        asyncio.run(_until_told(drive_live(options)))
    except asyncio.CancelledError:
        return Exit.DONE
    except (DtmsError, Undecided, FatalError, ImportError, OSError, ValueError) as error:
        print(f"dtms gateway: {error}", file=sys.stderr)  # noqa: T201  # a process's last word
    return Exit.REFUSED


async def _until_told(work: Coroutine[Any, Any, None]) -> None:
    """``work``, cancelled by SIGTERM: the stream ends in good order. Raises CancelledError then."""
    task = asyncio.ensure_future(work)
    # Windows has no such signal: a process is ended there, which the service takes for a lost stream.
    with suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await task


async def drive_live(options: LiveOptions) -> None:
    """Runs until cancelled. Raises what the service refuses (DtmsError), ImportError and ValueError for arguments."""
    roots = options.root_certificates.read_bytes() if options.root_certificates is not None else None
    to = target(options.service, token=None, token_file=options.token_file, root_certificates=roots)
    clock = SystemClock()
    options.data_dir.mkdir(parents=True, exist_ok=True)
    lock = DataDirectoryLock(options.data_dir)
    try:
        server_time = ServerTime(options.data_dir / TIME_FILE)
        if options.offset_s is not None:
            server_time.set(options.offset_s, clock.now_ns() // 1_000_000)
        door = Mt5Door(
            loader(options.package),
            Login(options.account_id, options.terminal, options.password),
            time=server_time,
            fence=Fence(options.data_dir / FENCE_FILE),
            now_msc=lambda: clock.now_ns() // 1_000_000,
            watch=ended_after,
        )
        try:
            await Live(door, to, options.account_id, options.symbols).run()
        finally:
            door.close()
    finally:
        lock.release()


class Live:
    """A terminal's door and the service that it is lent to. ``pause`` waits so many seconds."""

    def __init__(
        self,
        door: Mt5Door,
        to: Target,
        account_id: str,
        symbols: Sequence[str],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._door, self._to, self._account_id, self._symbols = door, to, account_id, tuple(symbols)
        self._pause = pause
        self._trouble: str | None = None
        self._health: Health | None = None
        self._ping_ms = 0

    async def run(self) -> None:
        """Attach again and again. Raises what the service refused at the first attachment."""
        backoff, attached_once = Backoff(), False
        while True:
            try:
                hello = await self._hello()
                async with self._to.open_aio() as channel, Attachment(channel, self._to, hello, self._door) as link:
                    log.info("attached", account=self._account_id, revision=link.attached_at_revision)
                    attached_once = True
                    backoff.reset()
                    await self._stream(link)
            except (AttachmentLost, BrokerUnavailable, DtmsError) as error:
                # After a cut the service may still hold the old stream: what it refuses then it accepts later.
                if isinstance(error, DtmsError) and not (attached_once or isinstance(error, OUTAGE)):
                    raise
                pause_s = backoff.pause_s(None)
                log.warning("detached", account=self._account_id, why=str(error), again_in_s=pause_s)
                await self._pause(pause_s)

    # --- before the service -------------------------------------------------------------------------------------------

    async def _hello(self) -> gateway_service_pb2.GatewayHello:
        """What the terminal is, as soon as it answers and the server's time is known.

        Raises ValueError for a symbol that the broker does not have."""
        await self._answered(self._look_after)
        for name in self._symbols:
            await self._spec(name)  # also puts it into the Market Watch, so that its ticks come
        await self._answered(self._clocked)
        account = await self._answered(lambda: self._door.account(self._account_id))
        held = await self._answered(lambda: self._door.positions(self._account_id))
        names = dict.fromkeys((*self._symbols, *(position.symbol for position in held)))
        return gateway_service_pb2.GatewayHello(
            account_id=self._account_id,
            account=messages.account_to_wire(account),
            symbols=[messages.symbol_to_wire(await self._spec(name)) for name in names],
        )

    async def _answered(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What the terminal answers, as soon as it does."""
        backoff = Backoff()
        while True:
            try:
                answer = await ask()
            except BrokerUnavailable as error:
                self._tell(str(error))
                await self._pause(backoff.pause_s(None))
            else:
                self._tell(None)
                return answer

    async def _spec(self, name: str) -> SymbolSpec:
        try:
            return await self._answered(lambda: self._door.symbol(self._account_id, name))
        except KeyError:
            raise ValueError(f"symbol: the broker of {self._account_id} has no {name}") from None

    async def _clocked(self) -> None:
        """Raises BrokerUnavailable while nobody knows how the server's clock stands."""
        for _ in range(OBSERVATIONS + 1):
            if await self._door.observe(self._symbols) is not None:
                return
            await self._pause(POLL_S)
        why = "the server's time offset is not known: no tick moves (market closed?); it can be said at the start"
        raise BrokerUnavailable("observe", LastError.FAIL, why)

    async def _look_after(self) -> None:
        """Look who the terminal is and say what has changed about it. Raises BrokerUnavailable for the wrong one."""
        health = await self._door.health()
        self._ping_ms, health = health.ping_ms, replace(health, ping_ms=0)
        if health != self._health:
            self._health = health
            able = health.linked and health.terminal_trades and health.account_trades and health.experts_trade
            (log.info if able else log.error)("terminal", account=self._account_id, **asdict(health))

    # --- attached -----------------------------------------------------------------------------------------------------

    async def _stream(self, link: Attachment) -> None:
        """What the terminal shows goes up, for as long as the stream lives. One that fails is told of, and asked again;
        one that shows another account is let go.

        Raises AttachmentLost, OtherAccount."""
        await self._answered(self._door.restart_prices)
        at_work = {asyncio.create_task(self._looks(link)), asyncio.create_task(self._beats(link))}
        try:
            done, _ = await asyncio.wait(at_work, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except OtherAccount as error:
            self._tell(str(error))
            await link.tell_terminal(self._shown(trouble=error.text, other_account_id=error.shown))
            await link.leave()
            raise
        finally:
            for task in at_work:
                task.cancel()
            await asyncio.wait(at_work)

    async def _looks(self, link: Attachment) -> None:
        """Positions before the prices that may have changed them, and figures when they are another second old."""
        last: dict[str, Price] = {}
        told_count: int | None = None
        told_account: AccountInfo | None = None
        for turn in itertools.count():
            link.raise_if_lost()
            executed = link.executed
            try:
                look = await self._door.look(tuple(link.symbols))
            except OtherAccount:
                raise
            except BrokerUnavailable as error:
                self._tell(str(error))
            else:
                self._tell(None)
                last |= {symbol: prices[-1] for symbol, prices in look.ticks.items()}
                if look.positions is not None and look.change_count != told_count:
                    await link.tell_positions(look.positions, look.change_count, executed)
                if turn % ACCOUNT_TURNS == 0 and look.account != told_account:
                    told_account = look.account
                    await link.tell_account(look.account)
                for symbol, ticks in _news(look, told_count, last).items():
                    await link.send(symbol, ticks, look.change_count, equity=None)
                told_count = look.change_count
            await self._pause(POLL_S)

    async def _beats(self, link: Attachment) -> None:
        """A sign of life of the terminal itself, beside its prices: those wait for the service, this one does not."""
        while True:
            try:
                await self._look_after()
            except OtherAccount:
                raise
            except BrokerUnavailable as error:
                hangs = error.code == LastError.INTERNAL_FAIL_TIMEOUT
                await link.tell_terminal(self._shown(trouble=str(error), hangs=hangs))
            else:
                await link.tell_terminal(self._shown())
            await self._pause(BEAT_S)

    def _shown(
        self, *, trouble: str = "", hangs: bool = False, other_account_id: str = ""
    ) -> gateway_service_pb2.TerminalState:
        """The terminal as it was seen last, and what is wrong with it now."""
        state = gateway_service_pb2.TerminalState(trouble=trouble, hangs=hangs, other_account_id=other_account_id)
        if (health := self._health) is not None:
            state.path, state.build, state.ping_ms = health.path, health.build, self._ping_ms
            state.linked, state.terminal_trades = health.linked, health.terminal_trades
            state.account_trades, state.experts_trade = health.account_trades, health.experts_trade
            if health.offset_s is not None:
                state.offset_s = health.offset_s
        return state

    def _tell(self, trouble: str | None) -> None:
        """Log a trouble when it begins, changes and ends, not ten times a second."""
        if trouble != self._trouble:
            self._trouble = trouble
            if trouble is None:
                log.info("terminal_answers", account=self._account_id)
            else:
                log.warning("terminal_fails", account=self._account_id, why=trouble)


def _news(
    look: Look, told_count: int | None, last: Mapping[str, Price]
) -> dict[str, list[market_data_service_pb2.Tick]]:
    """What to send. A change of positions without a tick is told with the last one again, which moves no price and
    counts no volume."""
    news = {symbol: [_tick(price, volume=1.0) for price in prices] for symbol, prices in look.ticks.items()}
    if not news and look.change_count != told_count and last:
        symbol, price = max(last.items(), key=lambda item: item[1].time_msc)
        news[symbol] = [_tick(price, volume=0.0)]
    return news


def _tick(price: Price, *, volume: float) -> market_data_service_pb2.Tick:
    return market_data_service_pb2.Tick(time_msc=price.time_msc, bid=price.bid, ask=price.ask, volume=volume)
