"""Optuna's own suite for storages, on real Postgres."""

from __future__ import annotations

import pytest
from optuna.testing.pytest_storages import StorageTestCase

from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage


class TestPgStorage(StorageTestCase):
    @pytest.fixture
    def storage(self, database: Database) -> PgStorage:
        return PgStorage(database)
