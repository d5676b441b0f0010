"""GPU hours of a study without reading the attempts that held none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_index(
        "ix_attempts_gpus",
        "attempts",
        ["trial_id"],
        postgresql_include=["number", "gpus", "started_at", "ended_at"],
        postgresql_where=sa.text("gpus > 0"),
    )
