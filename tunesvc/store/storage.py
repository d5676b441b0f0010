"""`PgStorage`: Optuna's storage contract on our schema, so that Optuna's own tools work on every study.

Each change is one guarded statement: it touches an unfinished trial or nothing, and then the reason is looked up.
Where the contract leaves a choice:

- A step set again replaces its value. Values set here are attempt 0; a curve shows the latest attempt, so they
  never hide what a worker of a coordinator reported.
- Times are the database's; they come back as naive local times, as Optuna has them.
- A coordinator is its study's only writer, so `create_new_trial` refuses while one holds the lease.

Knows Optuna; imports nothing above the store.
"""

from __future__ import annotations

import copy
import json
import math
import uuid
from collections.abc import Container, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, check_distribution_compatibility, distribution_to_json
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study._frozen import FrozenStudy
from optuna.study._study_direction import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tunesvc.errors import StudyBusy
from tunesvc.store import studies
from tunesvc.store.database import Database, checked_name, open_database, parse_url
from tunesvc.store.frozen import aware, distribution_of, freeze
from tunesvc.store.ids import number_of, study_of, trial_id
from tunesvc.store.notices import CHANNEL
from tunesvc.store.trialcache import TrialCache
from tunesvc.whoami import whoami

_NEW_STUDY = sa.text(
    """INSERT INTO studies (name, directions, owner) VALUES (:name, :directions, :owner)
       ON CONFLICT (name) DO NOTHING RETURNING study_id"""
)
_STUDIES = sa.text("SELECT study_id, name, directions FROM studies ORDER BY study_id")
_STUDY = sa.text("SELECT name, directions FROM studies WHERE study_id = :study")
_STUDY_ATTRS = sa.text(
    """SELECT a.name, a.value FROM studies s LEFT JOIN study_attrs a ON a.study_id = s.study_id AND a.kind = :kind
       WHERE s.study_id = :study"""
)
_SET_STUDY_ATTR = sa.text(
    """INSERT INTO study_attrs (study_id, kind, name, value)
       SELECT study_id, :kind, :name, :value FROM studies WHERE study_id = :study
       ON CONFLICT (study_id, kind, name) DO UPDATE SET value = excluded.value"""
)
_NEXT_NUMBER = sa.text(
    """UPDATE studies s SET next_number = next_number + 1 WHERE study_id = :study
       AND NOT EXISTS (SELECT FROM leases l WHERE l.study_id = s.study_id AND l.expires_at > now())
       RETURNING next_number - 1"""
)
_NEW_TRIAL = sa.text(
    """INSERT INTO trials (trial_id, study_id, number, state, "values", started_at, ended_at)
       VALUES (:id, :study, :number, :state, CAST(:values AS double precision[]),
               CASE WHEN :now THEN now() ELSE :started END, :ended)"""
)
_TRIAL = sa.text(
    """SELECT trial_id, number, state, "values" AS objectives, started_at, ended_at
       FROM trials WHERE trial_id = :id"""
)
_SET_STATE = sa.text(
    """WITH changed AS (
          UPDATE trials SET state = :state, "values" = coalesce(CAST(:values AS double precision[]), "values"),
            started_at = CASE WHEN :state = 'running' THEN now() ELSE started_at END,
            ended_at = CASE WHEN :state IN ('complete', 'pruned', 'fail') THEN now() END
          WHERE trial_id = :id AND state = ANY(:before) RETURNING study_id)
        SELECT pg_notify(:channel, CAST(study_id AS text)) FROM changed"""
)
# FOR SHARE: a change of the trial's state waits for us, or we wait for it and then find the trial finished
_SET_PARAM = sa.text(
    """INSERT INTO trial_params (trial_id, name, position, value, distribution)
       SELECT t.trial_id, :name, (SELECT count(*) FROM trial_params p WHERE p.trial_id = :id), :value, :distribution
       FROM trials t WHERE t.trial_id = :id AND t.state IN ('waiting', 'running') FOR SHARE
       ON CONFLICT (trial_id, name) DO UPDATE SET value = excluded.value, distribution = excluded.distribution"""
)
_SET_TRIAL_ATTR = sa.text(
    """INSERT INTO trial_attrs (trial_id, kind, name, value)
       SELECT t.trial_id, :kind, :name, :value
       FROM trials t WHERE t.trial_id = :id AND t.state IN ('waiting', 'running') FOR SHARE
       ON CONFLICT (trial_id, kind, name) DO UPDATE SET value = excluded.value"""
)
_SET_VALUE = sa.text(
    """INSERT INTO reports (trial_id, attempt, step, value)
       SELECT t.trial_id, 0, :step, :value
       FROM trials t WHERE t.trial_id = :id AND t.state IN ('waiting', 'running') FOR SHARE
       ON CONFLICT (trial_id, attempt, step) DO UPDATE SET value = excluded.value"""
)
_ANY_DISTRIBUTION = sa.text(
    "SELECT distribution FROM trial_params WHERE trial_id BETWEEN :first AND :last AND name = :name LIMIT 1"
)


