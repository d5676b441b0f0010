"""study.yaml -> `StudySpec`, with every mistake named by file, line and column in one `SpecError`.

The way of a text: size -> `parser` (structure) -> `scalars` (what unquoted values mean) -> `shorthand` ->
`model` (types) -> `checks` (what fits together). User code is never imported here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tunesvc.errors import SpecError
from tunesvc.spec import checks, diagnostics
from tunesvc.spec.diagnostics import LocatedIssue, SpecIssue, TextPosition
from tunesvc.spec.model import StudySpec
from tunesvc.spec.yaml import error_messages, scalars, shorthand
from tunesvc.spec.yaml.parser import (
    LINE_BREAKS,
    MappingEntry,
    MappingNode,
    Node,
    SequenceNode,
    Unreadable,
    place_of,
    read_tree,
)

MAX_BYTES = 256_000
"""The largest study file: PyYAML reads about 50 kB a second when every byte is a token."""


_NAME_LINE = re.compile(
    r"""^(name:[ \t]*)(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\n]|'')*'|[^\s"'].*?)([ \t]+\#.*)?[ \t]*$""",
    re.MULTILINE,
)
_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


Judge = Callable[[StudySpec], Iterable[SpecIssue]]
"""Finds mistakes that this package cannot tell, such as a sampler's options: see `search.check.option_faults`."""


@dataclass(frozen=True, slots=True)
class StudyDocument:
    """A study file that was read."""

    spec: StudySpec
    text: str
    """As written."""
    folder: Path
    """Absolute; where the entrypoint or command is found."""


def load(path: str | Path, judge: Judge | None = None) -> StudyDocument:
    """Read a study file.

    Args:
        path: of the file.
        judge: finds further mistakes, which are told with the others.

    Raises:
        SpecError: it is not there, too large, no UTF-8, or cannot be used; every mistake is in the text.
    """
    path = Path(path)
    text = _decode(_read(path), path.name)
    folder = path.absolute().parent
    return StudyDocument(parse(text, path.name, folder=folder, judge=judge), text, folder)


def parse(
    text: str,
    filename: str = "study.yaml",
    *,
    folder: Path | None = None,
    judge: Judge | None = None,
) -> StudySpec:
    """A study from YAML text. With a `folder`, the entrypoint's file has to be there.

    Raises:
        SpecError: every mistake with its line and column, in the order of the file.
    """
    if len(text) > MAX_BYTES:
        raise SpecError(_too_large(filename, len(text)))
    spec, found = examine(text, filename, folder=folder, judge=judge)
    if spec is None:
        raise SpecError(diagnostics.render(found, LINE_BREAKS.split(text), filename))
    return spec


def examine(
    text: str,
    filename: str = "study.yaml",
    *,
    folder: Path | None = None,
    judge: Judge | None = None,
) -> tuple[StudySpec | None, list[LocatedIssue]]:
    """The study of a YAML text, or all that is wrong with it, for whoever shows mistakes at their place."""
    if len(text) > MAX_BYTES:
        return None, [LocatedIssue(TextPosition(1, 1), _too_large(filename, len(text)))]
    try:
        tree, found = read_tree(text)
    except Unreadable as error:
        return None, [error.fault]
    if not isinstance(tree, MappingNode):
        return None, [LocatedIssue(TextPosition(1, 1) if tree is None else tree.place, _NO_STUDY)]
    data = {key: _plain(entry.node, (key,), found) for key, entry in tree.entries.items()}
    spec, wrong = _validate(data, folder=folder, function=None, judge=judge)
    known = {fault.place for fault in found}
    placed = [LocatedIssue(_locate(tree, fault), str(fault)) for fault in wrong]
    found += [fault for fault in placed if fault.place not in known]
    return (None, sorted(set(found))) if spec is None or found else (spec, [])


def renamed(text: str, name: str) -> str:
    """A study file under another name, the rest as it was written; unchanged where its name is not on a line alone."""
    written = name if _PLAIN_NAME.fullmatch(name) else json.dumps(name, ensure_ascii=False)
    return _NAME_LINE.sub(lambda match: f"{match[1]}{written}{match[2] or ''}", text, count=1)


def written(spec: StudySpec) -> str:
    """A study file that says what a spec does; without comments, and without what is left at its default."""
    data = spec.model_dump(mode="json", exclude_defaults=True)
    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


def spec_from_dict(
    data: Mapping[str, Any],
    *,
    function: Callable[..., Any] | None = None,
    judge: Judge | None = None,
) -> StudySpec:
    """A study from plain data, short forms included; the same checks as for a file.

    Args:
        data: the study, as a study file would say it.
        function: the objective, where it is handed over, so that neither entrypoint nor command is written.
        judge: finds further mistakes, which are told with the others.

    Raises:
        SpecError: every mistake with its path.
    """
    spec, wrong = _validate(dict(data), folder=None, function=function, judge=judge)
    if spec is None:
        raise SpecError("\n".join(dict.fromkeys(str(fault) for fault in wrong)))
    return spec


