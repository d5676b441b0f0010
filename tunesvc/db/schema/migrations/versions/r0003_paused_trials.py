"""A trial may be paused, and promoted later."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.drop_constraint(op.f("ck_attempts_state"), "attempts", type_="check")
    op.create_check_constraint(
        op.f("ck_attempts_state"),
        "attempts",
        "state IN ('opened', 'running', 'finished', 'pruned', 'paused', 'failed', 'lost', 'interrupted')",
    )
    op.drop_constraint(op.f("ck_decisions_kind"), "decisions", type_="check")
    op.create_check_constraint(
        op.f("ck_decisions_kind"),
        "decisions",
        "kind IN ('ask', 'prune', 'pause', 'promote', 'keep', 'retry', 'fail', 'stop', 'sampler', 'code')",
    )
