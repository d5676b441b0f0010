"""A function on its way to workers: pickled by value, with what makes it work there as in the script it comes from.

A class or function of a script or notebook has no module that a worker could import: what pickles an instance, starts
a pool or shows a traceback looks for it in `__main__`, and for its source in a file. Imports no Ray.
"""

from __future__ import annotations

import io
import linecache
import sys
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, ClassVar

import cloudpickle

from tunesvc.errors import TuneError
from tunesvc.execution.attempt.failures import EntrypointError
from tunesvc.execution.objectives.ray_tune_parameters import embed_parameters
from tunesvc.execution.objectives.script_environment import fill_main
from tunesvc.signatures import name_of

_Definition = type | FunctionType


@dataclass(frozen=True, slots=True)
class _Shipment:
    """What travels."""

    function: Callable[..., Any]
    main: Mapping[str, Any]
    """The names of `__main__` under which the function's classes and functions are found."""
    member: FunctionType | None
    """One of `__main__`'s functions: on arrival its globals are those of all of them."""
    sources: Mapping[str, str]
    """The code of those functions, by the name of its file."""


def _reduce_code(code: CodeType) -> tuple[Any, ...]:
    make, arguments = cloudpickle.Pickler.dispatch_table[CodeType](code)
    return _make_code, (make, arguments, code.co_filename)


def _make_code(make: Callable[..., CodeType], arguments: tuple[Any, ...], file: str) -> CodeType:
    return make(*arguments).replace(co_filename=file)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickles functions with the names of their files, and notes which definitions of `__main__` it has met."""

    # cloudpickle calls every file `<dynamic-code>`, so that equal functions have equal pickles
    dispatch_table: ClassVar = ChainMap({CodeType: _reduce_code}, cloudpickle.Pickler.dispatch_table)

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.definitions: list[_Definition] = []

    def reducer_override(self, obj: Any) -> Any:
        """See `pickle.Pickler`."""
        if isinstance(obj, _Definition) and obj.__module__ == "__main__":
            self.definitions.append(obj)
        return super().reducer_override(obj)


def pickle_function(function: Callable[..., Any]) -> bytes:
    """Return a function as it travels to workers.

    Raises:
        TuneError: something that it refers to cannot travel.
    """
    try:
        with embed_parameters(function):
            _, definitions = _dumps(function)
            data, _ = _dumps(_pack(function, definitions))
    except Exception as error:  # pickling runs anybody's code
        raise TuneError(
            f"{name_of(function)} cannot be sent to workers: something it refers to cannot be pickled ({error}). "
            "Make that thing inside the function, or put the function into a module and name it as `entrypoint`."
        ) from error
    return data


def unpickle_function(data: bytes) -> Callable[..., Any]:
    """Return a function that has travelled, and set up `__main__` and the sources that it needs.

    Raises:
        EntrypointError: something that it needs is not here.
    """
    try:
        shipment: _Shipment = cloudpickle.loads(data)
    except Exception as error:
        raise EntrypointError(
            f"the function cannot be loaded on the worker: {type(error).__name__}: {error}"
        ) from error
    for file, source in shipment.sources.items():
        # without a time of change, so that the file itself, which may have changed since, is not looked at
        linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file
    if shipment.member is not None:
        _adapt_file(shipment.member.__globals__)
        fill_main(shipment.member.__globals__)
    fill_main(shipment.main)
    return shipment.function


def _dumps(value: Any) -> tuple[bytes, list[_Definition]]:
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(value)
    return file.getvalue(), pickler.definitions


def _pack(function: Callable[..., Any], definitions: Iterable[_Definition]) -> _Shipment:
    main = vars(sys.modules["__main__"])
    known = {id(definition) for definition in definitions}
    functions = [one for one in definitions if isinstance(one, FunctionType) and one.__globals__ is main]
    files = {one.__code__.co_filename for one in functions}
    sources = {file: "".join(linecache.getlines(file)) for file in sorted(files)}
    return _Shipment(
        function,
        {name: value for name, value in main.items() if id(value) in known},
        functions[0] if functions else None,
        {file: source for file, source in sources.items() if source},
    )


def _adapt_file(names: dict[str, Any]) -> None:
    """Have `__file__` name the script where it lies here; without one, a spawned child looks for no script."""
    script = Path(sys.argv[0])
    if "__file__" in names and not Path(names["__file__"]).is_file():
        del names["__file__"]
        if script.is_file():
            names["__file__"] = str(script)
