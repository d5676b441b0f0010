"""The file in which `tune login` remembers servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesvc.cli.commands.login import _check_encrypted
from tunesvc.client.stored_login import StoredLogin, load_login, login_file, store_login
from tunesvc.errors import TuneError


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_HOME", str(tmp_path))


def test_a_login_is_remembered_for_this_user_only() -> None:
    assert load_login() == StoredLogin()
    login = StoredLogin().with_token("https://a", "one").with_token("https://b", "two")
    file = store_login(login)
    assert file.stat().st_mode & 0o077 == 0
    assert load_login() == login
    assert load_login().server == "https://b"
    assert "two" not in repr(login)
    store_login(login.without("https://b"))
    assert load_login() == StoredLogin(None, {"https://a": "one"})
    assert [one.name for one in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"server": 1}', "\0"])
def test_a_damaged_file_is_named(text: str) -> None:
    login_file().parent.mkdir(parents=True)
    login_file().write_text(text)
    with pytest.raises(TuneError, match=r"login\.json cannot be read: delete it"):
        load_login()


def test_no_token_travels_unencrypted_to_another_machine() -> None:
    for url in (
        "https://tune.example.org",
        "http://127.0.0.1:1",
        "http://localhost",
        "http://[::1]:1",
    ):
        _check_encrypted(url)
    for url in ("http://tune.example.org", "http://10.0.0.1", "http://127.0.0.1.evil.example"):
        with pytest.raises(TuneError, match="use https://"):
            _check_encrypted(url)
