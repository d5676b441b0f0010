"""Pickles a function by value for workers, so that it works there as in its script.

A worker cannot import the classes and functions of a script or notebook. But pickle, process pools
and tracebacks look for them in `__main__`, and for their source code in a file: so these travel
along. Imports no Ray.
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

from tunesvc.config_classes.config_function import with_config
from tunesvc.errors import TuneError
from tunesvc.execution.attempt.failures import EntrypointError
from tunesvc.execution.objectives.ray_tune_parameters import embed_parameters
from tunesvc.execution.objectives.script_environment import fill_main
from tunesvc.signatures import name_of

_Definition = type | FunctionType


@dataclass(frozen=True, slots=True)
class _Shipment:
    """The pickled content."""

    function: Callable[..., Any]
    main: Mapping[str, Any]
    """Names of `__main__` that refer to the function's classes and functions."""
    member: FunctionType | None
    """A function of `__main__`. After unpickling, all of them share its globals."""
    sources: Mapping[str, str]
    """Source code of those functions by file name."""


def _reduce_code(code: CodeType) -> tuple[Any, ...]:
    make, arguments = cloudpickle.Pickler.dispatch_table[CodeType](code)
    return _make_code, (make, arguments, code.co_filename)


def _make_code(
    make: Callable[..., CodeType],
    arguments: tuple[Any, ...],
    file: str,
) -> CodeType:
    return make(*arguments).replace(co_filename=file)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickles functions with their file names, and collects the definitions of `__main__`."""

    # cloudpickle replaces every file name by `<dynamic-code>`, so that equal functions have equal
    # pickles
    dispatch_table: ClassVar = ChainMap(
        {CodeType: _reduce_code},
        cloudpickle.Pickler.dispatch_table,
    )

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.definitions: list[_Definition] = []

    def reducer_override(self, obj: Any) -> Any:
        """See `pickle.Pickler`."""
        if isinstance(obj, _Definition) and obj.__module__ == "__main__":
            self.definitions.append(obj)
        return super().reducer_override(obj)


def pickle_function(function: Callable[..., Any]) -> bytes:
    """Serialize a function for workers.

    Raises:
        TuneError: the function refers to something that cannot be pickled.
    """
    function = with_config(function)
    try:
        with embed_parameters(function):
            _, definitions = _dumps(function)
            data, _ = _dumps(_pack(function, definitions))
    except Exception as error:  # pickling may run user code
        raise TuneError(
            f"{name_of(function)} cannot be sent to workers: "
            f"something it refers to cannot be pickled ({error}). "
            "Make that thing inside the function, "
            "or put the function into a module and name it as `entrypoint`.",
        ) from error
    return data


def unpickle_function(data: bytes) -> Callable[..., Any]:
    """Load a function, and set up the `__main__` and the source code that it needs.

    Raises:
        EntrypointError: something that it needs is missing on this node.
    """
    try:
        shipment: _Shipment = cloudpickle.loads(data)
    except Exception as error:
        raise EntrypointError(
            f"the function cannot be loaded on the worker: {type(error).__name__}: {error}",
        ) from error
    for file, source in shipment.sources.items():
        # Without a modification time linecache does not reread the file, which may have changed.
        lines = source.splitlines(keepends=True)
        linecache.cache[file] = len(source), None, lines, file
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
    ids = {id(definition) for definition in definitions}
    functions = [one for one in definitions if isinstance(one, FunctionType)]
    functions = [function for function in functions if function.__globals__ is main]
    sources = {}
    files = {function.__code__.co_filename for function in functions}
    for file in sorted(files):
        if source := "".join(linecache.getlines(file)):
            sources[file] = source
    return _Shipment(
        function=function,
        main={name: value for name, value in main.items() if id(value) in ids},
        member=functions[0] if functions else None,
        sources=sources,
    )


def _adapt_file(names: dict[str, Any]) -> None:
    """Set `__file__` to the script's path on this node, or delete it if there is none.

    Without it a spawned child needs no script.
    """
    script = Path(sys.argv[0])
    if "__file__" in names and not Path(names["__file__"]).is_file():
        del names["__file__"]
        if script.is_file():
            names["__file__"] = str(script)
