"""Every test here has the marker `frameworks`; without PyTorch only those of Feast and W&B are
collected."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

collect_ignore_glob: list[str] = []
if find_spec("torch") is None:
    collect_ignore_glob = ["test_[!fw]*.py"]
else:
    os.environ["KERAS_BACKEND"] = "torch"
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["OMP_NUM_THREADS"] = "1"  # threads of tiny models only wait for each other


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.frameworks)
