"""The service's configuration: a TOML file under the environment (``DTMS_SECTION__KEY``), checked as a whole.

An unknown key is an error in both, and so is an unknown ``DTMS_`` variable: a key that is misspelt would otherwise
protect nothing. Units stand in the names; numbers of the engine are those of the state table (docs/architecture.md).
"""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from enum import IntEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dtms_service.broker.paper_config import PaperConfig, Slippage, SlippageModel
from dtms_service.credentials import IDENTITY_PATTERN, gateway_identity
from dtms_service.errors import ConfigInvalid, FieldViolation
from dtms_service.fault_points import FAULT_VARIABLES

PREFIX: Final = "DTMS_"
CLIENT_VARIABLES: Final = frozenset({"DTMS_ADDRESS", "DTMS_ROOT_CERTIFICATES", "DTMS_TOKEN", "DTMS_TOKEN_FILE"})
"""Read by clients: a service that starts in a client's environment leaves them alone."""

ACCOUNT_PATTERN: Final = r"^[0-9]+@.+$"
"""login@server"""

PROFILES: Final[Mapping[str, Mapping[str, int]]] = {
    "intraday": {"fast_s": 300, "slow_s": 900},
    "swing": {"fast_s": 3_600, "slow_s": 14_400},
}
"""Fast and slow timeframe of each profile, in seconds."""

UNIVERSAL_STRATEGIES: Final = (
    "breakout_ib_volatility_trap",
    "trend_continuation_pullback",
    "liquidity_sweep_reversal",
    "order_block_rejection",
    "mean_reversion_range_scalp",
    "default_standard",
    "breaker_block",
    "market_structure_shift",
    "fvg_retracement",
    "mitigation_block",
    "inducement_reversal",
    "premium_discount_array",
    "session_liquidity_run",
    "kill_zone",
)


NOTIFIED: Final = (
    "alarm_raised",
    "rail_changed",
    "trading_state_changed",
    "kill_switch_changed",
    "risk_budget_changed",
    "quarantine_changed",
    "state_changed",
    "ownership_granted",
)
"""Events that people are told of unless they choose others."""


class ManagerRank(IntEnum):
    """Ranks that a manager may be given (the numbers are the wire's); DTMS's own two are not for hire."""

    PROFIT_PROTECTION = 1
    STRATEGY = 3


BUILT_IN_MANAGERS: Final[Mapping[str, ManagerRank]] = {
    "universal_sl_tp_manager": ManagerRank.STRATEGY,
    "intelligent_exit_manager": ManagerRank.PROFIT_PROTECTION,
}


def _rank(value: object) -> object:
    if isinstance(value, str):
        if value not in ManagerRank.__members__:
            raise ValueError(f"must be one of {', '.join(ManagerRank.__members__)}")
        return ManagerRank[value]
    return value


def _one_or_more(value: object) -> object:
    return value.split() if isinstance(value, str) else value


