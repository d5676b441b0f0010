"""Nodes of clusters as coordinators see them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql as pg

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "nodes",
        sa.Column("study_id", sa.BigInteger, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("total", pg.JSONB, nullable=False),
        sa.Column("free", pg.JSONB, nullable=False),
        sa.Column(
            "seen_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")
        ),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.study_id"], ondelete="CASCADE", name=op.f("fk_nodes_study_id")
        ),
        sa.PrimaryKeyConstraint("study_id", "key", name=op.f("pk_nodes")),
    )
