"""Optuna's own sampler suites on our Gaussian-process sampler, and on the one that chooses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)

from tunesvc.search.samplers.auto_sampler import AutoSampler
from tunesvc.search.samplers.gp.gp_sampler import GPSampler

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:optuna")


@pytest.mark.slow
class TestGP(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return partial(GPSampler, n_startup_trials=0)


class TestAuto(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return partial(AutoSampler, n_startup_trials=0)
