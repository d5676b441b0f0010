"""Heartbeats of trials that a process runs through Optuna's own API."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("trials", sa.Column("heartbeat_at", sa.DateTime(timezone=True)))
