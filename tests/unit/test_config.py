"""Configuration: checked as a whole, every mistake named as it was written."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from dtms_client.universal_manager.strategies import PROFILES as UNIVERSAL_PROFILES
from dtms_client.universal_manager.strategies import STRATEGIES, SUFFIXES, Frame
from dtms_service.config import PROFILES, UNIVERSAL_STRATEGIES, Config, ManagerRank, SymbolsConfig, all_keys, load
from dtms_service.errors import ConfigInvalid

NEEDED = {"DTMS_DATA_DIR": "/var/lib/dtms"}
PAPER = """
[paper]
account_id = "1@demo"
hedging = true
currency = "USD"
currency_digits = 2
leverage = 100
balance = 10000.0
margin_call_percent = 100.0
stop_out_percent = 50.0
commission_per_lot_side = 3.5
slippage = { model = "fixed_points", points = 3 }
conversion_rates = { JPY = 0.0064 }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "dtms.toml"


def refused(environ: dict[str, str], file: Path | None = None) -> dict[str, str]:
    """The fields named by the refusal, each with its reason."""
    with pytest.raises(ConfigInvalid) as caught:
        load(file, NEEDED | environ)
    return {violation.field: violation.why for violation in caught.value.violations}


def test_the_defaults_are_those_of_the_state_table() -> None:
    """The engine gets the numbers of the domain page, under the names the core knows."""
    core = load(None, NEEDED).to_core()
    assert core == {
        "warn1": -2.0, "warn1_recovered": 0.0, "warn2": -4.0, "warn2_eased": -2.0, "critical": -6.0,
        "recovery_confirmed": 1.0, "tighten_r": 0.3, "arm_gain_r": 0.2, "arm_loss_r": -0.5, "arm_after_s": 900,
        "hold_s": 60, "partial_fraction": 0.5, "hedge_ratio": 0.5, "hedge_stop_atr": 0.5, "flat_timer_slow_bars": 5,
        "recovery_timer_slow_bars": 2, "readd_fraction": 0.5, "fast_s": 300, "slow_s": 900, "trail_buffer_atr": 0.1,
        "lease_ttl_ms": 30000, "cooldown_ms": 0, "deviation_points": 20, "magic": 20261122, "max_retries": 3,
        "hedge_pause_slow_bars": 2, "max_hedges": 3,
        "stale_after_s": 300, "request_ids_kept": 100000, "decisions_kept": 10000, "close_on_flat_timer_l1": False,
        "allow_loosen": True, "daily_loss_percent": 2.0, "hourly_loss_percent": 1.0,
        "consecutive_stops": 3, "spread_factor": 2.0,
    }  # fmt: skip


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_sets_the_timeframes(profile: str) -> None:
    """intraday is M5/M15, swing H1/H4; a timeframe that is given wins."""
    engine = load(None, NEEDED | {"DTMS_PROFILE": profile}).engine
    assert {"fast_s": engine.fast_s, "slow_s": engine.slow_s} == PROFILES[profile]
    own = load(None, NEEDED | {"DTMS_PROFILE": profile, "DTMS_ENGINE__FAST_S": "60"}).engine
    assert (own.fast_s, own.slow_s) == (60, PROFILES[profile]["slow_s"])


def test_the_environment_lies_over_the_file(file: Path) -> None:
    """Of one key in both the environment wins; its neighbours from the file stay."""
    file.write_text("data_dir = '/srv/dtms'\n[server]\nport = 1000\nhost = '::1'\n")
    config = load(file, {"DTMS_SERVER__PORT": "2000"})
    assert (config.server.port, config.server.host, config.data_dir) == (2000, "::1", Path("/srv/dtms"))


