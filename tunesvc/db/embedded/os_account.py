"""The operating system's account of the embedded Postgres.

Postgres refuses to run as root, so root runs it under an unprivileged account. No account is
created, and no mode of an existing directory is changed.
"""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesvc.errors import DatabaseError

_SERVER_ACCOUNTS = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class OsAccount:
    """A user of this machine."""

    name: str
    uid: int
    gid: int

    @property
    def is_other(self) -> bool:
        """True if it is not the user of this process."""
        return self.uid != os.geteuid()

    def process_options(self) -> dict[str, Any]:
        """Return arguments of `subprocess` that start a program as this user and group only."""
        return (
            {
                "user": self.uid,
                "group": self.gid,
                "extra_groups": [],
            }
            if self.is_other
            else {}
        )

    def chown(self, path: Path) -> None:
        """Make this user the owner of a file or directory that this process has just made."""
        if self.is_other:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def first_inaccessible_parent(self, path: Path) -> Path | None:
        """Return the first directory on the way to `path` that this user cannot enter, or None."""
        for directory in [*reversed(path.parents), path]:
            if directory.exists() and not self._may_enter(directory.stat()):
                return directory
        return None

    def _may_enter(self, status: os.stat_result) -> bool:
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)


def server_account() -> OsAccount:
    """Return the server's account: this user's own, or for root `postgres`, else `nobody`.

    Raises:
        DatabaseError: this user id has no name, or root finds neither account.
    """
    uid = os.geteuid()
    if uid != 0:
        return _own_account(uid)
    for name in _SERVER_ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return OsAccount(name, entry.pw_uid, entry.pw_gid)
    raise DatabaseError(
        "Postgres refuses to run as root, and this machine has neither a user `postgres` nor "
        "`nobody` to run it as: create one (`useradd --system postgres`), run tune as an ordinary "
        "user, or set TUNE_DATABASE_URL"
    )


def _own_account(uid: int) -> OsAccount:
    try:
        return OsAccount(pwd.getpwuid(uid).pw_name, uid, os.getegid())
    except KeyError:
        raise DatabaseError(
            f"the embedded Postgres cannot run under user id {uid}, which has no entry in the "
            "password database: add one to /etc/passwd (in a container: run as a user of the "
            "image), or set TUNE_DATABASE_URL to a Postgres server"
        ) from None
