"""Optuna's own suite for storages, on real Postgres."""

from __future__ import annotations

import pytest
from optuna.testing.pytest_storages import StorageTestCase

from tunesvc.store.database import Database
from tunesvc.store.storage import PgStorage


class TestPgStorage(StorageTestCase):
    @pytest.fixture
    def storage(self, database: Database) -> PgStorage:
        return PgStorage(database)
