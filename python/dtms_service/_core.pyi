"""The core in Rust: states, arbitration, registry, scoring. This file is its contract with Python.

Dicts have the field names of ``proto/dtms/v1``; enumerations are ints, absent optional fields are left out. Prices are
quote-currency doubles, volumes lots. ``now_ns`` is event time in ns UTC, ``mono_ns`` the service's monotonic clock in
ns, on which leases run. Every method may raise :class:`CoreError` (nothing was changed) or :class:`CorePanic` (the
engine must not be used any more).
"""

# ruff: noqa: PYI021  # the docstrings are the contract: an extension has no other source to read
# ruff: noqa: ANN401  # a reply is what its method says
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, final, type_check_only

from typing_extensions import Buffer

__all__ = [
    "CoreError",
    "CorePanic",
    "Engine",
    "Step",
    "atr",
    "bollinger",
    "decisions",
    "decode_event",
    "ema",
    "enums",
    "macd",
    "rsi",
    "schema",
    "score_bars",
    "wal_checksum",
]

@type_check_only
class _Array(Protocol):
    """numpy's arrays, whose stubs name the buffer protocol from Python 3.12 on only."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...

class CoreError(Exception):
    """A call that could not be decided. ``args`` are (reason, field, message).

    ``reason`` is a name of ``ErrorReason`` without its prefix; ``field`` is empty where no field is to blame.
    """

class CorePanic(BaseException):
    """The core contradicts itself: the process has to stop and start again by replay."""

@final
class Step:
    """The events of one call, in order, and its reply."""

    @property
    def events(self) -> list[dict[str, Any]]:
        """``Event`` dicts: the envelope and exactly one body. Made at the first access; the same list each time."""
    @property
    def reply(self) -> Any:
        """What the method says it is; None where it says nothing."""

@final
class Engine:
    """The decider. State is the fold of the events; markets, quotes and leases are fed in and not recorded."""

    def __new__(
        cls,
        config: Mapping[str, float | int | bool],
        managers: Mapping[str, int],
        managed_strategies: Sequence[str],
    ) -> Engine:
        """``config`` has every key of the engine section, ``managers`` ranks (``Rank`` numbers) by name.

        FIELD_INVALID names an unknown, missing or unusable key or manager.
        """
    @property
    def revision(self) -> int: ...
    @property
    def trade_count(self) -> int: ...
    def start(self, mono_ns: int) -> None:
        """Gives every lease its full length from now on. Call it once recovery is done."""
    def record_rules(self, by: str, now_ns: int) -> Step:
        """Records the numbers it was made with. No event when the journal has them as the newest."""
    def reconfigure(
        self,
        config: Mapping[str, float],
        managers: Mapping[str, int],
        managed_strategies: Sequence[str],
        by: str,
        now_ns: int,
    ) -> Step:
        """Trades that are registered keep their numbers; what holds for all alike holds at once.

        FIELD_INVALID, also for ``fast_s``, ``slow_s`` and ``request_ids_kept``, which cannot change; then nothing has.
        """
    def define_account(self, account_id: str, hedging: bool, currency: str, now_ns: int) -> Step:
        """No event when it is known so."""
    def define_symbol(self, account_id: str, spec: Mapping[str, Any], now_ns: int) -> Step:
        """``spec`` is a ``SymbolSpec``. No event when it is known so. ACCOUNT_UNKNOWN, FIELD_INVALID."""
    def register(
        self,
        account_id: str,
        ticket: int,
        symbol: str,
        side: int,
        entry_price: float,
        volume: float,
        sl: float | None,
        tp: float | None,
        strategy_type: str,
        opened_ns: int,
        origin: int,
        registered_by: str,
        now_ns: int,
        mono_ns: int,
    ) -> Step:
        """Reply: True when the trade is new; the same again makes no events.

        ACCOUNT_UNKNOWN, SYMBOL_UNKNOWN, FIELD_INVALID, TRADE_DIFFERS.
        """
    def unregister(self, account_id: str, ticket: int, by: str, now_ns: int) -> Step:
        """TRADE_UNKNOWN; FIELD_INVALID while a command, an action or a leg of the trade is not settled."""
    def on_tick(
        self, account_id: str, symbol: str, time_msc: int, bid: float, ask: float, volume: float, now_ns: int
    ) -> Step | None:
        """None: no event. A tick older than the last one changes nothing. SYMBOL_UNKNOWN, FIELD_INVALID."""
    def on_ticks(
        self,
        account_id: str,
        symbol: str,
        time_msc: Buffer | _Array,
        bid: Buffer | _Array,
        ask: Buffer | _Array,
        volume: Buffer | _Array,
        now_ns: int,
    ) -> Step | None:
        """Columns of int64 and float64, read without a copy and without the GIL: do not write to them meanwhile.

        Stops after the first tick that makes events, and before one that is invalid; the reply is the number of ticks
        taken. None: all were taken and made no event.
        """
    def on_bar(
        self,
        account_id: str,
        symbol: str,
        timeframe_s: int,
        time_s: int,
        open: float,  # noqa: A002  # the name of the field
        high: float,
        low: float,
        close: float,
        volume: float,
        now_ns: int,
    ) -> Step:
        """A closed bar of bid prices. Reply: True when it was of use, False when late, repeated or inconsistent."""
    def recall_bar(
        self,
        account_id: str,
        symbol: str,
        timeframe_s: int,
        time_s: int,
        open: float,  # noqa: A002  # the name of the field
        high: float,
        low: float,
        close: float,
        volume: float,
    ) -> bool:
        """A closed bar of the past, for the indicators only. True when it was of use."""
    def recall_tick(
        self, account_id: str, symbol: str, time_msc: int, bid: float, ask: float, volume: float, now_ns: int
    ) -> None:
        """A tick that was decided on before: for market, quote and spread only. Errors as ``on_tick``."""
    def recall_account(self, account_id: str, equity: float, is_exposed: bool) -> None:
        """The last figure taken before, and whether a trade was open then. Errors as ``on_account``."""
    def on_time(self, now_ns: int, mono_ns: int) -> Step | None:
        """Timers, holds, arming by age, retries and leases that are due. None: no event."""
    def next_deadline_ns(self) -> int | None:
        """No later than this something is due in ``on_time``. Leases run on the other clock and are not in it."""
    def acquire(self, account_id: str, ticket: int, manager: str, now_ns: int, mono_ns: int) -> Step:
        """Reply: ``{"granted": bool, "denial": DenialCode, "decision_id": int, "ownership": Ownership}``.

        TRADE_UNKNOWN.
        """
    def renew(self, account_id: str, ticket: int, manager: str, owner_epoch: int, mono_ns: int) -> dict[str, Any]:
        """The ``Ownership`` with its full lease. TRADE_UNKNOWN, STALE_EPOCH."""
    def release(self, account_id: str, ticket: int, manager: str, owner_epoch: int, now_ns: int, mono_ns: int) -> Step:
        """Back to DTMS, as soon as nothing of the trade is in flight. Reply: ``Ownership``. As ``renew``."""
    def propose(
        self,
        manager: str,
        request_id: str,
        account_id: str,
        ticket: int,
        owner_epoch: int,
        action: Mapping[str, Any],
        dry_run: bool,
        now_ns: int,
        mono_ns: int,
    ) -> Step:
        """Reply: ``{"decision": Decision, "intent_id": int | None, "outcome": Outcome | None}``.

        The same request again answers as before, without events. FIELD_INVALID, REQUEST_ID_REUSED.
        """
    def on_outcome(self, outcome: Mapping[str, Any], now_ns: int) -> Step:
        """What became of an intent (``Outcome``). What is settled already changes nothing. FIELD_INVALID."""
    def on_position(
        self, account_id: str, position: int, volume: float, sl: float | None, tp: float | None, now_ns: int
    ) -> Step | None:
        """What the broker holds; a level of None is not set. Ignored while a command of the trade is in flight."""
    def on_closed(
        self, account_id: str, position: int, reason: int, price: float, profit: float, now_ns: int
    ) -> Step | None:
        """A proof that the broker closed the position (``CloseReason``)."""
    def on_lost_leg(
        self,
        account_id: str,
        ticket: int,
        intent_id: int,
        position: int,
        side: int,
        volume: float,
        entry_price: float,
        sl: float | None,
        now_ns: int,
    ) -> Step | None:
        """A position with the mark of an intent that was lost becomes a leg of the trade, or a stray. TRADE_UNKNOWN."""
    def is_lost(self, intent_id: int) -> bool:
        """Whether the intent may have been recorded between a backup and its return, and is known no more."""
    def on_missing(self, account_id: str, ticket: int, now_ns: int) -> Step | None:
        """Not at the broker and not proven closed: quarantine, until on_position or on_closed ends it."""
    def on_account(self, account_id: str, equity: float, now_ns: int) -> Step | None:
        """The account's equity: marks of days and hours, loss rails. ACCOUNT_UNKNOWN, FIELD_INVALID."""
    def set_news(
        self, account_id: str, symbol: str, blackouts: Sequence[tuple[int, int, str]], now_ns: int
    ) -> Step | None:
        """(start_ns, end_ns, label) of the times in which news may move the symbol, in place of those before.

        ACCOUNT_UNKNOWN, SYMBOL_UNKNOWN, FIELD_INVALID.
        """
    def restored(self, made_ns: int, now_ns: int) -> Step:
        """The journal goes on from a backup: numbers jump past all that the lost events can have given."""
    def raise_alarm(self, account_id: str, code: int, detail: str, now_ns: int) -> Step:
        """An alarm (``AlarmCode``) about an account, or with an empty one about the service. FIELD_INVALID."""
    def report_score(
        self,
        account_id: str,
        symbol: str,
        score: Mapping[str, Any],
        by: str,
        valid_until_ns: int,
        now_ns: int,
    ) -> Step:
        """Parts or ``total`` of a ``Score`` for a BUY; regime, thresholds and reported_by in it are ignored.

        SYMBOL_UNKNOWN, FIELD_INVALID.
        """
    def set_risk_budget(self, account_id: str, ticket: int, budget_r: float, by: str, reason: str, now_ns: int) -> Step:
        """No event when it is so already. TRADE_UNKNOWN, FIELD_INVALID."""
    def set_memo(self, account_id: str, ticket: int, manager: str, memo: str, now_ns: int) -> Step:
        """No event when it stands there already. TRADE_UNKNOWN, FIELD_INVALID."""
    def report_index(self, name: str, value: float, by: str, valid_until_ns: int, now_ns: int) -> Step:
        """FIELD_INVALID names what is empty, too long, no number or over already."""
    def indices(self) -> list[dict[str, Any]]:
        """The last report (``Index``) of each index, by name."""
    def set_trading_state(self, state: int, by: str, reason: str, now_ns: int) -> Step: ...
    def set_kill_switch(
        self, scope: int, value: str, engaged: bool, flatten: bool, by: str, reason: str, now_ns: int
    ) -> Step:
        """``flatten`` closes the trades of the account or symbol at once. FIELD_INVALID."""
    def trade(self, account_id: str, ticket: int) -> dict[str, Any] | None:
        """The ``Trade``; None when it is not registered."""
    def keys(self, open_only: bool = False) -> list[tuple[str, int]]:
        """(account_id, ticket) in order of registration; closed ones are kept until they are unregistered."""
    def open_positions(self, account_id: str) -> list[tuple[int, int]]:
        """(ticket, position) of every position believed to be open, legs included. ACCOUNT_UNKNOWN."""
    def is_exposed(self, account_id: str) -> bool:
        """Whether a trade of the account is open. ACCOUNT_UNKNOWN."""
    def ownership(self, account_id: str, ticket: int, mono_ns: int) -> dict[str, Any] | None: ...
    def decision_on(self, manager: str, request_id: str) -> dict[str, Any] | None:
        """The ``Decision`` on a proposal; None once it is forgotten (``request_ids_kept``)."""
    def open_intents(self) -> list[dict[str, Any]]:
        """``IntentRecorded`` with account_id, ticket and symbol, without a final outcome, oldest first;
        ``recorded_ns`` is when it was recorded.
        """
    def abandoned(self) -> list[dict[str, Any]]:
        """As :meth:`open_intents`: those that were settled as not executed because the broker showed no trace. A
        CONFIRMED outcome of one of them takes effect, with an alarm: it was executed late.
        """
    def score(self, account_id: str, symbol: str, side: int) -> dict[str, Any] | None:
        """The ``Score`` as a trade of ``side`` sees it; None before the first price."""
    def quote(self, account_id: str, symbol: str) -> dict[str, Any] | None:
        """bid, ask, spread_points, time_msc and, once known, atr_slow, atr_fast, swing_high, swing_low."""
    def status(self) -> dict[str, Any]:
        """revision, trading_state, kill_switches (scope, value), rails (``EngagedRail``), states ({TradeState: count}),
        open_intents (count).
        """
    def position_owner(self, account_id: str, position: int) -> int | None:
        """The ticket of the trade that a broker's position belongs to, main position or leg."""
    def apply(self, event: Mapping[str, Any]) -> None:
        """Folds a recorded event in. FUTURE_REVISION when events before it are missing."""
    def fold(self, events: Sequence[tuple[int, bytes]]) -> list[int]:
        """Folds (revision, encoded ``Event``) in, in order; the places of those that record a decision. Other threads
        run meanwhile. As ``apply``; FIELD_INVALID for what is no event of this version. Those before it are folded in
        then.
        """
    def snapshot(self) -> bytes:
        """The folded state, with version and checksum."""
    def restore(self, snapshot: bytes) -> None:
        """FIELD_INVALID (``snapshot``) when it is damaged or of another version; the engine is as before."""

