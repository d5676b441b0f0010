"""Versions of the packages that decide a study's results. Imports none of them."""

from __future__ import annotations

import platform
from importlib import metadata

_PACKAGES = ("tunesvc", "optuna", "ray", "numpy", "scipy")


def package_versions() -> list[tuple[str, str]]:
    """Return (package, version) each, and Python's."""
    versions = [(name, metadata.version(name)) for name in _PACKAGES]
    return [*versions, ("Python", platform.python_version())]
