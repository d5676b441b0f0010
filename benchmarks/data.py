"""Prepared data beside the same study whose function loads and prepares by itself.

    python -m benchmarks.data [--rows 100000] [--columns 30] [--trials 12] [--out FILE]

Both studies train the same model with the same parameters on 60 % of one table, each on a random
part of its own. Counted and measured in the workers: preparations, the anonymous memory that a
trial's data takes, and the time until a trial has its data. `wall_s` is that of the whole command,
with the start of Ray and the preparation; `active_s` is that in which trials run. The prepared study is run
twice: the second finds its version.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

SCRIPT = '''
import re, time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def anonymous():
    text = Path("/proc/self/smaps_rollup").read_text()
    return 1024 * int(re.search(r"Anonymous: +(\\d+)", text)[1])


def count(what):
    with Path("counted").open("a") as file:
        file.write(f"{what}\\n")


class Counted(StandardScaler):
    """Counts its fits."""

    def fit(self, X, y=None, sample_weight=None):
        count("fit")
        return super().fit(X, y)


def judge(alpha, train, validation, trial, begun, before):
    trial.set_user_attr("ready_s", time.perf_counter() - begun)
    trial.set_user_attr("bytes", anonymous() - before)
    model = SGDClassifier(alpha=alpha, max_iter=3, tol=None, random_state=0).fit(*train)
    return 1 - model.score(*validation)


def prepared(alpha, trial):
    before, begun = anonymous(), time.perf_counter()
    train, validation = tuple(trial.data.train), tuple(trial.data.validation)
    return judge(alpha, train, validation, trial, begun, before)


def by_itself(alpha, trial):
    before, begun = anonymous(), time.perf_counter()
    table = pd.read_parquet("table.parquet")
    train, rest = train_test_split(table, train_size=0.6, random_state=0)
    validation, _ = train_test_split(rest, train_size=0.5, random_state=0)
    steps = make_pipeline(SimpleImputer(), Counted())
    X = steps.fit_transform(train.drop(columns="label"))
    train = X, train.label.to_numpy()
    validation = steps.transform(validation.drop(columns="label")), validation.label.to_numpy()
    return judge(alpha, train, validation, trial, begun, before)
'''
DATA = {
    "source": "table.parquet",
    "target": "label",
    "steps": [{"columns": "numeric", "apply": ["impute", {"class": "script:Counted"}]}],
}


def write_table(folder: Path, rows: int, columns: int) -> None:
    """Write rows of numbers with gaps, and a label that some of them decide."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(rows, columns))
    label = (numbers[:, :5].sum(axis=1) + rng.logistic(size=rows) > 0).astype(int)
    numbers[rng.random(numbers.shape) < 0.02] = np.nan
    frame = pd.DataFrame(numbers, columns=[f"c{number}" for number in range(columns)])
    frame.assign(label=label).to_parquet(folder / "table.parquet", index=False)


def run(folder: Path, name: str, function: str, trials: int, data: object) -> dict[str, Any]:
    """Run a study; return what was counted and measured."""
    import tunesvc

    spec = {
        "name": name,
        "entrypoint": f"script:{function}",
        "metric": "error",
        "parameters": {"alpha": {"min": 1e-6, "max": 1e-1, "log": True}},
        "sampler": "random",
        "budget": trials,
        "parallelism": 2,
        "seed": 1,
        "environment": {"env": {"OMP_NUM_THREADS": "1"}},
    }
    if data is not None:
        spec["data"] = data
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps(spec))
    counted = folder / "counted"
    counted.write_text("")
    begun = time.perf_counter()
    study = tunesvc.run(file)
    wall_s = time.perf_counter() - begun
    found = study.optuna().trials
    ready_s = [trial.user_attrs["ready_s"] for trial in found]
    return {
        "study": name,
        "trials": len(found),
        "preparations": len(counted.read_text().splitlines()),
        "mb_copied_per_trial": round(median(trial.user_attrs["bytes"] for trial in found) / 1e6, 1),
        "mb_copied_first_trial": round(max(trial.user_attrs["bytes"] for trial in found) / 1e6, 1),
        "ready_s": round(median(ready_s), 3),
        "wall_s": round(wall_s, 1),
        "active_s": round(study.view.active_s, 1),
        "best_error": round(study.best_value or 0, 4),
    }


def main() -> None:
    """Run all three, and print and write a line for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--columns", type=int, default=30)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        os.environ.setdefault("TUNE_HOME", str(folder / "home"))
        (folder / "script.py").write_text(SCRIPT)
        write_table(folder, arguments.rows, arguments.columns)
        run(folder, "warm-up", "by_itself", 2, None)
        for study, function, data in (
            ("by-itself", "by_itself", None),
            ("prepared", "prepared", DATA),
            ("prepared-again", "prepared", DATA),
        ):
            lines.append(run(folder, study, function, arguments.trials, data))
            print(json.dumps(lines[-1]), flush=True)
    if arguments.out is not None:
        arguments.out.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


if __name__ == "__main__":
    main()