def _validate(
    data: Mapping[str, Any],
    *,
    folder: Path | None,
    function: Callable[..., Any] | None,
    judge: Judge | None = None,
) -> tuple[StudySpec | None, list[SpecIssue]]:
    """The spec if nothing is wrong, and everything that is."""
    long, wrong = shorthand.expand(data)
    spec: StudySpec | None
    try:
        spec = StudySpec.model_validate(long)
    except ValidationError as error:
        wrong += error_messages.to_faults(error, long)
        spec = _salvage(long, error)
    if spec is not None:
        written = long.get("parameters")
        names = written.keys() if isinstance(written, Mapping) else ()
        wrong += checks.find_faults(spec, names=names, folder=folder, function=function)
        wrong += judge(spec) if judge is not None else ()
    wrong = [SpecIssue(shorthand.as_written(fault.path, data), fault.text, fault.at_key) for fault in wrong]
    return (None if wrong else spec), wrong


def _salvage(long: Mapping[str, Any], error: ValidationError) -> StudySpec | None:
    """The spec without the parts that are wrong by themselves, so that what fits together is checked all the same."""
    rest = {**_STAND_INS, **long}
    for section in _SALVAGED_BY_KEY:
        if isinstance(rest.get(section), Mapping):
            rest[section] = dict(rest[section])
    for detail in error.errors(include_url=False):
        top, *below = detail["loc"]
        if top in _SALVAGED_BY_KEY and below and below != ["name"] and isinstance(rest.get(str(top)), dict):
            rest[str(top)].pop(below[0], None)
        elif top in _STAND_INS:
            rest[str(top)] = _STAND_INS[str(top)]
        else:
            rest.pop(str(top), None)
    try:
        return StudySpec.model_validate(rest)
    except ValidationError:
        return None


_SALVAGED_BY_KEY = ("parameters", "sampler", "pruner")
"""Sections of which the other keys still mean something."""
_STAND_INS: Mapping[str, Any] = {
    "name": "study",
    "metrics": [{"name": "metric"}],
    "budget": {"trials": 1},
}


def _plain(node: Node, path: diagnostics.Path, found: list[LocatedIssue]) -> Any:
    """A node as plain data; what cannot be read is added to `found` and stands as None."""
    if isinstance(node, MappingNode):
        return {key: _plain(entry.node, (*path, key), found) for key, entry in node.entries.items()}
    if isinstance(node, SequenceNode):
        return [_plain(item, (*path, index), found) for index, item in enumerate(node.items)]
    if node.broken or not node.plain or _is_verbatim(path):
        return None if node.broken else node.text
    try:
        return scalars.resolve(node.text)
    except ValueError as error:
        found.append(LocatedIssue(node.place, str(error)))
        return None


def _is_verbatim(path: diagnostics.Path) -> bool:
    """Whether a value is text whatever it looks like: `--epochs 010` is an argument, `DEBUG: 1` a variable."""
    return (path[0] in ("command", "tags") and len(path) == 2) or path[:2] in (
        ("environment", "env"),
        ("environment", "pip"),
    )


def _locate(tree: MappingNode, fault: SpecIssue) -> TextPosition:
    """The place of a fault's path, or of the nearest thing above it that was written."""
    node: Node = tree
    place = tree.place
    for index, part in enumerate(fault.path):
        is_last = index == len(fault.path) - 1
        entry = _child(node, part)
        if entry is None:
            break
        place = entry.place if (is_last and fault.at_key) or isinstance(entry.node, MappingNode) else entry.node.place
        node = entry.node
    return place


def _child(node: Node, part: str | int) -> MappingEntry | None:
    if isinstance(node, MappingNode):
        return node.entries.get(str(part))
    if isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.items):
        item = node.items[part]
        return MappingEntry(item.place, item)
    return None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise SpecError(f"there is no study file {path}: `tune init` writes one to start from") from None
    except (OSError, ValueError) as error:
        raise SpecError(f"study file {path} cannot be read: {error}") from None
    if len(content) > MAX_BYTES:
        raise SpecError(_too_large(path.name, path.stat().st_size))
    return content


def _decode(content: bytes, filename: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        place = place_of(content[: error.start].decode("utf-8"), error.start)
        text = f"is no UTF-8 (byte 0x{content[error.start]:02x}): save the file as UTF-8"
        raise SpecError(f"{filename}:{place.line}:{place.column}: {text}") from None


def _too_large(filename: str, size: int) -> str:
    return f"{filename} has {size / 1e6:.1f} MB; a study file has at most {MAX_BYTES // 1000} kB"


_NO_STUDY = "no study: write keys such as `name:`, `entrypoint:`, `metric:`, `parameters:` and `budget:`"
