"""The snippets of docs/integrations.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "integrations.md"


def snippets(heading: str) -> list[str]:
    """Return the Python blocks below a heading."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def run_snippet(heading: str, file: Path, index: int = 0) -> dict[str, Any]:
    """Write a block to a file, run it, and return its names."""
    file.write_text(snippets(heading)[index], encoding="utf-8")
    names: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(file.read_text(encoding="utf-8"), file, "exec"), names)  # noqa: S102
    return names
