"""`dtms serve`: one service process, from configuration to the last answered call."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable

import structlog
from prometheus_client import Gauge, start_http_server

from dtms_client._collector import spare_what_stays
from dtms_service import symbols
from dtms_service.backup import PAPER_STORE
from dtms_service.broker.broker_log import BrokerLog
from dtms_service.broker.paper import PaperBroker
from dtms_service.broker.paper_store import PaperStore
from dtms_service.broker.paper_symbols import list_symbols
from dtms_service.broker.recorded import RecordedBroker
from dtms_service.certificates import Certificates
from dtms_service.config import Config, PaperSection
from dtms_service.config_changes import Change
from dtms_service.credentials import BUILT_IN_IDENTITIES, CREDENTIALS_FOLDER, Credentials, Role, gateway_identity
from dtms_service.errors import DtmsError
from dtms_service.paper_account import PaperAccount
from dtms_service.reload import Ready, Reload
from dtms_service.server import Server
from dtms_service.supervisor import Supervisor, check_gateways
from dtms_service.system import System

SERVING = "serving at "  # and the address: the line on stdout that says that clients may call

RAILS = Gauge("dtms_rails_engaged", "Safety rails that hold, of all accounts and symbols")

log = structlog.get_logger(__name__)


def credentials_of(config: Config, traders: tuple[str, ...] = (), *, create: bool = True) -> Credentials:
    """Tokens of the built-in identities, the configured managers, ``traders`` (register, trade by hand), and of each
    supervised gateway for its account."""
    identities = dict.fromkeys((*config.managers, *traders), Role.MANAGER) | dict(BUILT_IN_IDENTITIES)
    bound = {gateway_identity(account_id): account_id for account_id in config.gateways}
    gateways = dict.fromkeys(bound, Role.GATEWAY)
    return Credentials.load_or_create(config.data_dir / CREDENTIALS_FOLDER, identities | gateways, bound, create=create)


def paper_account(config: Config, section: PaperSection) -> PaperAccount:
    """The embedded account with every symbol of the table, and its books as they were left."""
    log = None if section.broker_log is None else BrokerLog(section.broker_log, entry_magic=None, fresh=False)
    broker = PaperBroker(section.to_broker()) if log is None else RecordedBroker(section.to_broker(), log)
    overrides, names = config.symbols.override_fields(), {*symbols.known(), *config.symbols.overrides}
    list_symbols(broker, [symbols.load(name, overrides).spec for name in names])
    return PaperAccount(broker, PaperStore(config.data_dir / PAPER_STORE, broker), log)


def _reload_of(system: System, server: Server, reread: Callable[[], Config], traders: tuple[str, ...]) -> Reload:
    """Takes tokens and certificates in, too."""

    def tokens(config: Config, validate_only: bool) -> Ready:
        now = credentials_of(config, traders, create=not validate_only)
        changed = now.changed_from(server.pipeline.credentials)
        changes = (Change(f"credentials.{name}", _held(was), _held(is_now)) for name, (was, is_now) in changed.items())
        return Ready(tuple(changes), lambda: server.pipeline.take(now))

    def certificates(config: Config, _validate_only: bool) -> Ready:
        held, now = server.certificates, Certificates.of(config)
        if held is None or now is None or held.is_as(now):
            return Ready((), lambda: 0)

        def take() -> int:
            held.take(now)
            return 0

        return Ready((Change("server.tls_certificate", '"..."', '"..."'),), take)

    def checked() -> Config:
        config = reread()
        check_gateways(config, os.environ)
        Certificates.of(config)  # also where only the next start will show them
        return config

    return Reload(system, checked, [certificates, tokens])


def _held(is_held: bool) -> str:
    return '"..."' if is_held else ""


def _reload_on_signal(reload: Reload) -> None:
    """SIGHUP; Windows has none."""
    if sys.platform == "win32":
        return
    loop = asyncio.get_running_loop()
    running: set[asyncio.Task[None]] = set()

    async def again() -> None:
        try:
            await reload("SIGHUP", "SIGHUP")
        except DtmsError as error:
            log.error("configuration_not_reloaded", why=error.message)  # noqa: TRY400  a typing error needs no trace

    def begin() -> None:
        task = loop.create_task(again())
        running.add(task)
        task.add_done_callback(running.discard)

    loop.add_signal_handler(signal.SIGHUP, begin)


def _drain_on_signals(drain: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    if sys.platform == "win32":  # its event loop handles no signals; SIGBREAK is what ends a process group there
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGBREAK):
            signal.signal(number, lambda given, _: loop.call_soon_threadsafe(drain, signal.Signals(given).name))
    else:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, drain, number.name)


async def serve(
    config: Config,
    *,
    managers_in_lockstep: frozenset[str] | None = None,
    traders: tuple[str, ...] = (),
    reread: Callable[[], Config] | None = None,
    ready: Callable[[Server], None] = lambda _server: None,
) -> None:
    """Serves until SIGTERM, SIGINT or Drain; on SIGHUP takes what ``reread`` gives, but not in lockstep.

    Raises a FatalError (ConfigInvalid too), or what made the service fail.
    """
    check_gateways(config, os.environ)
    if config.server.metrics_port is not None:
        start_http_server(config.server.metrics_port, addr="127.0.0.1")
    system = await System.open(config, managers_in_lockstep)
    RAILS.set_function(lambda: len(system.desk.engine.status()["rails"]))
    if config.paper is not None:
        system.paper = paper_account(config, config.paper)
    server = await Server.start(system, config, credentials_of(config, traders))
    supervisor = Supervisor(config, system.gateways, server.address, os.environ)
    _drain_on_signals(system.begin_drain)
    if reread is not None and managers_in_lockstep is None:
        system.reload = reload = _reload_of(system, server, reread, traders)
        _reload_on_signal(reload)
    try:
        if system.paper is not None:
            await system.attach(system.paper.account_id, system.paper, list(system.paper.broker.symbols))
        spare_what_stays()
        if managers_in_lockstep is None:
            supervisor.start(system.fail)
        ready(server)
        await server.run()
    finally:
        supervisor.cease()
        await server.stop()
        await supervisor.stop()
