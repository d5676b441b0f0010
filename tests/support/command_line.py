"""`tune` as people type it: in a folder of its own, on a database or on a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

from typer.testing import CliRunner

from tunesvc.cli import app

HOSTILE = "=cmd|' /C calc'!A0"
PATIENCE_S = 100.0


class Tune:
    """`tune` in a folder, with an environment that names a database or a server."""

    def __init__(self, folder: Path, home: Path, **variables: str) -> None:
        self.folder = folder
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("TUNE_", "RAY_", "COLUMNS"))
        }
        self.env = {**kept, "TUNE_HOME": str(home), "NO_COLOR": "1", **variables}

    @property
    def is_remote(self) -> bool:
        """True if commands reach a server, and no database."""
        return "TUNE_SERVER" in self.env

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run a command; returns its standard output, or standard error when it must fail."""
        done = subprocess.run(
            self.program(arguments),
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout if code == 0 else done.stderr

    def here(self, *arguments: str, code: int = 0) -> str:
        """Run a command in this process, where all imports are done; returns what a process
        would have written."""
        without = {name: None for name in os.environ if name not in self.env}
        with chdir(self.folder):
            done = CliRunner().invoke(
                app, self.words(arguments), env=without | self.env, catch_exceptions=False
            )
        assert done.exit_code == code, f"exit code {done.exit_code}\n{done.output}"
        return done.stdout if code == 0 else done.stderr

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command and do not wait."""
        return subprocess.Popen(
            self.program(arguments),
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def program(self, arguments: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", "tunesvc", *self.words(arguments)]

    def words(self, arguments: Sequence[str]) -> list[str]:
        """Return the words of a command; `tune run` and `tune watch` need their server named."""
        command, *others = arguments
        named = ["--server", self.env["TUNE_SERVER"]] if self.is_remote else []
        return [command, *(named if command in ("run", "watch") else ()), *others]

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(textwrap.dedent(text))

    def resume(self, study: str) -> None:
        """Resume a study and wait until its budget is spent, on a server too."""
        self("resume", study, "--quiet")
        until_s = time.monotonic() + PATIENCE_S
        while json.loads(self.here("show", study, "--json"))["state"] != "finished":
            assert self.is_remote, "the command has run it"
            assert time.monotonic() < until_s, self.here("show", study)
            time.sleep(0.2)

    def erase(self) -> None:
        """Stop and delete all studies of a server."""
        until_s = time.monotonic() + PATIENCE_S
        while rows := json.loads(self.here("ls", "--json", "-n", "100")):
            assert time.monotonic() < until_s, rows
            for row in rows:
                if row["state"] in ("running", "queued", "interrupted"):
                    self.here("stop", row["name"])
                else:
                    self.here("rm", row["name"], "--yes")
            time.sleep(0.2)


OBJECTIVES = """
    import os
    import random
    import time
    from pathlib import Path

    def train(x, kind, *, trial):
        print(f"hello from {x}")
        for step in range(5):
            trial.report(step, loss=(x - 0.3) ** 2 + 1 / (step + 1))
        return (x - 0.3) ** 2

    def slow(x, kind, *, trial):
        for step in range(10):
            time.sleep(0.1)
            trial.report(step, loss=x)
        return x

    def noisy(x, kind, *, trial):
        return (x - 0.3) ** 2 + random.Random(trial.seed).random()

    def owns_its_gpu(x, kind, *, trial):
        gpu = Path(f"gpu-{os.environ['CUDA_VISIBLE_DEVICES']}")
        gpu.touch(exist_ok=False)
        time.sleep(0.5)
        gpu.unlink()
        return x

    def saving(x, kind, *, trial):
        for step, loss in enumerate((0.9, 0.2, 0.5)):
            trial.report(step, loss=loss + x)
            with open(f"model-{trial.number}.txt", "w") as model:
                model.write(f"{trial.number} after {step}")
            trial.checkpoint(model.name)
        return 0.5 + x

    def broken(x, kind, *, trial):
        raise RuntimeError("the data is gone")
    """


def write_study(tune: Tune, name: str, function: str, extra: str = "") -> None:
    """Write a study file of an objective beside it."""
    tune.write(
        f"{name}.yaml",
        f"""
        name: {name}
        entrypoint: bowl:{function}
        metric: {{name: loss, goal: minimize}}
        parameters:
          x: {{type: float, min: 0.0, max: 1.0}}
          kind: {{values: [plain, "{HOSTILE}"]}}
        budget: {{trials: 4}}
        parallelism: 1
        sampler: random
        seed: 1
        {extra}
        """,
    )


def prepared(tune: Tune) -> Tune:
    """Write the objectives and the study `bowl` into the folder of `tune`."""
    tune.write("bowl.py", OBJECTIVES)
    write_study(tune, "bowl", "train")
    return tune
