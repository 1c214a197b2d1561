"""What the command line adds to the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtms_service import symbols
from dtms_service.errors import DtmsError
from dtms_service.settings import configuration, spec_override

RULES = [
    *("digits=2", "point=0.01", "tick_size=0.01", "contract_size=10", "volume_min=0.1", "volume_max=50"),
    *("volume_step=0.1", "stops_level=5", "freeze_level=0", "currency_profit=USD", "vwap_slope_threshold=0.001"),
]


def test_a_symbol_outside_of_the_table_is_described_by_options(tmp_path: Path) -> None:
    """Every rule of a symbol can be given as KEY=VALUE; the types are those of the table."""
    config = configuration(None, paper=True, given={"data_dir": tmp_path, **spec_override("WHEAT", RULES)})
    wheat = symbols.load("WHEAT", config.symbols.override_fields())
    assert (wheat.spec.digits, wheat.spec.point, wheat.spec.volume_step, wheat.spec.stops_level) == (2, 0.01, 0.1, 5)


def test_one_rule_of_a_known_symbol_is_changed(tmp_path: Path) -> None:
    """What is not given stays as the table has it."""
    config = configuration(
        None, paper=True, given={"data_dir": tmp_path, **spec_override("EURUSD", ["stops_level=30"])}
    )
    changed, plain = symbols.load("EURUSD", config.symbols.override_fields()), symbols.load("EURUSD", {})
    assert (changed.spec.stops_level, changed.spec.digits) == (30, plain.spec.digits)


@pytest.mark.parametrize("text", ["stops_level", "colour=red", "=5"])
def test_a_rule_that_is_none_is_named(text: str) -> None:
    """An unknown rule, or one without a value, is refused with what could be written."""
    with pytest.raises(DtmsError) as caught:
        spec_override("EURUSD", [text])
    assert caught.value.violations[0].field == "spec"
    assert "stops_level" in caught.value.violations[0].why
