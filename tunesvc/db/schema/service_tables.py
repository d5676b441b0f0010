"""The tables of the service: accounts, and studies that servers run.

    projects ─┬─ members ─ users ─ tokens
              └─ studies.project_id
    snapshots ─ submissions ─ studies     a study that any server may run
    answers                               what a repeated request of a client gets
    audit                                 who changed or tried what
    agents ─ agent_launches ─ agent_events  attempts that agents run, and what they report
    agent_jobs ─ studies                  what an agent needs to run a study's attempts
    champions ─ champion_deliveries       what production uses, and where that is announced
    watches ─ snapshots                   families that servers watch

A change here needs a migration, as for `tunesvc.db.schema.tables`.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db.schema.states import Priority
from tunesvc.db.schema.tables import NOW, Double, Moment, one_of, study_ref
from tunesvc.db.schema.tables import metadata as metadata

ROLES = ["viewer", "operator", "admin"]
TOKEN_KINDS = ["token", "session", "link"]
"""A token of a program, a signed-in browser, and an address that signs in a browser once."""


def _user_ref(**options: object) -> sa.Column[int]:
    return sa.Column(
        "user_id",
        sa.BigInteger,
        sa.ForeignKey("users.user_id", ondelete="CASCADE"),
        nullable=False,
        **options,  # type: ignore[arg-type]
    )


users = sa.Table(
    "users",
    metadata,
    sa.Column("user_id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    # may do everything, in every project
    sa.Column("is_admin", sa.Boolean, nullable=False, server_default=sa.false()),
    # share of the cluster, relative to other users of the same project
    sa.Column("weight", Double, nullable=False, server_default="1"),
    # most that the user's studies may use at a time or in all, by name: an open set
    sa.Column("limits", pg.JSONB, nullable=False, server_default="{}"),
    sa.Column("created_at", Moment, nullable=False, server_default=NOW),
    sa.Column("disabled_at", Moment),
)

projects = sa.Table(
    "projects",
    metadata,
    sa.Column("project_id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    # share of the cluster, relative to other projects
    sa.Column("weight", Double, nullable=False, server_default="1"),
    sa.Column("limits", pg.JSONB, nullable=False, server_default="{}"),
    sa.Column("created_at", Moment, nullable=False, server_default=NOW),
)

members = sa.Table(
    "members",
    metadata,
    sa.Column(
        "project_id",
        sa.BigInteger,
        sa.ForeignKey("projects.project_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    _user_ref(primary_key=True),
    sa.Column("role", sa.Text, nullable=False),
    one_of("role", ROLES),
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("token_id", sa.BigInteger, sa.Identity(), primary_key=True),
    _user_ref(),
    sa.Column("kind", sa.Text, nullable=False),
    # SHA-256 of a secret of 256 random bits, which is stored nowhere
    sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("label", sa.Text, nullable=False, server_default=""),
    sa.Column("created_at", Moment, nullable=False, server_default=NOW),
    sa.Column("expires_at", Moment),
    sa.Column("used_at", Moment),
    sa.Column("revoked_at", Moment),
    one_of("kind", TOKEN_KINDS),
    sa.Index("ix_tokens_user_id", "user_id"),
)

snapshots = sa.Table(
    "snapshots",
    metadata,
    # SHA-256 of the archive, in hexadecimal
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("files", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False, server_default=""),
    sa.Column("created_at", Moment, nullable=False, server_default=NOW),
)

submissions = sa.Table(
    "submissions",
    metadata,
    study_ref(primary_key=True),
    # NULL for a study whose folder all servers and workers see
    sa.Column("snapshot", sa.Text, sa.ForeignKey("snapshots.digest")),
    sa.Column("priority", sa.Text, nullable=False, server_default=Priority.NORMAL),
    # trials that may run at a time; 0 before the first grant
    sa.Column("slots", sa.Integer, nullable=False, server_default="0"),
    sa.Column("submitted_by", sa.Text, nullable=False, server_default=""),
    sa.Column("submitted_at", Moment, nullable=False, server_default=NOW),
    # since when it waits; set again when it is resumed, preempted or extended
    sa.Column("queued_at", Moment, nullable=False, server_default=NOW),
    # git commit, Python and packages of the machine that submitted it: an open set
    sa.Column("provenance", pg.JSONB, nullable=False, server_default="{}"),
    # why no server could run it; empty if none has failed to
    sa.Column("problem", sa.Text, nullable=False, server_default=""),
    # how often in a row
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    # it is not tried again before
    sa.Column("retry_at", Moment),
    one_of("priority", list(Priority)),
    sa.Index("ix_submissions_snapshot", "snapshot"),
)

answers = sa.Table(
    "answers",
    metadata,
    # a client's idempotency key, together with its user's name
    sa.Column("user_name", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    # SHA-256 of the request, so that one key does not answer two requests
    sa.Column("digest", sa.LargeBinary, nullable=False),
    # NULL while the first request is carried out
    sa.Column("status", sa.Integer),
    sa.Column("body", pg.JSONB),
    sa.Column("created_at", Moment, nullable=False, server_default=NOW),
    sa.Index("ix_answers_created_at", "created_at"),
)

LAUNCH_STATES = ["offered", "leased", "ended", "revoked"]
"""`ended` by its agent; `revoked` by the coordinator or an expired lease, so that all later calls
of its agent are refused."""


def _launch_ref() -> sa.Column[int]:
    return sa.Column(
        "launch_id",
        sa.BigInteger,
        sa.ForeignKey("agent_launches.launch_id", ondelete="CASCADE"),
        primary_key=True,
    )


agents = sa.Table(
    "agents",
    metadata,
    sa.Column("agent_id", sa.BigInteger, sa.Identity(), primary_key=True),
    study_ref(),
    # as attempts.node names it
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("user_name", sa.Text, nullable=False, server_default=""),
    # amounts by Ray's names, as in nodes
    sa.Column("total", pg.JSONB, nullable=False, server_default="{}"),
    # number of attempts that it runs at a time
    sa.Column("slots", sa.Integer, nullable=False, server_default="0"),
    sa.Column("started_at", Moment, nullable=False, server_default=NOW),
    sa.Column("seen_at", Moment, nullable=False, server_default=NOW),
    sa.Column("ended_at", Moment),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Index("ix_agents_study_id_seen_at", "study_id", "seen_at"),
)

agent_jobs = sa.Table(
    "agent_jobs",
    metadata,
    study_ref(primary_key=True),
    # of the coordinator that offers launches; one with a lower token changes nothing
    sa.Column("token", sa.BigInteger, nullable=False, server_default="0"),
    # what all launches have in common, as `execution.agents.wire` writes it
    sa.Column("job", pg.JSON, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    # most launches that may be leased at a time; NULL for no limit
    sa.Column("parallelism", sa.Integer),
    # duration of an agent's lease without a heartbeat
    sa.Column("lease_s", Double, nullable=False),
)

agent_launches = sa.Table(
    "agent_launches",
    metadata,
    # the lease's fencing token: a launch is leased once, and ids only grow
    sa.Column("launch_id", sa.BigInteger, sa.Identity(), primary_key=True),
    # drawn by the coordinator, so that repeating a transaction offers it once
    sa.Column("key", pg.UUID, nullable=False, unique=True),
    study_ref(),
    sa.Column("trial_id", sa.BigInteger, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("payload", pg.JSON, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default="offered"),
    sa.Column("agent_id", sa.BigInteger, sa.ForeignKey("agents.agent_id", ondelete="SET NULL")),
    sa.Column("lease_s", Double),
    sa.Column("expires_at", Moment),
    sa.Column("offered_at", Moment, nullable=False, server_default=NOW),
    sa.Column("ended_at", Moment),
    # the last event as its agent numbers them, and as they are numbered here
    sa.Column("received", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("last_seq", sa.BigInteger, nullable=False, server_default="0"),
    # true if it is asked to stop
    sa.Column("stop", sa.Boolean, nullable=False, server_default=sa.false()),
    # the event that asks for a parameter, until it is answered
    sa.Column("question", pg.JSON),
    # parameter -> its value
    sa.Column("answers", pg.JSONB, nullable=False, server_default="{}"),
    one_of("state", LAUNCH_STATES),
    sa.Index("ix_agent_launches_trial_id_attempt", "trial_id", "attempt"),
    sa.Index("ix_agent_launches_study_id_state", "study_id", "state", "launch_id"),
    sa.Index("ix_agent_launches_agent_id", "agent_id"),
)

agent_events = sa.Table(
    "agent_events",
    metadata,
    _launch_ref(),
    # 1, 2, 3, ... within the launch
    sa.Column("seq", sa.BigInteger, primary_key=True),
    # as `execution.agents.wire` writes it; deleted once the coordinator has recorded it
    sa.Column("payload", pg.JSON, nullable=False),
)

ALERTS = ["finished", "failed", "stalled", "target", "budget", "promoted"]

alert_targets = sa.Table(
    "alert_targets",
    metadata,
    sa.Column("target_id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("user_name", sa.Text, nullable=False),
    # NULL for all studies that the user submitted
    study_ref(nullable=True),
    # as Apprise reads it; it may contain a password, so it is never shown whole
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("kinds", pg.ARRAY(sa.Text), nullable=False),
    sa.Column("created_at", Moment, nullable=False, server_default=NOW),
)

alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("alert_id", sa.BigInteger, sa.Identity(), primary_key=True),
    study_ref(),
    sa.Column("kind", sa.Text, nullable=False),
    # tells two occasions of one kind apart
    sa.Column("occasion", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("raised_at", Moment, nullable=False, server_default=NOW),
    one_of("kind", ALERTS),
    sa.UniqueConstraint("study_id", "kind", "occasion"),
)

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column(
        "alert_id",
        sa.BigInteger,
        sa.ForeignKey("alerts.alert_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column(
        "target_id",
        sa.BigInteger,
        sa.ForeignKey("alert_targets.target_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("delivered_at", Moment),
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    sa.Column("error", sa.Text, nullable=False, server_default=""),
    sa.Column("retry_at", Moment, nullable=False, server_default=NOW),
    sa.Index(
        "ix_deliveries_pending",
        "retry_at",
        postgresql_where=sa.text("delivered_at IS NULL"),
    ),
)

PROMOTIONS = ["first", "challenge", "kept", "manual", "rollback"]
"""The first champion of a family; a challenger that won; a champion that beat its challenger and
stays; a trial that a user chose; an earlier champion that a user restored."""
HOOKS = ["on_promote", "registry"]

champions = sa.Table(
    "champions",
    metadata,
    sa.Column("champion_id", sa.BigInteger, sa.Identity(), primary_key=True),
    # NULL for a family that was not made through a service with accounts
    sa.Column("project_id", sa.BigInteger, sa.ForeignKey("projects.project_id")),
    sa.Column("family", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    # the one that it follows: unique, so that two processes cannot replace the same one
    sa.Column("previous_id", sa.BigInteger, sa.ForeignKey("champions.champion_id"), unique=True),
    # of a rollback: the one whose configuration is used again
    sa.Column("restores_id", sa.BigInteger, sa.ForeignKey("champions.champion_id")),
    # a name, not a reference: the history outlives its studies
    sa.Column("study", sa.Text, nullable=False),
    sa.Column("trial_number", sa.BigInteger, nullable=False),
    # parameter -> value, constant -> value: open sets
    sa.Column("params", pg.JSON, nullable=False),
    sa.Column("constants", pg.JSON, nullable=False),
    # NULL for a study without `data`
    sa.Column("data_version", sa.Text),
    sa.Column("metric", sa.Text, nullable=False),
    sa.Column("goal", sa.Text, nullable=False),
    # the mean over folds, or the observed value without any
    sa.Column("value", Double, nullable=False),
    sa.Column("standard_error", Double),
    # values by number of the fold, NaN where its trial failed
    sa.Column("fold_values", pg.ARRAY(Double), nullable=False, server_default="{}"),
    # those of the champion before on the same folds; of `kept`, the challenger's
    sa.Column("rival_values", pg.ARRAY(Double), nullable=False, server_default="{}"),
    # of the paired test against the champion before
    sa.Column("p_value", Double),
    sa.Column("level", Double),
    # `drift.DriftReport`
    sa.Column("drift", pg.JSON),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Column("user_name", sa.Text, nullable=False),
    sa.Column("promoted_at", Moment, nullable=False, server_default=NOW),
    one_of("kind", PROMOTIONS),
    one_of("goal", ["minimize", "maximize"]),
    sa.Index("ix_champions_family", "family", "champion_id"),
    sa.Index(
        "ix_champions_first",
        "family",
        unique=True,
        postgresql_where=sa.text("previous_id IS NULL"),
    ),
)

champion_deliveries = sa.Table(
    "champion_deliveries",
    metadata,
    sa.Column(
        "champion_id",
        sa.BigInteger,
        sa.ForeignKey("champions.champion_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("hook", sa.Text, primary_key=True),
    # begun deliveries: more than one may have arrived
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    # when the last one was begun
    sa.Column("tried_at", Moment),
    sa.Column("delivered_at", Moment),
    # of the last attempt, or the reason of a cancellation
    sa.Column("error", sa.Text, nullable=False, server_default=""),
    # set if a newer champion has replaced it, or the study names no such hook any more
    sa.Column("cancelled_at", Moment),
    one_of("hook", HOOKS),
)

watches = sa.Table(
    "watches",
    metadata,
    sa.Column("family", sa.Text, primary_key=True),
    sa.Column("project_id", sa.BigInteger, sa.ForeignKey("projects.project_id")),
    sa.Column("spec", pg.JSON, nullable=False),
    # the study file as it was written
    sa.Column("source_text", sa.Text),
    # NULL for a program that is installed where workers run
    sa.Column("snapshot", sa.Text, sa.ForeignKey("snapshots.digest")),
    sa.Column("provenance", pg.JSONB, nullable=False, server_default="{}"),
    # tune again for each new version, drifted or not
    sa.Column("always", sa.Boolean, nullable=False, server_default=sa.false()),
    # NULL for a single look
    sa.Column("interval_s", Double),
    sa.Column("submitted_by", sa.Text, nullable=False),
    # tells it from one that it replaces
    sa.Column("submitted_at", Moment, nullable=False, server_default=NOW),
    # NULL if there is none: the single look has ended, or the watch was stopped
    sa.Column("look_at", Moment, server_default=NOW),
    # the version of the look under way; NULL between looks
    sa.Column("data_version", sa.Text),
    # its `drift.DriftReport`, and the version that it was compared with
    sa.Column("drift", pg.JSON),
    sa.Column("drift_from", sa.Text),
    # name of the study that the look under way waits for; empty for none
    sa.Column("waits_for", sa.Text, nullable=False, server_default=""),
    # the last look that has ended
    sa.Column("looked_at", Moment),
    sa.Column("outcome", sa.Text, nullable=False, server_default=""),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    # why the last look has failed, or the watch was stopped; empty without a reason
    sa.Column("problem", sa.Text, nullable=False, server_default=""),
    # how often in a row
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    sa.Index("ix_watches_snapshot", "snapshot"),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("audit_id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("at", Moment, nullable=False, server_default=NOW),
    # names, not references: a record outlives its user and its study
    sa.Column("user_name", sa.Text, nullable=False),
    sa.Column("token_id", sa.BigInteger),
    sa.Column("address", sa.Text, nullable=False, server_default=""),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False, server_default=""),
    # status of the answer; NULL while it is carried out, or if the server died meanwhile
    sa.Column("outcome", sa.Integer),
    sa.Index("ix_audit_user_name_audit_id", "user_name", "audit_id"),
)
