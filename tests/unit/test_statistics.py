import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.measures import statistics
from tasks.measures.statistics import Estimate, cluster_bootstrap, clustered_share, percentiles, union_length, wilson


def test_wilson_by_hand():
    # z² = 3.8415: centre (0.8 + 0.19207) / 1.38415, half width 1.96 · sqrt(0.016 + 0.0096036) / 1.38415
    estimate = wilson(8, 10)
    assert (estimate.value, estimate.n) == (0.8, 10)
    assert estimate.low == pytest.approx(0.4902, abs=1e-4)
    assert estimate.high == pytest.approx(0.9433, abs=1e-4)


def test_wilson_at_the_ends_is_never_empty():
    none, every = wilson(0, 10), wilson(10, 10)
    assert none.low == 0 and none.high == pytest.approx(0.2775, abs=1e-4)
    assert every.high == 1 and every.low == pytest.approx(0.7225, abs=1e-4)


def test_nothing_observed_is_a_gap_not_a_zero():
    for estimate in (wilson(0, 0), clustered_share([], []), cluster_bootstrap([], [])):
        assert estimate.value is None and estimate.reason == "not_enough_data" and estimate.n == 0
    assert percentiles([]) is None


@pytest.mark.parametrize(("hits", "n"), [(-1, 3), (4, 3)])
def test_wilson_refuses_what_is_no_share(hits, n):
    with pytest.raises(ValueError, match="not a share"):
        wilson(hits, n)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_stays_in_its_bounds_and_is_symmetric(case):
    hits, n = case
    estimate, mirrored = wilson(hits, n), wilson(n - hits, n)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.low < estimate.high
    assert estimate.low == pytest.approx(1 - mirrored.high, abs=1e-12)


def test_an_estimate_has_a_value_or_a_reason():
    with pytest.raises(ValueError, match="either"):
        Estimate(None, None, None, 0)
    with pytest.raises(ValueError, match="either"):
        Estimate(1.0, None, None, 1, "but why")


def test_scaling_keeps_order_and_gaps():
    scaled = Estimate(0.8, 0.4, 0.9, 7).scaled(10, -5, floor=0.0)
    assert (scaled.low, scaled.n) == (0.0, 7)
    assert scaled.value == pytest.approx(3.0) and scaled.high == pytest.approx(4.0)
    assert Estimate.missing("why", 3).scaled(5) == Estimate.missing("why", 3)
    with pytest.raises(ValueError, match="interval"):
        scaled.scaled(-1)


def test_share_with_one_observation_a_cluster_is_wilson():
    assert clustered_share([1, 1, 0, 1], [4, 2, 9, 7]) == wilson(3, 4)


def test_share_of_like_samples_counts_clusters_by_hand():
    # 10 prompts of 5 equal samples, half of them hits: variance 10/9 · 10 · 2.5² / 50² = 1/36, effective n 9.
    hits = [1] * 25 + [0] * 25
    clusters = [i // 5 for i in range(50)]
    estimate, expected = clustered_share(hits, clusters), wilson(4.5, 9)
    assert estimate.n == 50 and estimate.value == 0.5
    assert estimate.low == pytest.approx(expected.low) and estimate.high == pytest.approx(expected.high)


def test_unanimous_samples_count_as_their_prompts():
    estimate = clustered_share([1] * 50, [i // 5 for i in range(50)])
    assert estimate.value == 1 and estimate.low == pytest.approx(wilson(10, 10).low)


def test_bootstrap_agrees_with_the_standard_error():
    # 200 prompts, half 0 and half 1: standard error 0.5 / sqrt(200), so a half width of 0.0693.
    estimate = cluster_bootstrap([0, 1] * 100, range(200))
    assert estimate.value == 0.5
    assert estimate.high - estimate.low == pytest.approx(2 * 0.0693, rel=0.1)


def test_bootstrap_draws_prompts_not_samples():
    values = np.repeat([0.0, 1.0] * 20, 10)
    alone = cluster_bootstrap(values, range(400))
    clustered = cluster_bootstrap(values, np.repeat(range(40), 10))
    assert clustered.high - clustered.low == pytest.approx(math.sqrt(10) * (alone.high - alone.low), rel=0.15)


def test_bootstrap_weighs_prompts_by_their_samples():
    assert cluster_bootstrap([0, 0, 0, 1], ["a", "a", "a", "b"]).value == 0.25


def test_bootstrap_is_deterministic_and_its_seed_counts():
    values = np.random.default_rng(1).random(60)
    first = cluster_bootstrap(values, range(60), seed=3)
    assert first == cluster_bootstrap(values, range(60), seed=3)
    assert first != cluster_bootstrap(values, range(60), seed=4)


def test_one_prompt_gives_no_interval():
    estimate = cluster_bootstrap([0.2, 0.4], [7, 7])
    assert estimate.value == pytest.approx(0.3) and estimate.low is None and estimate.high is None


def test_many_clusters_give_the_interval_that_the_bootstrap_gives(monkeypatch):
    generator = np.random.default_rng(0)
    clusters = generator.integers(0, 300, 900)
    values = generator.random(900) + clusters / 300
    drawn = cluster_bootstrap(values, clusters)
    monkeypatch.setattr(statistics, "LARGE", 100)
    direct = cluster_bootstrap(values, clusters)
    assert drawn != direct
    assert drawn.low == pytest.approx(direct.low, abs=0.01) and drawn.high == pytest.approx(direct.high, abs=0.01)


def test_resampling_in_pieces_changes_nothing(monkeypatch):
    values = np.random.default_rng(2).random(50)
    whole = cluster_bootstrap(values, range(50))
    monkeypatch.setattr(statistics, "_DRAWS_AT_ONCE", 500)
    assert cluster_bootstrap(values, range(50)) == whole


def test_lengths_must_match():
    with pytest.raises(ValueError, match="as many clusters"):
        cluster_bootstrap([1, 2], [1])


@given(st.lists(st.tuples(st.integers(0, 6), st.floats(-50, 50)), min_size=1, max_size=40))
def test_bootstrap_stays_within_the_data(pairs):
    clusters, values = zip(*pairs, strict=True)
    estimate = cluster_bootstrap(values, clusters, resamples=50)
    if estimate.low is not None:
        assert min(values) - 1e-9 <= estimate.low <= estimate.value <= estimate.high <= max(values) + 1e-9


def test_percentiles_by_hand():
    # Linear interpolation over 1..100: position 0.9 · 99 = 89.1, so 90.1.
    found = percentiles(range(1, 101))
    assert (found.p50, found.p90, found.p95) == pytest.approx((50.5, 90.1, 95.05))
    assert found.n == 100


def test_p99_needs_a_thousand():
    assert percentiles(range(999)).p99 is None
    assert percentiles(range(1000)).p99 == pytest.approx(989.01)


def test_union_by_hand():
    assert union_length([(5, 6), (0, 2), (1, 3), (1.5, 2.5)]) == 4
    assert union_length([]) == 0


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), max_size=12))
def test_union_counts_every_covered_second_once(pieces):
    intervals = [(start, start + length) for start, length in pieces]
    covered = {second for start, end in intervals for second in range(start, end)}
    assert union_length(intervals) == len(covered)
