"""The configuration is read again while the service runs: by an operator's call, and by SIGHUP."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from dtms.v1.event_pb2 import Event
from dtms.v1.trade_status_service_pb2 import WatchRequest
from dtms_client.errors import InvalidArgument, Unauthenticated
from tests import wire
from tests.grpc.test_registry import registration
from tests.grpc.watching import events_until, refusal
from tests.process.service_process import Process, serving

FIRST = '[engine]\ntighten_r = 0.3\n[managers]\nswing_bot = "STRATEGY"\n'
WRONG = '[engine]\ntighten_r = 0.4\ntigthen_r = 0.5\nhold_s = -1\n[managers]\nother_bot = "GENERAL"\n'
OTHER = """
engine = { tighten_r = 0.4, slow_s = 1800 }
journal = { idle_checkpoint_ms = 300 }
managers = { other_bot = "STRATEGY" }
"""


def numbers_of(event: Event) -> dict[str, tuple[float, float]]:
    """What a record of numbers says is another: before and now."""
    return {one.key: (one.before, one.value) for one in event.rules_changed.numbers if one.HasField("before")}


async def test_a_running_service_takes_another_configuration(tmp_path: Path) -> None:
    """A wrong file is refused whole, each mistake named. A good one is taken: open trades keep their numbers, what
    needs a restart is named and left, a token that is none any more opens nothing and ends its streams. The same by
    SIGHUP, where the log tells."""
    file = tmp_path / "dtms.toml"
    file.write_text(FIRST)
    arguments = ("--paper", "--config", str(file))
    async with serving(tmp_path / "data", arguments=arguments) as service, AsyncExitStack() as exits:
        names = ("operator", "feed", "viewer", "swing_bot")
        operator, feed, viewer, bot = [await exits.enter_async_context(service.client(name)) for name in names]
        kept = (await feed.register_trade(registration(1))).trade.rules_revision
        watch = wire.stream(viewer.channel, WatchRequest(start_revision=1), metadata=viewer.metadata)
        first = await events_until(watch, lambda event: event.HasField("rules_changed"))
        assert (first[-1].revision, numbers_of(first[-1])) == (kept, {})

        file.write_text(WRONG)
        with pytest.raises(InvalidArgument) as caught:
            await operator.reload_configuration(reason="a slip")
        wrong = {violation.field for violation in caught.value.violations}
        assert wrong == {"engine.hold_s", "engine.tigthen_r", "managers.other_bot"}
        service.process.send_signal(signal.SIGHUP)
        assert "engine.tigthen_r: is no key" in (await service.logged("configuration_not_reloaded"))["why"]
        file.write_text(FIRST)
        same = await operator.reload_configuration(reason="nothing was taken")
        assert (len(same.changed), len(same.needs_restart)) == (0, 0)

        file.write_text(OTHER)
        looked = await operator.reload_configuration(reason="a look", validate_only=True)
        assert [one.key for one in looked.changed] == [
            *("engine.tighten_r", "managers.other_bot", "managers.swing_bot"),
            "credentials.swing_bot",
        ]
        assert not service.token("other_bot").exists()
        command = ("reload", "--reason", "tighter", "--address", service.address, "--data-dir", str(service.data_dir))
        said = await Process.start(*command)
        assert await said.ended() == 0, said.text()
        assert "engine.tighten_r: 0.3 -> 0.4 (changed)" in said.said
        assert "engine.slow_s: 900 -> 1800 (needs a restart, left as it was)" in said.said
        assert "journal.idle_checkpoint_ms: 200 -> 300 (needs a restart, left as it was)" in said.said
        told = await events_until(watch, lambda event: event.HasField("rules_changed"))
        assert (numbers_of(told[-1]), told[-1].rules_changed.by) == ({"tighten_r": (0.3, 0.4)}, "operator")
        assert (await feed.get_trade(1)).rules_revision == kept
        assert (await feed.register_trade(registration(2))).trade.rules_revision == told[-1].revision
        with pytest.raises(Unauthenticated):
            await bot.get_trade(1)
        async with service.client("other_bot") as other_bot:
            await other_bot.get_trade(1)

        service.token("viewer").unlink()
        service.process.send_signal(signal.SIGHUP)
        assert (await refusal(watch)).reason == "CREDENTIAL_MISSING"
        with pytest.raises(Unauthenticated):
            await viewer.get_trade(1)
        async with service.client("viewer") as new_viewer:
            await new_viewer.get_trade(1)
        assert await service.terminate() == 0, service.text()
