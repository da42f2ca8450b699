"""Estimates with intervals: shares, means over prompts, percentiles. Pure numpy; every function is deterministic."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
RESAMPLES = 2000
MIN_CLUSTERS = 2
LARGE = 10_000
_DRAWS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Estimate:
    """A value with its confidence interval and the number of observations behind it.

    ``value`` is None where there is not enough data; ``reason`` then says why. ``low`` and ``high`` are None where
    no interval can be given, such as for a mean over a single prompt.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    reason: str | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            raise ValueError("an estimate has either a value or a reason for having none")

    @classmethod
    def missing(cls, reason: str, n: int = 0) -> "Estimate":
        return cls(None, None, None, n, reason)

    def scaled(self, factor: float, offset: float = 0.0, floor: float = -math.inf) -> "Estimate":
        """The estimate of ``max(floor, factor·x + offset)``; ``factor`` must be positive, so that order is kept."""
        if factor <= 0:
            raise ValueError("a factor of zero or less would turn the interval round")

        def move(x: float | None) -> float | None:
            return None if x is None else max(floor, factor * x + offset)

        return Estimate(move(self.value), move(self.low), move(self.high), self.n, self.reason)


@dataclass(frozen=True)
class Percentiles:
    """Percentiles of ``n`` observations in their own unit; ``p99`` is None below 1000 observations."""

    p50: float
    p90: float
    p95: float
    p99: float | None
    n: int


def wilson(hits: float, n: float, confidence: float = CONFIDENCE) -> Estimate:
    """Share ``hits / n`` with its score interval (Wilson 1927), which stays inside 0–1 and is never empty at 0 or 1.

    ``n`` may be an effective sample size and so a fraction. Raises ValueError unless 0 <= hits <= n.
    """
    if not 0 <= hits <= n:
        raise ValueError(f"{hits} of {n} is not a share")
    if n == 0:
        return Estimate.missing("not_enough_data")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # Rounding must not push the value out of its own interval at 0 and 1.
    low, high = min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))
    return Estimate(share, low, high, round(n))


def clustered_share(hits: ArrayLike, clusters: ArrayLike, confidence: float = CONFIDENCE) -> Estimate:
    """Share of ``hits`` (0 or 1 each) where those of one cluster, such as the samples of one prompt, are alike.

    Wilson's interval at the effective sample size n / design effect (Kish 1965; for Wilson's interval Franco et al.
    2019, "Comparative Study of Confidence Intervals for Proportions in Complex Sample Surveys"). With one
    observation a cluster it is `wilson`. Where all observations agree the design effect cannot be seen, and the
    number of clusters is taken. ``n`` is the number of observations.
    """
    values = np.asarray(hits, float)
    n = len(values)
    if n == 0:
        return Estimate.missing("not_enough_data")
    sums, counts = _by_cluster(values, clusters)
    k, share = len(sums), float(values.mean())
    effective = float(n)
    if k < n:
        variance = _ratio_variance(sums, counts) if k >= MIN_CLUSTERS else 0.0
        effective = min(n, share * (1 - share) / variance) if variance > 0 and 0 < share < 1 else float(k)
    interval = wilson(min(share * effective, effective), effective, confidence)
    return Estimate(share, interval.low, interval.high, n)


def cluster_bootstrap(
    values: ArrayLike,
    clusters: ArrayLike,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Mean of ``values`` with the percentile interval of a bootstrap that draws whole clusters (Field & Welsh 2007).

    ``clusters`` names the cluster of each value, such as its prompt. The same arguments give the same interval.
    One cluster gives no interval. Above `LARGE` clusters the normal interval of the ratio estimator (Cochran 1977,
    section 6.3) stands in: there both differ by less than the bootstrap's own noise, and it costs one pass.
    """
    observed = np.asarray(values, float)
    if len(observed) == 0:
        return Estimate.missing("not_enough_data")
    sums, counts = _by_cluster(observed, clusters)
    n, k, mean = len(observed), len(sums), float(observed.mean())
    if k < MIN_CLUSTERS:
        return Estimate(mean, None, None, n)
    tail = (1 - confidence) / 2
    if k > LARGE:
        half = NormalDist().inv_cdf(1 - tail) * math.sqrt(_ratio_variance(sums, counts))
        return Estimate(mean, mean - half, mean + half, n)
    low, high = np.quantile(_resampled_means(sums, counts, resamples, seed), [tail, 1 - tail])
    return Estimate(mean, min(mean, float(low)), max(mean, float(high)), n)


def percentiles(values: ArrayLike) -> Percentiles | None:
    """Percentiles with linear interpolation, None without values. They must not be averaged over groups."""
    observed = np.asarray(values, float)
    if len(observed) == 0:
        return None
    p50, p90, p95, p99 = (float(x) for x in np.quantile(observed, [0.5, 0.9, 0.95, 0.99]))
    return Percentiles(p50, p90, p95, p99 if len(observed) >= 1000 else None, len(observed))


def union_length(intervals: Sequence[tuple[float, float]]) -> float:
    """Length of the union of intervals (start, end), in the unit of their ends."""
    if not intervals:
        return 0.0
    ends = np.asarray(intervals, float)
    ends = ends[np.argsort(ends[:, 0], kind="stable")]
    starts, reached = ends[:, 0], np.maximum.accumulate(ends[:, 1])
    gaps = np.maximum(0.0, starts[1:] - reached[:-1]).sum()
    return float(reached[-1] - starts[0] - gaps)


def _by_cluster(values: NDArray[np.float64], clusters: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of the values of each cluster."""
    names = np.asarray(clusters)
    if len(names) != len(values):
        raise ValueError(f"{len(values)} values need as many clusters, not {len(names)}")
    _, index = np.unique(names, return_inverse=True)
    return np.bincount(index, weights=values).astype(np.float64), np.bincount(index).astype(np.float64)


def _ratio_variance(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> float:
    """Variance of sum(sums) / sum(counts) over clusters."""
    k, total = len(sums), counts.sum()
    residuals = sums - sums.sum() / total * counts
    return float(k / (k - 1) * (residuals**2).sum() / total**2)


def _resampled_means(
    sums: NDArray[np.float64], counts: NDArray[np.float64], resamples: int, seed: int
) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    k = len(sums)
    means = np.empty(resamples)
    step = max(1, _DRAWS_AT_ONCE // k)
    for first in range(0, resamples, step):
        drawn = generator.integers(0, k, size=(min(step, resamples - first), k))
        means[first : first + step] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means
