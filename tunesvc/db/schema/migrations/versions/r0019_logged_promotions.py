"""Promotions and rollbacks by hand in a study's log of requests."""

from __future__ import annotations

from alembic import op

revision = "0019"
down_revision = "0018"


COMMANDS = (
    "'pause', 'resume', 'stop', 'extend', 'parallelism', 'widen', 'enqueue', 'retry', "
    "'stop_trial', 'tag', 'note', 'priority', 'promote', 'rollback'"
)


def upgrade() -> None:
    op.drop_constraint(op.f("ck_commands_kind"), "commands", type_="check")
    op.create_check_constraint(op.f("ck_commands_kind"), "commands", f"kind IN ({COMMANDS})")
