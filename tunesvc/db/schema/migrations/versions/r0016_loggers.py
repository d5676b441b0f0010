"""Records of the trials that trackers such as MLflow have."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.create_table(
        "loggers",
        sa.Column("logger_id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("study_id", sa.BigInteger, nullable=False),
        sa.Column("place", sa.Text, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("logger_id", name=op.f("pk_loggers")),
        sa.ForeignKeyConstraint(
            ["study_id"],
            ["studies.study_id"],
            name=op.f("fk_loggers_study_id"),
            ondelete="CASCADE",
        ),
        sa.UniqueConstraint("study_id", "place", name=op.f("uq_loggers_study_id_place")),
    )
    op.create_table(
        "logged_trials",
        sa.Column("logger_id", sa.BigInteger, nullable=False),
        sa.Column("trial_id", sa.BigInteger, nullable=False),
        sa.Column("run", sa.Text),
        sa.Column("complete", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.PrimaryKeyConstraint("logger_id", "trial_id", name=op.f("pk_logged_trials")),
        sa.ForeignKeyConstraint(
            ["logger_id"],
            ["loggers.logger_id"],
            name=op.f("fk_logged_trials_logger_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["trial_id"],
            ["trials.trial_id"],
            name=op.f("fk_logged_trials_trial_id"),
            ondelete="CASCADE",
        ),
    )
