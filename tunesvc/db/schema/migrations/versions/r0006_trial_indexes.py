"""Trials by value, by any parameter and by state within a study; whether they are feasible,
without reading them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.drop_index("ix_trials_study_id_state", "trials")
    op.create_index(
        "ix_trials_study_id_state_number",
        "trials",
        ["study_id", "state", "number"],
    )
    value = sa.text("""NULLIF("values"[1], 'NaN'::double precision)""")
    op.create_index(
        "ix_trials_study_id_value_number",
        "trials",
        ["study_id", value, "number"],
    )
    study = sa.text("(trial_id >> 32)")
    op.create_index(
        "ix_trial_params_study_name_value", "trial_params", [study, "name", "value", "trial_id"]
    )
    op.create_index(
        "ix_trial_attrs_constraints",
        "trial_attrs",
        ["trial_id"],
        postgresql_where=sa.text("kind = 'system' AND name LIKE 'constraints%'"),
    )
