"""Mistakes in a spec that only samplers and pruners can tell."""

from __future__ import annotations

from tunesvc.search.pruners import make_pruner
from tunesvc.search.samplers import make_sampler
from tunesvc.space import Space
from tunesvc.spec import StudySpec


def check(spec: StudySpec) -> None:
    """Find them before anything is started or stored.

    Raises:
        SpecError: no such sampler or pruner, or options that it refuses.
    """
    make_sampler(spec, Space(spec.parameters))
    make_pruner(spec)
