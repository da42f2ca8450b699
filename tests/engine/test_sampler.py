"""Sampling against transformers' logits processors."""

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import LogitsProcessorList
from transformers.generation.logits_process import (
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tasks.sampling import Sampling
from worker.engine import native
from worker.engine.native import Native
from worker.engine.sampler import NO_TOKEN, Draw, distributions, process, repeating, sample, uniform

VOCABULARY = 700
BOTH = pytest.mark.parametrize("kernels", [None, native.load()], ids=["torch", "native"])
SLACK = 1e-5  # of what float32 sums to less than one may be off


def expected(logits: Tensor, draw: Draw) -> Tensor:
    """Probabilities ``[vocabulary]`` after transformers' processors."""
    sampling = draw.sampling
    chain = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        chain.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.no_repeat_ngram:
        chain.append(NoRepeatNGramLogitsProcessor(sampling.no_repeat_ngram))
    chain.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        chain.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        chain.append(TopPLogitsWarper(sampling.top_p))
    return torch.softmax(chain(torch.tensor([list(draw.tokens)]), logits[None].clone())[0], -1)


def actual(logits: Tensor, draws: list[Draw]) -> Tensor:
    dense = torch.zeros(logits.shape, dtype=torch.float64)
    for found in distributions(process(logits, draws), draws):
        assert bool((found.ids.diff(dim=-1) > 0).all())
        dense[found.rows] = dense[found.rows].scatter(1, found.ids, found.probabilities)
    return dense


samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.3, 0.7, 1.0, 1.8]),
    top_k=st.sampled_from([0, 0, 1, 5, 63, 64, 300, 5000]),
    top_p=st.sampled_from([1.0, 0.97, 0.8, 0.3, 0.01]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.8]),
    no_repeat_ngram=st.sampled_from([0, 1, 2, 3]),
)
cases = st.lists(st.tuples(samplings, st.sampled_from([0.01, 1.0, 4.0]), st.integers(1, 30)), min_size=1, max_size=6)


@given(cases, st.integers(0, 2**30))
@hypothesis_settings(max_examples=80, deadline=None)
def test_probabilities_are_those_of_transformers(wanted: list[tuple[Sampling, float, int]], seed: int) -> None:
    """Flat and peaked logits: with flat ones the candidates looked at first are too few."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.stack([torch.randn(VOCABULARY, generator=generator) * scale for _, scale, _ in wanted])
    draws = [
        Draw(sampling, torch.randint(0, 12, (length,), generator=generator).tolist(), 0)
        for sampling, _, length in wanted
    ]
    for row, made, draw in zip(logits, actual(logits, draws), draws, strict=True):
        wished = expected(row, draw).double()
        # Where the last kept token is decided by rounding, one token may be in one and not in the other.
        edge = float(wished.max() if draw.sampling.top_p < 1 else 0)
        differing = ((made - wished).abs() > 1e-5).nonzero().flatten().tolist()
        assert not differing or min(float(made[i] + wished[i]) for i in differing) <= edge
        assert ((made > 0) != (wished > 0)).sum() <= (draw.sampling.top_p < 1)


def test_equal_logits_at_the_edge_of_top_k_all_stay() -> None:
    logits = torch.zeros(2, VOCABULARY)
    logits[:, 3] = 1.0
    draws = [Draw(Sampling(top_k=5), [1], 0)] * 2
    assert torch.allclose(actual(logits, draws)[0], expected(logits[0], draws[0]).double(), atol=1e-7)


@BOTH
@pytest.mark.parametrize("settings", [{}, {"top_k": 20}, {"top_p": 0.8}, {"top_k": 90, "top_p": 0.9}])
def test_draws_follow_the_probabilities(settings: dict[str, float], kernels: Native | None) -> None:
    number = 4000
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(1)) * 2
    draws = [Draw(Sampling(**settings, seed=seed), [1], seed % 7) for seed in range(number)]  # type: ignore[arg-type]
    counts = Counter(choice.token for choice in sample(logits.expand(number, -1), draws, kernels))
    wished = expected(logits, draws[0])
    assert all(wished[token] > 0 for token in counts)
    for token in wished.topk(10).indices.tolist():
        share = float(wished[token])
        assert abs(counts[token] / number - share) < 5 * math.sqrt(share * (1 - share) / number)


@given(st.lists(st.tuples(samplings, st.booleans()), min_size=1, max_size=5), st.integers(0, 2**30))
@hypothesis_settings(max_examples=40, deadline=None)
def test_a_row_gets_the_same_token_alone_and_among_others(wanted: list[tuple[Sampling, bool]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(wanted), VOCABULARY, generator=generator) * 3
    draws = [
        Draw(Sampling(**{**s.to_dict(), "seed": seed, "temperature": 0.0 if greedy else s.temperature}), [1, 2, 3], i)
        for i, (s, greedy) in enumerate(wanted)
    ]
    for kernels in (None, native.load()):
        together = sample(logits, draws, kernels)
        assert together == [sample(logits[i : i + 1], [draw], kernels)[0] for i, draw in enumerate(draws)]
        assert all(choice.token in range(VOCABULARY) for choice in together)


@given(cases, st.integers(0, 2**30))
@hypothesis_settings(max_examples=60, deadline=None)
def test_the_kernel_draws_from_the_same_distribution(wanted: list[tuple[Sampling, float, int]], seed: int) -> None:
    """Its token is the one at which the distribution function passes the row's random number, give or take rounding."""
    kernels = native.load()
    if kernels is None:
        pytest.skip("no C++ compiler is here")
    generator = torch.Generator().manual_seed(seed)
    logits = torch.stack([torch.randn(VOCABULARY, generator=generator) * spread for _, spread, _ in wanted])
    draws = [
        Draw(replace(settings, seed=seed + row), torch.randint(9, (count,), generator=generator).tolist(), row)
        for row, (settings, _, count) in enumerate(wanted)
    ]
    reached = actual(logits, draws).cumsum(-1)
    for row, choice in enumerate(sample(logits, draws, kernels)):
        number = uniform(draws[row].sampling.seed, row)
        before = float(reached[row, choice.token - 1]) if choice.token else 0.0
        assert before - SLACK <= number <= float(reached[row, choice.token]) + SLACK
    narrow = logits.bfloat16()
    assert sample(narrow, draws, kernels) == sample(narrow.float(), draws, kernels)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_log_probabilities_are_the_models_own(kernels: Native | None, dtype: torch.dtype) -> None:
    logits = (torch.randn(4, VOCABULARY) * 3).to(dtype)
    draws = [Draw(Sampling(temperature=2.0, top_k=5, seed=i), [1], 0, wants_logprob=i != 2) for i in range(4)]
    for row, choice in enumerate(sample(logits, draws, kernels)):
        expected = float(torch.log_softmax(logits[row].float(), -1)[choice.token])
        assert choice.logprob is None if row == 2 else abs(choice.logprob - expected) < 1e-4


