"""A stored study as an object: results, figures, requests and runs.

Every command of the command line is a method here. Properties are read from the database each time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from tunesvc.artifacts.checkpoint_archive import unpack_into
from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.study_records import StudyRecord
from tunesvc.errors import StudyFailed, StudyNotFound, TuneError
from tunesvc.execution.objectives.ray_tune_space import nested
from tunesvc.models.model_store import ModelMetadata, ModelStore
from tunesvc.models.trained_model import TrainedModel
from tunesvc.plots import Plots
from tunesvc.queries.checkpoint_files import find_best_checkpoint, open_checkpoint
from tunesvc.queries.confirmation import Confirmation, get_confirmation
from tunesvc.queries.cost.outlook import Outlook, get_outlook
from tunesvc.queries.explain.explanation import Explanation, explain_study, explain_trial
from tunesvc.queries.explain.pruning_audit import Audit, get_audit
from tunesvc.queries.export.dataframe import build_dataframe
from tunesvc.queries.health import Health, health
from tunesvc.queries.operations.data_lineage import get_data
from tunesvc.queries.operations.final_results import (
    TestResult,
    TestUse,
    get_test_result,
    list_test_uses,
)
from tunesvc.queries.operations.request_log import list_requests
from tunesvc.queries.recommendation import answer_rows, find_best_trial, get_recommendation
from tunesvc.queries.rows import RequestRow, StudyView, TrialDetail, TrialRow
from tunesvc.queries.studies import get_study
from tunesvc.queries.study_failure import find_failure
from tunesvc.queries.trials.attempt_events import get_curves, list_logs
from tunesvc.queries.trials.population_tree import get_schedule
from tunesvc.queries.trials.trial_results import get_results
from tunesvc.queries.trials.trial_table import get_trial, list_trials
from tunesvc.run_options import RunOptions, check_names
from tunesvc.runs import refusal_recorded, run_record
from tunesvc.runtime import confirm, study_requests
from tunesvc.runtime.run_study import StudySource, move
from tunesvc.spec.units import parse_duration_s
from tunesvc.stages import final_stages
from tunesvc.util.paths import home_directory, is_url
from tunesvc.util.user import whoami

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

    from tunesvc.search.analysis.recommend import Recommendation


class Study:
    """A stored study. `tunesvc.run`, `train.tune` and `tunesvc.load_study` return one."""

    def __init__(self, name: str, database: Database, *, interrupted: bool = False) -> None:
        self.name = name
        self.interrupted = interrupted
        """True if `interrupt` or `timeout` ended the run; `resume` continues it."""
        self._database = database

    def __repr__(self) -> str:
        view = self.view
        counts = f"{view.counts.complete} complete, {view.counts.pruned} pruned"
        return f"<Study {self.name!r}: {view.state}, {counts}>"

    def _repr_html_(self) -> str:
        """Return HTML for a notebook: state, history and best parameters; without scripts."""
        from tunesvc.views.study_card import CardReader, card

        return card(CardReader(self._database, self.name).read())

    # --- state ------------------------------------------------------------------------------------

    @property
    def view(self) -> StudyView:
        """State, counts, spec and budget, read together."""
        return get_study(self._database, self.name)

    @property
    def state(self) -> str:
        """`created`, `running`, `interrupted` (no process runs it), `paused`, `finished`, `stopped`
        or `failed`."""
        return self.view.state

    @property
    def reason(self) -> str:
        """The reason for that state."""
        return self.view.reason

    @property
    def failure(self) -> StudyFailed | None:
        """The error that `run` raises for a study without a result; None for any other."""
        return find_failure(self._database, self.name)

    @property
    def health(self) -> Health:
        """Findings of the checks of `tune doctor`, with advice."""
        return health(self._database, self.view)

    def outlook(self, trials: int | None = None) -> Outlook | None:
        """Forecast what further trials cost and how much they improve the best value.

        None before the first finished trial. `gain` is None, with a `reason`, where nothing can be
        forecast, such as before 20 finished trials.

        Args:
            trials: number of further trials; by default a quarter of those that have finished.
        """
        view = self.view
        return get_outlook(view, get_results(self._database, view.study_id), trials)

    @property
    def requests(self) -> Sequence[RequestRow]:
        """Requests to the study with their answers, newest first."""
        return list_requests(self._database, self.view.study_id, limit=200)

    # --- results ----------------------------------------------------------------------------------

    @property
    def trials(self) -> Sequence[TrialRow]:
        """All trials by number."""
        view = self.view
        return view.as_given(list_trials(self._database, view.study_id))

    def trial(self, number: int) -> TrialDetail:
        """Return one trial with its attempts, decisions and attributes.

        Raises:
            StudyNotFound: it has no trial of that number.
        """
        found = get_trial(self._database, self.view.study_id, number)
        if found is None:
            raise StudyNotFound(f"study {self.name!r} has no trial {number}")
        return found

    @property
    def best_trial(self) -> TrialRow:
        """The recommended trial: the best by the repeats of `confirm`, else by the model.

        It need not be the best observed one. For several objectives: the first of the Pareto front.

        Raises:
            TuneError: no trial is complete and feasible.
        """
        view = self.view
        return view.as_given([find_best_trial(self._database, view)])[0]

    @property
    def best_trials(self) -> Sequence[TrialRow]:
        """The Pareto front; for one objective, `best_trial`. Empty without a feasible trial."""
        rows = self.answer[1]
        return rows if len(self.view.objectives) > 1 else rows[:1]

    @property
    def best_params(self) -> dict[str, Any]:
        """Parameters and constants of `best_trial` as arguments: `train(**study.best_params)`.

        Names with slashes are nested, as in a Ray Tune `config`.

        Raises:
            TuneError: no trial is complete and feasible.
        """
        spec = self.view.spec
        constants = {} if spec is None else dict(spec.constants)
        return nested({**constants, **self.best_trial.params})

    @property
    def best_value(self) -> float:
        """The observed value of `best_trial`; the first of several.

        Raises:
            TuneError: no trial is complete and feasible.
        """
        value = self.best_trial.value
        if value is None:
            raise AssertionError("a complete trial has a value")
        return value

    def schedule(self, number: int | None = None) -> dict[str, Any]:
        """Return the lineage of `best_trial`, or of a trial: parameters by ranges of steps.

        `train.tune(name="again", search=study.schedule())` trains by it.

        Raises:
            StudyNotFound: it has no trial of that number.
            TuneError: no trial is complete yet, or that one has reported no step after 0.
        """
        number = self.best_trial.number if number is None else number
        return get_schedule(self._database, self.view, number).search

    @property
    def recommendation(self) -> Recommendation | None:
        """Evidence for `best_trial`: expected value, deviation, repeats, best observed trial."""
        return self.answer[0]

    @property
    def confirmation(self) -> Confirmation | None:
        """Results of `confirm` so far; None when it was never called."""
        return get_confirmation(self._database, self.name)

    @property
    def audit(self) -> Audit | None:
        """The measured error rate of the pruner, from finished trials that it would have stopped.

        None where the pruner audits nothing.
        """
        return get_audit(self._database, self.view)

    def explain(self, number: int | None = None) -> Explanation:
        """Explain the study, or a trial, in sentences with the recorded decisions behind them.

        Raises:
            StudyNotFound: it has no trial of that number.
        """
        view = self.view
        if number is None:
            return explain_study(self._database, view)
        found = explain_trial(self._database, view, number)
        if found is None:
            raise StudyNotFound(f"study {self.name!r} has no trial {number}")
        return found

    def logs(self, number: int) -> str:
        """Return a trial's output, of all its attempts and both streams."""
        study_id, after, pieces = self.view.study_id, (0, 0), []
        while rows := list_logs(self._database, study_id, number, after=after):
            pieces += [row.text for row in rows]
            after = rows[-1].cursor
        return "".join(pieces)

    def trials_dataframe(self) -> pd.DataFrame:
        """Return one row per trial: number, state, values, metrics, params, times."""
        return build_dataframe(self._database, self.view)

    def curves(self, metric: str | None = None) -> pd.DataFrame:
        """Return the learning curves of all trials: rows are steps, columns trial numbers.

        Missing reports are NaN.

        Args:
            metric: any reported metric; the first objective by default.

        Raises:
            ValueError: no trial reported it.
        """
        import pandas as pd

        view = self.view
        found = get_curves(self._database, view.study_id)
        if metric not in (None, view.objectives[0].name):
            found = tuple(curve.of(metric) for curve in found)
        columns = {}
        for curve in found:
            values = {point.step: point.value for point in curve.points}
            columns[curve.trial_number] = pd.Series(values, dtype=float)
        frame = pd.DataFrame(columns).rename_axis(index="step", columns="trial")
        frame = frame.dropna(axis="columns", how="all")
        if metric is not None and frame.empty:
            raise ValueError(f"no trial of study {self.name!r} reported {metric!r}")
        return frame.sort_index()

    def best_checkpoint(self, number: int | None = None) -> Path:
        """Return the path of the best checkpoint of `best_trial`, or of the trial `number`.

        One in an object store is copied to this machine first.

        Raises:
            StudyNotFound: it has no trial of that number.
            TuneError: there is no checkpoint, its files are not on this machine, or there is no
                best trial yet.
        """
        best = find_best_checkpoint(self._database, self.view, number)
        if not is_url(best.path):
            return Path(best.path)
        folder = home_directory() / "downloads" / self._record().key / str(best.trial_number)
        path = folder / best.checkpoint / best.path.rpartition("/")[2]
        if not path.exists():
            found = open_checkpoint(self._database, self.view, best.trial_number, best.checkpoint)
            unpack_into(found.archive(), path.parent)
        return path

    @property
    def plots(self) -> Plots:
        """Figures, under Optuna's names: `study.plots.optimization_history()`."""
        return Plots(self._database, self.name)

    def report(self, path: str | Path) -> Path:
        """Write a self-contained HTML page with results and all figures; return its path."""
        from tunesvc import charts

        target = Path(path)
        target.write_text(charts.report(self._database, self.view), encoding="utf-8")
        return target

    def optuna(self) -> optuna.Study:
        """Return the study as Optuna's own object, on our storage."""
        import optuna

        return optuna.load_study(study_name=self.name, storage=PgStorage(self._database))

    # --- requests ---------------------------------------------------------------------------------

    def pause(self) -> str:
        """Ask for no more trials and let the running ones finish; `resume` continues."""
        return self.request("pause")

    def stop(self, number: int | None = None) -> str:
        """End the study now, or one of its trials; their reports are kept."""
        return self.request("stop") if number is None else self.request("stop_trial", number=number)

    def extend(
        self,
        *,
        trials: int | None = None,
        wall: float | str | None = None,
        gpu_hours: float | None = None,
        cost: float | None = None,
    ) -> str:
        """Add to the budget.

        Args:
            trials: additional trials.
            wall: additional time, in seconds or such as `"2h"`.
            gpu_hours: additional GPU hours.
            cost: additional cost, in the currency of the study's prices.

        Raises:
            SpecError: nothing is added, or the budget has no such limit.
        """
        wall_s = None if wall is None else parse_duration_s(wall)
        more = {"trials": trials, "wall": wall_s, "gpu_hours": gpu_hours, "cost": cost}
        amounts = {name: amount for name, amount in more.items() if amount is not None}
        return self.request("extend", **amounts)

    def set_parallelism(self, trials: int | None) -> str:
        """Change the number of trials that run at a time; None: as many as fit."""
        return self.request("parallelism", trials=trials)

    def widen(self, parameters: Mapping[str, Mapping[str, Any]]) -> str:
        """Extend ranges and add choices: `widen({"lr": {"min": 1e-5}, "opt": {"values": ["x"]}})`.

        Raises:
            SpecError: a range would shrink, or the sampler cannot follow.
        """
        return self.request("widen", parameters=parameters)

    def enqueue(self, params: Mapping[str, Any] | None = None, *, near: int | None = None) -> str:
        """Run a trial with these values next; the sampler draws the others.

        Args:
            params: values by name.
            near: instead, the values of this trial, changed a little.

        Raises:
            SpecError: a value is outside of its range, or there is no such trial.
        """
        if (params is None) is (near is None):
            raise ValueError("give either `params` or `near`")
        if near is None:
            return self.request("enqueue", params=params)
        return self.request("enqueue", near=near)

    def retry(self, number: int) -> str:
        """Run the parameters of a finished trial once more, as a new trial."""
        return self.request("retry", number=number)

    def tag(
        self,
        *add: str,
        remove: Sequence[str] = (),
        number: int | None = None,
    ) -> tuple[str, ...]:
        """Add and remove tags of the study, or of its trial `number`; return the new tags."""
        return study_requests.tag(
            self._database,
            self.view.study_id,
            number,
            add=add,
            remove=remove,
            asked_by=whoami(),
        )

    def note(self, text: str, *, number: int | None = None) -> None:
        """Replace the note of the study, or of its trial `number`."""
        study_requests.note(self._database, self.view.study_id, number, text, asked_by=whoami())

    def delete(self) -> str:
        """Delete the study with its trials, logs and checkpoints; return a sentence about it.

        Raises:
            StudyBusy: a coordinator runs it.
        """
        return study_requests.remove(self._database, self.view.study_id, whoami())

    def request(self, kind: str, **payload: Any) -> str:
        """Send a request, by the name that `tune requests` shows; return its answer.

        A running study's coordinator carries it out within about a second; on a study without a
        coordinator it takes effect at once. The methods above are short forms of it;
        `tunesvc.runtime.study_requests` lists kinds and payloads.

        Raises:
            SpecError: the request makes no sense for this study.
        """
        return study_requests.request(self._database, self.view.study_id, kind, payload, whoami())

    # --- runs -------------------------------------------------------------------------------------

    def resume(
        self,
        *,
        function: Callable[..., Any] | None = None,
        folder: str | Path | None = None,
        sampler: BaseSampler | None = None,
        pruner: BasePruner | None = None,
        standby: bool = False,
        **options: Unpack[RunOptions],
    ) -> Study:
        """Continue the study with its stored spec.

        Args:
            function: the objective, for a study that was started from Python.
            folder: the new folder of its objective, if it was moved.
            sampler: the sampler object that it was started with, if any.
            pruner: the pruner object, likewise.
            standby: while another process runs it, wait, and take over when that one is gone.
            options: see `RunOptions`.

        Raises:
            StudyFailed, StudyBusy, UnsatisfiableRequest, LeaseLost, DatabaseUnavailable: see there.
        """
        check_names("resume", options)
        record = self._record()
        if folder is not None:
            record = move(self._database, record, Path(folder))
        source = StudySource(record.source_text, record.source_dir, function, sampler, pruner)
        interrupted = run_record(self._database, record, source, options, standby=standby)
        return Study(self.name, self._database, interrupted=interrupted)

    def confirm(
        self,
        top: int = 5,
        repeats: int = 5,
        *,
        function: Callable[..., Any] | None = None,
        **options: Unpack[RunOptions],
    ) -> Confirmation:
        """Run the finalists again with other seeds; return which is best, and with what certainty.

        The repeats are the study `NAME:confirm`. After an interruption, call this again to
        continue. Called with other numbers, it runs the missing repeats, and cancels waiting ones
        that are no longer needed.

        Args:
            top: number of finalists.
            repeats: runs of each.
            function: the objective, for a study that was started from Python.
            options: see `RunOptions`.

        Raises:
            TuneError: several metrics, no spec, or no finished trial.
            StudyBusy: another process runs the repeats.
        """
        if top < 1 or repeats < 1:
            raise ValueError("`top` and `repeats` are at least 1")
        check_names("confirm", options)
        record = self._record()
        if function is None and record.spec is not None and not record.spec.has_program:
            raise TuneError(
                f"study {self.name!r} was started from Python and its objective is not stored: "
                f"confirm it there, `{record.spec.confirm_command}`"
            )
        record = confirm.prepare(self._database, record, top=top, repeats=repeats)
        source = StudySource(record.source_text, record.source_dir, function)
        with refusal_recorded(self._database, record):
            run_record(self._database, record, source, {"check": False, **options})
        found = self.confirmation
        if found is None:
            raise StudyNotFound(f"the study {record.name!r} was deleted meanwhile")
        return found

    def test(
        self,
        *,
        again: bool = False,
        function: Callable[..., Any] | None = None,
        **options: Unpack[RunOptions],
    ) -> TestResult | None:
        """Evaluate the recommended trial on the test part, once; return how optimistic it was.

        It is trained as before, as the study `NAME:test`. Called again, it returns the recorded
        result and evaluates nothing. None if the run was interrupted; call it again to continue.

        Args:
            again: evaluate once more, such as when another trial is recommended by now. That is
                recorded, and the test part gives no clean estimate any more.
            function: the objective, for a study that was started from Python.
            options: see `RunOptions`.

        Raises:
            TuneError: no test part, several metrics, or no finished trial.
            StudyFailed: the trial failed.
        """
        check_names("test", options)
        return final_stages.test_study(
            self._database, self._record(), options, again=again, function=function
        )

    @property
    def test_result(self) -> TestResult | None:
        """The newest result of `test`; None if it was never called."""
        return get_test_result(self._database, self.view.study_id)

    @property
    def test_uses(self) -> tuple[TestUse, ...]:
        """All uses of the test part of the study's data, by any study, the first one first.

        Studies have one test part if they have the same inputs and the same rows in it, even if
        their versions differ, as by other `steps` or `folds`.
        """
        data = get_data(self._database, self.view.study_id)
        if data is None:
            return ()
        return list_test_uses(self._database, data.version, data.test_rows)

    def apply(
        self,
        number: int | None = None,
        *,
        out: str | Path | None = None,
        replace: bool = False,
        function: Callable[..., Any] | None = None,
        **options: Unpack[RunOptions],
    ) -> TrainedModel | None:
        """Train the recommended trial on training and validation part; return the stored model.

        It is the study `NAME:apply`, evaluated on the test part; `tunesvc.load_model(NAME)` loads
        the model anywhere. None if the run was interrupted; call it again to continue.

        Args:
            number: trains the parameters of this trial instead.
            out: a new folder for a copy of the model and its preparation.
            replace: store the model also if the artifact store has one of another study of the same
                name, as of another database.
            function: the objective, for a study that was started from Python.
            options: see `RunOptions`.

        Raises:
            TuneError: no finished trial, or the objective saves no model.
            DataError: another study of the same name has a model, and `replace` is off.
            StudyFailed: the training failed.
        """
        check_names("apply", options)
        metadata = final_stages.apply_study(
            self._database,
            self._record(),
            options,
            number=number,
            out=None if out is None else Path(out),
            replace=replace,
            function=function,
        )
        return None if metadata is None else TrainedModel(ModelStore.open().fetch(metadata.study))

    @property
    def model_metadata(self) -> ModelMetadata | None:
        """Metadata of the stored model of this study; None without one."""
        found = ModelStore.open().find(self.name)
        return found if found is not None and found.is_of(self._record().key) else None

    @property
    def answer(self) -> tuple[Recommendation | None, Sequence[TrialRow]]:
        """The recommendation, and its trials: see `queries.recommendation`."""
        view = self.view
        found = get_recommendation(self._database, view)
        return found, view.as_given(answer_rows(self._database, view, found))

    def _record(self) -> StudyRecord:
        with self._database.engine.connect() as connection:
            return study_records.find(connection, self.name)
