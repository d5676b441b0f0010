"""Takes a search space out of a Python file: a `Tuner` of Ray, or a space of Syne Tune or Ax.

The file is executed as an import would: code below `if __name__ == "__main__":` is not.
"""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunesvc.errors import SpecError

_SOURCE = re.compile(r"(.+\.py)(?::(\w+))?")
_NAMES = ("tuner", "param_space", "search_space", "config_space", "space", "parameters")


def is_python(source: str) -> bool:
    """Return True for `FILE.py` and `FILE.py:NAME`."""
    return _SOURCE.fullmatch(source) is not None


def load_object(source: str) -> tuple[Any, dict[str, Any], Path]:
    """Return the object that a file defines, all its names, and the file.

    Raises:
        SpecError: it cannot be executed, or has no such name.
    """
    found = _SOURCE.fullmatch(source)
    path, name = (Path(source), None) if found is None else (Path(found[1]), found[2])
    if not path.is_file():
        raise SpecError(f"{path} cannot be read: there is no such file")
    sys.path.insert(0, str(path.absolute().parent))
    try:
        names = runpy.run_path(str(path), run_name=path.stem)
    except Exception as error:  # noqa: BLE001  # user code may raise anything
        raise SpecError(f"{path} cannot be imported: {type(error).__name__}: {error}") from None
    finally:
        del sys.path[0]
    if name is not None and name not in names:
        raise SpecError(
            f"{path} defines no `{name}`: give the search space a name outside functions"
        )
    chosen = name or next((one for one in _NAMES if one in names), None)
    if chosen is None:
        raise SpecError(f"{path} defines none of {', '.join(_NAMES)}: name it, `{path}:NAME`")
    return names[chosen], names, path


def as_json(space: object) -> str:
    """Return a space of Syne Tune or Ax as the JSON that `formats` read.

    Raises:
        SpecError: it is none.
    """
    if isinstance(space, (list, tuple)):
        space = {"parameters": list(space)}
    try:
        return json.dumps(space, default=_plain, indent=1)
    except TypeError as error:
        raise SpecError(f"it is no search space of Ray Tune, Syne Tune or Ax: {error}") from None


def _plain(value: Any) -> Any:
    """Return a domain of Syne Tune or a parameter of Ax as its fields."""
    kind = type(value)
    fields = {name: one for name, one in vars(value).items() if not name.startswith("_")}
    if kind.__module__.startswith("syne_tune."):
        sampler = fields.pop("sampler", None)
        made: dict[str, Any] = {"domain_cls": kind.__name__, "domain_kwargs": fields}
        if sampler is not None:
            made |= {"sampler_cls": str(sampler), "sampler_kwargs": vars(sampler)}
        return made
    if kind.__module__.startswith("ax."):
        return {name: one for name, one in fields.items() if one is not None}
    raise TypeError(f"{kind.__module__}.{kind.__name__} is unknown")


def leaves(space: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the values of nested mappings."""
    for value in space.values():
        if isinstance(value, Mapping) and set(value) != {"grid_search"}:
            yield from leaves(value)
        else:
            yield value