@BOTH
def test_greedy_takes_the_first_of_the_most_likely(kernels: Native | None) -> None:
    logits = torch.randn(5, VOCABULARY)
    logits[2, [7, 300]] = 99.0
    choices = sample(logits, [Draw(Sampling(temperature=0.0), [1], 0)] * 5, kernels)
    assert [choice.token for choice in choices] == logits.argmax(-1).tolist() and choices[2].token == 7


@BOTH
@pytest.mark.parametrize(
    ("settings", "alike"),
    [({"repetition_penalty": 1.5}, [3, 3]), ({"no_repeat_ngram": 1}, [3, 3]), ({"no_repeat_ngram": 2}, [])],
)
def test_tokens_that_only_the_embedding_knows_are_passed_over(
    settings: dict[str, Any], alike: list[int], kernels: Native | None
) -> None:
    logits = torch.randn(1, VOCABULARY)
    logits[0, 3] = 99.0
    beyond = [VOCABULARY, VOCABULARY + 5000, 3, VOCABULARY + 5000, 3, VOCABULARY]
    asked = Sampling(temperature=0.0, **settings)
    assert sample(logits, [Draw(asked, beyond, 0)], kernels) == sample(logits, [Draw(asked, alike, 0)], kernels)


@BOTH
@pytest.mark.parametrize("top_k", [1, 3])
def test_tokens_that_are_as_probable_as_the_last_stay_too(kernels: Native | None, top_k: int) -> None:
    logits = torch.zeros(1, VOCABULARY)
    logits[0, [5, 6, 7]] = 9.0
    found = {sample(logits, [Draw(Sampling(top_k=top_k, seed=seed), [1], 0)], kernels)[0].token for seed in range(100)}
    assert found == {5, 6, 7}


@BOTH
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_row_without_a_choice_says_so(temperature: float, bad: float, kernels: Native | None) -> None:
    logits = torch.randn(3, VOCABULARY)
    logits[1] = bad
    draws = [Draw(Sampling(temperature=temperature, top_p=0.9), [1], 0)] * 3
    tokens = [choice.token for choice in sample(logits, draws, kernels)]
    assert tokens[1] == NO_TOKEN and NO_TOKEN not in (tokens[0], tokens[2])


@given(st.lists(st.integers(0, 2), max_size=20), st.integers(0, 5))
def test_what_would_repeat_a_run_is_found(tokens: list[int], size: int) -> None:
    runs = {tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)}
    found = {token for token in range(3) if size and (*tokens[len(tokens) - size + 1 :], token) in runs}
    assert set(repeating(tokens, size)) == found


def test_random_numbers_are_even_and_unrelated() -> None:
    numbers = torch.tensor([[uniform(seed, at) for at in range(100)] for seed in range(100)])
    assert numbers.min() >= 0 and numbers.max() < 1
    counts = torch.histc(numbers, 20, 0, 1)
    assert ((counts - 500) ** 2 / 500).sum() < 45  # chi-squared, 19 degrees of freedom, p < 0.001
    assert abs(float(torch.corrcoef(torch.stack([numbers[:, :-1].flatten(), numbers[:, 1:].flatten()]))[0, 1])) < 0.04
    assert abs(float(torch.corrcoef(torch.stack([numbers[:-1].flatten(), numbers[1:].flatten()]))[0, 1])) < 0.04
    assert uniform(2**53 - 1, 4096) != uniform(2**53 - 2, 4096)
