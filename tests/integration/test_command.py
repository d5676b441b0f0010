"""Programs as objectives: real processes, run from this one."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.jobs_and_events import make_job, make_launch
from tunesvc import Pruned
from tunesvc.errors import BadReport
from tunesvc.execution.attempt.attempt import Attempt, WorkerInfo
from tunesvc.execution.attempt.failures import EntrypointError
from tunesvc.execution.attempt.report_pipe import LineReports
from tunesvc.execution.executor import AttrSet, Checkpointed, Reported
from tunesvc.execution.objectives.command import ProgramFailed, run_command, substitute
from tunesvc.execution.worker.batching import BatchSignal
from tunesvc.execution.worker.outbox import Outbox

MakeAttempt = Callable[..., Attempt]


BELL = BatchSignal()


@pytest.fixture
def attempt(tmp_path: Path) -> MakeAttempt:
    """Make an attempt that runs a command."""

    def make(*command: str, checkpoint: str | None = None, **params: Any) -> Attempt:
        launch = make_launch(7, checkpoint=checkpoint, **params)
        return Attempt(
            make_job(tmp_path, command=command),
            launch,
            WorkerInfo("here", 1),
            Outbox(BELL),
            BELL.lock,
        )

    return make


def shell(attempt: MakeAttempt, script: str, **params: Any) -> Attempt:
    return attempt("sh", "-c", script, **params)


def outbox_of(attempt: Attempt) -> Outbox:
    assert isinstance(attempt.events, Outbox)
    return attempt.events


def stop_when_it_reports(attempt: Attempt) -> None:
    with BELL.lock:
        BELL.wait(lambda: outbox_of(attempt).count(0) > 0, lambda: True, 30.0)
    attempt.stop()


def curve(attempt: Attempt) -> list[tuple[int, dict[str, float]]]:
    events = outbox_of(attempt).take(0)
    return [(p.step, dict(p.metrics)) for _, p in events if isinstance(p, Reported)]


def test_values_are_substituted_per_argument_and_no_shell_reads_them() -> None:
    command = ["train", "--lr=${lr}", "${name}", "$${lr}", "${on}", "$lr $$", "${none}"]
    params = {"lr": 0.1, "name": "a b; rm -rf ${lr}", "on": True, "none": None}
    assert substitute(command, params) == [
        "train",
        "--lr=0.1",
        "a b; rm -rf ${lr}",
        "${lr}",
        "true",
        "$lr $$",
        "null",
    ]


def test_an_option_is_a_flag_when_true_and_left_out_when_false_or_absent() -> None:
    """Case W20."""
    command = [
        "train",
        "${--amp}",
        "${--ema}",
        "${--learning-rate}",
        "${--depth}",
        "${--none}",
        "$${--amp}",
    ]
    params = {"amp": True, "ema": False, "learning_rate": 0.1, "none": None}
    assert substitute(command, params) == ["train", "--amp", "--learning-rate=0.1", "${--amp}"]
    assert substitute(["${--amp}"], {"--amp": True}) == ["true"], "as before there were options"


def test_a_name_that_is_no_parameter_is_refused() -> None:
    with pytest.raises(
        EntrypointError, match=r"\$\{lr\} is no parameter of this trial \(it has: rate\)"
    ):
        substitute(["train", "${lr}"], {"rate": 0.1})


def test_lines_of_any_process_are_reports_and_the_final_one_is_the_result(
    attempt: MakeAttempt,
) -> None:
    script = """
        echo '{"step": 1, "loss": 0.5}' > $TUNE_REPORTS
        echo '{"loss": 0.25, "ms": 3}' > $TUNE_REPORTS
        printf '{"final": {"loss": 0.125}}' > $TUNE_REPORTS
    """
    asked = shell(attempt, script)
    assert run_command(asked) == {"loss": 0.125}
    assert curve(asked) == [(1, {"loss": 0.5}), (2, {"loss": 0.25, "ms": 3.0})]


def test_the_environment_tells_the_program_what_it_is_running(attempt: MakeAttempt) -> None:
    asked = shell(
        attempt,
        'test "$TUNE_TRIAL.$TUNE_ATTEMPT.$TUNE_SEED.$TUNE_STUDY.$TUNE_PARAM_LEARNING_RATE" = 7.1.7.study.0.5 &&'
        """test "$TUNE_PARAMS" = '{"learning-rate": 0.5}'""",
        **{"learning-rate": 0.5},
    )
    assert run_command(asked) == {}


def test_a_checkpoint_is_kept_and_given_to_the_next_attempt(
    attempt: MakeAttempt, tmp_path: Path
) -> None:
    first = shell(
        attempt,
        """
        echo 41 > $TUNE_CHECKPOINT_DIR/state
        echo '{"step": 9, "loss": 1, "checkpoint": "state"}' > $TUNE_REPORTS
        """,
    )
    run_command(first)
    saved = next(p for _, p in outbox_of(first).take(0) if isinstance(p, Checkpointed))
    assert saved.step == 9
    assert Path(saved.path).read_text() == "41\n"
    second = shell(attempt, 'test "$(cat $TUNE_RESTORED)" = 41', checkpoint=saved.path)
    assert run_command(second) == {}


def test_a_checkpoint_is_kept_although_the_program_removes_it_at_once(attempt: MakeAttempt) -> None:
    program = (
        "import pathlib, tempfile, tunesvc\n"
        "trial = tunesvc.current_trial()\n"
        "for step in range(20):\n"
        "    with tempfile.TemporaryDirectory() as folder:\n"
        "        pathlib.Path(folder, 'state').write_text(str(step))\n"
        "        trial.report(step, loss=1.0)\n"
        "        trial.checkpoint(folder if step % 2 else pathlib.Path(folder, 'state'))\n"
    )
    asked = attempt(sys.executable, "-c", program)
    run_command(asked)
    saved = [Path(p.path) for _, p in outbox_of(asked).take(0) if isinstance(p, Checkpointed)]
    states = [(path / "state" if path.is_dir() else path).read_text() for path in saved]
    assert states == [str(step) for step in range(20)]
    handed_over = asked.directory / "checkpoints" / "handed-over"
    assert not list(handed_over.iterdir())


def test_text_that_a_program_hands_over_is_kept_on_the_trial(attempt: MakeAttempt) -> None:
    program = (
        "import json, os, tunesvc\n"
        "trial = tunesvc.current_trial()\n"
        "assert not list(trial.directory.iterdir())\n"
        "trial.set_user_attr('sizes', [1, 2])\n"
        "final = json.dumps({'final': {'loss': 1, 'note': 'text', 'eval': {'ms': 2}}})\n"
        "open(os.environ['TUNE_REPORTS'], 'a').write(final)\n"
    )
    asked = attempt(sys.executable, "-c", program)
    assert run_command(asked) == {"loss": 1.0, "eval/ms": 2.0}
    attributes = [p for _, p in outbox_of(asked).take(0) if isinstance(p, AttrSet)]
    assert attributes == [AttrSet("sizes", "[1, 2]"), AttrSet("note", '"text"')]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("loss=0.5", "no JSON object on one line (in the line 'loss=0.5')"),
        ("[1, 2]", "no JSON object such as"),
        ('{"step": 1}', "no metric"),
        ('{"step": -1, "loss": 1}', "step -1 is outside"),
        ('{"step": 1, "loss": "low"}', "metric loss is 'low'"),
        ('{"step": 1, "loss": null}', "metric loss is None"),
        ('{"final": 3}', "no JSON object such as"),
        ('{"checkpoint": "nowhere"}', "checkpoint 'nowhere' cannot be kept"),
    ],
)
def test_a_line_that_is_no_report_fails_the_attempt_and_is_quoted(
    attempt: MakeAttempt, line: str, message: str
) -> None:
    """Fault 23, for programs."""
    asked = attempt("sh", "-c", 'printf "%s\\n" "$0" > $TUNE_REPORTS; exec sleep 60', line)
    with pytest.raises(BadReport) as raised:
        run_command(asked)
    assert message in str(raised.value)


def test_nan_and_infinity_are_numbers(attempt: MakeAttempt) -> None:
    asked = shell(attempt, """echo '{"step": 1, "loss": NaN, "ms": -Infinity}' > $TUNE_REPORTS""")
    run_command(asked)
    assert str(curve(asked)) == "[(1, {'loss': nan, 'ms': -inf})]"


def test_another_exit_code_than_0_is_a_failure(attempt: MakeAttempt) -> None:
    with pytest.raises(ProgramFailed, match="sh ended with exit code 3"):
        run_command(shell(attempt, "exit 3"))
    with pytest.raises(ProgramFailed, match=r"exit code 137 \(SIGKILL\)"):
        run_command(shell(attempt, "kill -KILL $$"))


def test_a_program_that_is_not_there_is_an_entrypoint_error(
    attempt: MakeAttempt, tmp_path: Path
) -> None:
    with pytest.raises(EntrypointError, match="no program 'no-such-program'"):
        run_command(attempt("no-such-program"))
    (tmp_path / "script").write_text("not executable")
    with pytest.raises(EntrypointError, match="script"):
        run_command(attempt(str(tmp_path / "script")))


def test_a_stop_is_sigterm_to_the_whole_group(attempt: MakeAttempt) -> None:
    asked = shell(attempt, """echo '{"loss": 1}' > $TUNE_REPORTS; sleep 60 & wait""")
    threading.Thread(target=stop_when_it_reports, args=[asked]).start()
    with pytest.raises(Pruned):
        run_command(asked)


def test_reports_that_a_program_left_in_the_pipe_do_not_count_as_a_stop_that_it_saw(
    attempt: MakeAttempt, tmp_path: Path
) -> None:
    asked = attempt("true")
    reports = LineReports(asked.trial(), tmp_path, asked.job.metrics)
    asked.stop()
    reports.take(b'{"loss": 1}')
    assert curve(asked) == [(0, {"loss": 1.0})]
    assert not asked.noticed_stop


def test_a_result_that_the_program_hands_over_while_it_stops_counts(attempt: MakeAttempt) -> None:
    program = (
        "import os, signal, sys, time\n"
        "def stop(*_):\n"
        "    open(os.environ['TUNE_REPORTS'], 'w').write('{\"final\": {\"loss\": 2}}\\n')\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "pipe = open(os.environ['TUNE_REPORTS'], 'w')\n"
        "pipe.write('{\"loss\": 1}\\n')\n"
        # not left to its finalizer, in which Python ignores what the handler raises
        "pipe.close()\n"
        "while True: time.sleep(0.05)\n"
    )
    asked = attempt(sys.executable, "-c", program)
    threading.Thread(target=stop_when_it_reports, args=[asked]).start()
    assert run_command(asked) == {"loss": 2.0}


def test_what_the_program_leaves_running_ends_with_the_attempt(
    attempt: MakeAttempt, tmp_path: Path
) -> None:
    left = tmp_path / "left"
    run_command(shell(attempt, f"sleep 300 & echo $! > {left}"))
    assert dies(int(left.read_text()))


def dies(pid: int) -> bool:
    """Return whether a killed process is gone within seconds: the system takes its time."""
    give_up_at_s = time.monotonic() + 10.0
    while alive(pid):
        if time.monotonic() > give_up_at_s:
            return False
    return True


def alive(pid: int) -> bool:
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return bool(state.strip()) and not state.startswith("Z")


def test_current_trial_speaks_for_a_python_program(attempt: MakeAttempt) -> None:
    program = (
        "import tunesvc\n"
        "trial = tunesvc.current_trial()\n"
        "assert trial.params == {'lr': 0.5} and trial.number == 7 and trial.seed == 7\n"
        "for step in range(2): trial.report(step, loss=trial.params['lr'] * step)\n"
    )
    asked = attempt(sys.executable, "-c", program, lr=0.5)
    run_command(asked)
    assert curve(asked) == [(0, {"loss": 0.0}), (1, {"loss": 0.5})]


def test_current_trial_of_a_program_outside_a_study_discards_reports() -> None:
    program = "import tunesvc; trial = tunesvc.current_trial(); trial.report(0, loss=1.0); print(trial.params)"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TUNE_")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=clean, capture_output=True, text=True, check=True
    )
    assert done.stdout == "{}\n"
