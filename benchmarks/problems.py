"""Small problems of the shapes that users have: borders, kinks, penalties, noise, choices, trees.

Each is a minimisation. A problem that observes something other than its truth (noise, a penalty, a
failure) is scored by the truth. `HELD_OUT` problems are half of all, chosen by a checksum of their
names before any was run: nothing may be tuned on them.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Params = Mapping[str, Any]
Truth = Callable[[Params], float]
Observe = Callable[[float, Params, np.random.Generator], float]


@dataclass(frozen=True)
class Problem:
    """A function to minimise over a search space."""

    name: str
    parameters: Mapping[str, Mapping[str, Any]]
    """Space, as `parameters` of a study file."""
    truth: Truth
    """Value without noise and penalties; NaN or infinity where a configuration is invalid."""
    best: float
    """Minimum of `truth`."""
    observe: Observe = lambda value, params, rng: value
    """Return what a trial reports: a number, or NaN for a failure."""

    @property
    def held_out(self) -> bool:
        """True if nothing may be tuned on this problem."""
        return zlib.crc32(self.name.encode()) % 2 == 1


def _floats(count: int, low: float = 0.0, high: float = 1.0) -> dict[str, dict[str, Any]]:
    return {f"x{i}": {"type": "float", "min": low, "max": high} for i in range(count)}


def _array(params: Params) -> np.ndarray:
    return np.array([value for name, value in sorted(params.items(), key=_place) if name[0] == "x"])


def _place(item: tuple[str, Any]) -> int:
    return int(item[0][1:]) if item[0][1:].isdigit() else -1


def _bowl(optimum: float, scale: float = 1.0) -> Truth:
    return lambda params: scale * float(((_array(params) - optimum) ** 2).mean())


# --- where the optimum lies ---------------------------------------------------------------------


def _places() -> list[Problem]:
    found = [
        Problem(
            "integer-bowl-at-4-percent",
            {"w": {"type": "int", "min": 0, "max": 1000}},
            lambda p: float((p["w"] - 40) ** 2),
            0.0,
        ),
        Problem(
            "width-depth",
            {
                "width": {"type": "int", "min": 8, "max": 2048},
                "depth": {"type": "int", "min": 1, "max": 12},
            },
            lambda p: float((p["width"] - 40) ** 2 + 100 * (p["depth"] - 3) ** 2),
            0.0,
        ),
    ]
    for count, at in itertools.product((1, 2, 4), (0.0, 0.01, 0.04)):
        name = f"bowl-{count}d-at-{at:g}"
        found.append(Problem(name, _floats(count), _bowl(at, 1000.0), 0.0))
    found.append(Problem("linear-into-a-corner-5d", _floats(5), lambda p: _array(p).sum(), 0.0))
    found.append(Problem("bowl-in-the-middle-3d", _floats(3), _bowl(0.47), 0.0))
    return found


# --- surfaces -----------------------------------------------------------------------------------


def _kink(p: Params) -> float:
    return float(abs(math.log10(p["a"]) + 3.3) + abs(p["b"] - 3) / 10)


def _ridge(p: Params) -> float:
    x, y = p["x0"], p["x1"]
    return float(100 * abs(y - x) + (x - 0.7) ** 2)


def _needle(p: Params) -> float:
    return 1.0 - math.exp(-float(((_array(p) - 0.31) ** 2).sum()) / 0.002)


def _branin(p: Params) -> float:
    x, y = 15 * p["x0"] - 5, 15 * p["x1"]
    bent = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return float(bent**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10)


def _camel(p: Params) -> float:
    x, y = 4 * p["x0"] - 2, 2 * p["x1"] - 1
    return float((4 - 2.1 * x**2 + x**4 / 3) * x**2 + x * y + (-4 + 4 * y**2) * y**2)


def _rastrigin(p: Params) -> float:
    z = 4 * (_array(p) - 0.36)
    return float((z**2 - 0.5 * np.cos(2 * np.pi * z) + 0.5).sum())


def _rosenbrock(p: Params) -> float:
    z = 4 * _array(p) - 2
    return float((100 * (z[1:] - z[:-1] ** 2) ** 2 + (z[:-1] - 1) ** 2).sum())


def _ackley(p: Params) -> float:
    z = 20 * (_array(p) - 0.37)
    bowl = 20 - 20 * math.exp(-0.2 * math.sqrt(float((z**2).mean())))
    return float(bowl + math.e - math.exp(float(np.cos(2 * np.pi * z).mean())))


def _surfaces() -> list[Problem]:
    logarithmic = {"type": "float", "min": 1e-6, "max": 1.0, "log": True}
    linear = {"type": "float", "min": 0.0, "max": 10.0}
    return [
        Problem("kink-on-a-log-axis", {"a": logarithmic, "b": linear}, _kink, 0.0),
        Problem(
            "log-axis-declared-linear",
            {"a": {"type": "float", "min": 1e-6, "max": 1.0}, "b": linear},
            _kink,
            0.0,
        ),
        Problem(
            "linear-axis-declared-log",
            {"a": {"type": "float", "min": 1e-3, "max": 100.0, "log": True}},
            lambda p: float((p["a"] - 63.0) ** 2),
            0.0,
        ),
        Problem("ridge", _floats(2), _ridge, 0.0),
        Problem("needle-2d", _floats(2), _needle, 0.0),
        Problem("steps", _floats(3), lambda p: float(np.floor(6 * _array(p)).sum()), 0.0),
        Problem(
            "plateau-with-a-hole",
            _floats(2),
            lambda p: min(1.0, 8 * float(np.abs(_array(p) - 0.72).max())),
            0.0,
        ),
        Problem("branin", _floats(2), _branin, 0.397887),
        Problem("camel", _floats(2), _camel, -1.031628),
        Problem("rastrigin-4d", _floats(4), _rastrigin, 0.0),
        Problem("rosenbrock-4d", _floats(4), _rosenbrock, 0.0),
        Problem("ackley-6d", _floats(6), _ackley, 0.0),
        Problem("absolute-5d", _floats(5), lambda p: float(np.abs(_array(p) - 0.61).sum()), 0.0),
        Problem(
            "factors-of-a-million",
            _floats(3),
            lambda p: math.exp(14 * float(((_array(p) - 0.3) ** 2).sum())) - 1,
            0.0,
        ),
        Problem("constant", _floats(2), lambda p: 1.0, 1.0),
    ]


# --- penalties, failures, tails, noise ----------------------------------------------------------


def _penalised(penalty: float, share: float) -> Observe:
    return lambda value, p, rng: penalty if p["x0"] > 1 - share else value


def _with_normal(deviation: float) -> Observe:
    return lambda value, params, rng: value + rng.normal(0, deviation)


def _spoiled() -> list[Problem]:
    target = _bowl(0.37)
    found = []
    for penalty in (1e3, 1e6, 1e30, 1e100):
        name = f"penalty-of-{penalty:g}"
        found.append(Problem(name, _floats(2), target, 0.0, _penalised(penalty, 0.4)))
    found += [
        Problem("failures-in-a-half", _floats(3), target, 0.0, _penalised(math.nan, 0.5)),
        Problem("failures-in-nine-tenths", _floats(2), _bowl(0.05), 0.0, _penalised(math.nan, 0.9)),
        Problem(
            "too-large-networks-fail",
            {
                "width": {"type": "int", "min": 8, "max": 2048},
                "depth": {"type": "int", "min": 1, "max": 12},
            },
            lambda p: float(abs(p["width"] - 40) + abs(p["depth"] - 3)),
            0.0,
            lambda value, p, rng: math.nan if p["width"] * p["depth"] > 400 else value,
        ),
        Problem(
            "random-failures",
            _floats(3),
            target,
            0.0,
            lambda value, p, rng: math.nan if rng.random() < 0.2 else value,
        ),
        Problem(
            "scores-that-diverge",
            {"lr": {"type": "float", "min": 1e-5, "max": 10.0, "log": True}, **_floats(1)},
            lambda p: (math.log10(p["lr"]) + 2) ** 2 / 10 + (p["x0"] - 0.4) ** 2,
            0.0,
            lambda value, p, rng: value + 1e6 * max(0.0, p["lr"] - 0.3),
        ),
        Problem(
            "heavy-tail",
            _floats(2),
            target,
            0.0,
            lambda value, p, rng: value + 0.02 * abs(rng.standard_cauchy()),
        ),
        Problem(
            "lucky-tail",
            _floats(2),
            target,
            0.0,
            lambda value, p, rng: value + 0.02 * rng.standard_t(3),
        ),
        Problem(
            "noise-that-grows",
            _floats(3),
            target,
            0.0,
            lambda value, p, rng: value + rng.normal(0, 0.01 + 0.3 * value),
        ),
    ]
    for noise in (0.01, 0.05, 0.2):
        found.append(
            Problem(
                f"bowl-with-noise-{noise:g}",
                _floats(4),
                target,
                0.0,
                _with_normal(deviation=noise),
            )
        )
    return found


# --- integers, choices, trees, many parameters --------------------------------------------------


def _tree_space(depth: int) -> dict[str, dict[str, Any]]:
    space: dict[str, dict[str, Any]] = {}
    for i in range(depth):
        above = {"when": {f"go{i - 1}": True}} if i else {}
        space[f"go{i}"] = {"type": "categorical", "values": [True, False], **above}
        space[f"y{i}"] = {"type": "float", "min": 0.0, "max": 1.0, **above}
    return space


def _tree_truth(depth: int) -> Truth:
    def truth(p: Params) -> float:
        reached = [i for i in range(depth) if f"y{i}" in p]
        missed = sum((p[f"y{i}"] - 0.3) ** 2 for i in reached)
        return float(missed + 0.3 * (depth - len(reached)))

    return truth


def _kernel(p: Params) -> float:
    c = float((math.log10(p["c"]) - 1) ** 2 / 20)
    if p["kernel"] == "linear":
        return 0.4 + c
    if p["kernel"] == "poly":
        return 0.2 + c + float(abs(p["degree"] - 3) / 10)
    valley = math.log10(p["gamma"]) + 2 + 0.5 * math.log10(p["c"])
    return c + float(valley**2 / 20)


def _categories(count: int) -> Problem:
    values = [f"c{i}" for i in range(count)]
    ranks = {value: (i * 37 + 11) % count for i, value in enumerate(values)}
    return Problem(
        f"choice-of-{count}",
        {"c": {"type": "categorical", "values": values}, **_floats(1)},
        lambda p: ranks[p["c"]] / count + (p["x0"] - 0.3) ** 2,
        0.0,
    )


def _sparse(count: int, relevant: int) -> Problem:
    return Problem(
        f"{relevant}-of-{count}-matter",
        _floats(count),
        lambda p: float(((_array(p)[:relevant] - 0.37) ** 2).sum()),
        0.0,
    )


def _integer_bowl(bits: int) -> Truth:
    return lambda p: (math.log2(p["n"]) / bits - 0.6) ** 2 + (p["x0"] - 0.4) ** 2


def _spaces() -> list[Problem]:
    logarithmic = {"type": "float", "min": 1e-3, "max": 1e3, "log": True}
    found = [
        Problem(
            f"integers-to-2^{bits}",
            {"n": {"type": "int", "min": 1, "max": 2**bits, "log": bits > 8}, **_floats(1)},
            _integer_bowl(bits),
            0.0,
        )
        for bits in (8, 20, 40)
    ]
    found += [
        Problem(
            "seven-configurations",
            {"c": {"type": "categorical", "values": list("abcdefg")}},
            lambda p: float("dgbface".index(p["c"])),
            0.0,
        ),
        Problem(
            "integers-of-two-values",
            {f"x{i}": {"type": "int", "min": 0, "max": 1} for i in range(10)},
            lambda p: float(np.abs(_array(p) - np.arange(10) % 2).sum()),
            0.0,
        ),
        Problem(
            "kernel-changes-what-matters",
            {
                "kernel": {"type": "categorical", "values": ["linear", "poly", "rbf"]},
                "c": logarithmic,
                "degree": {"type": "int", "min": 2, "max": 6, "when": {"kernel": "poly"}},
                "gamma": {
                    "type": "float",
                    "min": 1e-5,
                    "max": 10.0,
                    "log": True,
                    "when": {"kernel": "rbf"},
                },
            },
            _kernel,
            0.0,
        ),
        Problem("tree-3-deep", _tree_space(3), _tree_truth(3), 0.0),
        Problem("tree-10-deep", _tree_space(10), _tree_truth(10), 0.0),
        Problem(
            "mixed",
            {
                "c": {"type": "categorical", "values": ["a", "b", "c"]},
                "n": {"type": "int", "min": 1, "max": 64, "log": True},
                **_floats(3),
            },
            lambda p: (
                "bca".index(p["c"]) / 4
                + (math.log2(p["n"]) - 4) ** 2 / 20
                + float(((_array(p) - 0.37) ** 2).sum())
            ),
            0.0,
        ),
    ]
    found += [_categories(count) for count in (2, 10, 30, 100)]
    found += [_sparse(*sizes) for sizes in ((10, 2), (30, 3), (100, 4))]
    found.append(Problem("bowl-20d", _floats(20), _bowl(0.37), 0.0))
    return found


PROBLEMS: Mapping[str, Problem] = {
    problem.name: problem for problem in (*_places(), *_surfaces(), *_spoiled(), *_spaces())
}