def test_the_process_environment_is_not_read_behind_the_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is passed in counts."""
    monkeypatch.setenv("DTMS_SERVER__PORT", "4")
    monkeypatch.setenv("SERVER", "{}")
    assert load(None, NEEDED).server.port != 4


def test_an_unknown_key_in_the_file_is_an_error(file: Path) -> None:
    """A misspelt key is named by its path, at the top and in a section."""
    file.write_text("colour = 1\n[engine]\nwarn_1 = -3.0\n[symbols.overrides.EURUSD]\npoints = 1\n")
    assert refused({}, file) == {
        "colour": "is no key",
        "engine.warn_1": "is no key",
        "symbols.overrides.EURUSD.points": "is no key",
    }


@pytest.mark.parametrize("variable", ["DTMS_PORT", "DTMS_SERVER__PRT", "DTMS_ENGINE__WARN1__X", "DTMS_"])
def test_an_unknown_variable_is_an_error(variable: str) -> None:
    """A DTMS_ variable that no key answers to is named as it was written."""
    assert variable.startswith(next(iter(refused({variable: "1"}))))


def test_client_variables_are_left_alone() -> None:
    """A service started in a client's shell does not trip over the client's own variables."""
    load(None, NEEDED | {"DTMS_TOKEN": "secret", "DTMS_ADDRESS": "localhost:1"})


def test_a_missing_key_is_named() -> None:
    """There is no default place for the journal."""
    with pytest.raises(ConfigInvalid) as caught:
        load(None, {})
    assert [violation.field for violation in caught.value.violations] == ["data_dir"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DTMS_SERVER__PORT", "65536"),
        ("DTMS_SERVER__PORT", "abc"),
        ("DTMS_PROFILE", "scalping"),
        ("DTMS_ENGINE__WARN1", "nan"),
        ("DTMS_ENGINE__PARTIAL_FRACTION", "1.5"),
        ("DTMS_ENGINE__TIGHTEN_R", "0"),
        ("DTMS_ENGINE__LEASE_TTL_MS", "0"),
        ("DTMS_MANAGERS__MY_BOT", "DTMS_DEFENSIVE"),
        ("DTMS_EVENT_LOG__CAPACITY", "0"),
        ("DTMS_JOURNAL__WAL_LIMIT_BYTES", "10"),
    ],
)
def test_a_value_out_of_range_is_named(variable: str, value: str) -> None:
    """The key is named as it was written, with why."""
    assert list(refused({variable: value})) == [variable]


@pytest.mark.parametrize(
    "values",
    [
        {"DTMS_ENGINE__WARN2": "-1.0"},
        {"DTMS_ENGINE__CRITICAL": "-4.0"},
        {"DTMS_ENGINE__WARN1_RECOVERED": "-2.0"},
        {"DTMS_ENGINE__WARN2_EASED": "-5.0"},
        {"DTMS_ENGINE__SLOW_S": "300"},
        {"DTMS_ENGINE__SLOW_S": "700"},
    ],
)
def test_numbers_that_contradict_each_other_are_refused(values: dict[str, str]) -> None:
    """Thresholds out of order or timeframes that do not nest would make states that nobody can leave."""
    assert refused(values)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "dtms.example.org"])  # noqa: S104  the point here
def test_an_open_port_without_tls_is_refused(host: str) -> None:
    """Beyond loopback the service wants a certificate; tokens do not travel in the clear."""
    assert "tls" in str(refused({"DTMS_SERVER__HOST": host}))
    with_tls = {"DTMS_SERVER__TLS_CERTIFICATE": "c.pem", "DTMS_SERVER__TLS_KEY": "k.pem"}
    assert load(None, NEEDED | {"DTMS_SERVER__HOST": host} | with_tls).server.host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_loopback_needs_no_tls(host: str) -> None:
    """Loopback works without a certificate; half a pair is still a mistake."""
    assert load(None, NEEDED | {"DTMS_SERVER__HOST": host}).server.is_loopback
    assert refused({"DTMS_SERVER__HOST": host, "DTMS_SERVER__TLS_KEY": "k.pem"})


def test_custom_managers_join_the_built_in_ones(file: Path) -> None:
    """A manager of one's own has the rank it is given; the two built-in ones stay unless named."""
    file.write_text("[managers]\nmy_bot = 'STRATEGY'\nintelligent_exit_manager = 'STRATEGY'\n")
    assert load(file, NEEDED).managers == {
        "universal_sl_tp_manager": ManagerRank.STRATEGY,
        "intelligent_exit_manager": ManagerRank.STRATEGY,
        "my_bot": ManagerRank.STRATEGY,
    }
    assert refused({"DTMS_MANAGERS__my-bot": "STRATEGY"})


def test_fourteen_strategies_belong_to_universal() -> None:
    """Exactly those that it has rules for, in the order of its table."""
    assert len(set(UNIVERSAL_STRATEGIES)) == 14
    assert tuple(STRATEGIES) == UNIVERSAL_STRATEGIES


def test_a_profile_has_the_same_bars_for_the_service_and_the_universal_manager() -> None:
    """Fast and slow are the same lengths on both sides."""
    for name, lengths in PROFILES.items():
        theirs = UNIVERSAL_PROFILES[name]
        assert (theirs[Frame.FAST], theirs[Frame.SLOW]) == (lengths["fast_s"], lengths["slow_s"])


def test_symbols_have_the_same_suffixes_for_the_service_and_the_universal_manager() -> None:
    """A name that one of them knows, the other knows."""
    assert SymbolsConfig().suffixes == SUFFIXES


def test_the_paper_account_has_no_money_defaults(file: Path) -> None:
    """Leaving out any figure that touches money is an error that names it; the whole is what the broker takes."""
    file.write_text(PAPER)
    section = load(file, NEEDED).paper
    assert section is not None
    broker = section.to_broker()
    assert (broker.balance, broker.leverage, broker.conversion_rates) == (10_000.0, 100, {"JPY": 0.0064})
    for line in PAPER.strip().splitlines()[1:]:
        file.write_text(PAPER.replace(line, ""))
        assert list(refused({}, file)) == [f"paper.{line.split()[0]}"]
    assert load(None, NEEDED).paper is None


