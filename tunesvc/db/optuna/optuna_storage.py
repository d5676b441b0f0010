"""`PgStorage`: Optuna's storage contract on our schema, so that Optuna's tools work on all studies.

Each change is one guarded statement in autocommit, so one round trip and one commit: it changes an
unfinished trial or nothing; then the reason is looked up. Changes are committed when a method
returns; only finished trials are cached. Where the contract leaves a choice:

- A step set again replaces its value. Values set here are attempt 0; a curve shows the latest
  attempt, so they never hide the reports of a coordinator's worker.
- Times are the database's; they come back as naive local times, as Optuna has them.
- A trial that has no heartbeat, such as one of a coordinator or of `Study.ask`, is never stale.
- A coordinator is its study's only writer, so `create_new_trial` refuses while one holds the lease.

Knows Optuna; imports nothing above `db`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Container, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
)
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tunesvc.db import lease, study_records
from tunesvc.db.engine.database import Database, checked_name, open_database, parse_url
from tunesvc.db.engine.statements import PreparedStatement
from tunesvc.db.notifications import CHANNEL
from tunesvc.db.optuna.frozen_trials import STATES, clone_trials, distribution_of, from_optuna_time
from tunesvc.db.optuna.heartbeats import Heartbeats, StaleTrialCallback
from tunesvc.db.optuna.trial_cache import TrialCache
from tunesvc.db.schema.ids import study_of, trial_id
from tunesvc.db.schema.tables import FIRST_VALUE, reports, trial_attrs, trial_params
from tunesvc.errors import BadReport, StudyBusy
from tunesvc.space.directions import direction_of
from tunesvc.space.search_space import canonical
from tunesvc.trial import MAX_STEP
from tunesvc.util.optuna_internals import BaseHeartbeat, FrozenStudy
from tunesvc.util.user import whoami

_NEW_STUDY = PreparedStatement(
    """
    INSERT INTO studies (name, directions, owner) VALUES (%(name)s, %(directions)s, %(owner)s)
    ON CONFLICT (name) DO NOTHING RETURNING study_id"""
)
_STUDIES = PreparedStatement("SELECT study_id, name, directions FROM studies ORDER BY study_id")
_STUDY = PreparedStatement("SELECT name, directions FROM studies WHERE study_id = %(study)s")
_STUDY_BY_NAME = PreparedStatement("SELECT study_id FROM studies WHERE name = %(name)s")
_ALL_STUDY_ATTRS = PreparedStatement(
    "SELECT study_id, kind, name, value FROM study_attrs ORDER BY study_id, kind, name",
)
_STUDY_ATTRS = PreparedStatement(
    """
    SELECT a.name, a.value FROM studies s
    LEFT JOIN study_attrs a ON a.study_id = s.study_id AND a.kind = %(kind)s
    WHERE s.study_id = %(study)s"""
)
# FOR KEY SHARE: a deletion waits for us, or we wait for it and find no study.
_SET_STUDY_ATTR = PreparedStatement(
    """
    INSERT INTO study_attrs (study_id, kind, name, value)
    SELECT study_id, %(kind)s, %(name)s, %(value)s FROM studies WHERE study_id = %(study)s FOR KEY SHARE
    ON CONFLICT (study_id, kind, name) DO UPDATE SET value = excluded.value"""
)
# The study's row is locked until the commit, so numbers become visible in order.
_NEW_TRIAL = PreparedStatement(
    """
    WITH numbered AS (
        UPDATE studies s SET next_number = next_number + 1 WHERE study_id = %(study)s
        AND NOT EXISTS (SELECT FROM leases l WHERE l.study_id = s.study_id AND l.expires_at > now())
        RETURNING study_id, next_number - 1 AS number)
    INSERT INTO trials (trial_id, study_id, number, state, "values", started_at, ended_at)
    SELECT study_id << 32 | number, study_id, number, %(state)s, CAST(%(values)s AS double precision[]),
           CASE WHEN %(now)s THEN now() ELSE CAST(%(started)s AS timestamptz) END, CAST(%(ended)s AS timestamptz)
    FROM numbered RETURNING trial_id"""
)
_TRIAL_STATE = PreparedStatement("SELECT number, state FROM trials WHERE trial_id = %(id)s")
_SET_STATE = PreparedStatement(
    f"""
    WITH changed AS (
        UPDATE trials
        SET state = %(state)s, "values" = coalesce(CAST(%(values)s AS double precision[]), "values"),
            started_at = CASE WHEN %(state)s = 'running' THEN now() ELSE started_at END,
            ended_at = CASE WHEN %(state)s IN ('complete', 'pruned', 'fail') THEN now() END
        WHERE trial_id = %(id)s AND state = ANY(%(before)s) RETURNING study_id)
    SELECT pg_notify('{CHANNEL}', CAST(study_id AS text)) FROM changed"""
)
# FOR SHARE: a change of the trial's state waits for us, or we wait and find the trial finished.
_SET_PARAM = PreparedStatement(
    """
    INSERT INTO trial_params (trial_id, name, position, value, distribution)
    SELECT t.trial_id, %(name)s, (SELECT count(*) FROM trial_params p WHERE p.trial_id = %(id)s),
           CAST(%(value)s AS double precision), %(distribution)s
    FROM trials t WHERE t.trial_id = %(id)s AND t.state IN ('waiting', 'running') FOR SHARE
    ON CONFLICT (trial_id, name) DO UPDATE SET value = excluded.value, distribution = excluded.distribution"""
)
_SET_TRIAL_ATTR = PreparedStatement(
    """
    INSERT INTO trial_attrs (trial_id, kind, name, value)
    SELECT t.trial_id, %(kind)s, %(name)s, %(value)s
    FROM trials t WHERE t.trial_id = %(id)s AND t.state IN ('waiting', 'running') FOR SHARE
    ON CONFLICT (trial_id, kind, name) DO UPDATE SET value = excluded.value"""
)
_SET_VALUE = PreparedStatement(
    """
    INSERT INTO reports (trial_id, attempt, step, value)
    SELECT t.trial_id, 0, CAST(%(step)s AS bigint), CAST(%(value)s AS double precision)
    FROM trials t WHERE t.trial_id = %(id)s AND t.state IN ('waiting', 'running') FOR SHARE
    ON CONFLICT (trial_id, attempt, step) DO UPDATE SET value = excluded.value"""
)
_ANY_DISTRIBUTION = PreparedStatement(
    """
    SELECT distribution FROM trial_params
    WHERE trial_id BETWEEN %(first)s AND %(last)s AND name = %(name)s LIMIT 1"""
)
_RECORD_HEARTBEAT = PreparedStatement(
    "UPDATE trials SET heartbeat_at = now() WHERE trial_id = %(id)s AND state = 'running'",
)
_STALE_TRIALS = PreparedStatement(
    """
    SELECT trial_id FROM trials
    WHERE study_id = %(study)s AND state = 'running'
    AND heartbeat_at < now() - make_interval(secs => CAST(%(seconds)s AS double precision))
    ORDER BY number"""
)
_BEST = {
    direction: PreparedStatement(f"""
        SELECT trial_id FROM trials
        WHERE study_id = %(study)s AND state = 'complete' AND {FIRST_VALUE} IS NOT NULL
        ORDER BY {FIRST_VALUE} {order}, number LIMIT 1""")
    for direction, order in ((StudyDirection.MINIMIZE, "ASC"), (StudyDirection.MAXIMIZE, "DESC"))
}


class PgStorage(BaseStorage, BaseHeartbeat):
    """Studies in Postgres for `optuna.create_study(storage=...)`. Thread-safe; pickled by URL.

    Args:
        database: an open `Database`, or a URL, which is then opened and upgraded.
        heartbeats: of the trials that `Study.optimize` runs; none by default.
    """

    def __init__(
        self,
        database: Database | str | None = None,
        *,
        heartbeats: Heartbeats | None = None,
    ) -> None:
        self._database = database if isinstance(database, Database) else open_database(database)
        self._heartbeats = heartbeats or Heartbeats()
        self._prepare()

    def _prepare(self) -> None:
        self._autocommit = self._database.autocommit
        self._caches: dict[int, TrialCache] = {}
        self._distributions: dict[tuple[int, str], BaseDistribution] = {}
        self._directions: dict[int, list[StudyDirection]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self._database.url, "heartbeats": self._heartbeats}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._database = Database(parse_url(state["url"]))
        self._heartbeats = state["heartbeats"]
        self._prepare()

    def remove_session(self) -> None:
        """Close idle connections. The storage stays usable."""
        self._database.disconnect()

    # --- studies ----------------------------------------------------------------------------------

    def create_new_study(
        self,
        directions: Sequence[StudyDirection],
        study_name: str | None = None,
    ) -> int:
        """See `BaseStorage`. Raises `BadName` for a name that Postgres cannot store."""
        if study_name is None:
            study_name = f"no-name-{uuid.uuid4()}"
        name = checked_name(study_name, "the study's name")
        names = [direction.name.lower() for direction in directions]
        row = self._autocommit.first(
            _NEW_STUDY,
            name=name,
            directions=names,
            owner=whoami(),
        )
        if row is None:
            raise DuplicatedStudyError(
                f"there is a study named {name!r} already: load it, or choose another name",
            )
        return int(row[0])

    def delete_study(self, study_id: int) -> None:
        """See `BaseStorage`. Deletes everything that belongs to the study.

        Raises:
            StudyBusy: a coordinator runs it.
        """
        with self._database.engine.begin() as connection:
            held = lease.holder(connection, study_id)
            if held is not None and held.live:
                raise StudyBusy(lease.busy_message(held.owner))
            if not study_records.remove(connection, study_id, whoami()):
                raise _no_study(study_id)
        self._caches.pop(study_id, None)
        self._directions.pop(study_id, None)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """See `BaseStorage`."""
        self._set_study_attr(study_id, "user", key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """See `BaseStorage`."""
        self._set_study_attr(study_id, "system", key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        """See `BaseStorage`."""
        row = self._autocommit.first(_STUDY_BY_NAME, name=_searchable(study_name))
        if row is None:
            raise KeyError(f"there is no study named {study_name!r}")
        return int(row[0])

    def get_study_name_from_id(self, study_id: int) -> str:
        """See `BaseStorage`."""
        return str(self._study(study_id).name)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """See `BaseStorage`."""
        known = self._directions.get(study_id)
        if known is None:
            stored = self._study(study_id).directions
            known = self._directions[study_id] = [direction_of(name) for name in stored]
        return list(known)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """See `BaseStorage`."""
        return self._study_attrs(study_id, "user")

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """See `BaseStorage`."""
        return self._study_attrs(study_id, "system")

    def get_all_studies(self) -> list[FrozenStudy]:
        """See `BaseStorage`."""
        attrs: dict[tuple[int, str], dict[str, Any]] = {}
        rows = self._autocommit.rows(_STUDIES)
        for study, kind, name, value in self._autocommit.rows(_ALL_STUDY_ATTRS):
            attrs.setdefault((study, kind), {})[name] = json.loads(value)
        return [
            FrozenStudy(
                study_name=row.name,
                direction=None,
                directions=[direction_of(name) for name in row.directions],
                user_attrs=attrs.get((row.study_id, "user"), {}),
                system_attrs=attrs.get((row.study_id, "system"), {}),
                study_id=row.study_id,
            )
            for row in rows
        ]

    # --- writing trials ---------------------------------------------------------------------------

    def create_new_trial(
        self,
        study_id: int,
        template_trial: FrozenTrial | None = None,
    ) -> int:
        """See `BaseStorage`. Two callers at once, in any process, get different numbers.

        Raises:
            StudyBusy: a coordinator runs this study and assigns its numbers.
        """
        row = {"study": study_id, **_trial_columns(template_trial)}
        new_id = self._create(row) if template_trial is None else self._copy(template_trial, row)
        if new_id is None:
            raise self._why_no_number(study_id)
        return new_id

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """See `BaseStorage`. Raises `ValueError` for another kind of distribution than before."""
        self._check_distribution(
            trial_id,
            checked_name(param_name, "the parameter's name"),
            distribution,
        )
        self._change_open_trial(
            _SET_PARAM,
            trial_id,
            name=param_name,
            value=float(canonical(distribution, param_value_internal)),
            distribution=distribution_to_json(distribution),
        )
        self._distributions.setdefault((study_of(trial_id), param_name), distribution)

    def set_trial_state_values(
        self,
        trial_id: int,
        state: TrialState,
        values: Sequence[float] | None = None,
    ) -> bool:
        """See `BaseStorage`. Of several callers that start a waiting trial, one gets True."""
        before = ["waiting"] if state == TrialState.RUNNING else ["waiting", "running"]
        objectives = None if values is None else [float(value) for value in values]
        row = {"state": state.name.lower(), "values": objectives, "before": before}
        if self._autocommit.count(_SET_STATE, id=trial_id, **row):
            return True
        self._require_unfinished(trial_id)
        return False

    def set_trial_intermediate_value(
        self,
        trial_id: int,
        step: int,
        intermediate_value: float,
    ) -> None:
        """See `BaseStorage`. Raises `BadReport`, a `ValueError`, for a step that is too large."""
        if not -MAX_STEP <= int(step) <= MAX_STEP:
            raise BadReport(
                f"step {step} is beyond 2^63-1, which is the last one that can be stored",
            )
        self._change_open_trial(
            _SET_VALUE,
            trial_id,
            step=int(step),
            value=float(intermediate_value),
        )

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """See `BaseStorage`."""
        self._set_trial_attr(trial_id, "user", key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """See `BaseStorage`."""
        self._set_trial_attr(trial_id, "system", key, value)

    # --- reading trials ---------------------------------------------------------------------------

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """See `BaseStorage`."""
        trial = self._cache(study_of(trial_id)).read(trial_id)
        if trial is None:
            raise _no_trial(trial_id)
        return trial

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """See `BaseStorage`. Reads only what can have changed since this object's last look."""
        trials = self._cache(study_id).look(states)
        return clone_trials(trials) if deepcopy else trials

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """See `BaseStorage`. A trial with NaN as value is never the best."""
        directions = self.get_study_directions(study_id)
        if len(directions) > 1:
            raise RuntimeError(
                "a study of several objectives has no single best trial: see its `best_trials`",
            )
        best = self._autocommit.first(_BEST[directions[0]], study=study_id)
        if best is None:
            raise ValueError(f"no trial of study {self._study(study_id).name!r} is complete yet")
        return self.get_trial(best[0])

    def get_trial_id_from_study_id_trial_number(
        self,
        study_id: int,
        trial_number: int,
    ) -> int:
        """See `BaseStorage`."""
        found = trial_id(study_id, trial_number)
        if self._autocommit.first(_TRIAL_STATE, id=found) is None:
            raise KeyError(f"study {study_id} has no trial number {trial_number}")
        return found

    # --- heartbeats -------------------------------------------------------------------------------

    def record_heartbeat(self, trial_id: int) -> None:
        """See Optuna's `BaseHeartbeat`. A trial that has finished meanwhile is left alone."""
        self._autocommit.count(_RECORD_HEARTBEAT, id=trial_id)

    def get_heartbeat_interval(self) -> int | None:
        """See Optuna's `BaseHeartbeat`."""
        return self._heartbeats.interval_s

    def get_heartbeat_stale_trial_callback(self) -> StaleTrialCallback | None:
        """See Optuna's `BaseHeartbeat`."""
        return self._heartbeats.on_stale

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        seconds = self._heartbeats.stale_after_s
        rows = self._autocommit.rows(_STALE_TRIALS, study=study_id, seconds=seconds)
        return [row.trial_id for row in rows]

    # --- shared parts --------------------------------------------------------------------------

    def _create(self, row: Mapping[str, Any]) -> int | None:
        created = self._autocommit.first(_NEW_TRIAL, **row)
        return None if created is None else int(created[0])

    def _copy(self, template: FrozenTrial, row: Mapping[str, Any]) -> int | None:
        with self._database.engine.begin() as connection:
            new_id: int | None = connection.exec_driver_sql(_NEW_TRIAL.sql, dict(row)).scalar()
            if new_id is not None:
                _insert_parts(connection, new_id, template)
        return new_id

    def _change_open_trial(
        self,
        statement: PreparedStatement,
        trial_id: int,
        **values: Any,
    ) -> None:
        if not self._autocommit.count(statement, id=trial_id, **values):
            self._require_unfinished(trial_id)

    def _require_unfinished(self, trial_id: int) -> None:
        row = self._autocommit.first(_TRIAL_STATE, id=trial_id)
        if row is None:
            raise _no_trial(trial_id)
        if STATES[row.state].is_finished():
            raise UpdateFinishedTrialError(
                f"trial {row.number} has finished ({row.state}) and does not change any more",
            )

    def _study(self, study_id: int) -> Any:
        row = self._autocommit.first(_STUDY, study=study_id)
        if row is None:
            raise _no_study(study_id)
        return row

    def _study_attrs(self, study_id: int, kind: str) -> dict[str, Any]:
        rows = self._autocommit.rows(_STUDY_ATTRS, study=study_id, kind=kind)
        if not rows:
            raise _no_study(study_id)
        return {row.name: json.loads(row.value) for row in rows if row.name is not None}

    def _set_study_attr(self, study_id: int, kind: str, key: str, value: Any) -> None:
        name = checked_name(key, "the attribute's name")
        if not self._autocommit.count(
            _SET_STUDY_ATTR,
            study=study_id,
            kind=kind,
            name=name,
            value=json.dumps(value),
        ):
            raise _no_study(study_id)

    def _set_trial_attr(self, trial_id: int, kind: str, key: str, value: Any) -> None:
        name = checked_name(key, "the attribute's name")
        self._change_open_trial(
            _SET_TRIAL_ATTR,
            trial_id,
            kind=kind,
            name=name,
            value=json.dumps(value),
        )

    def _why_no_number(self, study_id: int) -> Exception:
        try:
            name = self.get_study_name_from_id(study_id)
        except KeyError as error:
            return error
        return StudyBusy(
            f"study {name!r} is run by a coordinator, which alone makes its trials: enqueue one with it, or stop it "
            f"(`tune stop {name}`)"
        )

    def _check_distribution(
        self,
        trial_id: int,
        name: str,
        distribution: BaseDistribution,
    ) -> None:
        key = (study_of(trial_id), name)
        earlier = self._distributions.get(key) or self._stored_distribution(*key)
        if earlier is None:
            return
        try:
            check_distribution_compatibility(earlier, distribution)
        except ValueError:
            # By the contract, a finished trial is reported first.
            self._require_unfinished(trial_id)
            raise

    def _stored_distribution(
        self,
        study_id: int,
        name: str,
    ) -> BaseDistribution | None:
        first, last = trial_id(study_id, 0), trial_id(study_id + 1, 0) - 1
        row = self._autocommit.first(
            _ANY_DISTRIBUTION,
            first=first,
            last=last,
            name=name,
        )
        return distribution_of(row[0]) if row is not None else None

    def _cache(self, study_id: int) -> TrialCache:
        return self._caches.setdefault(study_id, TrialCache(self._autocommit, study_id))


