"""Script and import path of a Python process. Workers imitate the process that started their study.

Imports nothing else of tunesvc.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Interpreter:
    """Script and import path of a process. Paths inside the study's folder are relative to it."""

    script: str = ""
    """Its `sys.argv[0]`."""
    import_path: tuple[str, ...] = ()
    """Its `sys.path`."""

    @classmethod
    def of_this_process(cls, folder: str | None) -> Interpreter:
        """Describe this process for a study in `folder`."""
        base = Path(folder or ".").resolve()
        script = sys.argv[0] if sys.argv else ""
        if Path(script).is_file():  # neither `-c` nor a notebook's kernel
            script = _relative(script, base)
        return cls(script, tuple(_relative(entry, base) for entry in sys.path))


def _relative(path: str, base: Path) -> str:
    # links are followed only where they lead into the base
    absolute = Path(os.path.abspath(path))  # noqa: PTH100
    for form in (absolute, absolute.resolve()):
        if form.is_relative_to(base):
            return str(form.relative_to(base))
    return str(absolute)
