"""Senders of a study's trials to a tracker, as a new process has them."""

from __future__ import annotations

from tunesvc.db import logger_records, study_records
from tunesvc.db.engine.database import Database
from tunesvc.integrations.loggers.trial_logger import TrialLogger
from tunesvc.integrations.loggers.trial_sender import TrialSender, read_study


def sender(database: Database, logger: TrialLogger, name: str = "live") -> TrialSender:
    """A sender as a new process has it."""
    with database.engine.begin() as connection:
        study_id = study_records.find(connection, name).study_id
    place = logger.open(read_study(database, study_id))
    with database.engine.begin() as connection:
        logger_id = logger_records.claim(connection, study_id, place, "box:1")
    assert logger_id is not None
    return TrialSender(database, study_id, logger, logger_id)
