"""YAML text -> a tree of nodes that know their place; everything of YAML that a study file does not need is refused.

Refused: aliases and anchors (alias bombs), tags (`!!python/object`), duplicate keys, keys that are no text, several
documents, deep nesting, control characters. The text is read event by event, so the depth is capped before anything
recurses. Knows nothing of studies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from tunesvc.spec.diagnostics import LocatedIssue, TextPosition, printable

MAX_DEPTH = 20
"""Levels of nesting; a study needs five."""

LINE_BREAKS = re.compile(r"\r\n|[\r\n\x85\u2028\u2029]")
"""What YAML 1.1, and so PyYAML's line numbers, take for the end of a line."""

_FORBIDDEN = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FORBIDDEN_TEXT = "control characters and lone surrogates are refused: found U+{:04X}"


@dataclass(slots=True)
class ScalarNode:
    """A scalar."""

    place: TextPosition
    text: str
    plain: bool
    """Written without quotes, so that it may mean a number."""
    broken: bool = False
    """Refused already; only a stand-in."""


@dataclass(slots=True)
class SequenceNode:
    """A sequence."""

    place: TextPosition
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class MappingNode:
    """A mapping, in the order of the file."""

    place: TextPosition
    entries: dict[str, MappingEntry] = field(default_factory=dict)


@dataclass(slots=True)
class MappingEntry:
    """One key of a mapping with its value."""

    place: TextPosition
    """Of the key."""
    node: Node


Node = ScalarNode | SequenceNode | MappingNode


class Unreadable(Exception):
    """The text is no YAML from here on."""

    def __init__(self, place: TextPosition, text: str) -> None:
        super().__init__(text)
        self.fault = LocatedIssue(place, text)


def read_tree(text: str) -> tuple[Node | None, list[LocatedIssue]]:
    """The document in `text`, None when it is empty, and what was refused on the way.

    Raises:
        Unreadable: it is no YAML, nested too deeply, or more than one document.
    """
    if match := _FORBIDDEN.search(text):
        raise Unreadable(place_of(text, match.start()), _FORBIDDEN_TEXT.format(ord(match[0])))
    reader = _Reader(text)
    try:
        return reader.document(), reader.faults
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = TextPosition(1, 1) if mark is None else TextPosition(mark.line + 1, mark.column + 1)
        raise Unreadable(place, f"this is no YAML: {_explain(error)}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML lets through what `chr` and `int` raise for impossible escapes and version numbers
        raise Unreadable(reader.place, f"this is no YAML: {printable(str(error))}") from None


def place_of(text: str, index: int) -> TextPosition:
    """Line and column of a character."""
    before = LINE_BREAKS.split(text[:index])
    return TextPosition(len(before), len(before[-1]) + 1)


def _join_surrogates(text: str) -> str:
    """JSON writes what is beyond 16 bits as two escapes, `"\\ud83d\\udca1"`, which PyYAML leaves apart."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _explain(error: yaml.MarkedYAMLError) -> str:
    problem = printable(error.problem or "cannot be read")
    if "'\\t'" in problem or "\\t" in problem:
        return "a tab at the start of a token; indent with spaces"
    if "mapping values are not allowed here" in problem:
        return "a `: ` where no key can be; check the indentation, or put the text in quotes"
    return f"{problem} ({printable(error.context)})" if error.context else problem


class _Reader:
    """Builds the tree of one document from PyYAML's events."""

    def __init__(self, text: str) -> None:
        self.faults: list[LocatedIssue] = []
        self.place = TextPosition(1, 1)
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)

    def document(self) -> Node | None:
        self._next()  # the start of the stream
        if isinstance(self._next(), yaml.StreamEndEvent):
            return None
        node = self._node(self._next(), depth=1)
        self._next()  # the end of the document
        if not isinstance(self._next(), yaml.StreamEndEvent):
            raise Unreadable(
                self.place,
                "a study file holds one document: take the second `---` away",
            )
        return node

    def _next(self) -> Any:  # an event; the stubs leave half of its attributes out
        event: Any = next(self._events)
        self.place = TextPosition(event.start_mark.line + 1, event.start_mark.column + 1)
        return event

    def _node(self, event: Any, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise Unreadable(self.place, f"nested more than {MAX_DEPTH} levels deep")
        place = self.place
        if isinstance(event, yaml.AliasEvent):
            return self._refuse_alias(place)
        self._refuse_extras(event, place)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._branch(place, depth)
        if isinstance(event, yaml.MappingStartEvent):
            return self._table(place, depth)
        return ScalarNode(place, _join_surrogates(event.value), plain=event.style is None)

    def _branch(self, place: TextPosition, depth: int) -> SequenceNode:
        branch = SequenceNode(place)
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            branch.items.append(self._node(event, depth + 1))
        return branch

    def _table(self, place: TextPosition, depth: int) -> MappingNode:
        table = MappingNode(place)
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key_place = self.place
            key = self._node(event, depth + 1)
            value = self._node(self._next(), depth + 1)
            self._enter(table, key, MappingEntry(key_place, value))
        return table

    def _enter(self, table: MappingNode, key: Node, entry: MappingEntry) -> None:
        if not isinstance(key, ScalarNode):
            self._fault(entry.place, "a key must be text; put it in quotes")
        elif key.text in table.entries:
            first = table.entries[key.text].place.line
            self._fault(
                entry.place,
                f"duplicate key `{printable(key.text)}`: it is on line {first} already",
            )
        elif not key.broken:
            table.entries[key.text] = entry

    def _refuse_alias(self, place: TextPosition) -> ScalarNode:
        self._fault(place, "aliases (`*name`) are refused: write the value out")
        return ScalarNode(place, "", plain=True, broken=True)

    def _refuse_extras(self, event: Any, place: TextPosition) -> None:
        if event.anchor is not None:
            self._fault(
                place,
                f"anchors (`&{printable(event.anchor)}`) are refused: write the value out where it is used",
            )
        if event.tag is not None:
            self._fault(
                place,
                f"tags (`{printable(event.tag)}`) are refused: a study file is plain data",
            )

    def _fault(self, place: TextPosition, text: str) -> None:
        self.faults.append(LocatedIssue(place, text))
