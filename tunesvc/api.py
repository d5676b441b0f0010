"""The Python API: run a study, resume it, ask something of it, read it, and use its storage with plain Optuna."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from tunesvc import confirming, insights, steering
from tunesvc.assembly import Source, enroll, move, run_study
from tunesvc.coordinator.progress import Note, Observer, SilentObserver
from tunesvc.errors import SpecError, StudyFailed, StudyNotFound, TuneError
from tunesvc.execute.ray_start import ExecutorMaker, Rays, ray_executor
from tunesvc.insights.confirmation import Confirmation, confirmation
from tunesvc.insights.failure import failure
from tunesvc.insights.health import Health, health
from tunesvc.search.check import option_faults
from tunesvc.search.recommend import Recommendation
from tunesvc.spec import StudySpec
from tunesvc.spec.checks import find_faults
from tunesvc.spec.document import StudyDocument, load
from tunesvc.store import studies
from tunesvc.store.database import Database, open_database
from tunesvc.store.storage import PgStorage
from tunesvc.store.studies import StudyRecord
from tunesvc.whoami import whoami

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    import plotly.graph_objects as go


def run(
    spec: StudySpec | StudyDocument | str | Path,
    *,
    function: Callable[..., Any] | None = None,
    database_url: str | None = None,
    resume: bool = False,
    observer: Observer | None = None,
    interrupt: threading.Event | None = None,
    make_executor: ExecutorMaker | None = None,
    check: bool = True,
) -> Study:
    """Run a study until its budget is spent, it is stopped, or `interrupt` is set.

    Args:
        spec: a spec, a study file that was read, or the path of one.
        function: the objective itself, when the spec names neither entrypoint nor command.
        database_url: a Postgres; without it `TUNE_DATABASE_URL`, else the embedded one.
        resume: go on with the study of that name if there is one.
        make_executor: of a Ray that starts already, see `Rays`; without it Ray starts now.
        check: raise `StudyFailed` when no trial came to a result; without it the study is returned all the same.

    Raises:
        StudyFailed: no trial came to a result; its cause is the objective's traceback.
        SpecError: the spec cannot be used.
        StudyExists: there is a study of that name, and `resume` is off.
        StudyBusy: another process runs it.
        UnsatisfiableRequest: the cluster can never meet its resource request.
    """
    spec, source = _read(spec, function)
    observer = observer or SilentObserver()
    with Rays() as rays:
        if make_executor is None:
            make_executor = rays.ahead(spec.cluster, source.folder).executor
        observer.note(Note("phase", "opening the database"))
        database = shared_database(database_url)
        record = enroll(database, spec, source, resume=resume, observer=observer)
        return _run(database, record, source, observer, interrupt, make_executor=make_executor, check=check)


def resume(
    name: str,
    *,
    function: Callable[..., Any] | None = None,
    folder: str | Path | None = None,
    database_url: str | None = None,
    standby: bool = False,
    observer: Observer | None = None,
    interrupt: threading.Event | None = None,
    make_executor: ExecutorMaker = ray_executor,
    check: bool = True,
) -> Study:
    """Go on with a stored study, with what its spec and source folder say.

    Args:
        check: raise `StudyFailed` when no trial came to a result, as `run` does.
        folder: where its objective lies now, if it was moved.
        standby: while another process runs it, wait and take over when that one is gone.
        make_executor: of a Ray that others use too, see `Rays`.

    Raises:
        StudyFailed, StudyNotFound, StudyBusy, UnsatisfiableRequest, LeaseLost, DatabaseUnavailable: as they say.
    """
    observer = observer or SilentObserver()
    observer.note(Note("phase", "opening the database"))
    database = shared_database(database_url)
    record = _find(database, name)
    if folder is not None:
        record = move(database, record, Path(folder))
    source = Source(record.source_text, record.source_dir, function)
    return _run(
        database, record, source, observer, interrupt, make_executor=make_executor, standby=standby, check=check
    )


def request(name: str, kind: str, payload: Mapping[str, Any] | None = None, *, database_url: str | None = None) -> str:
    """Ask something of a study; returns what came of it. What may be asked, and with what payload: `tunesvc.steering`.

    A running study's coordinator carries it out within about a second. On a study that nobody runs it is done at once.

    Raises:
        StudyNotFound: there is no such study.
        SpecError: it makes no sense for this study.
    """
    database = shared_database(database_url)
    return steering.request(database, _find(database, name).study_id, kind, payload or {}, whoami())


def remove(name: str, *, database_url: str | None = None) -> str:
    """Delete a study with its trials, logs and checkpoints, and end what a coordinator that is gone left running.

    Returns what was done.

    Raises:
        StudyNotFound: there is no such study.
        StudyBusy: somebody runs it.
    """
    database = shared_database(database_url)
    return steering.remove(database, _find(database, name).study_id, whoami())


def tag(
    name: str,
    number: int | None = None,
    *,
    add: Sequence[str] = (),
    remove: Sequence[str] = (),
    database_url: str | None = None,
) -> tuple[str, ...]:
    """Add and take away tags, of a study or of its trial `number`; returns those that it has now."""
    database = shared_database(database_url)
    return steering.tag(database, _find(database, name).study_id, number, add=add, remove=remove, who=whoami())


def note(name: str, text: str, number: int | None = None, *, database_url: str | None = None) -> None:
    """Write the note of a study, or of its trial `number`, in the place of the one before."""
    database = shared_database(database_url)
    steering.note(database, _find(database, name).study_id, number, text, who=whoami())


def load_study(name: str, *, database_url: str | None = None) -> Study:
    """A stored study, to read.

    Raises:
        StudyNotFound: there is no such study; the text suggests the nearest name.
    """
    database = shared_database(database_url)
    _find(database, name)
    return Study(name, database)


def place_of(name: str, *, database_url: str | None = None) -> tuple[str | None, str | None]:
    """Where a stored study runs: the cluster's address, None for this machine, and the folder of its objective.

    Raises:
        StudyNotFound: there is no such study.
    """
    record = _find(shared_database(database_url), name)
    return None if record.spec is None else record.spec.cluster, record.source_dir


def storage(url: str | None = None) -> PgStorage:
    """Our storage for anyone's own Optuna code: `optuna.create_study(storage=tunesvc.storage())`."""
    return PgStorage(shared_database(url))


