"""The servers that `tune login` remembers, with their tokens, in a file of this user only."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tunesvc.errors import TuneError
from tunesvc.util.paths import config_directory


@dataclass(frozen=True, slots=True)
class StoredLogin:
    """Servers with their tokens."""

    server: str | None = None
    """Server that commands use; None for the database."""
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    """By address."""

    def with_token(self, server: str, token: str) -> StoredLogin:
        """Return this with another server in use."""
        return StoredLogin(server, {**self.tokens, server: token})

    def without(self, server: str | None) -> StoredLogin:
        """Return this without a server, and without one in use."""
        return StoredLogin(None, {url: one for url, one in self.tokens.items() if url != server})


def login_file() -> Path:
    """Return the path of the file."""
    return config_directory() / "login.json"


def load_login() -> StoredLogin:
    """Return what is stored.

    Raises:
        TuneError: the file cannot be read.
    """
    file = login_file()
    try:
        stored = json.loads(file.read_text("utf-8"))
        return StoredLogin(stored["server"], dict(stored["tokens"]))
    except FileNotFoundError:
        return StoredLogin()
    except (OSError, ValueError, KeyError, TypeError):
        raise TuneError(f"{file} cannot be read: delete it, and use `tune login` again") from None


def store_login(login: StoredLogin) -> Path:
    """Replace what is stored, at once and readable by this user only; return the file."""
    file = login_file()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        json.dump({"server": login.server, "tokens": dict(login.tokens)}, out)
    temporary.replace(file)
    return file
