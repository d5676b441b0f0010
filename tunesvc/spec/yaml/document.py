"""study.yaml -> `StudySpec`; one `SpecError` lists every issue with file, line and column.

Stages: size -> `parser` (structure) -> `scalars` (meaning of unquoted values) -> `shorthand` ->
`model` (types) -> `checks` (rules between values). User code is never imported here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
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
    position_of,
    read_tree,
)

MAX_BYTES = 256_000
"""The largest study file: PyYAML reads about 50 kB a second when every byte is a token."""


_NAME_LINE = re.compile(
    r"""^(name:[ \t]*)(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\n]|'')*'|[^\s"'].*?)([ \t]+\#.*)?[ \t]*$""",
    re.MULTILINE,
)
_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


SpecCheck = Callable[[StudySpec], list[SpecIssue]]
"""Finds issues outside this package, such as a sampler's options: see `option_issues` of
`search.registry`."""


@dataclass(frozen=True, slots=True)
class StudyDocument:
    """Write a spec as a study file, without comments and without default values."""

    spec: StudySpec
    text: str
    """The text of the file."""
    folder: Path
    """Absolute; where the entrypoint or command is found."""


def load(path: str | Path, extra_check: SpecCheck | None = None) -> StudyDocument:
    """Read a study file.

    Args:
        path: of the file.
        extra_check: finds further issues, which are reported with the others.

    Raises:
        SpecError: it is missing, too large, not UTF-8 or invalid; the text lists every issue.
    """
    path = Path(path)
    text = _decode(_read(path), path.name)
    folder = path.absolute().parent
    return StudyDocument(
        parse(text, path.name, folder=folder, extra_check=extra_check),
        text,
        folder,
    )


def parse(
    text: str,
    filename: str = "study.yaml",
    *,
    folder: Path | None = None,
    extra_check: SpecCheck | None = None,
) -> StudySpec:
    """Parse a study from YAML text. With a `folder`, the entrypoint's file must exist there.

    Raises:
        SpecError: lists every issue with its line and column, in the order of the file.
    """
    if len(text) > MAX_BYTES:
        raise SpecError(_too_large(filename, len(text)))
    spec, found = examine(text, filename, folder=folder, extra_check=extra_check)
    if spec is None:
        raise SpecError(diagnostics.render(found, LINE_BREAKS.split(text), filename))
    return spec


def examine(
    text: str,
    filename: str = "study.yaml",
    *,
    folder: Path | None = None,
    extra_check: SpecCheck | None = None,
) -> tuple[StudySpec | None, list[LocatedIssue]]:
    """Return the study of a YAML text, or all its issues with their positions."""
    if len(text) > MAX_BYTES:
        return None, [LocatedIssue(TextPosition(1, 1), _too_large(filename, len(text)))]
    try:
        tree, found = read_tree(text)
    except Unreadable as error:
        return None, [error.issue]
    if not isinstance(tree, MappingNode):
        return None, [
            LocatedIssue(
                TextPosition(1, 1) if tree is None else tree.position,
                _NO_STUDY,
            )
        ]
    data = {key: _plain(entry.node, (key,), found) for key, entry in tree.entries.items()}
    spec, issues = _validate(data, folder=folder, function=None, extra_check=extra_check)
    known = {issue.position for issue in found}
    located = [LocatedIssue(_locate(tree, issue), str(issue)) for issue in issues]
    found += [issue for issue in located if issue.position not in known]
    return (None, sorted(set(found))) if spec is None or found else (spec, [])


def scheduled(document: StudyDocument, path: Path) -> StudyDocument:
    """Return a study that trains by the schedule in a file, in place of its own search.

    Raises:
        SpecError: the file has no schedule, or one that does not fit the study.
    """
    remedy = f"`tune best STUDY --schedule > {path}` writes one"
    if not path.is_file():
        raise SpecError(f"there is no schedule {path}: {remedy}")
    issues: list[LocatedIssue] = []
    try:
        tree, issues = read_tree(_decode(_read(path), path.name))
    except Unreadable as error:
        raise SpecError(f"schedule {path} cannot be read: {error.issue.text}") from None
    entry = tree.entries.get("search") if isinstance(tree, MappingNode) else None
    search = None if entry is None else _plain(entry.node, ("search",), issues)
    if issues or not isinstance(search, dict) or search.get("method") != "schedule":
        raise SpecError(f"{path} has no `search: {{method: schedule, ...}}`: {remedy}")
    kept = document.spec.model_dump(mode="json", exclude_defaults=True, exclude=_SEARCHING)
    spec = spec_from_dict({**kept, "name": f"{document.spec.name}-schedule", "search": search})
    return StudyDocument(spec, written(spec), document.folder)


_SEARCHING = {"search", "sampler", "pruner", "budget", "warm_start", "evaluation", "constraints"}
"""Keys that a schedule replaces or leaves no room for."""


def renamed(text: str, name: str) -> str:
    """Rename a study in its file and keep the rest; unchanged if `name:` is not on a line of its
    own."""
    written = name if _PLAIN_NAME.fullmatch(name) else json.dumps(name, ensure_ascii=False)
    return _NAME_LINE.sub(
        lambda match: f"{match[1]}{written}{match[2] or ''}",
        text,
        count=1,
    )


def written(spec: StudySpec) -> str:
    """Write a spec as a study file, without comments and without default values."""
    data = spec.model_dump(mode="json", exclude_defaults=True)
    return to_yaml(data)