class Study:
    """A stored study. Every property is read afresh."""

    def __init__(self, name: str, database: Database, *, interrupted: bool = False) -> None:
        self.name = name
        self.interrupted = interrupted
        """`interrupt` ended the run that returned this study: `resume` continues it."""
        self._database = database

    def __repr__(self) -> str:
        view = self.view
        return f"<Study {self.name!r}: {view.state}, {view.counts.complete} complete, {view.counts.pruned} pruned>"

    def _repr_html_(self) -> str:
        """How a notebook shows it: state, course and best parameters; self-contained, light, and without scripts."""
        from tunesvc.charts import notebook

        view = self.view
        answer = insights.recommended(self._database, view)
        best = insights.answer_rows(self._database, view, answer)[:3]
        course = insights.sparks(self._database, [view]).get(view.study_id, ())
        return notebook.card(view, best, course)

    @property
    def view(self) -> insights.StudyView:
        """State, counts, spec and budget."""
        return insights.study(self._database, self.name)

    @property
    def state(self) -> str:
        """`created`, `running`, `paused`, `finished`, `stopped` or `failed`."""
        return self.view.state

    @property
    def reason(self) -> str:
        """Why it is in that state."""
        return self.view.reason

    @property
    def failure(self) -> StudyFailed | None:
        """The error that `run` raises for a study that ended without a result; None for any other."""
        return failure(self._database, self.name)

    @property
    def trials(self) -> Sequence[insights.TrialRow]:
        """All trials by number."""
        view = self.view
        return view.as_given(insights.trials(self._database, view.study_id))

    @property
    def best(self) -> insights.TrialRow | None:
        """The trial to take: the best by the repeats of `confirm`, else by the model; it need not be the best observed.

        Of several objectives the first of the Pareto front; None when no trial is complete and feasible.
        """
        return next(iter(self.answer[1]), None)

    @property
    def answer(self) -> tuple[Recommendation | None, Sequence[insights.TrialRow]]:
        """The recommendation, and its trials: see `insights.answer_rows`."""
        view = self.view
        found = insights.recommended(self._database, view)
        return found, view.as_given(insights.answer_rows(self._database, view, found))

    @property
    def recommendation(self) -> Recommendation | None:
        """The evidence for `best`: expected value, deviation, repeats; and the trial with the best observed value."""
        return insights.recommended(self._database, self.view)

    @property
    def front(self) -> Sequence[insights.TrialRow]:
        """The Pareto front: the trials that no other beats in every objective; for one objective `best` alone."""
        return self.answer[1] if len(self.view.objectives) > 1 else self.answer[1][:1]

    @property
    def audit(self) -> insights.Audit | None:
        """How often the pruner errs, by the trials that it wanted stopped and that finished all the same; None where
        it audits nothing."""
        return insights.audit(self._database, self.view)

    def explain(self, number: int | None = None) -> insights.Explanation:
        """Why the study, or a trial of it, is as it is: sentences, and the recorded decisions that they rest on.

        Raises:
            StudyNotFound: it has no trial of that number.
        """
        view = self.view
        if number is None:
            return insights.explain_study(self._database, view)
        told = insights.explain_trial(self._database, view, number)
        if told is None:
            raise StudyNotFound(f"study {self.name!r} has no trial {number}")
        return told

    def confirm(
        self,
        top: int = 5,
        repeats: int = 5,
        *,
        function: Callable[..., Any] | None = None,
        observer: Observer | None = None,
        interrupt: threading.Event | None = None,
    ) -> Confirmation:
        """Run the finalists again with other seeds, and say which is best and how sure that is.

        The repeats are the study `NAME:confirm`. Interrupted, it goes on when this is called again; called with larger
        numbers, it runs what is missing.

        Args:
            top: how many finalists.
            repeats: how often each is run.
            function: the objective, for a study that was started from Python.

        Raises:
            TuneError: several metrics, no spec, or no finished trial.
            StudyBusy: another process runs the repeats.
        """
        if top < 1 or repeats < 1:
            raise ValueError("`top` and `repeats` are at least 1")
        record = confirming.prepare(self._database, _find(self._database, self.name), top=top, repeats=repeats)
        source = Source(record.source_text, record.source_dir, function)
        _run(self._database, record, source, observer or SilentObserver(), interrupt)
        told = self.confirmation
        if told is None:
            raise StudyNotFound(f"the study {record.name!r} was deleted meanwhile")
        return told

    @property
    def confirmation(self) -> Confirmation | None:
        """What `confirm` has found so far; None when it was never called."""
        return confirmation(self._database, self.name)

    @property
    def health(self) -> Health:
        """Whether it is well: what the checks of `tune doctor` find, with advice."""
        return health(self._database, self.view)

    def plot(self, kind: str = "history", *, objective: int = 0) -> go.Figure:
        """A Plotly figure, as the dashboard draws it; a notebook shows it by itself.

        Args:
            kind: `history`, `curves`, `parallel`, `importance`, `contour`, `slice`, `rank`, `correlations`,
                `distribution`, `timeline`; with several objectives `pareto` and, with two, `hypervolume`.
            objective: of several, which one it is about.

        Raises:
            ValueError: there is no such figure or objective.
            TuneError: there is nothing to draw yet; the text says why.
        """
        from tunesvc import charts

        view = self.view
        if kind not in charts.kinds_of(view):
            raise ValueError(f"no figure {kind!r}: this study has {', '.join(charts.kinds_of(view))}")
        if not 0 <= objective < len(view.objectives):
            raise ValueError(f"no objective {objective}: there are {len(view.objectives)}, counted from 0")
        made = charts.draw(charts.Kind(kind), charts.Reader(self._database, view), charts.Wanted(objective))
        if made.figure is None:
            raise TuneError(f"{made.title}: {made.note}")
        return made.figure

    def dataframe(self) -> pd.DataFrame:
        """One row per trial: number, state, values, params, times."""
        return insights.dataframe(self._database, self.view)

    def optuna(self) -> optuna.Study:
        """The same study as Optuna's own object, on our storage."""
        import optuna

        return optuna.load_study(study_name=self.name, storage=PgStorage(self._database))


