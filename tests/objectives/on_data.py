"""Objectives and a source for studies with prepared data."""

import os
import signal
import tempfile
from pathlib import Path

import pandas as pd
from sklearn.preprocessing import StandardScaler


def people():
    """Return rows of which one column decides the target; count the call in a file."""
    with Path("calls").open("a") as calls:
        calls.write("called\n")
    age = list(range(20_000))
    return pd.DataFrame({"age": age, "bought": [int(one > 10_000) for one in age]})


def people_of_a_task():
    """Raise with the task of Ray that runs this."""
    import ray

    raise RuntimeError(f"in task {ray.get_runtime_context().get_task_id()}")


class Kills(StandardScaler):
    """Kills its process the first time, and leaves a temporary folder."""

    def fit(self, rows, y=None):
        mark = Path("killed")
        if not mark.exists():
            mark.write_text(tempfile.mkdtemp())
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(rows, y)


def train(x, trial):
    """Record where the data lies."""
    matrix, y = trial.data.train
    trial.set_user_attr("rows", len(matrix))
    trial.set_user_attr("is_view", bool(not matrix.flags.owndata and not matrix.flags.writeable))
    maps = Path("/proc/self/maps").read_text()
    at = matrix.__array_interface__["data"][0]
    for line in maps.splitlines():
        begin, _, end = line.split()[0].partition("-")
        if int(begin, 16) <= at < int(end, 16):
            trial.set_user_attr("lies_in", line.split(maxsplit=5)[-1])
    return float(((matrix[:, 0] > x).astype(int) != y).mean())
