"""Failed trials without values, as Optuna has them: what was returned is in the attempt's message.

Earlier versions stored a result that was NaN or infinite as the failed trial's, which Optuna's own
tools cannot read.
"""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.execute(
        """UPDATE trials SET "values" = NULL WHERE state = 'fail' AND "values" IS NOT NULL"""
    )
