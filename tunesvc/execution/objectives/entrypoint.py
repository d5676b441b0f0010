"""From `module:function` or `file.py:function` to the function itself, in a worker only.

Imports user code, so nothing but a worker may call this. Imports no Ray.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from tunesvc.execution.attempt.failures import EntrypointError

Objective = Callable[..., Any]


def load(entrypoint: str, folder: Path) -> Objective:
    """The function that an entrypoint names, `folder` being on the import path.

    Raises:
        EntrypointError: there is no such module or function; its cause is what the import raised.
    """
    place, _, name = entrypoint.partition(":")
    if not place or not name:
        raise EntrypointError(f"entrypoint {entrypoint!r} is not of the form `module:function` or `file.py:function`")
    module = (
        _load_file(folder / place, entrypoint) if place.endswith(".py") else _load_module(place, entrypoint, folder)
    )
    return _attribute(module, name, entrypoint)


def _load_module(name: str, entrypoint: str, folder: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise EntrypointError(f"entrypoint {entrypoint!r}: no module {error.name!r} in {folder}") from None
        raise EntrypointError(_import_failed(entrypoint, error)) from error
    except BaseException as error:
        raise EntrypointError(_import_failed(entrypoint, error)) from error


def _load_file(path: Path, entrypoint: str) -> ModuleType:
    if not path.is_file():
        raise EntrypointError(f"entrypoint {entrypoint!r}: there is no file {path}")
    if path.stem in sys.modules and getattr(sys.modules[path.stem], "__file__", None) == str(path):
        return sys.modules[path.stem]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise EntrypointError(f"entrypoint {entrypoint!r}: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[path.stem]
        raise EntrypointError(_import_failed(entrypoint, error)) from error
    return module


def _attribute(module: ModuleType, name: str, entrypoint: str) -> Objective:
    target: Any = module
    for part in name.split("."):
        if not hasattr(target, part):
            near = difflib.get_close_matches(part, [n for n in dir(target) if not n.startswith("_")], n=1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            raise EntrypointError(f"entrypoint {entrypoint!r}: {module.__file__} has no {name!r}{hint}")
        target = getattr(target, part)
    if not callable(target):
        raise EntrypointError(f"entrypoint {entrypoint!r} is a {type(target).__name__}, not a function")
    return target  # type: ignore[no-any-return]  # callable() does not narrow to a signature


def _import_failed(entrypoint: str, error: BaseException) -> str:
    return f"entrypoint {entrypoint!r} cannot be imported: {type(error).__name__}: {error}"
