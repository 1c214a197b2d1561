"""Two configurations side by side: what is another, and what a running service may take of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtms_service.config import Config, load
from dtms_service.config_changes import Change, differences, taken_in_place
from dtms_service.errors import ConfigInvalid

NEEDED = {"DTMS_DATA_DIR": "/var/lib/dtms"}
TLS = {"DTMS_SERVER__TLS_CERTIFICATE": "a.pem", "DTMS_SERVER__TLS_KEY": "a.key"}


def config(**environ: str) -> Config:
    return load(None, NEEDED | environ)


def test_equal_configurations_have_no_differences() -> None:
    """Whatever is given or left to its default."""
    assert differences(config(), config(DTMS_ENGINE__WARN1="-2.0")) == ()
    assert taken_in_place(config(), config()) == config()


def test_differences_are_named_and_secrets_are_not_told() -> None:
    """Each key with both values; of the URLs of notifications only that they are others."""
    after = config(
        DTMS_ENGINE__WARN1="-1.5",
        DTMS_RAILS__NEWS_CALENDAR="/etc/news.csv",
        DTMS_NOTIFICATIONS__URLS="tgram://secret/1",
    )
    found = differences(config(), after)
    assert found[0] == Change("engine.warn1", "-2.0", "-1.5")
    assert found[1].key == "notifications.urls"
    assert found[2] == Change("rails.news_calendar", "", '"/etc/news.csv"')
    assert "secret" not in str(found)
    other = config(DTMS_NOTIFICATIONS__URLS="tgram://other/1")
    assert [one.key for one in differences(config(DTMS_NOTIFICATIONS__URLS="tgram://secret/1"), other)] == [
        "notifications.urls"
    ]


def test_what_a_running_service_cannot_change_stays() -> None:
    """Numbers, rails and managers are taken; timeframes, sizes, folders and addresses are as they were."""
    wanted = load(
        None,
        {
            "DTMS_DATA_DIR": "/elsewhere",
            "DTMS_PROFILE": "swing",
            "DTMS_ENGINE__HOLD_S": "30",
            "DTMS_ENGINE__MAGIC": "7",
            "DTMS_ENGINE__REQUEST_IDS_KEPT": "9",
            "DTMS_RAILS__CONSECUTIVE_STOPS": "2",
            "DTMS_MANAGERS__BOT": "STRATEGY",
            "DTMS_SERVER__PORT": "1",
            **TLS,
        },
    )
    running = config()
    taken = taken_in_place(running, wanted)
    assert [one.key for one in differences(running, taken)] == [
        *("engine.hold_s", "managers.bot", "rails.consecutive_stops"),
    ]
    assert [one.key for one in differences(taken, wanted)] == [
        *("data_dir", "engine.fast_s", "engine.magic", "engine.request_ids_kept", "engine.slow_s", "profile"),
        *("server.port", "server.tls_certificate", "server.tls_key"),
    ]


def test_certificates_are_taken_where_there_is_tls() -> None:
    """Other files may follow; whether there is TLS at all is decided at the start."""
    taken = taken_in_place(config(**TLS), config(DTMS_SERVER__TLS_CERTIFICATE="b.pem", DTMS_SERVER__TLS_KEY="b.key"))
    assert (taken.server.tls_certificate, taken.server.tls_key) == (Path("b.pem"), Path("b.key"))
    assert taken_in_place(config(**TLS), config()) == config(**TLS)


def test_what_does_not_go_with_what_stays_is_refused() -> None:
    """A manager by the name of a gateway that runs until the next start."""
    gateway = '{"symbols": ["EURUSD"], "broker": "mt5"}'
    running = load(None, NEEDED | {"DTMS_GATEWAYS": f'{{"7@Demo": {gateway}}}'})
    with pytest.raises(ConfigInvalid, match="gateway_7_demo"):
        taken_in_place(running, config(DTMS_MANAGERS__GATEWAY_7_DEMO="STRATEGY"))
