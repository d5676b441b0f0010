"""Objects that `ray.tune.with_parameters` bound to a function or class, on their way to a worker.

Ray Tune keeps them in a registry that the function closes over: in the object store if this
process has a Ray, else in the registry itself. They travel in the latter way, for the worker's Ray
is another one. Imports Ray Tune only where such a function is met.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any


@contextmanager
def embed_parameters(objective: object) -> Iterator[None]:
    """Have the bound objects pickled with the objective."""
    registries = [(found, found.to_flush, found.references) for found in _registries(objective)]
    for registry, values, references in registries:
        registry.to_flush = {**values, **{name: _fetched(ref) for name, ref in references.items()}}
        registry.references = {}
    try:
        yield
    finally:
        for registry, values, references in registries:
            registry.to_flush, registry.references = values, references


def register_parameters(objective: object) -> None:
    """Make the bound objects of an unpickled objective known to this process's Ray. Repeatable."""
    registries = _registries(objective)
    if not registries:
        return
    import ray

    if ray.is_initialized():  # else the registry answers by itself
        for registry in registries:
            registry.flush()


def _fetched(reference: Any) -> Any:
    import ray

    return ray.get(reference)


def _registries(objective: object) -> list[Any]:
    if "ray.tune" not in sys.modules:  # then it cannot have made this
        return []
    kinds = objective.__mro__ if inspect.isclass(objective) else ()
    functions = [objective, *(method for kind in kinds for method in vars(kind).values())]
    closures = [getattr(function, "__closure__", None) or () for function in functions]
    return [value for cell in chain(*closures) if _is_registry(value := _content(cell))]


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return None


def _is_registry(value: object) -> bool:
    kind = type(value)
    return (kind.__module__, kind.__name__) == ("ray.tune.registry", "_ParameterRegistry")
