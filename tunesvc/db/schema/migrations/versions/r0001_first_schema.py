"""The first schema: studies, trials, attempts, reports, decisions, commands.

Frozen: it says what a database of this revision looks like, whatever `tunesvc.db.schema.tables`
says today.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql as pg

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "studies",
        sa.Column(
            "study_id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
        ),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "key",
            pg.UUID(),
            server_default=sa.text("gen_random_uuid()"),
            nullable=False,
        ),
        sa.Column("directions", pg.ARRAY(sa.Text()), nullable=False),
        sa.Column("next_number", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("state", sa.Text(), server_default="created", nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("spec", pg.JSON(), nullable=True),
        sa.Column("source_text", sa.Text(), nullable=True),
        sa.Column("source_dir", sa.Text(), nullable=True),
        sa.Column("active_s", sa.Double(), server_default="0", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('created', 'running', 'paused', 'finished', 'stopped', 'failed')",
            name=op.f("ck_studies_state"),
        ),
        sa.PrimaryKeyConstraint("study_id", name=op.f("pk_studies")),
        sa.UniqueConstraint("name", name=op.f("uq_studies_name")),
    )
    op.create_table(
        "commands",
        sa.Column(
            "command_id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
        ),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", pg.JSONB(), server_default="{}", nullable=False),
        sa.Column("asked_by", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "asked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "kind IN ('pause', 'resume', 'stop', 'extend', 'enqueue')",
            name=op.f("ck_commands_kind"),
        ),
        sa.ForeignKeyConstraint(
            ["study_id"],
            ["studies.study_id"],
            name=op.f("fk_commands_study_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("command_id", name=op.f("pk_commands")),
    )
    op.create_index(
        "ix_commands_pending",
        "commands",
        ["study_id"],
        unique=False,
        postgresql_where=sa.text("done_at IS NULL"),
    )
    op.create_table(
        "decisions",
        sa.Column(
            "decision_id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
        ),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("trial_number", sa.BigInteger(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("details", pg.JSONB(), server_default="{}", nullable=False),
        sa.Column(
            "decided_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "kind IN ('ask', 'prune', 'retry', 'fail', 'stop', 'sampler', 'code')",
            name=op.f("ck_decisions_kind"),
        ),
        sa.ForeignKeyConstraint(
            ["study_id"],
            ["studies.study_id"],
            name=op.f("fk_decisions_study_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("decision_id", name=op.f("pk_decisions")),
    )
    op.create_index(
        "ix_decisions_study_id_trial_number",
        "decisions",
        ["study_id", "trial_number"],
        unique=False,
    )
    op.create_table(
        "leases",
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("batch", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "released",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.study_id"], name=op.f("fk_leases_study_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("study_id", name=op.f("pk_leases")),
    )
    op.create_table(
        "study_attrs",
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.CheckConstraint("kind IN ('user', 'system')", name=op.f("ck_study_attrs_kind")),
        sa.ForeignKeyConstraint(
            ["study_id"],
            ["studies.study_id"],
            name=op.f("fk_study_attrs_study_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "study_id",
            "kind",
            "name",
            name=op.f("pk_study_attrs"),
        ),
    )
    op.create_table(
        "trials",
        sa.Column("trial_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("values", pg.ARRAY(sa.Double()), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('waiting', 'running', 'complete', 'pruned', 'fail')",
            name=op.f("ck_trials_state"),
        ),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.study_id"], name=op.f("fk_trials_study_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("trial_id", name=op.f("pk_trials")),
        sa.UniqueConstraint(
            "study_id",
            "number",
            name=op.f("uq_trials_study_id_number"),
        ),
    )
    op.create_index(
        "ix_trials_study_id_state",
        "trials",
        ["study_id", "state"],
        unique=False,
    )
    op.create_table(
        "attempts",
        sa.Column("trial_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default="opened", nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cursor", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "opened_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("stop_cause", sa.Text(), nullable=True),
        sa.Column("cpus", sa.Double(), server_default="0", nullable=False),
        sa.Column("gpus", sa.Double(), server_default="0", nullable=False),
        sa.Column("node", sa.Text(), nullable=True),
        sa.Column("pid", sa.BigInteger(), nullable=True),
        sa.Column("devices", pg.ARRAY(sa.Text()), nullable=True),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("traceback", sa.Text(), nullable=True),
        sa.Column("checkpoint", sa.Text(), nullable=True),
        sa.Column("checkpoint_step", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "state IN ('opened', 'running', 'finished', 'pruned', 'failed', 'lost', 'interrupted')",
            name=op.f("ck_attempts_state"),
        ),
        sa.ForeignKeyConstraint(
            ["trial_id"], ["trials.trial_id"], name=op.f("fk_attempts_trial_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("trial_id", "number", name=op.f("pk_attempts")),
    )
    op.create_index(
        "ix_attempts_live",
        "attempts",
        ["trial_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('opened', 'running')"),
    )
    op.create_table(
        "logs",
        sa.Column("trial_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column(
            "logged_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["trial_id"], ["trials.trial_id"], name=op.f("fk_logs_trial_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("trial_id", "attempt", "seq", name=op.f("pk_logs")),
    )
    op.create_table(
        "reports",
        sa.Column("trial_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("metrics", pg.JSONB(), nullable=True),
        sa.Column(
            "superseded",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
        ),
        sa.Column(
            "reported_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["trial_id"], ["trials.trial_id"], name=op.f("fk_reports_trial_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint(
            "trial_id",
            "attempt",
            "step",
            name=op.f("pk_reports"),
        ),
    )
    op.create_table(
        "trial_attrs",
        sa.Column("trial_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.CheckConstraint("kind IN ('user', 'system')", name=op.f("ck_trial_attrs_kind")),
        sa.ForeignKeyConstraint(
            ["trial_id"],
            ["trials.trial_id"],
            name=op.f("fk_trial_attrs_trial_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "trial_id",
            "kind",
            "name",
            name=op.f("pk_trial_attrs"),
        ),
    )
    op.create_table(
        "trial_params",
        sa.Column("trial_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("distribution", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["trial_id"],
            ["trials.trial_id"],
            name=op.f("fk_trial_params_trial_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("trial_id", "name", name=op.f("pk_trial_params")),
    )
