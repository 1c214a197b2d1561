"""The real MetaTrader5 package: its constants, its structs, and its own Python code driving the paper broker."""

from __future__ import annotations

import types
import zipfile
from enum import IntEnum
from pathlib import Path

import pytest

from dtms_service.broker import mt5_enums, structs
from dtms_service.broker.mt5_api import PaperMt5
from dtms_service.broker.retcodes import LastError, Retcode
from tests.contract.extension_structs import struct_fields
from tests.contract.mt5_rig import load_package
from tests.unit.paper_world import World

NOT_IN_THE_PACKAGE = {Retcode.HEDGE_PROHIBITED}
PREFIXES: dict[type[IntEnum], str] = {
    Retcode: "TRADE_RETCODE_",
    mt5_enums.Action: "TRADE_ACTION_",
    mt5_enums.OrderType: "ORDER_TYPE_",
    mt5_enums.OrderState: "ORDER_STATE_",
    mt5_enums.OrderTime: "ORDER_TIME_",
    mt5_enums.Filling: "ORDER_FILLING_",
    mt5_enums.Execution: "SYMBOL_TRADE_EXECUTION_",
    mt5_enums.TradeMode: "SYMBOL_TRADE_MODE_",
    mt5_enums.CalcMode: "SYMBOL_CALC_MODE_",
    mt5_enums.SwapMode: "SYMBOL_SWAP_MODE_",
    mt5_enums.DayOfWeek: "DAY_OF_WEEK_",
    mt5_enums.DealType: "DEAL_TYPE_",
    mt5_enums.DealEntry: "DEAL_ENTRY_",
    mt5_enums.DealReason: "DEAL_REASON_",
    mt5_enums.MarginMode: "ACCOUNT_MARGIN_MODE_",
    mt5_enums.Timeframe: "TIMEFRAME_",
}
LAST_ERROR_NAMES = {LastError.OK: "S_OK"}


Real = tuple[World, types.ModuleType]


@pytest.fixture
def real(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> Real:
    """A paper world and the package's Python layer, with the paper broker in place of the C extension."""
    world = World()
    mt5 = load_package(wheel, PaperMt5(world.broker).exports(), monkeypatch)
    assert mt5.initialize()
    return world, mt5


def test_every_constant_we_use_is_the_packages(real: Real) -> None:
    """Names and numbers of retcodes, actions, types, fillings, reasons and the rest equal the package's."""
    _, mt5 = real
    for enum, prefix in PREFIXES.items():
        for member in enum:
            if member in NOT_IN_THE_PACKAGE and enum is Retcode:
                assert not hasattr(mt5, prefix + member.name)
                continue
            assert getattr(mt5, prefix + member.name) == member.value, prefix + member.name
    for error in LastError:
        assert getattr(mt5, "RES_" + LAST_ERROR_NAMES.get(error, f"E_{error.name}")) == error.value


def test_no_retcode_of_the_package_is_missing(real: Real) -> None:
    """Every TRADE_RETCODE_ has its name here."""
    theirs = {n.removeprefix("TRADE_RETCODE_") for n in vars(real[1]) if n.startswith("TRADE_RETCODE_")}
    assert theirs == {code.name for code in Retcode if code not in NOT_IN_THE_PACKAGE}


def test_struct_fields_are_the_extensions(wheel: Path) -> None:
    """Field names and order of every result are those compiled into the C extension."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [n for n in archive.namelist() if n.endswith(".pyd")]
        theirs = set(struct_fields(archive.read(name)))
    ours = {kind.names() for kind in structs.StructSequence.__subclasses__()}
    assert ours == theirs


def test_the_real_buy_and_sell_open_positions(real: Real) -> None:
    """MetaQuotes' own Buy and Sell, with and without a price, are executed at ask and bid."""
    world, mt5 = real
    assert mt5.Buy("EURUSD", 0.1).retcode == mt5.TRADE_RETCODE_DONE
    assert mt5.Sell("EURUSD", 0.1, 1.1, comment="by hand").retcode == mt5.TRADE_RETCODE_DONE
    assert [(p.price_open, p.comment) for p in world.broker.positions()] == [(1.1001, ""), (1.1, "by hand")]


def test_the_real_close_closes_all_of_a_symbol(real: Real) -> None:
    """Close(symbol) closes both sides, Close(ticket=) one; nothing to close is False."""
    world, mt5 = real
    tickets = [mt5.Buy("EURUSD", 0.1).order, mt5.Sell("EURUSD", 0.2).order, mt5.Buy("EURUSD", 0.3).order]
    assert mt5.Close("EURUSD", ticket=tickets[1], comment="one") is True
    assert [p.ticket for p in world.broker.positions()] == [tickets[0], tickets[2]]
    assert mt5.Close("EURUSD") is True
    assert world.broker.positions() == []
    assert mt5.Close("EURUSD") is False


def test_the_real_close_retries_requotes_and_reports_part(real: Real) -> None:
    """REQUOTE is tried again up to ten times; a position that cannot be closed makes the answer "Partially"."""
    world, mt5 = real
    mt5.Buy("EURUSD", 0.1)
    world.broker.faults.inject(Retcode.REQUOTE, count=9)
    assert mt5.Close("EURUSD") is True
    mt5.Buy("EURUSD", 0.1)
    mt5.Buy("EURUSD", 0.1)
    world.broker.faults.inject(Retcode.REQUOTE, count=10)
    assert mt5.Close("EURUSD") == "Partially"


def test_the_real_close_gives_up_on_a_broken_pipe(real: Real) -> None:
    """None from order_send is None from Close, and the cause is in last_error."""
    world, mt5 = real
    mt5.Buy("EURUSD", 0.1)
    world.broker.faults.lose_replies()
    assert mt5.Close("EURUSD") is None
    assert mt5.last_error()[0] == mt5.RES_E_INTERNAL_FAIL_RECEIVE
    assert world.broker.positions() == []


def test_the_real_buy_is_refused_by_type(real: Real) -> None:
    """A volume that is an int never leaves the layer, as with the real extension."""
    _, mt5 = real
    assert mt5.Buy("EURUSD", 1) is None
    assert mt5.last_error() == (mt5.RES_E_INVALID_PARAMS, 'Invalid "volume" argument')
