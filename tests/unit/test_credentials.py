"""Credentials: made once, kept private, recognised by content."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from dtms_service.credentials import (
    BUILT_IN_IDENTITIES,
    Credentials,
    Principal,
    Role,
    read_token,
    token_path,
)
from dtms_service.errors import CredentialUnsafe


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data" / "credentials"


def test_each_identity_gets_a_secret_of_its_own(directory: Path) -> None:
    """Every built-in name has a file that only the owner can read, and its token names it and its role."""
    credentials = Credentials.load_or_create(directory, BUILT_IN_IDENTITIES)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    tokens = set()
    for name, role in BUILT_IN_IDENTITIES.items():
        path = token_path(directory, name)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        token = read_token(path)
        assert credentials.identify(token) == Principal(name, role)
        tokens.add(token)
    assert len(tokens) == len(BUILT_IN_IDENTITIES)
    assert sorted(path.name for path in directory.iterdir()) == sorted(f"{name}.token" for name in BUILT_IN_IDENTITIES)


def test_a_restart_keeps_the_tokens(directory: Path) -> None:
    """Loading again makes nothing new; a new identity gets its own file beside the old ones."""
    Credentials.load_or_create(directory, BUILT_IN_IDENTITIES)
    token = read_token(token_path(directory, "operator"))
    again = Credentials.load_or_create(directory, {**BUILT_IN_IDENTITIES, "my_bot": Role.MANAGER})
    assert again.identify(token) == Principal("operator", Role.OPERATOR)
    assert again.identify(read_token(token_path(directory, "my_bot"))) == Principal("my_bot", Role.MANAGER)


def test_a_deleted_file_is_a_new_token(directory: Path) -> None:
    """Deleting a file and starting again replaces the secret; the old one opens nothing."""
    Credentials.load_or_create(directory, BUILT_IN_IDENTITIES)
    path = token_path(directory, "feed")
    old = read_token(path)
    path.unlink()
    credentials = Credentials.load_or_create(directory, BUILT_IN_IDENTITIES)
    assert credentials.identify(old) is None
    assert read_token(path) != old


def test_an_identity_that_was_taken_away_opens_nothing(directory: Path) -> None:
    """A token file whose name is configured no longer is ignored."""
    Credentials.load_or_create(directory, {"my_bot": Role.MANAGER})
    token = read_token(token_path(directory, "my_bot"))
    assert Credentials.load_or_create(directory, BUILT_IN_IDENTITIES).identify(token) is None


@pytest.mark.parametrize("token", ["", "x", "A" * 43, "ü\ud800", "operator"])
def test_a_wrong_token_is_nobodys(directory: Path, token: str) -> None:
    """Whatever else is presented, also what is no text, is None and no error."""
    assert Credentials.load_or_create(directory, BUILT_IN_IDENTITIES).identify(token) is None


def test_secrets_are_not_held(directory: Path) -> None:
    """The object keeps hashes only: no token appears in what it holds."""
    credentials = Credentials.load_or_create(directory, BUILT_IN_IDENTITIES)
    token = read_token(token_path(directory, "operator"))
    assert token not in repr(vars(credentials))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_readable_file_is_refused(directory: Path, mode: int) -> None:
    """A token that others can read or write stops the start, and the message says how to mend it."""
    Credentials.load_or_create(directory, BUILT_IN_IDENTITIES)
    path = token_path(directory, "viewer")
    path.chmod(mode)
    with pytest.raises(CredentialUnsafe, match="chmod 600") as caught:
        Credentials.load_or_create(directory, BUILT_IN_IDENTITIES)
    assert caught.value.path == path


def test_an_open_directory_is_refused(directory: Path) -> None:
    """Whoever may write the directory may replace the files."""
    directory.mkdir(parents=True)
    directory.chmod(0o770)
    with pytest.raises(CredentialUnsafe, match="chmod 700"):
        Credentials.load_or_create(directory, BUILT_IN_IDENTITIES)


def test_a_link_in_place_of_a_file_is_refused(directory: Path, tmp_path: Path) -> None:
    """A token is a file in its directory, not a link to somewhere else."""
    Credentials.load_or_create(directory, {})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("A" * 43)
    elsewhere.chmod(0o600)
    token_path(directory, "viewer").symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic links"):
        Credentials.load_or_create(directory, BUILT_IN_IDENTITIES)


@pytest.mark.parametrize("text", ["", "short", "A" * 44, "A" * 42 + "!", "A" * 43 + "\nmore"])
def test_a_file_that_holds_no_token_is_refused(directory: Path, text: str) -> None:
    """An empty, cut or edited file is an error, never a weak secret."""
    Credentials.load_or_create(directory, BUILT_IN_IDENTITIES)
    token_path(directory, "viewer").write_text(text)
    with pytest.raises(CredentialUnsafe, match="not a token"):
        Credentials.load_or_create(directory, BUILT_IN_IDENTITIES)


def test_a_token_belongs_to_one_name(directory: Path) -> None:
    """A copied file would make two identities one: refused."""
    Credentials.load_or_create(directory, BUILT_IN_IDENTITIES)
    token_path(directory, "viewer").write_text(token_path(directory, "operator").read_text())
    with pytest.raises(CredentialUnsafe, match="as well"):
        Credentials.load_or_create(directory, BUILT_IN_IDENTITIES)


@pytest.mark.parametrize("name", ["../escape", "Upper", "", "a b", "x" * 64, "9lives"])
def test_a_name_is_a_plain_word(directory: Path, name: str) -> None:
    """Names become file names and log fields: nothing else is accepted."""
    with pytest.raises(CredentialUnsafe, match="identity name"):
        Credentials.load_or_create(directory, {name: Role.VIEWER})


def test_tokens_that_are_others_are_told_by_name(directory: Path) -> None:
    """One that was replaced, one that came, one that went; those that stay are not mentioned. Only the holder of a
    token that is still its own stays known."""
    names = {"stays": Role.MANAGER, "replaced": Role.VIEWER, "goes": Role.MANAGER}
    before = Credentials.load_or_create(directory, names)
    held = {name: before.identify(read_token(token_path(directory, name))) for name in names}
    token_path(directory, "replaced").unlink()
    wanted = {"stays": Role.MANAGER, "replaced": Role.VIEWER, "comes": Role.MANAGER}
    looked = Credentials.load_or_create(directory, wanted, create=False)
    assert not token_path(directory, "comes").exists()
    assert looked.changed_from(before) == {"goes": (True, False), "replaced": (True, False)}
    after = Credentials.load_or_create(directory, wanted)
    assert after.changed_from(before) == {"comes": (False, True), "goes": (True, False), "replaced": (True, True)}
    known = {name: principal is not None and after.holds(principal) for name, principal in held.items()}
    assert known == {"stays": True, "replaced": False, "goes": False}
