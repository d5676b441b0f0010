"""Imports classes by the import paths of a spec, with the study's folder first on Python's path."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunesvc.execution.objectives.entrypoint import load_named


def load_class(import_path: str, folder: Path) -> Callable[..., Any]:
    """Return the class or function of an import path.

    Raises:
        EntrypointError: it cannot be imported.
    """
    module, _, name = import_path.partition(":")
    path = import_path
    if (folder / f"{module}.py").is_file():  # also if another study has a module of that name
        path = f"{module}.py:{name}"
    with _on_import_path(str(folder)):
        return load_named(path, folder, repr(import_path))


@contextmanager
def _on_import_path(folder: str) -> Iterator[None]:
    """Put a folder first within the block, and last after it, for imports inside of functions."""
    with _importing:
        sys.path.insert(0, folder)
        try:
            yield
        finally:
            sys.path.remove(folder)
            if folder not in sys.path:
                sys.path.append(folder)


_importing = threading.RLock()
