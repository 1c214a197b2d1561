"""AdminService: status of the service and the big switches."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from dtms.v1 import admin_service_pb2 as pb
from dtms.v1 import trade_pb2
from dtms_service import backup
from dtms_service.config_changes import Change
from dtms_service.describe import enum_name
from dtms_service.errors import DtmsError, Reason
from dtms_service.gateways import Gateway
from dtms_service.interceptors import Call
from dtms_service.latency import Latencies
from dtms_service.servicers.paging import require
from dtms_service.servicers.watch import Watches
from dtms_service.stage import Stage
from dtms_service.system import System

_STAGES = {
    Stage.RECOVERING: pb.SERVICE_STAGE_RECOVERING,
    Stage.SERVING: pb.SERVICE_STAGE_SERVING,
    Stage.DRAINING: pb.SERVICE_STAGE_DRAINING,
}


@dataclass(frozen=True, slots=True)
class AdminServicer:
    system: System
    watches: Watches

    async def GetSystemStatus(self, _request: pb.GetSystemStatusRequest, call: Call) -> pb.GetSystemStatusResponse:
        system, desk = self.system, self.system.desk
        status = desk.engine.status()
        return pb.GetSystemStatusResponse(
            version=system.version,
            stage=_STAGES[system.stage],
            recovery_detail=system.recovery_detail,
            revision=desk.commits.durable_revision,
            oldest_revision=system.oldest_revision,
            started_ns=system.started_ns,
            trading_state=status["trading_state"],
            kill_switches=[pb.KillSwitch(**switch) for switch in status["kill_switches"]],
            rails=[pb.EngagedRail(**rail) for rail in status["rails"]],
            states=[
                pb.StateCount(state=enum_name(trade_pb2.TradeState, state), trades=trades)
                for state, trades in status["states"].items()
            ],
            account_ids=system.doors.account_ids,
            watchers=self.watches.open,
            tick_to_decision=_latency(system.monitor.tick_to_decision),
            tick_to_durable=_latency(system.monitor.tick_to_durable),
            broker_call=_latency(system.executor.calls),
            lockstep=system.lockstep is not None,
            shadow=system.shadows is not None,
            gateways=map(_gateway, system.gateways),
            journal_sha256=await desk.commits.chain_head(),
            caller=call.principal.name,
            caller_role=call.principal.role.value,
            time_ns=system.clock.now_ns(),
            damaged_revisions=desk.damaged_revisions,
        )

    async def SetTradingState(self, request: pb.SetTradingStateRequest, call: Call) -> pb.SetTradingStateResponse:
        require("trading_state", request.trading_state)
        require("reason", request.reason)
        revision = await self.system.desk.set_trading_state(request.trading_state, call.principal.name, request.reason)
        return pb.SetTradingStateResponse(revision=revision)

    async def SetKillSwitch(self, request: pb.SetKillSwitchRequest, call: Call) -> pb.SetKillSwitchResponse:
        require("scope", request.scope)
        require("value", request.value)
        require("reason", request.reason)
        revision = await self.system.desk.set_kill_switch(
            request.scope,
            request.value,
            call.principal.name,
            request.reason,
            engaged=request.engaged,
            flatten=request.flatten,
        )
        return pb.SetKillSwitchResponse(revision=revision)

    async def SetRiskBudget(self, request: pb.SetRiskBudgetRequest, call: Call) -> pb.SetRiskBudgetResponse:
        require("budget_r", request.budget_r)
        require("reason", request.reason)
        key = (self.system.doors.resolve(request.account_id), request.ticket)
        revision = await self.system.desk.set_risk_budget(key, request.budget_r, call.principal.name, request.reason)
        return pb.SetRiskBudgetResponse(revision=revision)

    async def ReloadConfiguration(
        self, request: pb.ReloadConfigurationRequest, call: Call
    ) -> pb.ReloadConfigurationResponse:
        require("reason", request.reason)
        if self.system.reload is None:
            raise DtmsError(Reason.MODE_UNSUPPORTED, "this service has no configuration that it could read again")
        done = await self.system.reload(call.principal.name, request.reason, validate_only=request.validate_only)
        return pb.ReloadConfigurationResponse(
            changed=map(_change, done.changed),
            needs_restart=map(_change, done.needs_restart),
            revision=done.revision,
            streams_ended=done.streams_ended,
        )

    async def Backup(self, _request: pb.BackupRequest, _call: Call) -> AsyncIterator[pb.BackupResponse]:
        system = self.system
        async with backup.made(system.desk.commits, system.config.data_dir, system.clock) as (folder, report):
            for piece in backup.pieces(folder):
                yield pb.BackupResponse(file=piece.file, data=piece.data)
            yield pb.BackupResponse(revision=report.newest_revision, journal_sha256=report.chain_head)

    async def Drain(self, request: pb.DrainRequest, call: Call) -> pb.DrainResponse:
        require("reason", request.reason)
        await self.system.desk.settled()
        self.system.begin_drain(f"{call.principal.name}: {request.reason}")
        return pb.DrainResponse(revision=self.system.desk.commits.durable_revision)


def _change(change: Change) -> pb.ConfigurationChange:
    return pb.ConfigurationChange(key=change.key, before=change.before, after=change.after)


def _gateway(gateway: Gateway) -> pb.GatewayStatus:
    return pb.GatewayStatus(
        account_id=gateway.account_id,
        supervised=gateway.supervised,
        state=gateway.state,
        restarts=gateway.restarts,
        last_error=gateway.last_error,
        terminal=gateway.terminal,
        heard_ns=gateway.heard_ns,
        ticks_merged=gateway.ticks_merged,
    )


def _latency(latencies: Latencies) -> pb.Latency:
    figures = latencies.figures()
    return pb.Latency(count=figures.count, p50_us=figures.p50_us, p99_us=figures.p99_us, max_us=figures.max_us)
