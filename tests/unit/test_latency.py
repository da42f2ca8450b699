from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.measures.latency import CPU, PROFILES, Objectives, Phases, Times, meets, phases_of, summarise
from tasks.measures.statistics import wilson
from tasks.states import Outcome

WARM = Times(
    created=100.0,
    enqueued=100.25,
    claimed=101.25,
    admitted=101.5,
    first_token=102.0,
    last_token=104.0,
    written=104.5,
    output_tokens=21,
    characters=40,
)


def moved(times: Times, seconds: float) -> Times:
    names = ("created", "enqueued", "claimed", "admitted", "first_token", "last_token", "written")
    return replace(times, **{name: getattr(times, name) + seconds for name in names})


def test_phases_by_hand():
    assert phases_of(WARM) == Phases(
        queue=1.0,
        load=None,
        slot_wait=0.25,
        ttft=0.5,
        tpot=0.1,
        service=2.5,
        e2e=4.5,
        output_rate=8.4,
        characters_per_second=16.0,
        ms_a_character=62.5,
        output_tokens=21,
        characters=40,
        cold=False,
    )


def test_a_cold_start_is_loading_not_waiting():
    phases = phases_of(replace(WARM, cold=True))
    assert (phases.load, phases.slot_wait, phases.cold) == (0.25, None, True)


def test_one_token_has_no_time_between_tokens():
    phases = phases_of(replace(WARM, output_tokens=1, last_token=102.0))
    assert phases.tpot is None and phases.service == 0.5


def test_nothing_measured_gives_no_phase():
    assert phases_of(Times()) == Phases()


def test_clocks_that_contradict_each_other_measure_nothing():
    phases = phases_of(replace(WARM, enqueued=200.0))
    assert phases.queue is None and phases.ttft == 0.5


def test_no_characters_is_no_rate_of_zero_milliseconds():
    phases = phases_of(replace(WARM, characters=0))
    assert phases.ms_a_character is None and phases.characters_per_second == 0.0


@given(st.floats(-1e6, 1e6))
def test_phases_do_not_depend_on_the_epoch(seconds):
    phases, later = phases_of(WARM), phases_of(moved(WARM, seconds))
    for name in ("queue", "slot_wait", "ttft", "tpot", "service", "e2e", "ms_a_character"):
        assert getattr(later, name) == pytest.approx(getattr(phases, name), abs=1e-5)


@pytest.mark.parametrize(
    ("objectives", "met"),
    [
        (Objectives("x", ttft_seconds=0.5), True),
        (Objectives("x", ttft_seconds=0.49), False),
        (Objectives("x", tpot_seconds=0.1), True),
        (Objectives("x", tpot_seconds=0.09), False),
        (Objectives("x", ms_a_character=62.5), True),
        (Objectives("x", ms_a_character=62.0), False),
        (Objectives("x", service_seconds=2.4), False),
        (Objectives("x", ttft_seconds=0.5, ms_a_character=62.0), False),
    ],
)
def test_every_limit_must_be_kept(objectives, met):
    assert meets(phases_of(WARM), objectives) is met


def test_what_was_not_measured_does_not_meet():
    assert not meets(Phases(), CPU)
    assert not meets(replace(phases_of(WARM), ms_a_character=None), CPU)


def test_a_single_token_keeps_any_tpot():
    single = phases_of(replace(WARM, output_tokens=1))
    assert meets(single, Objectives("x", tpot_seconds=0.001))
    assert not meets(Phases(output_tokens=1), Objectives("x", tpot_seconds=0.001))


@pytest.mark.parametrize("limits", [{}, {"ttft_seconds": 0.0}, {"ttft_seconds": 1.0, "tpot_seconds": -1.0}])
def test_objectives_must_limit_something(limits):
    with pytest.raises(ValueError, match="limit"):
        Objectives("x", **limits)


def test_profiles_are_found_by_their_name():
    assert PROFILES["cpu"] is CPU and all(name == profile.profile for name, profile in PROFILES.items())


def test_output_rate_is_over_busy_time_not_a_mean_of_rates():
    # Two answers of 21 tokens overlap: busy from 101.5 to 105.0 is 3.5 s, so 42 / 3.5 = 12 tokens/s, not 8.4.
    summary = summarise([WARM, moved(WARM, 1.0)])
    assert summary.busy_seconds == pytest.approx(3.5)
    assert summary.output_rate == pytest.approx(12.0)
    assert summary.characters_per_second == pytest.approx(80 / 3.5)
    assert summary.goodput_rate == pytest.approx(2 / 3.5)


def test_idle_time_between_answers_is_not_busy():
    assert summarise([WARM, moved(WARM, 1000.0)]).busy_seconds == pytest.approx(5.0)


def test_series_are_kept_apart():
    slow = replace(WARM, admitted=101.5, first_token=111.5, last_token=114.0, cold=True)
    failed = Times(created=100.0, admitted=101.0, outcome=Outcome.FAILED)
    cancelled = replace(WARM, outcome=Outcome.CANCELLED)
    warm_up = replace(slow, cold=False, warm_up=True)
    summary = summarise([WARM, WARM, slow, failed, cancelled, warm_up])
    assert (summary.n, summary.cold, summary.warm_ups) == (2, 1, 1)
    assert summary.ttft.p95 == 0.5 and summary.ttft.n == 2
    assert summary.cold_ttft.p50 == 10.0 and summary.cold_load.p50 == 0.25
    assert summary.failed == wilson(1, 4)
    assert summary.goodput == wilson(2, 3)


def test_empty_summary_has_gaps():
    summary = summarise([])
    assert summary.ttft is None and summary.output_rate is None
    assert summary.goodput.value is None and summary.failed.value is None


def test_tokens_without_times_do_not_speed_up_a_model():
    untimed = replace(WARM, admitted=None)
    assert summarise([WARM, untimed]).output_rate == pytest.approx(8.4)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20))
def test_busy_time_is_at_most_the_sum_of_services(starts):
    answers = [moved(WARM, start) for start in starts]
    summary = summarise(answers)
    assert 2.5 - 1e-6 <= summary.busy_seconds <= 2.5 * len(answers) + 1e-6
    assert summary.output_rate >= 8.4 - 1e-6