def _run(
    database: Database,
    record: StudyRecord,
    source: Source,
    observer: Observer,
    interrupt: threading.Event | None,
    *,
    make_executor: ExecutorMaker = ray_executor,
    standby: bool = False,
    check: bool = False,
) -> Study:
    with _orderly_interrupt(record.name, interrupt) as interrupt:
        closing = run_study(
            database,
            record,
            source,
            make_executor=make_executor,
            observer=observer,
            interrupt=interrupt,
            standby=standby,
        )
        interrupted = interrupt.is_set() and closing.state is None
    if check and (error := failure(database, record.name)) is not None:
        raise error
    return Study(record.name, database, interrupted=interrupted)


@contextmanager
def _orderly_interrupt(name: str, interrupt: threading.Event | None) -> Iterator[threading.Event]:
    """Where the caller does not watch for Ctrl-C itself, the first one ends the run in order, and is raised then."""
    if interrupt is not None or threading.current_thread() is not threading.main_thread():
        yield interrupt or threading.Event()
        return
    event = threading.Event()

    def on_sigint(number: int, frame: FrameType | None) -> None:
        if event.is_set():
            signal.default_int_handler(number, frame)
        event.set()

    before = signal.signal(signal.SIGINT, on_sigint)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
    if event.is_set():
        raise KeyboardInterrupt(f"study {name!r} was interrupted; what is recorded is kept, `resume=True` goes on")


def _read(
    spec: StudySpec | StudyDocument | str | Path, function: Callable[..., Any] | None
) -> tuple[StudySpec, Source]:
    if isinstance(spec, StudySpec):
        faults = find_faults(spec, folder=Path.cwd(), with_function=function is not None)
        if faults := faults + option_faults(spec):
            raise SpecError("\n".join(str(fault) for fault in faults))
        return spec, Source(folder=str(Path.cwd()), function=function)
    document = spec if isinstance(spec, StudyDocument) else load(Path(spec), option_faults)
    return document.spec, Source(document.text, str(document.folder), function)


def _find(database: Database, name: str) -> StudyRecord:
    with database.engine.connect() as connection:
        return studies.find(connection, name)


def shared_database(url: str | None) -> Database:
    """One open database per URL and process; it closes itself when the program ends. Any thread may ask.

    Args:
        url: a Postgres; without it `TUNE_DATABASE_URL`, else the embedded one.
    """
    with _opening:
        return _opened(url)


_opening = threading.Lock()
_opened = functools.lru_cache(maxsize=8)(open_database)
