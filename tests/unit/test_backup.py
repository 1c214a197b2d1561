"""Copies of a journal, and the whole proof of one."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtms_service import convert
from dtms_service._core import Engine
from dtms_service.audit import audit
from dtms_service.config import Config
from dtms_service.errors import DtmsError, JournalDamaged, Reason
from dtms_service.journal import JOURNAL_NAME, Event, SqliteJournal, export_journal, no_progress, verify_journal
from dtms_service.journal.backup import mark
from dtms_service.recovery import snapshot_of
from dtms_service.settings import configuration
from tests.unit.test_journal import events, opened

MADE_NS = 1_700_000_000_000_000_000


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def journal(data_dir: Path) -> Iterator[SqliteJournal]:
    made, _report = opened(data_dir)
    yield made
    made.close()


def copied(journal: SqliteJournal, folder: Path) -> Path:
    """A copy in a folder of its own."""
    folder.mkdir()
    for _ in journal.copy(folder / JOURNAL_NAME):
        pass
    return folder


def test_commits_pass_while_a_copy_is_made_and_are_in_it(journal: SqliteJournal, tmp_path: Path) -> None:
    """A copy takes steps of bounded length; what is appended between them, before and behind it, belongs to it."""
    while journal.newest_revision < 40_000:
        journal.append(journal.newest_revision, events(journal.newest_revision + 1, journal.newest_revision + 1000))
    journal.close()
    journal, _report = opened(journal.path.parent)
    folder = tmp_path / "copy"
    folder.mkdir()
    steps = 0
    for _ in journal.copy(folder / JOURNAL_NAME):
        steps += 1
        journal.append(journal.newest_revision, events(journal.newest_revision + 1, journal.newest_revision + 10))
    assert steps > 1
    report = verify_journal(folder, no_progress)
    # What came after the last step is not in it.
    assert report.newest_revision == 40_000 + 10 * (steps - 1)
    assert journal.newest_revision == 40_000 + 10 * steps
    journal.close()


def test_a_copy_that_cannot_be_written_leaves_the_journal_alone(journal: SqliteJournal, tmp_path: Path) -> None:
    """No room for a backup is an answer to whoever wanted it; the service goes on."""
    journal.append(0, events(1, 10))
    with pytest.raises(DtmsError) as caught:
        list(journal.copy(tmp_path / "nowhere" / JOURNAL_NAME))
    assert caught.value.reason is Reason.LIMIT_REACHED
    journal.append(10, events(11, 11))


def test_a_copy_knows_that_it_is_one_until_somebody_goes_on_from_it(journal: SqliteJournal, tmp_path: Path) -> None:
    """The mark survives copies and reopening, and the original never has it."""
    journal.append(0, events(1, 10))
    folder = copied(journal, tmp_path / "copy")
    mark(folder / JOURNAL_NAME, MADE_NS)
    copy, _report = opened(folder)
    assert (copy.backup_made_ns, journal.backup_made_ns) == (MADE_NS, None)
    assert (copy.chain_head, copy.newest_revision) == (journal.chain_head, 10)
    copy.go_on()
    copy.append(10, events(11, 11))
    copy.close()
    copy, report = opened(folder)
    assert (copy.backup_made_ns, report.newest_revision) == (None, 11)
    copy.close()


# -- the whole proof ----------------------------------------------------------------------------------------------


@pytest.fixture
def config(data_dir: Path) -> Config:
    return configuration(None, paper=True, given={"data_dir": data_dir})


def history(config: Config) -> tuple[Engine, list[Event]]:
    """An account, a symbol and a kill switch that goes on and off."""
    managers = {name: int(rank) for name, rank in config.managers.items()}
    engine = Engine(config.to_core(), managers, config.universal_strategies)
    told = list(engine.define_account("1@x", True, "USD", 1).events)
    for number in range(20):
        step = engine.set_kill_switch(1, "1@x", number % 2 == 0, False, "operator", "test", number)
        told += step.events
    return engine, [(event["revision"], convert.encode_event(event)) for event in told]


def test_an_audit_folds_what_it_verified(data_dir: Path, config: Config, journal: SqliteJournal) -> None:
    """Every event is read and folded; what the fold gives is counted."""
    _engine, told = history(config)
    journal.append(0, told)
    head = journal.chain_head
    journal.close()
    found = audit(data_dir, config, no_progress)
    assert (found.journal.newest_revision, found.journal.chain_head) == (len(told), head)
    assert (found.folded_from, found.folded, found.trades) == (0, len(told), 0)


def test_an_audit_of_a_compacted_journal_begins_with_its_snapshot(
    data_dir: Path, config: Config, journal: SqliteJournal
) -> None:
    """What is gone cannot be folded: the oldest snapshot stands for it, and the events behind it are."""
    engine, told = history(config)
    journal.append(0, told)
    journal.save_snapshot(snapshot_of(engine))
    journal.compact(11)
    journal.close()
    found = audit(data_dir, config, no_progress)
    assert (found.journal.oldest_revision, found.folded_from, found.folded) == (11, len(told), 0)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"\xff\xff\xff", "is no event"),
        ("other", "says that it is"),
        ("stranger", "does not follow"),
    ],
)
def test_an_audit_names_an_event_whose_chain_is_right_and_whose_word_is_not(
    data_dir: Path, config: Config, journal: SqliteJournal, body: bytes | str, why: str
) -> None:
    """A chain proves that nothing changed, not that it was ever sense: each body is read and folded as well."""
    _engine, told = history(config)
    if body == "other":
        body = told[2][1]
    elif body == "stranger":
        event = convert.decode_event(told[10][1])
        body = convert.encode_event({**event, "ticket": 7, "account_id": "1@x"})
    assert isinstance(body, bytes)
    journal.append(0, [*told[:10], (11, body), *told[11:]])
    journal.close()
    with pytest.raises(JournalDamaged, match=why) as caught:
        audit(data_dir, config, no_progress)
    assert caught.value.revision == 11


def test_an_export_of_a_range_says_what_is_chosen(data_dir: Path, config: Config, journal: SqliteJournal) -> None:
    """First and last revision bound it, ``choose`` leaves out and adds; the whole journal is verified first."""
    _engine, told = history(config)
    journal.append(0, told)
    journal.close()
    out = io.StringIO()
    odd = {body for revision, body in told if revision % 2}
    report, written = export_journal(
        data_dir, out, no_progress, first=5, last=9, choose=lambda body: {"odd": True} if body in odd else None
    )
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["revision"] for line in lines] == [5, 7, 9]
    assert (written, report.newest_revision) == (3, len(told))
    assert all(line["odd"] for line in lines)
