"""Notifications through the real apprise: delivered, repeated, flooded, refused, hanging, stopped in the middle."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr
from structlog.testing import capture_logs

from dtms.v1 import event_pb2, ownership_pb2, trade_pb2
from dtms_service.clock import VirtualClock
from dtms_service.config import NotificationsConfig, load
from dtms_service.errors import ConfigInvalid
from dtms_service.notify import Notice, Notifier, Target, open_senders
from tests.messenger import OK, REFUSED, Messenger, messenger

ACCOUNT = "7@demo"
SECOND_NS = 1_000_000_000
AT_ONCE = (0.0, 0.0)


def fact(revision: int, **body: Any) -> dict[str, Any]:
    where = {"account_id": ACCOUNT, "ticket": 41, "symbol": "EURUSD", "state": trade_pb2.TRADE_STATE_HEALTHY}
    return {"revision": revision, "time_ns": revision, **where, **body}


def alarm(revision: int, detail: str = "the hedge was refused") -> dict[str, Any]:
    return fact(revision, alarm_raised={"code": event_pb2.ALARM_CODE_HEDGE_FAILED, "detail": detail})


def target_of(to: Messenger, *, max_waiting: int = 100, timeout_s: float = 10.0) -> Target:
    (sender,) = open_senders([SecretStr(to.url)], timeout_s)
    return Target(sender, "DTMS", max_waiting=max_waiting, backoff_s=AT_ONCE)


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"dtms_{name}_total", labels) or 0.0


async def test_a_fact_arrives_in_words_with_its_place_and_revision() -> None:
    """Account, symbol, ticket and revision stand in the message, and what happened, in words."""
    async with messenger() as to:
        notifier = Notifier(NotificationsConfig(), VirtualClock(0), [target_of(to)])
        notifier.on_event(alarm(17))
        await to.until(lambda: to.answered == 1)
        await notifier.close()
    assert to.texts == ["EURUSD, ticket 41, account 7@demo: ALARM HEDGE_FAILED: the hedge was refused (r17)"]
    assert to.messages[0]["title"] == "DTMS"


async def test_only_the_chosen_facts_are_told() -> None:
    """Of states only changes into the configured ones, of grants only those after a lease ran out."""
    healthy, level_1, level_2 = (
        trade_pb2.TradeState.Value(f"TRADE_STATE_{name}") for name in ("HEALTHY", "WARNING_L1", "WARNING_L2")
    )

    def state(revision: int, to: int) -> dict[str, Any]:
        return fact(revision, state_changed={"from": healthy, "to": to})

    def grant(revision: int, cause: int) -> dict[str, Any]:
        return fact(revision, ownership_granted={"managed_by": "a", "displaced": "b", "owner_epoch": 3, "cause": cause})

    async with messenger() as to:
        notifier = Notifier(NotificationsConfig(), VirtualClock(0), [target_of(to)])
        notifier.on_event(state(1, level_1))
        notifier.on_event(grant(2, ownership_pb2.GRANT_CAUSE_ACQUIRED))
        notifier.on_event(fact(3, timer_ended={"timer": event_pb2.TIMER_FLAT}))
        notifier.on_event(state(4, level_2))
        notifier.on_event(grant(5, ownership_pb2.GRANT_CAUSE_EXPIRED))
        await notifier.close()
    told = "\n".join(to.texts)
    assert [f"(r{n})" in told for n in range(1, 6)] == [False, False, False, True, True]
    assert "the lease of b ran out" in told


async def test_rails_and_budgets_are_told_in_words() -> None:
    """Which rail and why, which budget and who raised it."""
    rail = {"rail": event_pb2.RAIL_DAILY_LOSS, "engaged": True, "value": 0.051, "limit": 0.05, "detail": "5.1 % lost"}
    async with messenger() as to:
        notifier = Notifier(NotificationsConfig(), VirtualClock(0), [target_of(to)])
        notifier.on_event({"revision": 8, "time_ns": 8, "account_id": ACCOUNT, "rail_changed": rail})
        notifier.on_event(fact(9, risk_budget_changed={"budget_r": 1.5, "by": "operator", "reason": "news"}))
        await notifier.close()
    told = "\n".join(to.texts)
    assert f"account {ACCOUNT}: rail DAILY_LOSS tripped: 5.1 % lost (r8)" in told
    assert "ticket 41, account 7@demo: risk budget 1.5 R by operator: news (r9)" in told


async def test_the_same_fact_is_told_once_and_its_repeats_are_counted() -> None:
    """Within dedupe_s a fact is told once; then how often it was repeated; then it is news again."""
    clock = VirtualClock(0)
    before = counted("notifications_deduplicated")
    async with messenger() as to:
        notifier = Notifier(NotificationsConfig(dedupe_s=60), clock, [target_of(to)])
        for revision in (1, 2, 3):
            notifier.on_event(alarm(revision))
        notifier.on_event(alarm(4, "another one"))
        clock.advance_to(60 * SECOND_NS)
        notifier.time()
        notifier.on_event(alarm(5))
        await notifier.close()
    lines = [line.split("ALARM HEDGE_FAILED: ")[-1] for text in to.texts for line in text.split("\n")]
    assert lines == ["the hedge was refused (r1)", "another one (r4)", "the hedge was refused (r3)",
                     "the hedge was refused (r5)"]  # fmt: skip
    assert any(line.startswith("2 times more, until revision 3: ") for text in to.texts for line in text.split("\n"))
    assert counted("notifications_deduplicated") - before == 2


async def test_repeats_are_told_before_the_end() -> None:
    """A stop inside of dedupe_s tells how often a fact was repeated."""
    async with messenger() as to:
        notifier = Notifier(NotificationsConfig(), VirtualClock(0), [target_of(to)])
        notifier.on_event(alarm(1))
        notifier.on_event(alarm(2))
        await notifier.close()
    assert "1 times more, until revision 2: " in to.texts[-1]


async def test_a_flood_is_cut_counted_and_said() -> None:
    """A target that hangs gets no more than its queue holds; how many were dropped stands in the next message."""
    before = counted("notifications_dropped", why="queue full")
    async with messenger(hangs=True) as to:
        with capture_logs() as logs:
            target = target_of(to, max_waiting=3)
            target.offer(Notice("one", 1))
            await to.until(lambda: len(to.messages) == 1)
            for revision in range(2, 12):
                target.offer(Notice(f"fact {revision}", revision))
            to.open.set()
            await to.until(lambda: to.answered == 2)
            target.offer(Notice("last", 12))
            await to.until(lambda: to.answered == 3)
            await asyncio.to_thread(target.close, 5.0)
    assert to.texts == [
        "one",
        "fact 2\nfact 3\nfact 4\n7 earlier facts were not told here: dtms watch --from-revision 5",
        "last",
    ]
    assert counted("notifications_dropped", why="queue full") - before == 7
    assert [line["first_revision"] for line in logs if line["event"] == "notifications_dropped"] == [5]


async def test_a_refused_message_is_tried_again_then_dropped_aloud() -> None:
    """As often as there are pauses, then it is lost: counted, logged, and said when the target answers again."""
    failed, dropped = counted("notification_messages", result="failed"), "not delivered"
    lost = counted("notifications_dropped", why=dropped)
    async with messenger(status=REFUSED) as to:
        with capture_logs() as logs:
            target = target_of(to)
            target.offer(Notice("lost", 5))
            await to.until(lambda: to.answered == 1 + len(AT_ONCE))
            to.status = OK
            target.offer(Notice("told", 9))
            await to.until(lambda: to.answered == 2 + len(AT_ONCE))
            await asyncio.to_thread(target.close, 5.0)
    assert to.texts == ["lost"] * 3 + ["told\n1 earlier facts were not told here: dtms watch --from-revision 5"]
    assert counted("notification_messages", result="failed") - failed == 3
    assert counted("notifications_dropped", why=dropped) - lost == 1
    assert "error=500" in next(line["why"] for line in logs if line["event"] == "notifications_dropped")


async def test_a_target_that_nobody_serves_fails_with_a_reason() -> None:
    """Connection refused is told as such, without the URL's secrets."""
    async with messenger() as gone:
        url = SecretStr(gone.url)
    (sender,) = open_senders([url], 5.0)
    why = await asyncio.to_thread(sender, "DTMS", "text")
    assert why is not None
    assert "onnection error" in why
    assert "secret" not in why


