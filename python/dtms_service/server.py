"""The gRPC server: services, health, reflection, and the life from SIGTERM to the last answered call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from dtms.v1 import (
    admin_service_pb2,
    arbitration_service_pb2,
    gateway_service_pb2,
    lockstep_service_pb2,
    market_data_service_pb2,
    paper_service_pb2,
    registry_service_pb2,
    trade_status_service_pb2,
)
from dtms_service.certificates import Certificates
from dtms_service.config import Config
from dtms_service.credentials import Credentials
from dtms_service.errors import PortBusy
from dtms_service.interceptors import Pipeline
from dtms_service.servicers.admin import AdminServicer
from dtms_service.servicers.arbitration import ArbitrationServicer
from dtms_service.servicers.explain import Explainer
from dtms_service.servicers.gateway import GatewayServicer
from dtms_service.servicers.lockstep import LockstepServicer
from dtms_service.servicers.market_data import MarketDataServicer
from dtms_service.servicers.paper import PaperServicer
from dtms_service.servicers.registry import RegistryServicer
from dtms_service.servicers.trade_status import TradeStatusServicer
from dtms_service.servicers.watch import Watches
from dtms_service.stage import Stage
from dtms_service.system import System

log = structlog.get_logger(__name__)

# All with the prefix "grpc.". A frozen client is found in 30 s instead of hours; a second server on the port fails.
_OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
]
_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"


@dataclass(slots=True)
class Server:
    """A running gRPC server over a system. ``address`` is host:port with the port really bound."""

    system: System
    grpc_server: grpc.aio.Server
    pipeline: Pipeline
    health: HealthServicer
    address: str
    certificates: Certificates | None

    @classmethod
    async def start(cls, system: System, config: Config, credentials: Credentials) -> Server:
        """Listens at once, NOT_SERVING until recovery is done. Raises PortBusy."""
        server = grpc.aio.server(options=_OPTIONS)
        certificates = Certificates.of(config)
        services = _services(system)
        pipeline = Pipeline(credentials, lambda: system.stage, _fail(system))
        server.add_generic_rpc_handlers([pipeline.handler(descriptor, servicer) for descriptor, servicer in services])
        health_servicer = HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
        names = [descriptor.full_name for descriptor, _ in services]
        _add_reflection(server, [*names, health.SERVICE_NAME, reflection.SERVICE_NAME])
        address = f"{config.server.host}:{config.server.port}"
        try:
            port = _listen(server, address, certificates)
        except (RuntimeError, OSError) as error:
            raise PortBusy(address, str(error)) from error
        running = cls(system, server, pipeline, health_servicer, f"{config.server.host}:{port}", certificates)
        await running._show(system.stage, names)
        loop = asyncio.get_running_loop()
        system.on_stage.append(lambda stage: _keep(loop.create_task(running._show(stage, names))))
        await server.start()
        log.info("listening", address=running.address, tls=config.server.tls_key is not None)
        return running

    async def run(self) -> None:
        """Until drained. Raises what made the service fail."""
        draining: asyncio.Future[Any] = asyncio.ensure_future(self.system.draining.wait())
        failed: asyncio.Future[Any] = self.system.failed
        try:
            await asyncio.wait({draining, failed}, return_when=asyncio.FIRST_COMPLETED)
            if self.system.failed.done():
                await self.health.enter_graceful_shutdown()
                self.system.failed.result()
        finally:
            draining.cancel()

    async def stop(self) -> None:
        """Ends calls, then the system. Nothing that was acknowledged is lost."""
        self.system.begin_drain("stop")
        await self.health.enter_graceful_shutdown()
        grace_s = 0.0 if self.system.failed.done() else self.system.config.server.drain_ms / 1000
        loop = asyncio.get_running_loop()
        ends = loop.time() + grace_s
        if grace_s:
            await self.system.executor.finish(grace_s)
        # Not before: a gateway's stream carries what is still at the broker.
        self.pipeline.end_streams()
        await self.grpc_server.stop(max(ends - loop.time(), 0))
        await self.system.close()
        log.info("stopped", revision=self.system.desk.engine.revision)

    async def _show(self, stage: Stage, names: list[str]) -> None:
        serving = health_pb2.HealthCheckResponse.SERVING
        shown = serving if stage is Stage.SERVING else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *names):
            await self.health.set(name, shown)


def _services(system: System) -> list[tuple[Any, object]]:
    desk, doors, limits = system.desk, system.doors, system.config.limits
    watches = Watches(desk, system.events, system.clock, limits)
    system.on_stage.append(watches.on_stage)
    servicers = {
        registry_service_pb2: RegistryServicer(desk, doors, limits),
        trade_status_service_pb2: TradeStatusServicer(
            desk, doors, limits, watches, system.config.server.progress_interval_ms
        ),
        arbitration_service_pb2: ArbitrationServicer(
            desk, doors, limits, Explainer(desk, lambda: system.oldest_revision)
        ),
        market_data_service_pb2: MarketDataServicer(desk, doors, system.monitor, system.quotes, system.paper),
        lockstep_service_pb2: LockstepServicer(system.lockstep),
        gateway_service_pb2: GatewayServicer(system),
        paper_service_pb2: PaperServicer(system.paper, doors),
        admin_service_pb2: AdminServicer(system, watches),
    }
    return [
        (descriptor, servicer)
        for module, servicer in servicers.items()
        for descriptor in module.DESCRIPTOR.services_by_name.values()
    ]


def _add_reflection(server: grpc.aio.Server, names: list[str]) -> None:
    """Under v1alpha, which the package knows, and under v1, which newer tools ask for first: same messages."""
    servicer = ReflectionServicer(names)
    reflection.enable_server_reflection(names, server)
    info = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handler = grpc.method_handlers_generic_handler(_REFLECTION_V1, {"ServerReflectionInfo": info})
    server.add_generic_rpc_handlers([handler])


def _listen(server: grpc.aio.Server, address: str, certificates: Certificates | None) -> int:
    if certificates is None:
        return server.add_insecure_port(address)
    return server.add_secure_port(address, certificates.for_each_handshake())


def _fail(system: System) -> Callable[[BaseException], None]:
    def fail(error: BaseException) -> None:
        if not system.failed.done():
            system.failed.set_exception(error)

    return fail


_kept: set[asyncio.Task[None]] = set()


def _keep(task: asyncio.Task[None]) -> None:
    """A task without a reference may be collected before it has run."""
    _kept.add(task)
    task.add_done_callback(_kept.discard)
