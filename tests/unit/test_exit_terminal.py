"""What the exit manager may do at a terminal without DTMS, against the paper broker's MetaTrader 5 API."""

from __future__ import annotations

import io
import json
from typing import Any, cast

import pytest

from dtms_client.exit_manager.terminal import COMMENT, Failed, Held, Mt5, Terminal, load, serve
from dtms_service.broker.mt5_api import PaperMt5
from dtms_service.broker.mt5_enums import Execution, FillingFlag, OrderType
from dtms_service.broker.retcodes import LastError, Retcode
from tests.unit.paper_world import World


class Desk:
    """A terminal on a paper account, every request to the broker noted."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sent: list[dict[str, object]] = []
        self.silent: set[str] = set()
        """Calls that answer None."""
        self.mt5 = PaperMt5(world.broker)
        self.terminal = Terminal(cast("Mt5", self))

    def __getattr__(self, name: str) -> Any:
        return (lambda *_, **__: None) if name in self.silent else getattr(self.mt5, name)

    def order_send(self, request: dict[str, object]) -> object:
        self.sent.append(request)
        return self.mt5.order_send(request)

    def seen(self, ticket: int) -> Held:
        held = self.terminal.see(ticket)
        assert held is not None
        return held


def opened(kind: int = OrderType.BUY, volume: float = 0.10, **world: Any) -> tuple[Desk, int]:
    """A position with stop and target, 200 points in its favour."""
    desk = Desk(World(**world))
    sign = 1 if kind == OrderType.BUY else -1
    levels = {"sl": round(1.1 - sign * 0.01, 5), "tp": round(1.1 + sign * 0.02, 5)}
    # Other modes than that of the opening are tried by the tests themselves.
    ticket = desk.world.deal(kind, volume, **levels).order
    desk.world.tick(round(1.1 + sign * 0.002, 5), round(1.1001 + sign * 0.002, 5))
    return desk, ticket


BOTH = pytest.mark.parametrize("kind", [OrderType.BUY, OrderType.SELL], ids=["buy", "sell"])


@BOTH
def test_it_sees_the_position_with_its_market(kind: int) -> None:
    """Side, levels, volume and the account come from the terminal; opening the pipe is part of it."""
    desk, ticket = opened(kind)
    held = desk.seen(ticket)
    assert (held.account_id, held.ticket, held.symbol, held.volume) == ("7001@Paper", ticket, "EURUSD", 0.10)
    assert held.sign == (1 if kind == OrderType.BUY else -1)
    assert (held.stop, held.target) == ((1.09, 1.12) if held.sign > 0 else (1.11, 1.08))
    assert (held.point, held.volume_step, held.stops_level, held.freeze_level) == (0.00001, 0.01, 10, 0)
    assert not held.frozen


@BOTH
def test_breakeven_keeps_the_target(kind: int) -> None:
    """Both levels are sent, and the position has the new stop and the old target (MT5 deletes what is left out)."""
    desk, ticket = opened(kind)
    before = desk.seen(ticket)
    stop = round(1.1 + before.sign * 0.0005, 5)
    assert desk.terminal.protect(ticket, stop).done
    assert (desk.seen(ticket).stop, desk.seen(ticket).target) == (stop, before.target)
    assert {"sl", "tp", "position", "symbol"} <= desk.sent[-1].keys()


@BOTH
def test_a_stop_is_never_loosened(kind: int) -> None:
    """As good already, or better by now: no request leaves."""
    desk, ticket = opened(kind)
    held = desk.seen(ticket)
    assert held.stop is not None
    for stop in (held.stop, round(held.stop - held.sign * 0.001, 5)):
        assert not desk.terminal.protect(ticket, stop).done
    assert desk.sent == []


@BOTH
def test_a_part_is_closed_on_its_own_position(kind: int) -> None:
    """The close names the position: no second one is opened, the rest keeps its levels and its ticket."""
    desk, ticket = opened(kind)
    before = desk.seen(ticket)
    assert not desk.terminal.part_taken(ticket)
    assert desk.terminal.take_part(ticket, 0.05, of=0.10).done
    assert [(p.ticket, p.volume) for p in desk.world.broker.positions()] == [(ticket, 0.05)]
    after = desk.seen(ticket)
    assert (after.stop, after.target) == (before.stop, before.target)
    assert len(COMMENT) <= 29
    assert desk.terminal.part_taken(ticket)


@pytest.mark.parametrize(
    ("execution", "filling"),
    [
        (Execution.MARKET, FillingFlag.FOK | FillingFlag.IOC),
        (Execution.MARKET, FillingFlag.FOK),
        (Execution.MARKET, FillingFlag.IOC),
        (Execution.EXCHANGE, FillingFlag.FOK),
        (Execution.INSTANT, FillingFlag.FOK),
        (Execution.REQUEST, FillingFlag.FOK),
    ],
    ids=str,
)
def test_a_part_is_closed_under_any_fill_policy(execution: Execution, filling: FillingFlag) -> None:
    """The mask of the symbol and the mode of an order have different numbers; the broker takes the one chosen."""
    desk, ticket = opened()
    desk.world.change(trading={"execution": execution, "filling": filling})
    assert desk.terminal.take_part(ticket, 0.05, of=0.10).done


def test_a_symbol_without_a_usable_fill_mode_is_said() -> None:
    """Rather than a guess that the broker refuses."""
    desk, ticket = opened()
    desk.world.change(trading={"filling": FillingFlag(0)})
    with pytest.raises(Failed, match="no fill mode"):
        desk.terminal.take_part(ticket, 0.05, of=0.10)


def test_a_part_of_another_volume_is_not_taken() -> None:
    """Somebody was faster: what was half of the position may be all of it by now."""
    desk, ticket = opened()
    assert desk.terminal.take_part(ticket, 0.05, of=0.10).done
    with pytest.raises(Failed, match="somebody was faster"):
        desk.terminal.take_part(ticket, 0.05, of=0.10)
    assert len(desk.sent) == 1


@BOTH
def test_inside_the_freeze_level_nothing_is_sent(kind: int) -> None:
    """Neither a stop nor a close, until the price is away from both levels."""
    desk, ticket = opened(kind)
    held = desk.seen(ticket)
    price, stop = (held.bid if held.sign > 0 else held.ask), held.stop
    assert stop is not None
    distance = round(abs(price - stop) / 0.00001)
    desk.world.change(spec={"freeze_level": distance})
    assert desk.seen(ticket).frozen
    with pytest.raises(Failed, match="freeze level"):
        desk.terminal.protect(ticket, 1.1)
    with pytest.raises(Failed, match="freeze level"):
        desk.terminal.take_part(ticket, 0.05, of=0.10)
    assert desk.sent == []
    desk.world.change(spec={"freeze_level": distance - 1})
    assert not desk.seen(ticket).frozen


def test_gone_and_unanswered_are_two_things() -> None:
    """An unknown ticket is None; a terminal that answers None is a failure and no flat account."""
    desk, ticket = opened()
    assert desk.terminal.see(ticket + 1) is None
    desk.world.broker.faults.kill_terminal()
    with pytest.raises(Failed, match="initialize"):
        desk.terminal.see(ticket)
    desk.world.broker.faults.start_terminal()
    assert desk.terminal.see(ticket) is not None
    desk.world.broker.faults.disconnect()
    with pytest.raises(Failed, match="no connection"):
        desk.terminal.see(ticket)


@pytest.mark.parametrize("call", ["positions_get", "account_info", "symbol_info", "symbol_info_tick"])
def test_each_read_that_fails_is_a_failure(call: str) -> None:
    """None from any of the calls is noticed where it happens, and named."""
    desk, ticket = opened()
    desk.seen(ticket)
    desk.silent.add(call)
    with pytest.raises(Failed, match=call):
        desk.terminal.see(ticket)


def test_a_lost_answer_is_uncertain() -> None:
    """Done at the broker, not known here: said so, and the deal tells the truth afterwards."""
    desk, ticket = opened()
    desk.seen(ticket)
    desk.world.broker.faults.lose_replies(1)
    with pytest.raises(Failed) as caught:
        desk.terminal.take_part(ticket, 0.05, of=0.10)
    assert caught.value.uncertain
    assert desk.terminal.part_taken(ticket)


@pytest.mark.parametrize("retcode", [Retcode.TIMEOUT, Retcode.ERROR, Retcode.PLACED], ids=str)
def test_a_doubtful_retcode_is_uncertain(retcode: Retcode) -> None:
    """The server may have done it."""
    desk, ticket = opened()
    desk.world.broker.faults.inject(retcode)
    with pytest.raises(Failed) as caught:
        desk.terminal.take_part(ticket, 0.05, of=0.10)
    assert caught.value.uncertain


def test_a_refusal_is_no_failure_and_nothing_done() -> None:
    """The retcode is told."""
    desk, ticket = opened()
    desk.world.broker.faults.inject(Retcode.REQUOTE)
    sent = desk.terminal.take_part(ticket, 0.05, of=0.10)
    assert (sent.done, sent.retcode) == (False, Retcode.REQUOTE)


def test_it_speaks_in_lines_of_json() -> None:
    """Each line is answered, failures and a bridge's own exceptions too."""
    desk, ticket = opened()
    requests = [
        {"call": "see", "arguments": [ticket]},
        {"call": "see", "arguments": [ticket + 1]},
        {"call": "take_part", "arguments": [ticket, 0.05, 0.2]},
        {"call": "take_part", "arguments": [ticket, "x", 0.1]},
    ]
    answers = io.StringIO()
    serve(cast("Mt5", desk), io.StringIO("".join(json.dumps(each) + "\n" for each in requests)), answers)
    seen, gone, failed, broken = (json.loads(line) for line in answers.getvalue().splitlines())
    assert Held(**seen["answer"]).ticket == ticket
    assert gone == {"answer": None}
    assert (failed["uncertain"], "somebody was faster" in failed["failed"]) == (False, True)
    assert (broken["uncertain"], "ValueError" in broken["failed"]) == (True, True)


def test_the_package_is_found_by_the_operators_name() -> None:
    """A module, or an object in one."""
    assert load("json") is cast("Mt5", json)
    assert load("json:dumps") is cast("Mt5", json.dumps)
    with pytest.raises(ImportError):
        load("no_such_module")


def test_the_pipe_error_of_the_package_is_below_the_limit() -> None:
    """Codes of a broken pipe make an unanswered order uncertain, refused arguments do not."""
    desk, ticket = opened()
    desk.seen(ticket)
    desk.world.broker.faults.tradeapi_disabled = True
    with pytest.raises(Failed) as caught:
        desk.terminal.take_part(ticket, 0.05, of=0.10)
    assert not caught.value.uncertain
    assert LastError.INTERNAL_FAIL_RECEIVE <= -10_000
