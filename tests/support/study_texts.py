"""Study files as text, and the mistakes that are found in them."""

from __future__ import annotations

import pytest

from tunesvc.errors import SpecError
from tunesvc.spec import StudySpec
from tunesvc.spec.yaml.document import parse

STUDY = """\
name: digits
entrypoint: digits:train
metric: {name: val_error, goal: minimize}
parameters:
  lr: {type: float, min: 1e-4, max: 1.0, log: true}
  optimizer: {values: [sgd, adam]}
  momentum: {type: float, min: 0.0, max: 0.99, when: {optimizer: sgd}}
budget: {trials: 200, gpu_hours: 40, wall: 12h}
"""


def faults_of(text: str) -> list[str]:
    """The messages of a refused study, without the lines that are shown below them."""
    with pytest.raises(SpecError) as caught:
        parse(text)
    return [line for line in str(caught.value).splitlines() if line.startswith("study.yaml:")]


def study(extra: str = "", **parameters: str) -> StudySpec:
    """STUDY with lines added and parameters replaced."""
    body = "".join(f"  {name}: {value}\n" for name, value in parameters.items())
    head, tail = STUDY.split("parameters:\n")[0], "budget: 10\n"
    return parse(head + "parameters:\n" + (body or "  x: {min: 0.0, max: 1.0}\n") + tail + extra)
