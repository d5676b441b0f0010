"""Families that servers watch, and alerts about promotions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql as pg

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.create_table(
        "watches",
        sa.Column("family", sa.Text, nullable=False),
        sa.Column("project_id", sa.BigInteger),
        sa.Column("spec", pg.JSON, nullable=False),
        sa.Column("source_text", sa.Text),
        sa.Column("snapshot", sa.Text),
        sa.Column("provenance", pg.JSONB, nullable=False, server_default="{}"),
        sa.Column("always", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("interval_s", sa.Double),
        sa.Column("submitted_by", sa.Text, nullable=False),
        sa.Column(
            "submitted_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("look_at", sa.DateTime(timezone=True), server_default=sa.text("now()")),
        sa.Column("data_version", sa.Text),
        sa.Column("drift", pg.JSON),
        sa.Column("drift_from", sa.Text),
        sa.Column("waits_for", sa.Text, nullable=False, server_default=""),
        sa.Column("looked_at", sa.DateTime(timezone=True)),
        sa.Column("outcome", sa.Text, nullable=False, server_default=""),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("problem", sa.Text, nullable=False, server_default=""),
        sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.project_id"], name=op.f("fk_watches_project_id")
        ),
        sa.ForeignKeyConstraint(
            ["snapshot"], ["snapshots.digest"], name=op.f("fk_watches_snapshot")
        ),
        sa.PrimaryKeyConstraint("family", name=op.f("pk_watches")),
    )
    op.create_index("ix_watches_snapshot", "watches", ["snapshot"])
    op.add_column("champion_deliveries", sa.Column("tried_at", sa.DateTime(timezone=True)))
    op.drop_constraint("ck_alerts_kind", "alerts")
    op.create_check_constraint(
        op.f("ck_alerts_kind"),
        "alerts",
        "kind IN ('finished', 'failed', 'stalled', 'target', 'budget', 'promoted')",
    )
    # A target of all occasions stays one.
    op.execute(
        "UPDATE alert_targets SET kinds = kinds || ARRAY['promoted'] "
        "WHERE kinds @> ARRAY['finished', 'failed', 'stalled', 'target', 'budget']"
    )
