"""The tables. One study, its trials (Optuna's) and their attempts (ours).

    studies ─┬─ study_attrs
             ├─ leases           the right to write for the study
             ├─ decisions        with their reasons
             ├─ nodes            the cluster, as its coordinator last saw it
             ├─ commands         from users, with their answers
             ├─ loggers ─── logged_trials  what trackers such as MLflow have
             └─ trials ─┬─ trial_params
                        ├─ trial_attrs
                        ├─ trial_annotations  tags and a note
                        ├─ reports      the curve; attempt 0 = written through Optuna's own API
                        └─ attempts ─── logs
    deletions                    deleted studies

The tables of the service are in `tunesvc.db.schema.service_tables`.

A change here needs a migration in `tunesvc/db/migrations`; a test holds the two against each other.

Numbers that may be NaN or infinite are `double precision`. Attributes are Python's JSON in `text`,
because JSONB refuses NaN and reorders keys, and Optuna's contract tests both. Trial ids are
derived: see `tunesvc.db.schema.ids`.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db.schema.states import AttemptState, StudyState

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Moment = sa.DateTime(timezone=True)
Double: sa.Double[float] = sa.Double()
NOW = sa.text("now()")


def one_of(column: str, values: list[str]) -> sa.CheckConstraint:
    """Return the constraint that a text column has one of these values."""
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=column)


def study_ref(**options: object) -> sa.Column[int]:
    """Return a column `study_id`, whose row is deleted with its study."""
    return sa.Column(
        "study_id",
        sa.BigInteger,
        sa.ForeignKey("studies.study_id", ondelete="CASCADE"),
        **{"nullable": False, **options},  # type: ignore[arg-type]
    )


def _trial_ref() -> sa.Column[int]:
    return sa.Column(
        "trial_id",
        sa.BigInteger,
        sa.ForeignKey("trials.trial_id", ondelete="CASCADE"),
        primary_key=True,
    )


def _tags() -> sa.Column[list[str]]:
    return sa.Column("tags", pg.ARRAY(sa.Text), nullable=False, server_default="{}")


def _note() -> sa.Column[str]:
    return sa.Column("note", sa.Text, nullable=False, server_default="")


FIRST_VALUE = sa.text("""NULLIF("values"[1], 'NaN'::double precision)""")
"""A trial's first value, NULL where that is no number: Postgres sorts NaN above all of them."""

TRIAL_STATES = ["waiting", "running", "complete", "pruned", "fail"]

