"""Loads a function or class by its import path, `module:name` or `file.py:name`: an entrypoint.

Imports user code, so only workers may use it, and the process that runs a study for its sampler and
pruner. Imports no Ray.
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
    return load_named(entrypoint, folder, f"entrypoint {entrypoint!r}")


def load_named(import_path: str, folder: Path, label: str) -> Callable[..., Any]:
    """Return the function or class of an import path. `folder` must be on Python's path.

    Args:
        import_path: `module:name` or `file.py:name`.
        folder: where files are looked up.
        label: begins the text of an error.

    Raises:
        EntrypointError: it does not exist. Its cause is the error of the import.
    """
    target = load_object(import_path, folder, label)
    if not callable(target):
        kind = type(target).__name__
        raise EntrypointError(f"{label} is a {kind}, not a function")
    return target  # type: ignore[no-any-return]  # callable() does not narrow to a signature


def load_object(import_path: str, folder: Path, label: str) -> Any:
    """Return whatever an import path names. See `load_named`."""
    location, _, name = import_path.partition(":")
    if not location or not name:
        form = "`module:function` or `file.py:function`"
        raise EntrypointError(f"{label} is not of the form {form}")
    if location.endswith(".py"):
        module = _load_file(folder / location, label)
    else:
        module = _load_module(location, label, folder)
    return _attribute(module, name, label)


def _load_module(name: str, label: str, folder: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise EntrypointError(f"{label}: no module {error.name!r} in {folder}") from None
        raise EntrypointError(_import_failed(label, error)) from error
    except BaseException as error:
        raise EntrypointError(_import_failed(label, error)) from error


def _load_file(path: Path, label: str) -> ModuleType:
    if not path.is_file():
        raise EntrypointError(f"{label}: there is no file {path}")
    for name in (path.stem, str(path)):  # another module may have the first one
        loaded = sys.modules.get(name)
        if loaded is None:
            break
        if getattr(loaded, "__file__", None) == str(path):
            return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise EntrypointError(f"{label}: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        raise EntrypointError(_import_failed(label, error)) from error
    return module


def _attribute(module: ModuleType, name: str, label: str) -> Any:
    target: Any = module
    for part in name.split("."):
        try:
            target = getattr(target, part)
        except AttributeError:
            names = [public for public in dir(target) if not public.startswith("_")]
            near = nearest(part, names)
            hint = f"; did you mean `{near}`?" if near else ""
            text = f"{label}: {module.__file__} has no {name!r}{hint}"
            raise EntrypointError(text) from None
        except ImportError as error:  # a package that loads its parts when they are used
            raise EntrypointError(_import_failed(label, error)) from error
    return target


def _import_failed(label: str, error: BaseException) -> str:
    return f"{label} cannot be imported: {type(error).__name__}: {error}"
