"""Transfers objects that `ray.tune.with_parameters` has bound to a function or class to a worker.

Ray Tune keeps them in a registry inside the function's closure: in the object store if this process
has a Ray, otherwise in the registry itself. They are transferred inside the registry, because the
worker has another Ray. Imports Ray Tune only for such functions.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tunesvc.execution.ray_internals import is_parameter_registry


@contextmanager
def embed_parameters(objective: object) -> Iterator[None]:
    """Pickle the bound objects together with the objective."""
    registries = [(found, found.to_flush, found.references) for found in _registries(objective)]
    for registry, values, references in registries:
        fetched = {name: _fetch(reference) for name, reference in references.items()}
        registry.to_flush = {**values, **fetched}
        registry.references = {}
    try:
        yield
    finally:
        for registry, values, references in registries:
            registry.to_flush, registry.references = values, references


def register_parameters(objective: object) -> None:
    """Put the bound objects of an unpickled objective into this process's Ray. Repeatable."""
    registries = _registries(objective)
    if not registries:
        return
    import ray

    if ray.is_initialized():  # otherwise the registry returns them by itself
        for registry in registries:
            registry.flush()


def _fetch(reference: Any) -> Any:
    import ray

    return ray.get(reference)


def _registries(objective: object) -> list[Any]:
    if "ray.tune" not in sys.modules:  # then `with_parameters` was not called
        return []
    functions: list[Any] = [objective]
    if inspect.isclass(objective):
        for kind in objective.__mro__:
            functions += vars(kind).values()
    registries = []
    for function in functions:
        for cell in getattr(function, "__closure__", None) or ():
            value = _content(cell)
            if is_parameter_registry(value):
                registries.append(value)
    return registries


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # an empty cell
        return None
