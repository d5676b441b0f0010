"""YAML text -> a tree of nodes with positions; YAML features that a study file does not need are
refused.

Refused: aliases and anchors (alias bombs), tags (`!!python/object`), duplicate keys, keys that are
not text, several documents, deep nesting, control characters. The text is read event by event, so
that the depth is limited before anything recurses. Independent of studies.
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
"""Line ends of YAML 1.1, and so of PyYAML's line numbers."""

_FORBIDDEN = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FORBIDDEN_TEXT = "control characters and lone surrogates are refused: found U+{:04X}"


@dataclass(slots=True)
class ScalarNode:
    """A scalar."""

    position: TextPosition
    text: str
    plain: bool
    """True if it has no quotes, so that it may be a number."""
    broken: bool = False
    """True for a placeholder of a refused node."""


@dataclass(slots=True)
class SequenceNode:
    """A sequence."""

    position: TextPosition
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class MappingNode:
    """A mapping, in the order of the file."""

    position: TextPosition
    entries: dict[str, MappingEntry] = field(default_factory=dict)


@dataclass(slots=True)
class MappingEntry:
    """One key of a mapping with its value."""

    position: TextPosition
    """Position of the key."""
    node: Node


Node = ScalarNode | SequenceNode | MappingNode


class Unreadable(Exception):
    """The text is not YAML from this position on."""

    def __init__(self, position: TextPosition, text: str) -> None:
        super().__init__(text)
        self.issue = LocatedIssue(position, text)


def read_tree(text: str) -> tuple[Node | None, list[LocatedIssue]]:
    """Return the document in `text`, None if it is empty, and the refused parts.

    Raises:
        Unreadable: it is not YAML, too deeply nested, or several documents.
    """
    if match := _FORBIDDEN.search(text):
        raise Unreadable(position_of(text, match.start()), _FORBIDDEN_TEXT.format(ord(match[0])))
    reader = _Reader(text)
    try:
        return reader.document(), reader.issues
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = TextPosition(1, 1)
        if mark is not None:
            position = TextPosition(mark.line + 1, mark.column + 1)
        raise Unreadable(position, f"this is not YAML: {_explain(error)}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML lets through what `chr` and `int` raise for impossible escapes and version numbers
        raise Unreadable(reader.position, f"this is not YAML: {printable(str(error))}") from None


def position_of(text: str, index: int) -> TextPosition:
    """Return line and column of a character."""
    before = LINE_BREAKS.split(text[:index])
    return TextPosition(len(before), len(before[-1]) + 1)


def _join_surrogates(text: str) -> str:
    """Join surrogates: JSON writes characters beyond 16 bits as two escapes, which PyYAML keeps
    apart."""
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
        self.issues: list[LocatedIssue] = []
        self.position = TextPosition(1, 1)
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)

    def document(self) -> Node | None:
        self._next()  # the start of the stream
        if isinstance(self._next(), yaml.StreamEndEvent):
            return None
        node = self._node(self._next(), depth=1)
        self._next()  # the end of the document
        if not isinstance(self._next(), yaml.StreamEndEvent):
            raise Unreadable(
                self.position,
                "a study file holds one document: remove the second `---`",
            )
        return node

    def _next(self) -> Any:  # an event; the stubs leave half of its attributes out
        event: Any = next(self._events)
        self.position = TextPosition(event.start_mark.line + 1, event.start_mark.column + 1)
        return event

    def _node(self, event: Any, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise Unreadable(self.position, f"nested more than {MAX_DEPTH} levels deep")
        position = self.position
        if isinstance(event, yaml.AliasEvent):
            return self._refuse_alias(position)
        self._refuse_extras(event, position)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._branch(position, depth)
        if isinstance(event, yaml.MappingStartEvent):
            return self._table(position, depth)
        return ScalarNode(
            position,
            _join_surrogates(event.value),
            plain=event.style is None,
        )

    def _branch(self, position: TextPosition, depth: int) -> SequenceNode:
        branch = SequenceNode(position)
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            branch.items.append(self._node(event, depth + 1))
        return branch

    def _table(self, position: TextPosition, depth: int) -> MappingNode:
        table = MappingNode(position)
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key_position = self.position
            key = self._node(event, depth + 1)
            value = self._node(self._next(), depth + 1)
            self._enter(table, key, MappingEntry(key_position, value))
        return table

    def _enter(self, table: MappingNode, key: Node, entry: MappingEntry) -> None:
        if not isinstance(key, ScalarNode):
            self._add_issue(entry.position, "a key must be text; put it in quotes")
        elif key.text in table.entries:
            first = table.entries[key.text].position.line
            self._add_issue(
                entry.position,
                f"duplicate key `{printable(key.text)}`: it is on line {first} already",
            )
        elif not key.broken:
            table.entries[key.text] = entry

    def _refuse_alias(self, position: TextPosition) -> ScalarNode:
        self._add_issue(position, "aliases (`*name`) are refused: write the value out")
        return ScalarNode(position, "", plain=True, broken=True)

    def _refuse_extras(self, event: Any, position: TextPosition) -> None:
        if event.anchor is not None:
            self._add_issue(
                position,
                f"anchors (`&{printable(event.anchor)}`) are refused: write the value out",
            )
        if event.tag is not None:
            self._add_issue(
                position,
                f"tags (`{printable(event.tag)}`) are refused: a study file is plain data",
            )

    def _add_issue(self, position: TextPosition, text: str) -> None:
        self.issues.append(LocatedIssue(position, text))
