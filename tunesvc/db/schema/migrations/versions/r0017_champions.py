"""Champions: the configurations that production uses, and what is to be said about them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql as pg

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.create_table(
        "champions",
        sa.Column("champion_id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("project_id", sa.BigInteger),
        sa.Column("family", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("previous_id", sa.BigInteger),
        sa.Column("restores_id", sa.BigInteger),
        sa.Column("study", sa.Text, nullable=False),
        sa.Column("trial_number", sa.BigInteger, nullable=False),
        sa.Column("params", pg.JSON, nullable=False),
        sa.Column("constants", pg.JSON, nullable=False),
        sa.Column("data_version", sa.Text),
        sa.Column("metric", sa.Text, nullable=False),
        sa.Column("goal", sa.Text, nullable=False),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("standard_error", sa.Double),
        sa.Column("fold_values", pg.ARRAY(sa.Double), nullable=False, server_default="{}"),
        sa.Column("rival_values", pg.ARRAY(sa.Double), nullable=False, server_default="{}"),
        sa.Column("p_value", sa.Double),
        sa.Column("level", sa.Double),
        sa.Column("drift", pg.JSON),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("user_name", sa.Text, nullable=False),
        sa.Column(
            "promoted_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "kind IN ('first', 'challenge', 'kept', 'manual', 'rollback')",
            name=op.f("ck_champions_kind"),
        ),
        sa.CheckConstraint("goal IN ('minimize', 'maximize')", name=op.f("ck_champions_goal")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.project_id"], name=op.f("fk_champions_project_id")
        ),
        sa.ForeignKeyConstraint(
            ["previous_id"], ["champions.champion_id"], name=op.f("fk_champions_previous_id")
        ),
        sa.ForeignKeyConstraint(
            ["restores_id"], ["champions.champion_id"], name=op.f("fk_champions_restores_id")
        ),
        sa.PrimaryKeyConstraint("champion_id", name=op.f("pk_champions")),
        sa.UniqueConstraint("previous_id", name=op.f("uq_champions_previous_id")),
    )
    op.create_index("ix_champions_family", "champions", ["family", "champion_id"])
    op.create_index(
        "ix_champions_first",
        "champions",
        ["family"],
        unique=True,
        postgresql_where=sa.text("previous_id IS NULL"),
    )
    op.create_table(
        "champion_deliveries",
        sa.Column("champion_id", sa.BigInteger, nullable=False),
        sa.Column("hook", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("delivered_at", sa.DateTime(timezone=True)),
        sa.Column("error", sa.Text, nullable=False, server_default=""),
        sa.Column("cancelled_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "hook IN ('on_promote', 'registry')", name=op.f("ck_champion_deliveries_hook")
        ),
        sa.ForeignKeyConstraint(
            ["champion_id"],
            ["champions.champion_id"],
            name=op.f("fk_champion_deliveries_champion_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("champion_id", "hook", name=op.f("pk_champion_deliveries")),
    )