Port = Annotated[int, Field(ge=0, le=65_535)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Score = Annotated[float, Field(ge=-10.5, le=10.5)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Rank = Annotated[ManagerRank, BeforeValidator(_rank)]
AccountId = Annotated[str, Field(pattern=ACCOUNT_PATTERN)]
ManagerName = Annotated[str, Field(pattern=IDENTITY_PATTERN)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ServerConfig(_Section):
    """Where the service listens."""

    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback needs TLS."""
    port: Port = 50_051
    """TCP port; 0 takes a free one."""
    tls_certificate: Path | None = None
    """PEM file of the certificate chain."""
    tls_key: Path | None = None
    """PEM file of its private key."""
    metrics_port: Port | None = None
    """Prometheus metrics over HTTP on this port of the loopback address, if there shall be any."""
    progress_interval_ms: Count = 1_000
    """An idle watch says at least this often how far it is."""
    drain_ms: Whole = 10_000
    """How long calls in flight may still take after SIGTERM."""

    @property
    def is_loopback(self) -> bool:
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together")
        if not self.is_loopback and self.tls_certificate is None:
            raise ValueError(f"host {self.host} is reachable from outside: tls_certificate and tls_key are required")
        return self


class JournalConfig(_Section):
    """How the journal uses the disk."""

    wal_limit_bytes: Annotated[int, Field(ge=1 << 20)] = 64 << 20
    """The log is checkpointed inside a commit at this size; 64 MiB take about 0.4 s to check after a crash."""
    max_pending_events: Count = 100_000
    """Events that may wait for the disk before commands are refused: about 1 s of work, 25 MB."""
    idle_checkpoint_ms: Count = 200
    """The log is cleared when nothing was written for this long."""
    snapshot_every_events: Count = 30_000
    """A snapshot is taken after this many events: proof and replay of the rest take about 0.3 s. With 10,000 trades
    everything waits about 30 ms for it."""
    keep_events: Count | None = None
    """At least so many events stay; older ones are dropped once two snapshots stand after them. Default: all stay."""


class EventLogConfig(_Section):
    """The stream's memory."""

    capacity: Count = 65_536
    """Events kept for watchers that are behind; older ones come from the journal. About 20 MB."""


class LimitsConfig(_Section):
    """What one service takes on."""

    max_trades: Count = 1_000_000
    """Open trades; 1 KiB each."""
    max_watchers: Count = 1_000
    """Watch streams at a time."""
    max_page_size: Count = 1_000
    """Trades in one page of a list."""
    max_batch_events: Count = 256
    """Events in one message of a watch."""


class ReconciliationConfig(_Section):
    """When the broker's silence is believed."""

    settle_ms: Whole = 10_000
    """A command whose answer was lost, and of which the broker shows no trace, is taken for not executed after this."""
    missing_ms: Whole = 10_000
    """A position that the broker does not report, and no deal closed, is quarantined after this."""


class EngineConfig(_Section):
    """The numbers of the state table. The core takes all of these keys, by these names."""

    warn1: Score = -2.0
    """HEALTHY to WARNING_L1 at or below."""
    warn1_recovered: Score = 0.0
    """WARNING_L1 to HEALTHY at or above."""
    warn2: Score = -4.0
    """To WARNING_L2 at or below."""
    warn2_eased: Score = -2.0
    """WARNING_L2 to WARNING_L1 at or above."""
    critical: Score = -6.0
    """WARNING_L2 to HEDGED at or below."""
    recovery_confirmed: Score = 1.0
    """RECOVERING to HEALTHY at or above, when the recovery timer has ended."""
    tighten_r: Positive = 0.3
    """Distance of a tightened stop behind the price, in R."""
    arm_gain_r: NotNegative = 0.2
    """A trade is armed at this gain, in R."""
    arm_loss_r: Annotated[float, Field(le=0, allow_inf_nan=False)] = -0.5
    """A trade is armed at this loss, in R."""
    arm_after_s: Whole = 900
    """A trade is armed at this age."""
    hold_s: Whole = 60
    """A better score must hold this long."""
    partial_fraction: Fraction = 0.5
    """Share of the volume that WARNING_L2 closes."""
    hedge_ratio: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Hedge volume as a share of what is left."""
    hedge_stop_atr: Positive = 0.5
    """Distance of the hedge's stop, in ATR(14, slow)."""
    hedge_pause_slow_bars: Whole = 2
    """No new hedge for so long after one has ended: a market that whips must not take a series of them."""
    max_hedges: Whole = 3
    """Hedges in the life of a trade; beyond, its stop protects it in WARNING_L2."""
    flat_timer_slow_bars: Count = 5
    """Length of the flat timer."""
    recovery_timer_slow_bars: Count = 2
    """Length of the recovery timer."""
    readd_fraction: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the closed volume that is added again after recovery."""
    fast_s: Count
    """Fast timeframe. From the profile unless given."""
    slow_s: Count
    """Slow timeframe. From the profile unless given."""
    trail_buffer_atr: NotNegative = 0.1
    """Distance of a trailed stop behind its swing, in ATR(14, slow)."""
    lease_ttl_ms: Count = 30_000
    """How long a grant lasts without a renewal."""
    cooldown_ms: Whole = 0
    """Least time between two changes of one trade by the same manager."""
    deviation_points: Whole = 20
    """How far the price of a market order may be off."""
    magic: Whole = 20_261_122
    """Magic number of orders that DTMS sends."""
    max_retries: Whole = 3
    """How often a requoted action is sent again."""
    stale_after_s: Whole = 300
    """Prices older than this are no ground for new risk; 0: never."""
    request_ids_kept: Count = 100_000
    """Answers remembered for repeated requests."""
    decisions_kept: Count = 10_000
    """Decisions that Explain can list."""
    close_on_flat_timer_l1: bool = False
    """Whether the end of the flat timer closes a trade in WARNING_L1."""
    allow_loosen: bool = True
    """Whether a proposal that says so may loosen a stop inside the risk budget."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if not self.critical < self.warn2 < self.warn1:
            raise ValueError("critical < warn2 < warn1 must hold: each state is worse than the one before")
        for entered, left in (("warn1", "warn1_recovered"), ("warn2", "warn2_eased")):
            if getattr(self, left) <= getattr(self, entered):
                raise ValueError(f"{left} must lie above {entered}, or a state would be entered and left at one score")
        if self.slow_s <= self.fast_s or self.slow_s % self.fast_s:
            raise ValueError("slow_s must be a multiple of fast_s")
        return self

    def to_core(self) -> dict[str, int | float]:
        """Its part of what the core takes: all keys and values."""
        return self.model_dump()


class NotificationsConfig(_Section):
    """Messages to people, through apprise. Without ``urls`` there are none."""

    urls: Annotated[tuple[SecretStr, ...], BeforeValidator(_one_or_more)] = ()
    """Where to: URLs of apprise (Telegram, Discord, mail ...), as a list or separated by blanks. Secrets: the
    environment variable DTMS_NOTIFICATIONS__URLS keeps them out of the file."""
    events: tuple[str, ...] = NOTIFIED
    """Which events of the journal; ``ownership_granted`` tells only of leases that ran out."""
    states: tuple[str, ...] = ("WARNING_L2", "HEDGED", "CLOSED")
    """Of ``state_changed`` only changes into these."""
    dedupe_s: Whole = 300
    """The same fact is told once in this time, and how often it was repeated at its end; 0 tells each."""
    timeout_s: Positive = 10.0
    """For connecting to a target, and for each silence of it."""
    max_waiting: Count = 1_000
    """Facts that may wait for one target: later ones are dropped, counted, and said. About 500 KB."""


RAILS_OF_THE_CORE: Final = ("daily_loss_percent", "hourly_loss_percent", "consecutive_stops", "spread_factor")


class RailsConfig(_Section):
    """The safety rails: when no new risk is taken. 0 switches one off; for old prices see engine.stale_after_s."""

    daily_loss_percent: Percent = 2.0
    """Loss since the beginning of the UTC day, in percent of the equity then."""
    hourly_loss_percent: Percent = 1.0
    """Loss since the beginning of the UTC hour, in percent of the equity then."""
    consecutive_stops: Whole = 3
    """Losing stop-outs in a row on one account, within a UTC day."""
    spread_factor: Annotated[float, Field(ge=0, le=1_000, allow_inf_nan=False)] = 2.0
    """Spread of a symbol as a multiple of its rolling median: 0, or at least 1."""
    news_calendar: Path | None = None
    """CSV file with the columns time (ISO, UTC), currency, impact, title; read again when it changes."""
    news_impacts: tuple[Literal["low", "medium", "high", "holiday"], ...] = ("high",)
    """News of these impacts count."""
    news_before_s: Whole = 1_800
    """The blackout begins so long before the news."""
    news_after_s: Whole = 900
    """It ends so long after the news."""

    @model_validator(mode="after")
    def _check_factor(self) -> Self:
        if 0 < self.spread_factor < 1:
            raise ValueError("spread_factor below 1 would trip at every normal spread")
        return self

    def to_core(self) -> dict[str, int | float]:
        """Its part of what the core takes: what is measured there."""
        return self.model_dump(include=set(RAILS_OF_THE_CORE))


class SymbolOverride(_Section):
    """What the broker has different from the shipped table; fields of SymbolSpec, units as there."""

    digits: Annotated[int, Field(ge=0, le=10)] | None = None
    point: Positive | None = None
    tick_size: Positive | None = None
    contract_size: Positive | None = None
    volume_min: Positive | None = None
    volume_max: Positive | None = None
    volume_step: Positive | None = None
    stops_level: Whole | None = None
    freeze_level: Whole | None = None
    currency_profit: Annotated[str, Field(pattern="^[A-Z]{3,8}$")] | None = None
    vwap_slope_threshold: Positive | None = None


class SymbolsConfig(_Section):
    """How the broker's names map to the shipped table."""

    suffixes: tuple[str, ...] = ("c", "m", ".r", ".raw", ".ecn", ".pro", "+")
    """What a broker appends to a symbol's name; the longest that fits is taken off."""
    overrides: dict[str, SymbolOverride] = {}
    """By name without suffix."""

    def override_fields(self) -> dict[str, dict[str, int | float | str]]:
        """Only what was given, as ``symbols.load`` takes it."""
        return {name: override.model_dump(exclude_none=True) for name, override in self.overrides.items()}


class SlippageSection(_Section):
    """Where the paper broker fills a stop."""

    model: SlippageModel
    """none: at the triggering tick; next_tick: at the one after it; fixed_points: worse by ``points``."""
    points: Whole

    @model_validator(mode="after")
    def _check_fit(self) -> Self:
        if (self.points > 0) != (self.model is SlippageModel.FIXED_POINTS):
            raise ValueError("points belong to the model fixed_points, and to no other")
        return self


class PaperSection(_Section):
    """The paper broker's account. What touches money has no default."""

    account_id: AccountId
    """login@server."""
    hedging: bool
    """Whether opposite positions of one symbol stand side by side; otherwise they net."""
    currency: Annotated[str, Field(pattern="^[A-Z]{3,8}$")]
    currency_digits: Annotated[int, Field(ge=0, le=8)]
    leverage: Count
    balance: Positive
    """In account currency."""
    margin_call_percent: NotNegative
    stop_out_percent: NotNegative
    """Margin level at which the largest loss is closed."""
    commission_per_lot_side: NotNegative
    """Account currency per lot, on every deal."""
    slippage: SlippageSection
    conversion_rates: dict[str, Positive]
    """Value in account currency of profit currencies that no symbol quotes against it."""
    hedge_prohibited: bool = False
    fifo_close: bool = False
    limit_positions: Whole = 0
    """Open positions allowed, 0 for any number."""
    requests_per_second: Whole = 0
    """Orders allowed, 0 for any number."""
    first_order: Count = 1
    first_deal: Count = 1
    server_utc_offset_s: int = 0
    """The broker's server time minus UTC."""
    broker_log: Path | None = None
    """File to which every order is appended, accepted or refused, and every deal of the broker's own."""

    def to_broker(self) -> PaperConfig:
        """The account as the paper broker takes it."""
        fields = self.model_dump(exclude={"slippage", "broker_log"})
        return PaperConfig(**fields, slippage=Slippage(self.slippage.model, self.slippage.points))


class GatewaySection(_Section):
    """A gateway on this machine that the service starts, watches and ends. What touches money has no default."""

    broker: Literal["mt5"]
    """What it owns: a MetaTrader 5 terminal."""
    symbols: Annotated[tuple[str, ...], BeforeValidator(_one_or_more), Field(min_length=1)]
    """Whose prices it sends, by the broker's names; symbols of open positions come by themselves."""
    terminal: str | None = None
    """terminal64.exe, where the machine has several."""
    package: str = "MetaTrader5"
    """Module with the functions of MetaTrader5, or MODULE:CLASS."""
    password_file: Path | None = None
    """File with the account's password. Default: what the terminal has saved."""
    password_variable: str | None = None
    """Environment variable with the password, instead."""
    server_utc_offset_s: int | None = None
    """The server's time minus UTC, s, where no tick moves that would show it."""
    deadline_s: Positive = 10.0
    """A call that takes longer has found a terminal that hangs: the gateway is killed and started again."""
    service: str | None = None
    """host:port under which it reaches this service; for TLS the name in the certificate. Default: where it listens."""
    root_certificates: Path | None = None
    """PEM file that it trusts. Default: server.tls_certificate."""

    @model_validator(mode="after")
    def _check_password(self) -> Self:
        if self.password_file is not None and self.password_variable is not None:
            raise ValueError("password_file or password_variable, not both")
        return self


class Config(BaseSettings):
    """The whole configuration. Make one with ``load``."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    data_dir: Path
    """Journal, credentials and lock. Required: a journal in an unexpected place is a lost journal."""
    shadow: bool = False
    """Decide and record everything, send nothing: commands are carried out on a shadow book."""
    shadow_conversion_rates: dict[str, Positive] = {}
    """For the shadow book: value in account currency of profit currencies that no symbol quotes against it."""
    profile: Literal["intraday", "swing"] = "intraday"
    """Sets the engine's timeframes: M5 and M15, or H1 and H4."""
    server: ServerConfig = ServerConfig()
    journal: JournalConfig = JournalConfig()
    event_log: EventLogConfig = EventLogConfig()
    limits: LimitsConfig = LimitsConfig()
    notifications: NotificationsConfig = NotificationsConfig()
    engine: EngineConfig
    reconciliation: ReconciliationConfig = ReconciliationConfig()
    rails: RailsConfig = RailsConfig()
    symbols: SymbolsConfig = SymbolsConfig()
    managers: dict[ManagerName, Rank]
    """Rank by manager name; each gets a credential. The two built-in ones are always there."""
    universal_strategies: tuple[str, ...] = UNIVERSAL_STRATEGIES
    """Strategy types whose trades belong to the Universal Manager at registration."""
    paper: PaperSection | None = None
    """The paper broker in this process, if there shall be one."""
    gateways: dict[AccountId, GatewaySection] = {}
    """Gateways that the service supervises, by login@server. Those of other accounts may dial in by themselves."""

    @model_validator(mode="after")
    def _check_gateways(self) -> Self:
        names = Counter(map(gateway_identity, self.gateways))
        twice = sorted(account for account in self.gateways if names[gateway_identity(account)] > 1)
        if twice:
            raise ValueError(f"gateways: {', '.join(twice)} differ only in what no file name can show")
        if shared := sorted(names.keys() & self.managers.keys()):
            raise ValueError(f"managers: {shared[0]} is the name of a supervised gateway")
        if self.paper is not None and self.paper.account_id in self.gateways:
            raise ValueError(f"gateways: {self.paper.account_id} is the embedded paper account")
        return self

    def to_core(self) -> dict[str, int | float]:
        """All numbers of the core, flat, as its Engine takes them."""
        return {**self.engine.to_core(), **self.rails.to_core()}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what ``load`` has read: pydantic's own environment source passes over unknown variables."""
        return (init_settings,)

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: dict[str, Any]) -> dict[str, Any]:
        filled = dict(values)
        timeframes = PROFILES.get(str(filled.get("profile")), PROFILES["intraday"])
        if isinstance(engine := filled.get("engine", {}), Mapping):
            filled["engine"] = {**timeframes, **engine}
        if isinstance(managers := filled.get("managers", {}), Mapping):
            filled["managers"] = {**BUILT_IN_MANAGERS, **managers}
        return filled


def load(file: Path | None, environ: Mapping[str, str]) -> Config:
    """Read ``file`` (TOML, optional), put the environment over it and check everything.

    ConfigInvalid names each key that is unknown, missing or out of range, as it was written.
    """
    above = _read_environment(environ)
    values = _merge(read_toml(file), above) if file is not None else above
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        source = f"{file} and environment" if file is not None else "environment"
        raise ConfigInvalid(source, [_violation(problem, above) for problem in error.errors()]) from error


def all_keys() -> tuple[str, ...]:
    """Every key, dotted (``engine.warn1``). Keys under a name of the user's choice leave the name out."""
    return tuple(_keys(Config.model_fields, ""))


def _keys(fields: Mapping[str, FieldInfo], prefix: str) -> Iterator[str]:
    for name, field in fields.items():
        section = _section_of(field.annotation)
        if section is None:
            yield prefix + name
        else:
            yield from _keys(section.model_fields, f"{prefix}{name}.")


def _section_of(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_section_of(argument) for argument in getattr(annotation, "__args__", ()))
    return next((section for section in inner if section is not None), None)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _merge(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return merged


def read_toml(file: Path) -> dict[str, Any]:
    """The file as it stands, unchecked. ConfigInvalid when it cannot be read or is no TOML."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigInvalid(str(file), [FieldViolation("file", str(error.strerror))]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigInvalid(str(file), [FieldViolation("file", f"is not TOML: {error}")]) from error


def _read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable in CLIENT_VARIABLES | FAULT_VARIABLES:
            continue
        *sections, key = variable.removeprefix(PREFIX).lower().split("__")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ConfigInvalid("environment", [FieldViolation(variable, f"{section} is given a value as well")])
        place[key] = _decode(variable, text)
    return values


def _decode(variable: str, text: str) -> object:
    if not text.startswith(("[", "{")):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigInvalid("environment", [FieldViolation(variable, f"is not JSON: {error}")]) from error


def _violation(problem: Mapping[str, Any], environment: Mapping[str, Any]) -> FieldViolation:
    path = [str(part) for part in problem["loc"] if part != "[key]"]
    if not path:  # sections that do not go together
        return FieldViolation("configuration", problem["msg"])
    place: object = environment
    for part in path:
        place = place.get(part) if isinstance(place, Mapping) else None
    field = ".".join(path) if place is None else PREFIX + "__".join(path).upper()
    return FieldViolation(field, "is no key" if problem["type"] == "extra_forbidden" else problem["msg"])