def to_yaml(data: object) -> str:
    """Return plain data as YAML, with keys in their order."""
    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


def spec_from_dict(
    data: Mapping[str, Any],
    *,
    function: Callable[..., Any] | None = None,
    extra_check: SpecCheck | None = None,
) -> StudySpec:
    """Build a study from plain data, short forms included, with the same checks as for a file.

    Args:
        data: the study, with the keys of a study file.
        function: the objective, if it is a Python function; then neither entrypoint nor command is
            given.
        extra_check: finds further issues, which are reported with the others.

    Raises:
        SpecError: lists every issue with its path.
    """
    spec, issues = _validate(dict(data), folder=None, function=function, extra_check=extra_check)
    if spec is None:
        raise SpecError("\n".join(dict.fromkeys(str(issue) for issue in issues)))
    return spec


def _validate(
    data: Mapping[str, Any],
    *,
    folder: Path | None,
    function: Callable[..., Any] | None,
    extra_check: SpecCheck | None = None,
) -> tuple[StudySpec | None, list[SpecIssue]]:
    """Return the spec if it has no issues, and the issues."""
    long, issues = shorthand.expand(data)
    spec: StudySpec | None
    try:
        spec = StudySpec.model_validate(long)
    except ValidationError as error:
        issues += error_messages.to_issues(error, long)
        spec = _salvage(long, error)
    if spec is not None:
        written = long.get("parameters")
        names = written.keys() if isinstance(written, Mapping) else ()
        issues += checks.find_issues(
            spec,
            names=names,
            folder=folder,
            function=function,
        )
        issues += extra_check(spec) if extra_check is not None else ()
    issues = [
        SpecIssue(
            shorthand.as_written(issue.path, data),
            issue.text,
            issue.at_key,
        )
        for issue in issues
    ]
    return (None if issues else spec), issues


def _salvage(long: Mapping[str, Any], error: ValidationError) -> StudySpec | None:
    """Return the spec without its invalid parts, so that rules between the other parts are checked
    too."""
    rest = {**_STAND_INS, **long}
    for section in _SALVAGED_BY_KEY:
        if isinstance(rest.get(section), Mapping):
            rest[section] = dict(rest[section])
    for detail in error.errors(include_url=False):
        top, *below = detail["loc"]
        is_salvaged = top in _SALVAGED_BY_KEY and isinstance(rest.get(str(top)), dict)
        if is_salvaged and below and below != ["name"]:
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
"""Sections in which one invalid key does not invalidate the others."""
_STAND_INS: Mapping[str, Any] = {
    "name": "study",
    "metrics": [{"name": "metric"}],
    "budget": {"trials": 1},
}


def _plain(node: Node, path: diagnostics.Path, found: list[LocatedIssue]) -> Any:
    """Convert a node to plain data; an unreadable value is added to `found` and becomes None."""
    if isinstance(node, MappingNode):
        return {key: _plain(entry.node, (*path, key), found) for key, entry in node.entries.items()}
    if isinstance(node, SequenceNode):
        return [_plain(item, (*path, index), found) for index, item in enumerate(node.items)]
    if node.broken or not node.plain or _is_verbatim(path):
        return None if node.broken else node.text
    try:
        return scalars.resolve(node.text)
    except ValueError as error:
        found.append(LocatedIssue(node.position, str(error)))
        return None


def _is_verbatim(path: diagnostics.Path) -> bool:
    """Return True for values that are always text: `--epochs 010` is an argument, `DEBUG: 1` a
    variable."""
    return (path[0] in ("command", "tags") and len(path) == 2) or path[:2] in (
        ("environment", "env"),
        ("environment", "pip"),
    )


def _locate(tree: MappingNode, issue: SpecIssue) -> TextPosition:
    """Return the position of an issue's path, or of its nearest parent in the file."""
    node: Node = tree
    position = tree.position
    for index, part in enumerate(issue.path):
        is_last = index == len(issue.path) - 1
        entry = _child(node, part)
        if entry is None:
            break
        at_key = (is_last and issue.at_key) or isinstance(entry.node, MappingNode)
        position = entry.position if at_key else entry.node.position
        node = entry.node
    return position


def _child(node: Node, part: str | int) -> MappingEntry | None:
    if isinstance(node, MappingNode):
        return node.entries.get(str(part))
    if isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.items):
        item = node.items[part]
        return MappingEntry(item.position, item)
    return None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        text = f"there is no study file {path}: `tune init` writes one to start from"
        raise SpecError(text) from None
    except (OSError, ValueError) as error:
        raise SpecError(f"study file {path} cannot be read: {error}") from None
    if len(content) > MAX_BYTES:
        raise SpecError(_too_large(path.name, path.stat().st_size))
    return content


def _decode(content: bytes, filename: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        position = position_of(content[: error.start].decode("utf-8"), error.start)
        text = f"is not UTF-8 (byte 0x{content[error.start]:02x}): save the file as UTF-8"
        raise SpecError(f"{filename}:{position.line}:{position.column}: {text}") from None


def _too_large(filename: str, size: int) -> str:
    return f"{filename} has {size / 1e6:.1f} MB; a study file has at most {MAX_BYTES // 1000} kB"


_NO_STUDY = "no study: write keys such as `name:`, `entrypoint:`, `metric:` and `budget:`"
