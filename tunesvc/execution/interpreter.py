"""What a Python process was started as: workers imitate the one that started their study. Imports nothing of ours."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A process's script and import path. What lies in the study's folder is relative to that."""

    script: str = ""
    """Its `sys.argv[0]`."""
    import_path: tuple[str, ...] = ()
    """Its `sys.path`."""

    @classmethod
    def of_this_process(cls, folder: str | None) -> Interpreter:
        """Describe this process, whose study lies in `folder`."""
        base = Path(folder or ".").resolve()
        script = sys.argv[0] if sys.argv else ""
        if Path(script).is_file():  # neither `-c` nor a notebook's kernel
            script = _relative(script, base)
        return cls(script, tuple(_relative(entry, base) for entry in sys.path))


def _relative(path: str, base: Path) -> str:
    absolute = Path(os.path.abspath(path))  # noqa: PTH100  # its links are followed only where that leads into the base
    for form in (absolute, absolute.resolve()):
        if form.is_relative_to(base):
            return str(form.relative_to(base))
    return str(absolute)
