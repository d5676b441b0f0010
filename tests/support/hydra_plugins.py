"""Hydra's plugin where a wheel has it: a folder for `sys.path`, made as pyproject.toml says."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def install_plugin(folder: Path) -> Path:
    """Copy what a wheel has beside the package; return the folder."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = settings["tool"]["hatch"]["build"]["targets"]["wheel"]
    for source, place in wheel["force-include"].items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / source, target)
    return folder
