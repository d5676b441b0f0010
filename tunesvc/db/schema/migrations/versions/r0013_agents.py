"""Agents: workers that reach the study by HTTP."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql as pg

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "agents",
        sa.Column("agent_id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("user_name", sa.Text(), server_default="", nullable=False),
        sa.Column("total", pg.JSONB(), server_default="{}", nullable=False),
        sa.Column("slots", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.study_id"], name=op.f("fk_agents_study_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("agent_id", name=op.f("pk_agents")),
    )
    op.create_index("ix_agents_study_id_seen_at", "agents", ["study_id", "seen_at"])
    op.create_table(
        "agent_jobs",
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("token", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("job", pg.JSON(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("parallelism", sa.Integer(), nullable=True),
        sa.Column("lease_s", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"],
            ["studies.study_id"],
            name=op.f("fk_agent_jobs_study_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("study_id", name=op.f("pk_agent_jobs")),
    )
    op.create_table(
        "agent_launches",
        sa.Column("launch_id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("key", pg.UUID(), nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("trial_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("payload", pg.JSON(), nullable=False),
        sa.Column("state", sa.Text(), server_default="offered", nullable=False),
        sa.Column("agent_id", sa.BigInteger(), nullable=True),
        sa.Column("lease_s", sa.Double(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "offered_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("received", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("last_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("stop", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("question", pg.JSON(), nullable=True),
        sa.Column("answers", pg.JSONB(), server_default="{}", nullable=False),
        sa.CheckConstraint(
            "state IN ('offered', 'leased', 'ended', 'revoked')",
            name=op.f("ck_agent_launches_state"),
        ),
        sa.ForeignKeyConstraint(
            ["study_id"],
            ["studies.study_id"],
            name=op.f("fk_agent_launches_study_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["agent_id"],
            ["agents.agent_id"],
            name=op.f("fk_agent_launches_agent_id"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("launch_id", name=op.f("pk_agent_launches")),
        sa.UniqueConstraint("key", name=op.f("uq_agent_launches_key")),
    )
    op.create_index("ix_agent_launches_trial_id_attempt", "agent_launches", ["trial_id", "attempt"])
    op.create_index(
        "ix_agent_launches_study_id_state", "agent_launches", ["study_id", "state", "launch_id"]
    )
    op.create_index("ix_agent_launches_agent_id", "agent_launches", ["agent_id"])
    op.create_table(
        "agent_events",
        sa.Column("launch_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("payload", pg.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["launch_id"],
            ["agent_launches.launch_id"],
            name=op.f("fk_agent_events_launch_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("launch_id", "seq", name=op.f("pk_agent_events")),
    )