class PgStorage(BaseStorage):
    """Studies in Postgres for `optuna.create_study(storage=...)`. Shared by threads; pickled by URL.

    Args:
        database: an open `Database`, or the URL of one, which is then opened and brought up to date.
    """

    def __init__(self, database: Database | str | None = None) -> None:
        self._database = database if isinstance(database, Database) else open_database(database)
        self._prepare()

    def _prepare(self) -> None:
        # one statement is its own transaction here: no BEGIN and COMMIT to wait for
        self._autocommit = self._database.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._caches: dict[int, TrialCache] = {}
        self._distributions: dict[tuple[int, str], BaseDistribution] = {}

    def __getstate__(self) -> dict[str, str]:
        return {"url": self._database.url}

    def __setstate__(self, state: Mapping[str, str]) -> None:
        self._database = Database(parse_url(state["url"]))
        self._prepare()

    def remove_session(self) -> None:
        """Give idle connections back to the server. The storage stays usable."""
        self._database.engine.dispose()

    # --- studies ------------------------------------------------------------------------------------

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """See `BaseStorage`. Raises `BadName` for a name that Postgres cannot store."""
        name = f"no-name-{uuid.uuid4()}" if study_name is None else checked_name(study_name, "the study's name")
        names = [direction.name.lower() for direction in directions]
        row = self._row(_NEW_STUDY, name=name, directions=names, owner=whoami())
        if row is None:
            raise DuplicatedStudyError(f"there is a study named {name!r} already: load it, or choose another name")
        return int(row[0])

    def delete_study(self, study_id: int) -> None:
        """See `BaseStorage`. Everything that belongs to the study goes with it."""
        with self._database.engine.begin() as connection:
            if not studies.remove(connection, study_id, whoami()):
                raise _no_study(study_id)
        self._caches.pop(study_id, None)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """See `BaseStorage`."""
        self._set_study_attr(study_id, "user", key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """See `BaseStorage`."""
        self._set_study_attr(study_id, "system", key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        """See `BaseStorage`."""
        row = self._row(sa.text("SELECT study_id FROM studies WHERE name = :name"), name=_searchable(study_name))
        if row is None:
            raise KeyError(f"there is no study named {study_name!r}")
        return int(row[0])

    def get_study_name_from_id(self, study_id: int) -> str:
        """See `BaseStorage`."""
        return str(self._study(study_id).name)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """See `BaseStorage`."""
        return _directions(self._study(study_id).directions)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """See `BaseStorage`."""
        return self._study_attrs(study_id, "user")

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """See `BaseStorage`."""
        return self._study_attrs(study_id, "system")

    def get_all_studies(self) -> list[FrozenStudy]:
        """See `BaseStorage`."""
        attrs: dict[tuple[int, str], dict[str, Any]] = {}
        with self._autocommit.connect() as connection:
            rows = connection.execute(_STUDIES).all()
            for study, kind, name, value in connection.execute(
                sa.text("SELECT study_id, kind, name, value FROM study_attrs")
            ):
                attrs.setdefault((study, kind), {})[name] = json.loads(value)
        return [
            FrozenStudy(
                study_name=row.name,
                direction=None,
                directions=_directions(row.directions),
                user_attrs=attrs.get((row.study_id, "user"), {}),
                system_attrs=attrs.get((row.study_id, "system"), {}),
                study_id=row.study_id,
            )
            for row in rows
        ]

    # --- writing trials -----------------------------------------------------------------------------

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """See `BaseStorage`. Two callers at once, in any process, get different numbers.

        Raises:
            StudyBusy: a coordinator runs this study and gives out its numbers.
        """
        with self._database.engine.begin() as connection:
            number = connection.scalar(_NEXT_NUMBER, {"study": study_id})
            if number is None:
                raise self._why_no_number(study_id)
            new_id = trial_id(study_id, number)
            row = {"id": new_id, "study": study_id, "number": number, **_trial_columns(template_trial)}
            connection.execute(_NEW_TRIAL, row)
            if template_trial is not None:
                _insert_parts(connection, new_id, template_trial)
        return new_id

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """See `BaseStorage`. Raises `ValueError` when other trials have another kind of distribution."""
        self._check_distribution(trial_id, checked_name(param_name, "the parameter's name"), distribution)
        self._change_open_trial(
            _SET_PARAM, trial_id, name=param_name, value=float(param_value_internal),
            distribution=distribution_to_json(distribution),
        )  # fmt: skip
        self._distributions.setdefault((study_of(trial_id), param_name), distribution)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """See `BaseStorage`. Of several callers that start a waiting trial, one gets True."""
        before = ["waiting"] if state == TrialState.RUNNING else ["waiting", "running"]
        objectives = None if values is None else [float(value) for value in values]
        row = {"state": state.name.lower(), "values": objectives, "before": before, "channel": CHANNEL}
        if self._change(_SET_STATE, id=trial_id, **row):
            return True
        self._require_unfinished(trial_id)
        return False

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """See `BaseStorage`."""
        self._change_open_trial(_SET_VALUE, trial_id, step=int(step), value=float(intermediate_value))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """See `BaseStorage`."""
        self._set_trial_attr(trial_id, "user", key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """See `BaseStorage`."""
        self._set_trial_attr(trial_id, "system", key, value)

    # --- reading trials -----------------------------------------------------------------------------

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """See `BaseStorage`."""
        known = self._cache(study_of(trial_id)).finished(number_of(trial_id))
        if known is not None:
            return known
        with self._autocommit.connect() as connection:
            trials = freeze(connection, connection.execute(_TRIAL, {"id": trial_id}).all())
        if not trials:
            raise _no_trial(trial_id)
        return trials[0]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """See `BaseStorage`. Reads only what can have changed since this object's last look."""
        with self._autocommit.connect() as connection:
            trials = self._cache(study_id).refresh(connection)
        if states is not None:
            trials = [trial for trial in trials if trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """See `BaseStorage`. A trial whose value is NaN is never the best."""
        complete = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.COMPLETE,))
        directions = self.get_study_directions(study_id)
        if len(directions) > 1:
            raise RuntimeError("a study of several objectives has no single best trial: see its `best_trials`")
        valued = [(trial.values[0], trial) for trial in complete if not math.isnan(trial.values[0])]
        if not valued:
            raise ValueError(f"no trial of study {study_id} is complete yet")
        choose = max if directions[0] == StudyDirection.MAXIMIZE else min
        return choose(valued, key=lambda pair: pair[0])[1]

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        """See `BaseStorage`."""
        found = trial_id(study_id, trial_number)
        if self._row(sa.text("SELECT 1 FROM trials WHERE trial_id = :id"), id=found) is None:
            raise KeyError(f"study {study_id} has no trial number {trial_number}")
        return found

    # --- what they share ----------------------------------------------------------------------------

    def _row(self, statement: sa.TextClause, **values: Any) -> sa.Row[Any] | None:
        with self._autocommit.connect() as connection:
            return connection.execute(statement, values).first()

    def _change(self, statement: sa.TextClause, **values: Any) -> bool:
        with self._autocommit.connect() as connection:
            return connection.execute(statement, values).rowcount > 0

    def _change_open_trial(self, statement: sa.TextClause, trial_id: int, **values: Any) -> None:
        if not self._change(statement, id=trial_id, **values):
            self._require_unfinished(trial_id)

    def _require_unfinished(self, trial_id: int) -> None:
        row = self._row(_TRIAL, id=trial_id)
        if row is None:
            raise _no_trial(trial_id)
        if TrialState[row.state.upper()].is_finished():
            raise UpdateFinishedTrialError(f"trial {row.number} is over ({row.state}) and does not change any more")

    def _study(self, study_id: int) -> sa.Row[Any]:
        row = self._row(_STUDY, study=study_id)
        if row is None:
            raise _no_study(study_id)
        return row

    def _study_attrs(self, study_id: int, kind: str) -> dict[str, Any]:
        with self._autocommit.connect() as connection:
            rows = connection.execute(_STUDY_ATTRS, {"study": study_id, "kind": kind}).all()
        if not rows:
            raise _no_study(study_id)
        return {row.name: json.loads(row.value) for row in rows if row.name is not None}

    def _set_study_attr(self, study_id: int, kind: str, key: str, value: Any) -> None:
        name = checked_name(key, "the attribute's name")
        if not self._change(_SET_STUDY_ATTR, study=study_id, kind=kind, name=name, value=json.dumps(value)):
            raise _no_study(study_id)

    def _set_trial_attr(self, trial_id: int, kind: str, key: str, value: Any) -> None:
        name = checked_name(key, "the attribute's name")
        self._change_open_trial(_SET_TRIAL_ATTR, trial_id, kind=kind, name=name, value=json.dumps(value))

    def _why_no_number(self, study_id: int) -> Exception:
        try:
            name = self.get_study_name_from_id(study_id)
        except KeyError as error:
            return error
        return StudyBusy(
            f"study {name!r} is run by a coordinator, which alone makes its trials: enqueue one with it, or stop it "
            f"(`tune stop {name}`)"
        )

    def _check_distribution(self, trial_id: int, name: str, distribution: BaseDistribution) -> None:
        key = (study_of(trial_id), name)
        earlier = self._distributions.get(key) or self._stored_distribution(*key)
        if earlier is None:
            return
        try:
            check_distribution_compatibility(earlier, distribution)
        except ValueError:
            self._require_unfinished(trial_id)  # the contract: a finished trial is the first thing to complain about
            raise

    def _stored_distribution(self, study_id: int, name: str) -> BaseDistribution | None:
        row = self._row(_ANY_DISTRIBUTION, first=trial_id(study_id, 0), last=trial_id(study_id + 1, 0) - 1, name=name)
        return distribution_of(row[0]) if row is not None else None

    def _cache(self, study_id: int) -> TrialCache:
        return self._caches.setdefault(study_id, TrialCache(study_id))


def _trial_columns(template: FrozenTrial | None) -> dict[str, Any]:
    if template is None:
        return {"state": "running", "values": None, "now": True, "started": None, "ended": None}
    return {
        "state": template.state.name.lower(),
        "values": None if template.values is None else [float(value) for value in template.values],
        "now": False,
        "started": aware(template.datetime_start),
        "ended": aware(template.datetime_complete),
    }


def _insert_parts(connection: sa.Connection, new_id: int, template: FrozenTrial) -> None:
    params = [
        {"id": new_id, "name": checked_name(name, "the parameter's name"), "position": position,
         "value": float(template.distributions[name].to_internal_repr(value)),
         "distribution": distribution_to_json(template.distributions[name])}
        for position, (name, value) in enumerate(template.params.items())
    ]  # fmt: skip
    attrs = [
        {"id": new_id, "kind": kind, "name": checked_name(name, "the attribute's name"), "value": json.dumps(value)}
        for kind, items in (("user", template.user_attrs), ("system", template.system_attrs))
        for name, value in items.items()
    ]
    curve = [{"id": new_id, "step": step, "value": float(v)} for step, v in template.intermediate_values.items()]
    for statement, rows in (
        ("""INSERT INTO trial_params (trial_id, name, position, value, distribution)
            VALUES (:id, :name, :position, :value, :distribution)""", params),
        ("INSERT INTO trial_attrs (trial_id, kind, name, value) VALUES (:id, :kind, :name, :value)", attrs),
        ("INSERT INTO reports (trial_id, attempt, step, value) VALUES (:id, 0, :step, :value)", curve),
    ):  # fmt: skip
        if rows:
            connection.execute(sa.text(statement), rows)


def _directions(names: Sequence[str]) -> list[StudyDirection]:
    return [StudyDirection[name.upper()] for name in names]


def _searchable(name: str) -> str:
    # a name that cannot be stored was never stored: look for it, and find nothing
    try:
        return checked_name(name, "the study's name")
    except ValueError:
        raise KeyError(f"there is no study named {name!r}") from None


def _no_study(study_id: int) -> KeyError:
    return KeyError(f"there is no study with id {study_id}")


def _no_trial(trial_id: int) -> KeyError:
    return KeyError(f"there is no trial with id {trial_id}")
