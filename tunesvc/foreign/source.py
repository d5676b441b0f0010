"""Reads a foreign file, or one from the network, into a section with lines."""

from __future__ import annotations

import re
from pathlib import Path

from tunesvc.errors import SpecError
from tunesvc.foreign.draft import Draft
from tunesvc.foreign.section import Section
from tunesvc.spec.diagnostics import LocatedIssue, TextPosition, render
from tunesvc.spec.yaml.document import MAX_BYTES
from tunesvc.spec.yaml.parser import LINE_BREAKS, MappingNode, Unreadable, read_tree

_URL = re.compile(r"https?://")
_SECONDS = 20.0


def is_url(source: str) -> bool:
    """Return True for an address."""
    return _URL.match(source) is not None


def read_text(source: str) -> str:
    """Return the text of a file or an address.

    Raises:
        SpecError: it cannot be read, is too large, or is no UTF-8.
    """
    try:
        content = _fetched(source) if is_url(source) else Path(source).read_bytes()
    except OSError as error:
        raise SpecError(f"{source} cannot be read: {error.strerror or error}") from None
    if len(content) > MAX_BYTES:
        raise SpecError(f"{source} has {len(content):,} bytes; `tune import` reads {MAX_BYTES:,}")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise SpecError(f"{source} is not UTF-8: save the file as UTF-8") from None


def _fetched(address: str) -> bytes:
    import httpx

    try:
        with httpx.stream("GET", address, follow_redirects=True, timeout=_SECONDS) as answer:
            if answer.status_code != httpx.codes.OK:
                raise SpecError(f"{address} answers {answer.status_code}: open it in a browser")
            content = b""
            for piece in answer.iter_bytes():
                content += piece
                if len(content) > MAX_BYTES:
                    break
            return content
    except httpx.HTTPError as error:
        raise SpecError(f"{address} cannot be read: {error}") from None


def section_of(text: str, draft: Draft) -> Section:
    """Return YAML or JSON as a section.

    Raises:
        SpecError: it is neither, or not a mapping; the text has the line.
    """
    if text.lstrip().startswith(("{", "[")):
        text = text.expandtabs()  # JSON may be indented with tabs, YAML may not
    try:
        node, refused = read_tree(text)
    except Unreadable as error:
        node, refused = None, [error.issue]
    if not refused and not isinstance(node, MappingNode):
        position = TextPosition(1, 1) if node is None else node.position
        refused = [LocatedIssue(position, "a mapping is expected: keys with values")]
    if refused or not isinstance(node, MappingNode):
        raise SpecError(render(refused, LINE_BREAKS.split(text), draft.filename))
    return Section(node, draft)


def read_section(path: Path, draft: Draft) -> tuple[Section, Draft]:
    """Return another file that the source names, and a draft of its own for its mistakes."""
    own = Draft(path.name, read_text(str(path)), draft.program, path.parent)
    return section_of(own.text, own), own