def _trial_columns(template: FrozenTrial | None) -> dict[str, Any]:
    if template is None:
        return {
            "state": "running",
            "values": None,
            "now": True,
            "started": None,
            "ended": None,
        }
    return {
        "state": template.state.name.lower(),
        "values": None if template.values is None else [float(value) for value in template.values],
        "now": False,
        "started": from_optuna_time(template.datetime_start),
        "ended": from_optuna_time(template.datetime_complete),
    }


def _insert_parts(
    connection: sa.Connection,
    new_id: int,
    template: FrozenTrial,
) -> None:
    params = [
        {
            "trial_id": new_id,
            "name": checked_name(name, "the parameter's name"),
            "position": position,
            "value": float(_internal(template.distributions[name], value)),
            "distribution": distribution_to_json(template.distributions[name]),
        }
        for position, (name, value) in enumerate(template.params.items())
    ]
    attrs = [
        {
            "trial_id": new_id,
            "kind": kind,
            "name": checked_name(name, "the attribute's name"),
            "value": json.dumps(value),
        }
        for kind, items in (("user", template.user_attrs), ("system", template.system_attrs))
        for name, value in items.items()
    ]
    curve = [
        {"trial_id": new_id, "attempt": 0, "step": step, "value": float(value)}
        for step, value in template.intermediate_values.items()
    ]
    # One statement for many rows, which text would not be.
    for table, rows in ((trial_params, params), (trial_attrs, attrs), (reports, curve)):
        if rows:
            connection.execute(sa.insert(table), rows)


def _internal(distribution: BaseDistribution, value: Any) -> Any:
    """Return the stored value: Optuna's internal one, normalised to the distribution's steps."""
    return distribution.to_internal_repr(canonical(distribution, value))


def _searchable(name: str) -> str:
    # A name that cannot be stored does not exist.
    try:
        return checked_name(name, "the study's name")
    except ValueError:
        raise KeyError(f"there is no study named {name!r}") from None


def _no_study(study_id: int) -> KeyError:
    return KeyError(f"there is no study with id {study_id}")


def _no_trial(trial_id: int) -> KeyError:
    return KeyError(f"there is no trial with id {trial_id}")