def test_slippage_points_need_their_model(file: Path) -> None:
    """Points beside another model than fixed_points would be ignored: refused."""
    file.write_text(PAPER.replace("fixed_points", "next_tick"))
    assert list(refused({}, file)) == ["paper.slippage"]


GATEWAY = """
[gateways."7001@Broker-Server"]
broker = "mt5"
symbols = ["EURUSD"]
"""


def test_a_supervised_gateway_needs_what_touches_money_and_nothing_else(file: Path) -> None:
    """Broker and symbols have no default; the rest says how to reach terminal and service."""
    file.write_text(GATEWAY)
    section = load(file, NEEDED).gateways["7001@Broker-Server"]
    assert (section.package, section.deadline_s, section.password_file, section.terminal) == (
        *("MetaTrader5", 10.0),
        *(None, None),
    )
    file.write_text('[gateways."7001@Broker-Server"]\n')
    assert set(refused({}, file)) == {f"gateways.7001@Broker-Server.{key}" for key in ("broker", "symbols")}


@pytest.mark.parametrize(
    ("more", "field", "why"),
    [
        ('broker = "paper"', "gateways.7001@Broker-Server.broker", "'mt5'"),
        ("symbols = []", "gateways.7001@Broker-Server.symbols", "at least 1"),
        ("deadline_s = 0", "gateways.7001@Broker-Server.deadline_s", "greater than 0"),
        ('pasword_file = "x"', "gateways.7001@Broker-Server.pasword_file", "is no key"),
        ('password_file = "x"\npassword_variable = "X"', "gateways.7001@Broker-Server", "not both"),
        ('[gateways."me@Broker"]\nbroker = "mt5"\nsymbols = ["EURUSD"]', "gateways.me@Broker", "pattern"),
        ('[gateways."7001@Broker_Server"]\nbroker = "mt5"\nsymbols = ["EURUSD"]', "configuration", "differ only in"),
        ('[managers]\ngateway_7001_broker_server = "STRATEGY"', "configuration", "is the name of a supervised gateway"),
    ],
)
def test_a_gateway_that_cannot_be_is_named(file: Path, more: str, field: str, why: str) -> None:
    """The key of the account's section, and what is wrong with it."""
    lines = [line for line in GATEWAY.splitlines() if line.partition(" ")[0] != more.partition(" ")[0]]
    file.write_text("\n".join([*lines, more]))
    found = refused({}, file)
    assert list(found) == [field]
    assert why in found[field]


def test_lists_come_as_json_from_the_environment() -> None:
    """A list in the environment is JSON; anything else that looks like it is refused by name."""
    config = load(None, NEEDED | {"DTMS_SYMBOLS__SUFFIXES": '[".x"]'})
    assert config.symbols.suffixes == (".x",)
    assert list(refused({"DTMS_SYMBOLS__SUFFIXES": "[x"})) == ["DTMS_SYMBOLS__SUFFIXES"]


def test_a_section_is_not_a_value() -> None:
    """A section and a key inside of it cannot both be given."""
    assert refused({"DTMS_SERVER": "x", "DTMS_SERVER__PORT": "1"})


@pytest.mark.parametrize("text", ["[server", "port = "])
def test_a_file_that_is_no_toml_is_named(file: Path, text: str) -> None:
    """A broken or missing file is an error with its path, not an empty configuration."""
    file.write_text(text)
    with pytest.raises(ConfigInvalid, match="is not TOML"):
        load(file, NEEDED)
    file.unlink()
    with pytest.raises(ConfigInvalid, match="No such file"):
        load(file, NEEDED)


def test_the_configuration_cannot_change() -> None:
    """What was checked stays as it was checked."""
    config = load(None, NEEDED)
    with pytest.raises(ValidationError):
        config.engine.warn1 = -3.0


def test_every_key_is_listed_and_documented() -> None:
    """`all_keys` walks into every section, also optional and named ones; each engine key says what it is."""
    keys = all_keys()
    assert {"data_dir", "engine.warn1", "paper.balance", "symbols.overrides.point", "managers"} <= set(keys)
    assert len(keys) == len(set(keys))
    assert all(field.description for field in type(load(None, NEEDED).engine).model_fields.values())


def test_overrides_reach_the_symbol_table(file: Path) -> None:
    """Only the fields that were given go on to symbols.load."""
    file.write_text("[symbols.overrides.XAUUSD]\ndigits = 2\npoint = 0.01\ntick_size = 0.01\n")
    assert load(file, NEEDED).symbols.override_fields() == {"XAUUSD": {"digits": 2, "point": 0.01, "tick_size": 0.01}}
    assert Config.model_fields["symbols"].default.override_fields() == {}