def decisions(events: Sequence[tuple[int, bytes]]) -> list[int]:
    """The places of those (revision, encoded ``Event``) that record a decision. FIELD_INVALID for what is no event."""

def decode_event(body: bytes) -> dict[str, Any]:
    """An encoded ``Event`` as a dict, for ``apply``. FIELD_INVALID for what is no event of this version."""

def wal_checksum(seed: tuple[int, int], data: bytes, big_endian: bool) -> tuple[int, int]:
    """The running checksum of SQLite's write-ahead log behind ``data``, whose words are big- or little-endian."""

def schema() -> dict[str, dict[str, str]]:
    """Messages as ``{name: {field: type}}``, types in the words of proto."""

def enums() -> dict[str, dict[str, int]]:
    """Enumerations as ``{name: {PREFIXED_VALUE: number}}``."""

def ema(values: Sequence[float], period: int) -> list[float | None]:
    """One value per input; None until warm. ValueError for a period of 0; so are the next four."""

def rsi(values: Sequence[float], period: int) -> list[float | None]: ...
def macd(
    values: Sequence[float], fast: int, slow: int, signal: int
) -> tuple[list[float | None], list[float | None], list[float | None]]:
    """(macd, signal, histogram)."""

def atr(high: Sequence[float], low: Sequence[float], close: Sequence[float], period: int) -> list[float | None]: ...
def bollinger(values: Sequence[float], period: int) -> tuple[list[float | None], list[float | None]]:
    """(mean, width relative to the mean)."""

def score_bars(
    fast_s: int,
    slow_s: int,
    vwap_threshold: float,
    bars: Sequence[tuple[int, int, float, float, float, float, float]],
) -> list[dict[str, Any]]:
    """Readings after each closed bar (timeframe_s, time_s, open, high, low, close, volume)."""