studies = sa.Table(
    "studies",
    metadata,
    sa.Column("study_id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    # names the study's workers on a cluster that several databases may share
    sa.Column(
        "key",
        pg.UUID,
        nullable=False,
        server_default=sa.text("gen_random_uuid()"),
    ),
    sa.Column("directions", pg.ARRAY(sa.Text), nullable=False),
    sa.Column("next_number", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("state", sa.Text, nullable=False, server_default=StudyState.CREATED),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    # NULL for a study made through Optuna's API, which has no spec
    sa.Column("spec", pg.JSON),
    # the study file as written, and the folder its entrypoint is found from
    sa.Column("source_text", sa.Text),
    sa.Column("source_dir", sa.Text),
    sa.Column("active_s", Double, nullable=False, server_default="0"),
    sa.Column("created_at", Moment, nullable=False, server_default=NOW),
    sa.Column("ended_at", Moment),
    # the user that created it
    sa.Column("owner", sa.Text, nullable=False, server_default=""),
    # NULL for a study that was not made through a service with accounts
    sa.Column("project_id", sa.BigInteger, sa.ForeignKey("projects.project_id")),
    _tags(),
    _note(),
    one_of("state", list(StudyState)),
    sa.Index("ix_studies_project_id", "project_id"),
    # the queue, which is read with every page of a study
    sa.Index(
        "ix_studies_unfinished",
        "study_id",
        postgresql_where=sa.text("state IN ('created', 'running')"),
    ),
)

study_attrs = sa.Table(
    "study_attrs",
    metadata,
    study_ref(primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    one_of("kind", ["user", "system"]),
)

leases = sa.Table(
    "leases",
    metadata,
    study_ref(primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    # incremented with every new owner; a writer with another token is refused
    sa.Column("token", sa.BigInteger, nullable=False),
    # number of the last commit under this token; shows if a commit without answer succeeded
    sa.Column("batch", sa.BigInteger, nullable=False),
    sa.Column("expires_at", Moment, nullable=False),
    # true if it was released, false if it ran out
    sa.Column("released", sa.Boolean, nullable=False, server_default=sa.false()),
)

trials = sa.Table(
    "trials",
    metadata,
    sa.Column("trial_id", sa.BigInteger, primary_key=True, autoincrement=False),
    study_ref(),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    # one per objective
    sa.Column("values", pg.ARRAY(Double)),
    sa.Column("started_at", Moment),
    sa.Column("ended_at", Moment),
    # by a process that runs it through Optuna's API; attempts of a coordinator have leases
    sa.Column("heartbeat_at", Moment),
    sa.UniqueConstraint("study_id", "number"),
    sa.Index("ix_trials_study_id_state_number", "study_id", "state", "number"),
    # the best first, without those that have no number for a value
    sa.Index("ix_trials_study_id_value_number", "study_id", FIRST_VALUE, "number"),
    one_of("state", TRIAL_STATES),
)

trial_params = sa.Table(
    "trial_params",
    metadata,
    _trial_ref(),
    sa.Column("name", sa.Text, primary_key=True),
    # the order in which the parameters were drawn, which Optuna's contract keeps
    sa.Column("position", sa.Integer, nullable=False),
    # Optuna's internal representation: the number, or the index of the category
    sa.Column("value", Double, nullable=False),
    # as optuna.distributions.distribution_to_json writes it
    sa.Column("distribution", sa.Text, nullable=False),
    # a study's trials by any of their parameters
    sa.Index(
        "ix_trial_params_study_name_value",
        sa.text("(trial_id >> 32)"),
        "name",
        "value",
        "trial_id",
    ),
)

trial_attrs = sa.Table(
    "trial_attrs",
    metadata,
    _trial_ref(),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    one_of("kind", ["user", "system"]),
    # whether a trial is feasible, asked of every trial
    sa.Index(
        "ix_trial_attrs_constraints",
        "trial_id",
        postgresql_where=sa.text("kind = 'system' AND name LIKE 'constraints%'"),
    ),
)

trial_annotations = sa.Table(
    "trial_annotations",
    metadata,
    _trial_ref(),
    _tags(),
    _note(),
)

attempts = sa.Table(
    "attempts",
    metadata,
    _trial_ref(),
    # 1, 2, 3, ... within the trial
    sa.Column("number", sa.Integer, primary_key=True),
    # the study lease under which it was opened or adopted
    sa.Column("token", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default=AttemptState.OPENED),
    # the attempt's lease: its worker is given up then, unless a heartbeat renews it
    sa.Column("expires_at", Moment),
    # the last outbox number that is recorded
    sa.Column("cursor", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("opened_at", Moment, nullable=False, server_default=NOW),
    sa.Column("started_at", Moment),
    sa.Column("ended_at", Moment),
    # cause of a requested stop, as `policy.StopCause` names it
    sa.Column("stop_cause", sa.Text),
    # resources that it uses while it runs, of all its workers together
    sa.Column("cpus", Double, nullable=False, server_default="0"),
    sa.Column("gpus", Double, nullable=False, server_default="0"),
    sa.Column("node", sa.Text),
    sa.Column("pid", sa.BigInteger),
    sa.Column("devices", pg.ARRAY(sa.Text)),
    # of a gang: nodes.key of each bundle's node
    sa.Column("bundle_nodes", pg.ARRAY(sa.Text)),
    # digest of the objective's source as this attempt ran it
    sa.Column("code", sa.Text),
    # class of the failure, as `policy` names it
    sa.Column("failure", sa.Text),
    sa.Column("message", sa.Text),
    sa.Column("traceback", sa.Text),
    sa.Column("checkpoint", sa.Text),
    sa.Column("checkpoint_step", sa.BigInteger),
    one_of("state", list(AttemptState)),
    sa.Index(
        "ix_attempts_live",
        "trial_id",
        unique=True,
        postgresql_where=sa.text("state IN ('opened', 'running')"),
    ),
    # GPU hours of a study, asked for with every page of it
    sa.Index(
        "ix_attempts_gpus",
        "trial_id",
        postgresql_include=["number", "gpus", "started_at", "ended_at"],
        postgresql_where=sa.text("gpus > 0"),
    ),
)

reports = sa.Table(
    "reports",
    metadata,
    _trial_ref(),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("step", sa.BigInteger, primary_key=True),
    # the first objective's metric, which the pruner uses; NULL if this report has none
    sa.Column("value", Double),
    # the other metrics; NaN and infinities are the strings 'NaN', 'Infinity', '-Infinity'
    sa.Column("metrics", pg.JSONB),
    # a later attempt resumed before this step: stored, but not part of the trial's curve
    sa.Column("superseded", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("reported_at", Moment, nullable=False, server_default=NOW),
)

logs = sa.Table(
    "logs",
    metadata,
    _trial_ref(),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True),
    sa.Column("stream", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("logged_at", Moment, nullable=False, server_default=NOW),
)

decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("decision_id", sa.BigInteger, sa.Identity(), primary_key=True),
    study_ref(),
    # NULL for a decision about the whole study
    sa.Column("trial_number", sa.BigInteger),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    # numbers behind the decision; NaN and infinities as in reports.metrics
    sa.Column("details", pg.JSONB, nullable=False, server_default="{}"),
    sa.Column("decided_at", Moment, nullable=False, server_default=NOW),
    one_of(
        "kind",
        [
            *("ask", "prune", "pause", "promote", "exploit", "keep"),
            *("retry", "fail", "stop", "sampler", "code"),
        ],
    ),
    sa.Index("ix_decisions_study_id_trial_number", "study_id", "trial_number"),
)

COMMANDS = [
    *("pause", "resume", "stop", "extend", "parallelism", "widen"),
    *("enqueue", "retry", "stop_trial"),
    *("tag", "note", "priority"),
    *("promote", "rollback"),
]

commands = sa.Table(
    "commands",
    metadata,
    sa.Column("command_id", sa.BigInteger, sa.Identity(), primary_key=True),
    study_ref(),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("payload", pg.JSONB, nullable=False, server_default="{}"),
    sa.Column("asked_by", sa.Text, nullable=False, server_default=""),
    sa.Column("asked_at", Moment, nullable=False, server_default=NOW),
    sa.Column("done_at", Moment),
    # empty if it was simply carried out
    sa.Column("answer", sa.Text),
    one_of("kind", COMMANDS),
    sa.Index(
        "ix_commands_pending",
        "study_id",
        postgresql_where=sa.text("done_at IS NULL"),
    ),
    sa.Index("ix_commands_study_id_command_id", "study_id", "command_id"),
)

deletions = sa.Table(
    "deletions",
    metadata,
    # ids are never reused
    sa.Column("study_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("trials", sa.BigInteger, nullable=False),
    sa.Column("deleted_by", sa.Text, nullable=False),
    sa.Column("deleted_at", Moment, nullable=False, server_default=NOW),
    sa.Index("ix_deletions_name", "name"),
)

nodes = sa.Table(
    "nodes",
    metadata,
    study_ref(primary_key=True),
    # unique among all clusters: studies with the same key share a cluster
    sa.Column("key", sa.Text, primary_key=True),
    # as attempts.node names it
    sa.Column("address", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    # amounts by Ray's names, custom resources included: an open set
    sa.Column("total", pg.JSONB, nullable=False),
    sa.Column("free", pg.JSONB, nullable=False),
    sa.Column("seen_at", Moment, nullable=False, server_default=NOW),
)

loggers = sa.Table(
    "loggers",
    metadata,
    sa.Column("logger_id", sa.BigInteger, sa.Identity(), primary_key=True),
    study_ref(),
    # where it logs, without passwords: another place gets all trials again
    sa.Column("place", sa.Text, nullable=False),
    # the process that sends trials there, and until when no other one may
    sa.Column("owner", sa.Text),
    sa.Column("expires_at", Moment),
    sa.UniqueConstraint("study_id", "place"),
)

logged_trials = sa.Table(
    "logged_trials",
    metadata,
    sa.Column(
        "logger_id",
        sa.BigInteger,
        sa.ForeignKey("loggers.logger_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    _trial_ref(),
    # the tracker's own id; NULL from before it is asked for one until its answer is recorded
    sa.Column("run", sa.Text),
    # true once it has everything of a finished trial
    sa.Column("complete", sa.Boolean, nullable=False, server_default=sa.false()),
)
