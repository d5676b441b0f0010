"""The tables of the service: accounts, and studies that servers run.

    projects ─┬─ members ─ users ─ tokens
              └─ studies.project_id
    snapshots ─ submissions ─ studies     a study that any server may run
    answers                               what a repeated request of a client gets

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
