"""Owners, tags and notes; more that may be asked; who deleted what."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql as pg

revision = "0005"
down_revision = "0003"


def upgrade() -> None:
    op.add_column(
        "studies",
        sa.Column(
            "owner",
            sa.Text(),
            server_default="",
            nullable=False,
        ),
    )
    op.add_column(
        "studies",
        sa.Column(
            "tags",
            pg.ARRAY(sa.Text()),
            server_default="{}",
            nullable=False,
        ),
    )
    op.add_column(
        "studies",
        sa.Column(
            "note",
            sa.Text(),
            server_default="",
            nullable=False,
        ),
    )
    # `tags` of a study file were kept in its spec alone
    op.execute(
        """UPDATE studies SET tags = ARRAY(SELECT json_array_elements_text(spec->'tags'))
           WHERE json_typeof(spec->'tags') = 'array'"""
    )
    op.create_table(
        "trial_annotations",
        sa.Column("trial_id", sa.BigInteger(), nullable=False),
        sa.Column("tags", pg.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(
            ["trial_id"],
            ["trials.trial_id"],
            name=op.f("fk_trial_annotations_trial_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("trial_id", name=op.f("pk_trial_annotations")),
    )
    op.create_table(
        "deletions",
        sa.Column("study_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("trials", sa.BigInteger(), nullable=False),
        sa.Column("deleted_by", sa.Text(), nullable=False),
        sa.Column(
            "deleted_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("study_id", name=op.f("pk_deletions")),
    )
    op.create_index("ix_deletions_name", "deletions", ["name"])
    op.drop_constraint(op.f("ck_commands_kind"), "commands", type_="check")
    op.create_check_constraint(
        op.f("ck_commands_kind"),
        "commands",
        "kind IN ('pause', 'resume', 'stop', 'extend', 'parallelism', 'widen', 'enqueue', 'retry', 'stop_trial', "
        "'tag', 'note')",
    )
    op.create_index(
        "ix_commands_study_id_command_id",
        "commands",
        ["study_id", "command_id"],
    )
    # an enqueued trial's values were the whole payload
    op.execute(
        "UPDATE commands SET payload = jsonb_build_object('params', payload) WHERE kind = 'enqueue'"
    )
