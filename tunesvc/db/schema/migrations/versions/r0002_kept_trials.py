"""A decision may be to keep a trial that its pruner would have stopped."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.drop_constraint(op.f("ck_decisions_kind"), "decisions", type_="check")
    op.create_check_constraint(
        op.f("ck_decisions_kind"),
        "decisions",
        "kind IN ('ask', 'prune', 'keep', 'retry', 'fail', 'stop', 'sampler', 'code')",
    )
