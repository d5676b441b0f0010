"""Loads the trained model of a study, from a server, an artifact store or a folder."""

from __future__ import annotations

import os
from pathlib import Path

from tunesvc.client.opened_client import opened_client
from tunesvc.client.stored_login import load_login
from tunesvc.models.model_store import ModelStore
from tunesvc.models.trained_model import TrainedModel


def load_model(
    named: str | Path, store: str | None = None, *, server: str | None = None
) -> TrainedModel:
    """Return the model that `tune apply STUDY --train` trained last, by the study's name.

    It is looked for where commands look: on the server of `TUNE_SERVER` or `tune login`, and
    without one in the artifact store. It is unpickled on first use, in this process: load only
    models that you trust.

    Args:
        named: name of the study, or a folder that `--out` has written.
        store: address of an artifact store, which is used in place of a server; by default
            `TUNE_ARTIFACTS`.
        server: address of the server.

    Raises:
        DataError: there is none.
        StudyNotFound: the server has no such study that the user may see.
        ServerError: the server cannot be reached.
        ValueError: both a store and a server are given.
    """
    if store is not None and server is not None:
        raise ValueError("give either `store` or `server`")
    if isinstance(named, Path) or Path(named).is_dir():
        return TrainedModel(Path(named))
    if store is None:
        server = server or os.environ.get("TUNE_SERVER") or load_login().server
    if not server:
        return TrainedModel(ModelStore.open(store).fetch(named))
    with opened_client(None, server) as client:
        return TrainedModel(client.insights.fetch_model(named))
