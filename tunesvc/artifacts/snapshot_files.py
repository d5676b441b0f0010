"""The files of a study's folder that a snapshot takes: which, how large, and which never.

`.tuneignore` in the folder has the syntax of `.gitignore` and is read after `IGNORED`, so a line
that starts with `!` takes in what would be left out, or sends a file that looks like a secret.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from pathspec import GitIgnoreSpec

from tunesvc.errors import SnapshotError
from tunesvc.util.formatting import size as format_size
from tunesvc.util.redaction import SECRET_PREFIX

IGNORE_FILE: Final = ".tuneignore"

IGNORED: Final = (
    *(".git/", ".hg/", ".svn/", ".jj/", ".DS_Store", ".idea/", ".vscode/"),
    *("__pycache__/", "*.py[cod]", "*.egg-info/", ".ipynb_checkpoints/"),
    *(".venv/", "venv/", "env/", ".conda/", "node_modules/", ".tox/", ".nox/"),
    *(".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".hypothesis/", ".cache/"),
    *("checkpoints/", "lightning_logs/", "mlruns/", "wandb/", "runs/", "ray_results/"),
    *("build/", "dist/", "*.log", "*.tmp", "*.swp", "*~"),
)
"""Patterns of what no study needs elsewhere."""

SECRETS: Final = (
    *(".env", ".env.*", "!.env.example", "!.env.sample", "!.env.template", ".envrc"),
    *("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks"),
    *("credentials.json", "client_secret*.json", "*service?account*.json", "secrets.*"),
    *(".aws/", ".azure/", ".ssh/", ".gnupg/", ".kube/", ".config/gcloud/", ".docker/config.json"),
    *(".netrc", "_netrc", ".pgpass", ".pypirc", ".npmrc", ".git-credentials", ".vault-token"),
    *(".htpasswd", "kubeconfig", ".databrickscfg", ".boto", ".s3cfg", "*.kdbx"),
)
"""Patterns of what holds a secret, in lower case."""

_SECRET_TEXT = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"
    rb"|\bAKIA[0-9A-Z]{16}\b"
    + rb"|\b%s(token|session|link)_[A-Za-z0-9_-]{43}"
    % SECRET_PREFIX.encode()
)
"""Content of what holds a secret: a private key, a key of AWS, or a token of ours."""
_TEXT_BYTES_MAX = 2**20
"""A larger file is data, and is not looked into."""

BYTES_MAX: Final = 100 * 10**6
FILES_MAX: Final = 20_000
_NAMED = 5
"""So many files are named in an error."""


@dataclass(frozen=True, slots=True)
class FolderEntry:
    """A file, folder or symbolic link that a snapshot takes."""

    name: str
    """Path within the folder, with `/` between its parts."""
    path: Path
    status: os.stat_result
    """Status of the entry itself, as `lstat` has it."""

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.status.st_mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.status.st_mode)

    @property
    def bytes(self) -> int:
        """Return the size of a file; 0 for all else."""
        return self.status.st_size if self.is_file else 0


def list_entries(folder: Path, *, bytes_max: int = BYTES_MAX) -> tuple[FolderEntry, ...]:
    """Return what a snapshot of a folder takes, sorted by name.

    Raises:
        SnapshotError: it is too large, looks like it has secrets, or has a link that leads out.
            The text names the files and the remedy.
    """
    if not folder.is_dir():
        raise SnapshotError(f"{folder} is no folder")
    lines = _ignore_lines(folder)
    own = GitIgnoreSpec.from_lines(lines)
    ignored = GitIgnoreSpec.from_lines([*IGNORED, *lines])
    entries = tuple(sorted(_walk(folder, "", ignored), key=lambda entry: entry.name))
    _refuse_secrets(entries, own)
    _refuse_size(folder, entries, bytes_max)
    _refuse_kinds(folder, entries)
    return entries


def _walk(folder: Path, prefix: str, ignored: GitIgnoreSpec) -> Iterator[FolderEntry]:
    with os.scandir(folder) as found:
        for one in found:
            name = f"{prefix}{one.name}"
            is_folder = one.is_dir(follow_symlinks=False)
            if ignored.match_file(f"{name}/" if is_folder else name):
                continue
            yield FolderEntry(name, Path(one.path), one.stat(follow_symlinks=False))
            if is_folder:
                yield from _walk(Path(one.path), f"{name}/", ignored)


def _refuse_secrets(entries: Iterable[FolderEntry], own: GitIgnoreSpec) -> None:
    secret = GitIgnoreSpec.from_lines(SECRETS)
    found = [
        entry.name
        for entry in entries
        if not entry.is_folder
        and (secret.match_file(entry.name.lower()) or _holds_secret(entry))
        and own.check_file(entry.name).include is not False
    ]
    if found:
        first = PurePosixPath(found[0]).as_posix()
        raise SnapshotError(
            f"{_listed(found)} would be sent to the server and may hold secrets: name what is not "
            f"needed in {IGNORE_FILE}, and give secrets to workers by their environment. "
            f"A line `!{first}` in {IGNORE_FILE} sends it all the same"
        )


def _holds_secret(entry: FolderEntry) -> bool:
    if not entry.is_file or entry.bytes > _TEXT_BYTES_MAX:
        return False
    try:
        return _SECRET_TEXT.search(entry.path.read_bytes()) is not None
    except OSError as error:
        raise SnapshotError(f"{entry.path} cannot be read: {error.strerror}") from None


def _refuse_size(folder: Path, entries: Sequence[FolderEntry], bytes_max: int) -> None:
    largest = sorted(entries, key=lambda entry: -entry.bytes)[:_NAMED]
    remedy = (
        f"name what the study does not need in {IGNORE_FILE}, and read large data from a path or "
        "address that all workers reach"
    )
    total = sum(entry.bytes for entry in entries)
    if total > bytes_max:
        named = ", ".join(f"{entry.name} ({format_size(entry.bytes)})" for entry in largest)
        raise SnapshotError(
            f"{folder} has {format_size(total)}, and a snapshot may have "
            f"{format_size(bytes_max)}. Its largest files: {named}. {remedy[0].upper()}{remedy[1:]}"
        )
    if len(entries) > FILES_MAX:
        raise SnapshotError(
            f"{folder} has {len(entries)} files, and a snapshot may have {FILES_MAX}: {remedy}",
        )


def _refuse_kinds(folder: Path, entries: Sequence[FolderEntry]) -> None:
    """Refuse sockets, devices and pipes, and links that would lead nowhere on another machine."""
    known = {entry.name for entry in entries}
    root = folder.resolve()
    for entry in entries:
        if not (entry.is_folder or entry.is_file or entry.is_link):
            raise SnapshotError(
                f"{entry.path} is neither a file nor a folder: name it in {IGNORE_FILE}",
            )
        if not entry.is_link:
            continue
        target = entry.path.resolve()
        if not target.is_relative_to(root):
            raise SnapshotError(
                f"{entry.path} links to {target}, which is not in {folder} and would be missing "
                f"elsewhere: copy it there, or name the link in {IGNORE_FILE}"
            )
        inside = target.relative_to(root).as_posix()
        if inside not in known and inside != ".":
            raise SnapshotError(
                f"{entry.path} links to {inside}, which is missing or left out: name the link in "
                f"{IGNORE_FILE}, or take the file in by `!{inside}`"
            )


def _ignore_lines(folder: Path) -> list[str]:
    try:
        return (folder / IGNORE_FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise SnapshotError(f"{folder / IGNORE_FILE} cannot be read: {error}") from None


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED} more" if len(names) > _NAMED else shown
