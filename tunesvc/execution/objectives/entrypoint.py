"""Loads the function of an entrypoint, `module:function` or `file.py:function`.

Imports user code, so only workers may use it. Imports no Ray.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from tunesvc.execution.attempt.failures import EntrypointError
from tunesvc.util.suggestions import nearest

Objective = Callable[..., Any]


def load(entrypoint: str, folder: Path) -> Objective:
    """Return the function of an entrypoint. `folder` must be on the import path.

    Raises:
        EntrypointError: the module or function does not exist. Its cause is the error of the
            import.
    """
    location, _, name = entrypoint.partition(":")
    if not location or not name:
        raise EntrypointError(
            f"entrypoint {entrypoint!r} is not of the form `module:function` or `file.py:function`",
        )
    if location.endswith(".py"):
        module = _load_file(folder / location, entrypoint)
    else:
        module = _load_module(location, entrypoint, folder)
    return _attribute(module, name, entrypoint)


def _load_module(name: str, entrypoint: str, folder: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            text = f"entrypoint {entrypoint!r}: no module {error.name!r} in {folder}"
            raise EntrypointError(text) from None
        raise EntrypointError(_import_failed(entrypoint, error)) from error
    except BaseException as error:
        raise EntrypointError(_import_failed(entrypoint, error)) from error


def _load_file(path: Path, entrypoint: str) -> ModuleType:
    if not path.is_file():
        raise EntrypointError(f"entrypoint {entrypoint!r}: there is no file {path}")
    loaded = sys.modules.get(path.stem)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
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
            names = [public for public in dir(target) if not public.startswith("_")]
            near = nearest(part, names)
            hint = f"; did you mean `{near}`?" if near else ""
            text = f"entrypoint {entrypoint!r}: {module.__file__} has no {name!r}{hint}"
            raise EntrypointError(text)
        target = getattr(target, part)
    if not callable(target):
        kind = type(target).__name__
        raise EntrypointError(f"entrypoint {entrypoint!r} is a {kind}, not a function")
    return target  # type: ignore[no-any-return]  # callable() does not narrow to a signature


def _import_failed(entrypoint: str, error: BaseException) -> str:
    return f"entrypoint {entrypoint!r} cannot be imported: {type(error).__name__}: {error}"
