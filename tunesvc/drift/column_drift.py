"""Two-sample tests of single columns, with the size of the change beside the p-value.

Numbers: the Kolmogorov-Smirnov test (Hodges 1958, "The significance probability of the Smirnov
two-sample test"). Categories: Pearson's chi-square test of homogeneity, with rare values merged
until each expected count is at least 5 (Cochran 1954). Gaps: Fisher's exact test.

The population stability index (PSI) is the symmetric Kullback-Leibler divergence of binned shares
(Siddiqi 2006, "Credit Risk Scorecards").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Kind = Literal["numbers", "categories", "gaps"]
FEW_VALUES = 10
"""Numbers with at most so many distinct values are categories: ties weaken the other test."""
BINS = 10
"""Bins of numbers in the PSI: tenths of the earlier sample."""
EXACT_MAX = 1_000
"""Most values of a sample with which the Kolmogorov-Smirnov test is exact."""
_LEAST_EXPECTED = 5.0
_PSEUDO_COUNT = 0.5
"""Added to each bin, so that an empty one leaves the PSI finite."""


@dataclass(frozen=True, slots=True)
class ColumnTest:
    """A test of one column."""

    column: str
    kind: Kind
    p_value: float
    distance: float
    """Largest difference of the probability of any event of the test, 0 to 1: the statistic of
    Kolmogorov and Smirnov, the total variation of categories, the difference of shares of gaps."""
    psi: float | None
    """Population stability index; None for gaps."""
    before: int
    """Number of values in the earlier sample."""
    after: int


def compare_column(name: str, before: pa.ChunkedArray, after: pa.ChunkedArray) -> list[ColumnTest]:
    """Return the tests of a column: of its values, and of its gaps if there are any.

    A column without values in one of the samples has a test of gaps alone.
    """
    gaps = [_gaps(column) for column in (before, after)]
    tests = []
    if any(one.any() for one in gaps):
        tests.append(_test_gaps(name, *gaps))
    if all(len(one) > one.sum() for one in gaps):
        old, new = before.filter(pa.array(~gaps[0])), after.filter(pa.array(~gaps[1]))
        tests.append(_test_values(name, old, new))
    return tests


def _gaps(column: pa.ChunkedArray) -> np.ndarray:
    missing = pc.is_null(column, nan_is_null=True).to_numpy()
    return np.asarray(missing, dtype=bool)


def _test_gaps(name: str, before: np.ndarray, after: np.ndarray) -> ColumnTest:
    from scipy.stats import fisher_exact

    counts = [[int(gap.sum()), int(len(gap) - gap.sum())] for gap in (before, after)]
    p_value = float(fisher_exact(counts).pvalue)
    distance = abs(float(before.mean()) - float(after.mean())) if len(before) * len(after) else 0.0
    return ColumnTest(name, "gaps", p_value, distance, None, len(before), len(after))


def _test_values(name: str, before: pa.ChunkedArray, after: pa.ChunkedArray) -> ColumnTest:
    counts = _count_values(before, after)
    if _is_numeric(before.type) and _is_numeric(after.type) and counts.shape[1] > FEW_VALUES:
        return _test_numbers(name, _numbers(before), _numbers(after))
    return _test_categories(name, counts)


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_temporal(kind)
    )


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_temporal(column.type):
        wide = pa.types.is_date32(column.type) or pa.types.is_time32(column.type)
        column = column.cast(pa.int32() if wide else pa.int64())
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), dtype=float)


def _count_values(before: pa.ChunkedArray, after: pa.ChunkedArray) -> np.ndarray:
    """Return the counts of each value, shape (2, values): before, after."""
    if before.type != after.type:
        before, after = before.cast(pa.string()), after.cast(pa.string())
    both = pa.chunked_array([*before.chunks, *after.chunks], type=before.type)
    encoded = both.combine_chunks()
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode()
    codes = encoded.indices.to_numpy()
    distinct = len(encoded.dictionary)
    halves = (codes[: len(before)], codes[len(before) :])
    return np.array([np.bincount(half, minlength=distinct) for half in halves])


def _test_numbers(name: str, before: np.ndarray, after: np.ndarray) -> ColumnTest:
    from scipy.stats import ks_2samp

    is_small = max(len(before), len(after)) <= EXACT_MAX
    found = ks_2samp(before, after, method="exact" if is_small else "asymp")
    edges = np.unique(np.quantile(before, np.linspace(0, 1, BINS + 1)[1:-1]))
    binned = [np.searchsorted(edges, values, side="right") for values in (before, after)]
    counts = np.array([np.bincount(places, minlength=len(edges) + 1) for places in binned])
    sizes = (len(before), len(after))
    return ColumnTest(
        name, "numbers", float(found.pvalue), float(found.statistic), _psi(counts), *sizes
    )


def _test_categories(name: str, counts: np.ndarray) -> ColumnTest:
    from scipy.stats import chi2_contingency

    merged = _merge_rare(counts)
    p_value = 1.0
    if merged.shape[1] > 1:
        p_value = float(chi2_contingency(merged, correction=False).pvalue)
    shares = merged / merged.sum(axis=1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).sum()) / 2
    before, after = (int(total) for total in counts.sum(axis=1))
    return ColumnTest(name, "categories", p_value, distance, _psi(merged), before, after)


def _merge_rare(counts: np.ndarray) -> np.ndarray:
    """Merge values with too small expected counts into one; if that is rare too, add the next."""
    counts = counts[:, counts.sum(axis=0) > 0]
    counts = counts[:, np.argsort(-counts.sum(axis=0), kind="stable")]
    smaller = counts.sum(axis=1).min() / counts.sum()
    expected = counts.sum(axis=0) * smaller
    kept = int((expected >= _LEAST_EXPECTED).sum())
    if kept == counts.shape[1]:
        return counts
    while kept > 0 and expected[kept:].sum() < _LEAST_EXPECTED:
        kept -= 1
    return np.column_stack([counts[:, :kept], counts[:, kept:].sum(axis=1)])


def _psi(counts: np.ndarray) -> float:
    smooth = counts + _PSEUDO_COUNT
    old, new = smooth / smooth.sum(axis=1, keepdims=True)
    return float(((new - old) * np.log(new / old)).sum())
