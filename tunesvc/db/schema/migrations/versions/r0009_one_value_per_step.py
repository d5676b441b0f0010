"""Stored values of stepped floats as the steps are written: 0.3, not 0.30000000000000004.

Earlier versions stored what samplers computed in binary, so that conditions, filters and retries
missed such trials. A value that misses every step by more than Optuna tolerates stays as it is.
"""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.execute("""
        WITH stepped AS (
            SELECT distribution, CAST(kind -> 'attributes' ->> 'low' AS numeric) AS low,
                   CAST(kind -> 'attributes' ->> 'step' AS numeric) AS step
            FROM (SELECT DISTINCT distribution, CAST(distribution AS jsonb) AS kind FROM trial_params
                  WHERE distribution LIKE '%"FloatDistribution"%' AND distribution NOT LIKE '%"step": null%') AS found
            WHERE kind -> 'attributes' ->> 'step' IS NOT NULL)
        UPDATE trial_params p
        SET value = CAST(s.low + round((CAST(p.value AS numeric) - s.low) / s.step) * s.step AS double precision)
        FROM stepped s
        WHERE p.distribution = s.distribution
        AND p.value <> CAST(s.low + round((CAST(p.value AS numeric) - s.low) / s.step) * s.step AS double precision)
        AND abs(CAST(p.value AS numeric) - s.low - round((CAST(p.value AS numeric) - s.low) / s.step) * s.step)
            <= 1e-8 * s.step""")
