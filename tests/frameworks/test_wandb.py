"""W&B's offline files, read as its own `wandb sync` reads them."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.integration.test_loggers import left, sender
from tests.support import stored_studies
from tunesvc.db.engine.database import Database

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)
_BLOCK, _HEADER = 32_768, struct.Struct("<IHB")


def records(file: Path) -> Iterator[Any]:
    """Yield the records of a `.wandb` file, which is a log of LevelDB."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, position, whole = file.read_bytes(), 7, b""
    while position + _HEADER.size <= len(content):
        if (rest := _BLOCK - position % _BLOCK) < _HEADER.size:
            position += rest
            continue
        _, length, kind = _HEADER.unpack_from(content, position)
        position += _HEADER.size
        whole += content[position : position + length]
        position += length
        if kind in (1, 4):  # whole, or its last part
            yield Record.FromString(whole)
            whole = b""


def history(file: Path) -> list[dict[str, Any]]:
    found = []
    for record in records(file):
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            found.append(
                {(one.key or one.nested_key[0]): json.loads(one.value_json) for one in items}
            )
    return found


def files(folder: Path, number: int) -> list[Path]:
    return list(folder.glob(f"wandb/offline-run-*/run-*-{number}.wandb"))


def test_a_trial_is_an_offline_run_with_its_curve_and_is_written_once(
    database: Database, tmp_path: Path
) -> None:
    pytest.importorskip("wandb")
    from tunesvc.integrations.loggers.wandb_logger import WandbLogger

    stored_studies.fill(database, 14, running=1, name="live", tags=["mine"])
    logger = WandbLogger(dir=str(tmp_path))
    sending = sender(database, logger)
    sending.send_new()
    assert sending.sent == 13
    (file,) = files(tmp_path, 0)
    assert [(one["_step"], "loss" in one) for one in history(file)] == [(n, True) for n in range(6)]
    (run,) = [r.run for r in records(file) if r.WhichOneof("record_type") == "run"]
    config = {one.key: json.loads(one.value_json) for one in run.config.update}
    assert (run.display_name, run.run_group, run.project) == ("live-0", "live", "live")
    assert list(run.tags) == ["mine"]
    assert {"x", "n", "tunesvc.study"} <= config.keys()
    assert files(tmp_path, 13) == [], "it still runs"
    # A process that died before it recorded trial 0, and one that died in the middle of it.
    with database.engine.begin() as connection:
        connection.execute(sa.text("UPDATE logged_trials SET complete = false, run = NULL"))
    sender(database, logger).send_new()
    assert [len(files(tmp_path, number)) for number in range(13)] == [1] * 13
    assert left(database, logger.open(sending._study)) == 0
