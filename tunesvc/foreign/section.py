"""A mapping of a foreign file with its lines, which notes every key that no format has read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunesvc.foreign.draft import Draft
from tunesvc.spec.diagnostics import TextPosition, printable
from tunesvc.spec.yaml import scalars
from tunesvc.spec.yaml.parser import MappingEntry, MappingNode, Node, SequenceNode


class Section:
    """A mapping of a foreign file. Keys that are taken are carried; `close` notes the others."""

    def __init__(self, node: MappingNode, draft: Draft, path: str = "") -> None:
        self.draft = draft
        self.position = node.position
        self._path = path
        self._entries = node.entries
        self._left = dict(node.entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def path(self, key: str = "") -> str:
        """Return the dotted path of a key."""
        return ".".join(part for part in (self._path, printable(key)) if part)

    def at(self, key: str) -> TextPosition:
        """Return the position of a key, or of the mapping if it has no such key."""
        entry = self._entries.get(key)
        return self.position if entry is None else entry.position

    def take(self, key: str, default: Any = None) -> Any:
        """Return the plain value of a key."""
        entry = self._taken(key)
        return default if entry is None else self._plain(entry.node)

    def need(self, key: str, example: str) -> Any:
        """Return the plain value of a key without which there is no study; None is refused."""
        value = self.take(key)
        if value is None:
            self.refuse(key, f"`{self.path(key)}` is missing: write it, such as `{example}`")
        return value

    def number(self, key: str) -> float | int | None:
        """Return a number, which may be written as text; anything else is refused."""
        value = self.take(key)
        if isinstance(value, str):
            try:
                value = scalars.resolve(value)
            except ValueError:
                value = str(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value
        if value is not None or key not in self:
            found = "is missing" if key not in self else f"is {printable(repr(value))}"
            self.refuse(key, f"`{self.path(key)}` {found}: write a number")
        return None

    def section(self, key: str) -> Section | None:
        """Return the mapping at a key; anything else there is refused."""
        entry = self._taken(key)
        if entry is None:
            return None
        if isinstance(entry.node, MappingNode):
            return Section(entry.node, self.draft, self.path(key))
        self.refuse(key, f"`{self.path(key)}` has to be a mapping: write its keys below it")
        return None

    def sections(self, key: str) -> Iterator[Section]:
        """Yield the mappings of a list; anything else in it is refused."""
        entry = self._taken(key)
        if entry is not None and not isinstance(entry.node, SequenceNode):
            self.refuse(key, f"`{self.path(key)}` has to be a list: write `- ` before its items")
        node = None if entry is None else entry.node
        for index, item in enumerate(node.items if isinstance(node, SequenceNode) else ()):
            if isinstance(item, MappingNode):
                yield Section(item, self.draft, f"{self.path(key)}[{index}]")
            else:
                self.draft.refuse(item.position, f"`{self.path(key)}[{index}]` has to be a mapping")

    def has_section(self, key: str) -> bool:
        """Return True if there is a mapping at a key."""
        entry = self._entries.get(key)
        return entry is not None and isinstance(entry.node, MappingNode)

    def refuse(self, key: str, text: str) -> None:
        """Note a mistake at a key."""
        self.draft.refuse(self.at(key), text)

    def note(self, key: str, text: str) -> None:
        """Note what of a key is not carried, which is read thereby."""
        self._left.pop(key, None)
        self.draft.note(self.at(key).line, f"`{self.path(key)}`: {text}")

    def drop(self, text: str, *keys: str) -> None:
        """Note those of the keys that are there."""
        for key in keys:
            if key in self._left:
                self.note(key, text)

    def close(self) -> None:
        """Note all keys that were not read."""
        self.drop("has no counterpart here", *self._left)

    def _taken(self, key: str) -> MappingEntry | None:
        self._left.pop(key, None)
        return self._entries.get(key)

    def _plain(self, node: Node) -> Any:
        if isinstance(node, MappingNode):
            return {key: self._plain(entry.node) for key, entry in node.entries.items()}
        if isinstance(node, SequenceNode):
            return [self._plain(item) for item in node.items]
        try:
            return scalars.resolve(node.text) if node.plain else node.text
        except ValueError as error:
            self.draft.refuse(node.position, str(error))
            return None
