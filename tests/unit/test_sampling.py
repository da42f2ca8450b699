"""Decoding settings: canonical types in, clear errors out."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.conversation import MAX_PROMPTS
from tasks.errors import InvalidInput
from tasks.run_schema import MAX_SAMPLES
from tasks.sampling import BOUNDS, Sampling, check_settings, merge


@given(st.sampled_from(sorted(BOUNDS)), st.floats(allow_nan=True) | st.integers() | st.booleans() | st.text())
def test_what_is_taken_is_in_range_and_what_is_not_names_the_field(name: str, value: Any) -> None:
    bounds = BOUNDS[name]
    try:
        taken = check_settings({name: value})[name]
    except InvalidInput as error:
        assert error.field == f"sampling.{name}"
        right_type = isinstance(value, int | float) and not isinstance(value, bool)
        whole = right_type and (not bounds.integer or value == value // 1)
        assert not (whole and bounds.low <= value <= bounds.high)
    else:
        assert bounds.low <= taken <= bounds.high and type(taken) is (int if bounds.integer else float)


@pytest.mark.parametrize(
    "given",
    [
        {"heat": 1},
        {"temperature": 10**400},
        {"seed": -1},
        {"stop": [""]},
        {"stop": ["x"] * 9},
        {"stop": "y" * 65},
        [],
        3,
    ],
)
def test_bad_settings_are_refused(given: Any) -> None:
    with pytest.raises(InvalidInput):
        check_settings(given)


@pytest.mark.parametrize("temperature", [0, 1e-45, 1e-40, 9e-7])
def test_next_to_no_temperature_is_greedy(temperature: float) -> None:
    assert merge({"temperature": temperature}) == Sampling(temperature=0.0)
    assert merge({"temperature": 1e-6}).temperature == 1e-6


def test_null_is_what_the_model_does_by_itself() -> None:
    assert check_settings({"top_k": None, "stop": None}) == {}


def test_later_settings_win() -> None:
    assert merge({"top_k": 3, "stop": "x"}, {"top_k": 4}) == Sampling(top_k=4, stop=("x",))


@pytest.mark.parametrize("seed", [0, 7, 2**53 - 1])
def test_no_two_completions_of_a_run_have_one_seed(seed: int) -> None:
    prompts = [*range(2000), *range(MAX_PROMPTS - 100, MAX_PROMPTS)]
    keys = [(idx, sample) for idx in prompts for sample in range(MAX_SAMPLES)]
    seeds = {Sampling(seed=seed).for_completion(*key).seed for key in keys}
    assert len(seeds) == len(keys)
    assert min(seeds) >= 0 and max(seeds) < 2**53
