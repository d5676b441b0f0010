from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import approx_fprime

from tunesvc.search.samplers.gp.model.warping import Warping

EXPONENTS = st.floats(0.14, 7.4)


@given(EXPONENTS, EXPONENTS, st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_a_warp_is_increasing_between_the_same_ends_and_can_be_undone(
    a: float, b: float, places: list[float]
) -> None:
    warping = Warping(np.array([a]), np.array([b]))
    line = np.sort(np.array([0.0, *places, 1.0]))[:, None]
    warped = warping.to(line)
    assert warped[0] == 0.0
    assert warped[-1] == 1.0
    assert (np.diff(warped[:, 0]) >= 0).all()
    assert np.allclose(warping.to(warping.back(warped)), warped, atol=1e-6)


@given(EXPONENTS, EXPONENTS, st.floats(0.01, 0.99))
def test_slopes_are_derivatives_by_the_logarithms(a: float, b: float, place: float) -> None:
    def warp(logs: np.ndarray) -> float:
        (found,) = Warping(*np.exp(logs)[:, None]).to(np.array([place]))
        return float(found)

    by_a, by_b = Warping(np.array([a]), np.array([b])).slopes(np.array([place]))
    numeric = approx_fprime(np.log([a, b]), warp, 1e-7)
    assert np.allclose([by_a[0], by_b[0]], numeric, atol=1e-4)


def test_ends_stay_where_they_are() -> None:
    by_a, by_b = Warping(np.array([0.3, 3.0]), np.array([0.3, 3.0])).slopes(np.eye(2))
    assert not by_a.any()
    assert not by_b.any()