async def test_a_silent_target_is_given_up_after_its_timeout() -> None:
    """A target that takes a message and never answers costs timeout_s, no more."""
    async with messenger(hangs=True) as to:
        (sender,) = open_senders([SecretStr(to.url)], 0.1)
        assert await asyncio.to_thread(sender, "DTMS", "text") is not None
        assert (len(to.messages), to.answered) == (1, 0)


async def test_a_stop_waits_no_longer_than_it_says() -> None:
    """With a target that hangs a stop ends in its time, and says what was not told."""
    async with messenger(hangs=True) as to:
        with capture_logs() as logs:
            target = target_of(to)
            target.offer(Notice("hangs", 1))
            await to.until(lambda: len(to.messages) == 1)
            target.offer(Notice("waits", 2))
            await asyncio.to_thread(target.close, 0.01)
            assert to.answered == 0
    assert [(line["why"], line["facts"], line["last_one_hangs"]) for line in logs] == [("stopped", 1, True)]


async def test_a_slow_target_delays_no_other() -> None:
    """Each target has a thread of its own: mail arrives while the chat hangs."""
    async with messenger(hangs=True) as slow, messenger() as quick:
        notifier = Notifier(NotificationsConfig(), VirtualClock(0), [target_of(slow), target_of(quick)])
        notifier.on_event(alarm(1))
        await slow.until(lambda: len(slow.messages) == 1)
        notifier.on_event(alarm(2, "another one"))
        await quick.until(lambda: "(r2)" in "".join(quick.texts))
        assert slow.answered == 0
        slow.open.set()
        await notifier.close()


