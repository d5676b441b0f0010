"""Studies that learn from earlier ones, and studies whose space grows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import optuna
import pytest

from tests.support.command_line import Tune
from tests.support.ray_results import Results, report
from tests.support.simulation import Simulation, curve
from tests.support.specs import make_spec
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.errors import StudyExists, StudyNotFound
from tunesvc.execution.executor import Launch, Payload
from tunesvc.queries.explain.explanation import explain_study
from tunesvc.queries.studies import get_study
from tunesvc.queries.study_replay import replay_study
from tunesvc.queries.trials.trial_table import list_trials
from tunesvc.runtime.run_study import StudySource, create_or_resume
from tunesvc.spec.yaml.document import parse

LAYERS = {"type": "categorical", "values": ["one", "two"]}


def offset(shift: float) -> object:
    def script(launch: Launch) -> Iterable[tuple[float, Payload]]:
        return curve((float(launch.params["x"]) - 0.3) ** 2 + shift)  # type: ignore[arg-type]

    return script


def test_a_warm_started_study_begins_with_the_best_and_looks_near_them(database: Database) -> None:
    one = {"x": {"type": "float", "min": 0.0, "max": 1.0}}
    Simulation(
        database, make_spec(name="before", parameters=one, budget={"trials": 40}), offset(0.0)
    ).run()  # type: ignore[arg-type]
    before = get_study(database, "before")
    spec = make_spec(
        warm_start=["before"], parameters=one, sampler={"name": "tpe", "seed": 3}, parallelism=1
    )
    simulation = Simulation(database, spec, offset(5.0))  # type: ignore[arg-type]
    simulation.run()
    view = get_study(database, "test")
    rows = list_trials(database, view.study_id)
    best = list_trials(database, before.study_id, order="best", limit=3)
    assert [row.params for row in rows[:3]] == [row.params for row in best]
    assert len(rows) == 10  # what is carried counts as no trial of this study
    # ten trials alone would still be TPE's random start
    assert sum(abs(float(row.params["x"]) - 0.3) < 0.25 for row in rows[3:]) >= 6  # type: ignore[arg-type]
    explanation = " ".join(said.text for said in explain_study(database, view).statements)
    assert "Warm start: 40 trials from before" in explanation


def test_a_warm_start_from_nothing_is_refused(database: Database) -> None:
    with pytest.raises(StudyNotFound):
        create_or_resume(database, make_spec(warm_start=["befor"]), StudySource(), resume=False)


def test_a_range_and_choices_may_grow_and_old_trials_still_teach(database: Database) -> None:
    narrow = {"x": {"type": "float", "min": 0.4, "max": 1.0}, "layers": LAYERS}
    spec = make_spec(parameters=narrow, sampler={"name": "tpe", "seed": 1, "n_startup_trials": 5})
    Simulation(database, spec, offset(0.0)).run()  # type: ignore[arg-type]
    wide = {
        "x": {"type": "float", "min": 0.0, "max": 1.0},
        "layers": {**LAYERS, "values": ["zero", "one", "two"]},
    }
    grown = spec.model_validate_json(
        make_spec(
            parameters=wide, sampler=spec.sampler.model_dump(), budget={"trials": 60}
        ).model_dump_json()
    )
    create_or_resume(database, grown, StudySource(), resume=True)
    simulation = Simulation(database, grown, offset(0.0))  # type: ignore[arg-type]
    before = list_trials(database, simulation.record.study_id)
    simulation.run()
    rows = list_trials(database, simulation.record.study_id)
    assert [row.params for row in rows[:10]] == [row.params for row in before]
    assert min(float(row.params["x"]) for row in rows[10:]) < 0.4  # type: ignore[arg-type]
    assert "zero" in {row.params["layers"] for row in rows[10:]}
    # a sampler that lost the old trials, or the parameter, would not have moved to where it is best
    late = [abs(float(row.params["x"]) - 0.3) for row in rows[40:]]  # type: ignore[arg-type]
    assert sorted(late)[len(late) // 2] < 0.15
    assert not simulation.recorder.texts("warning")
    replayed = replay_study(database, get_study(database, "test"))
    assert (
        replayed.asks.agreeing,
        replayed.asks.compared,
        sum(replayed.asks.skipped.values()),
    ) == (50, 50, 10)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"x": {"type": "float", "min": 0.5, "max": 1.0}}, "may grow, not shrink"),
        (
            {"x": {"type": "float", "min": 0.1, "max": 1.0, "log": True}},
            "`log` and `step` cannot change",
        ),
        ({"x": {"type": "int", "min": 0, "max": 1}}, "was float and cannot become int"),
        ({"x": {"type": "float", "min": 0.0, "max": 1.0}, "y": LAYERS}, "y is new"),
        ({"y": LAYERS}, "x is gone"),
    ],
)
def test_what_is_no_widening_is_refused_with_its_reason(
    database: Database, parameters: dict[str, object], expected: str
) -> None:
    spec = make_spec(
        parameters={"x": {"type": "float", "min": 0.0, "max": 1.0}}, budget={"trials": 2}
    )
    Simulation(database, spec).run()
    with pytest.raises(StudyExists, match=expected):
        create_or_resume(database, make_spec(parameters=parameters), StudySource(), resume=True)


def test_a_study_made_with_plain_optuna_is_carried_or_warned_about_at_the_start(
    database: Database,
) -> None:
    """Case A13."""
    for name, direction in (("plain", "minimize"), ("contrary", "maximize")):
        study = optuna.create_study(
            storage=PgStorage(database), study_name=name, direction=direction
        )
        study.optimize(
            lambda trial: trial.suggest_float("x", 0, 1) + trial.suggest_int("n", 1, 8), n_trials=5
        )
    simulation = Simulation(
        database, make_spec(warm_start=["plain", "contrary"], budget={"trials": 4})
    )
    simulation.run()
    view = get_study(database, "test")
    first = list_trials(database, view.study_id)[0]
    assert (
        first.params
        == optuna.load_study(storage=PgStorage(database), study_name="plain").best_params
    )
    warning = (
        "warm start: nothing is transferred: 0 trials from contrary (left out: 5 another goal)"
    )
    assert simulation.recorder.texts("warning") == [warning]


def sqlite(folder: Path) -> str:
    return f"sqlite:///{folder}/old.db"


def journal(folder: Path) -> optuna.storages.BaseStorage:
    file = optuna.storages.journal.JournalFileBackend(str(folder / "old.log"))
    return optuna.storages.JournalStorage(file)


@pytest.mark.parametrize("old", [sqlite, journal])
def test_a_study_in_a_file_of_optuna_is_copied_with_its_curves_and_teaches(
    database: Database, tmp_path: Path, old: Callable[[Path], Any]
) -> None:
    """As docs/importing.md says."""
    source = old(tmp_path)
    study = optuna.create_study(storage=source, study_name="old")
    for x in (0.1, 0.3, 0.9):
        study.enqueue_trial({"x": x})
        trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
        trial.report(x + 1, 0)
        study.tell(trial, (x - 0.3) ** 2)
    to = PgStorage(database)
    optuna.copy_study(from_study_name="old", from_storage=source, to_storage=to)
    copied = optuna.load_study(study_name="old", storage=to).trials
    assert [trial.intermediate_values for trial in copied] == [
        trial.intermediate_values for trial in study.trials
    ]
    one = {"x": {"type": "float", "min": 0.0, "max": 1.0}}
    spec = make_spec(warm_start=["old"], parameters=one, budget={"trials": 4}, parallelism=1)
    simulation = Simulation(database, spec)
    simulation.run()
    view = get_study(database, "test")
    assert list_trials(database, view.study_id)[0].params == study.best_params
    explanation = " ".join(said.text for said in explain_study(database, view).statements)
    assert "Warm start: 3 trials from old" in explanation


def test_results_of_ray_tune_are_carried(database: Database, tmp_path: Path) -> None:
    results = Results(tmp_path / "before")
    for place in range(12):
        x = (place + 0.5) / 12
        results.add({"x": x}, [report(1, (x - 0.3) ** 2, done=True)])
    results.write_state()
    results.read().store(PgStorage(database))
    one = {"x": {"type": "float", "min": 0.0, "max": 1.0}}
    spec = make_spec(warm_start=["before"], parameters=one, parallelism=1)
    Simulation(database, spec, offset(5.0)).run()  # type: ignore[arg-type]
    view = get_study(database, "test")
    first = [row.params["x"] for row in list_trials(database, view.study_id)[:3]]
    assert first == [pytest.approx((place + 0.5) / 12) for place in (3, 4, 2)]
    explanation = " ".join(said.text for said in explain_study(database, view).statements)
    assert "Warm start: 12 trials from before" in explanation


def test_the_guide_imports_a_folder_of_ray_tune(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "importing.md").read_text()
    command = re.findall(r"^tune (import ray_results.*)$", guide, re.MULTILINE)
    script = re.search(r"`tuner.py`:\n\n```python\n(.*?)```", guide, re.DOTALL)
    assert script is not None
    (tmp_path / "tuner.py").write_text(script[1])
    results = Results(tmp_path / "ray_results" / "digits")
    for hidden in (8, 64):
        results.add({"lr": 0.01, "hidden": hidden}, [report(3, 0.0, accuracy=0.5)])
    results.write_state()
    tune = Tune(tmp_path, tmp_path, TUNE_DATABASE_URL=database_url)
    tune.here(*command[0].split())
    stored = list_trials(database, get_study(database, "digits").study_id)
    assert [(row.values, row.params["hidden"]) for row in stored] == [((0.5,), 8), ((0.5,), 64)]
    study = parse((tmp_path / "study.yaml").read_text())
    assert (study.name, study.warm_start) == ("digits-2", ("digits",))
    assert "would be overwritten" in tune.here(*command[0].split(), code=2)