def test_a_service_without_urls_never_loads_apprise() -> None:
    """The service imports without it: it takes half a second and 30 MB."""
    code = "import sys, dtms_service.system; sys.exit('apprise' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_url_that_apprise_does_not_take_is_refused_by_its_place() -> None:
    """The error names the place in the list, never the URL."""
    with pytest.raises(ConfigInvalid) as caught:
        open_senders([SecretStr("json://127.0.0.1:1/"), SecretStr("nothing://secret-token")], 1.0)
    assert [violation.field for violation in caught.value.violations] == ["notifications.urls, number 2"]
    assert "secret" not in str(caught.value)


def test_urls_come_from_the_environment_and_are_never_shown(tmp_path: Path) -> None:
    """A list or words separated by blanks; the configuration prints none of them."""
    needed = {"DTMS_DATA_DIR": str(tmp_path)}
    for text in ('["tgram://a-secret/1", "json://b-secret/"]', "tgram://a-secret/1 json://b-secret/"):
        config = load(None, needed | {"DTMS_NOTIFICATIONS__URLS": text})
        assert [url.get_secret_value() for url in config.notifications.urls] == [
            "tgram://a-secret/1",
            "json://b-secret/",
        ]
        assert "secret/" not in repr(config)
    assert load(None, needed).notifications.urls == ()


@pytest.mark.parametrize("wrong", [{"events": ("state_chaned",)}, {"states": ("WORSE",)}], ids=["event", "state"])
def test_an_unknown_event_or_state_is_refused(wrong: dict[str, Any]) -> None:
    """A misspelt choice would tell nobody anything."""
    with pytest.raises(ConfigInvalid, match="is no"):
        Notifier(NotificationsConfig(**wrong), VirtualClock(0), [])
