"""The engine for models that continuous batching cannot run, against transformers' own generate."""

import copy
import inspect
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from tasks.errors import ModelError
from tasks.sampling import Sampling
from tasks.states import FinishReason
from tests.engine import tiny
from worker.bench.families import CONTEXT, FAMILIES, FIRST_CHARACTER, VOCABULARY, character_tokenizer
from worker.engine import native
from worker.engine.compatible import CompatibleEngine
from worker.engine.compatible_model import CompatibleModel
from worker.engine.engine import ContinuousEngine
from worker.engine.protocol import Delta, Event, Request

run: Any = tiny.run  # for any engine
run_over_time: Any = tiny.run_over_time

KINDS = ("mamba", "bloom", "gemma2", "gptj")
TEXT = "".join(chr(FIRST_CHARACTER + token) for token in (7, 30, 411, 96, 2, 250))
POISON = chr(FIRST_CHARACTER + 499)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tiny products are slower with more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def reference_model(name: str) -> Any:
    """A tiny model of a family with large random weights and no token that ends a text."""
    (family,) = (family for family in FAMILIES if family.name == name)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(family.config()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    return model


def make_engine(name: str, **options: Any) -> CompatibleEngine:
    options = {"slots": 4, "max_context": CONTEXT, "native": native.load()} | options
    return CompatibleEngine(copy.deepcopy(reference_model(name)), character_tokenizer(), **options)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def engine(kind: str) -> CompatibleEngine:
    return make_engine(kind)


@pytest.fixture
def bloom() -> CompatibleEngine:
    return make_engine("bloom")


def expect(name: str, prompt: str, count: int) -> str:
    """The text that transformers' own generate makes greedily."""
    ids = torch.tensor([character_tokenizer()(prompt)["input_ids"]])
    made = reference_model(name).generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, pad_token_id=0
    )
    return str(character_tokenizer().decode(made[0, ids.shape[1] :]))


texts = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=20).map(
    lambda tokens: "".join(chr(FIRST_CHARACTER + token) for token in tokens)
)
arrivals = st.lists(
    st.tuples(texts, st.integers(1, 12), st.integers(0, 9), st.integers(0, 1), st.booleans()), min_size=1, max_size=7
)


@given(wanted=arrivals)
@hypothesis_settings(max_examples=5, deadline=None)
def test_greedy_text_is_that_of_generate(
    kind: str, engine: CompatibleEngine, wanted: list[tuple[str, int, int, int, bool]]
) -> None:
    """Random lengths, arrivals, priorities and cancellations; streams joined are the final text, as `run` checks."""
    steps: list[list[Request]] = [[] for _ in range(10)]
    cancelled = set()
    for number, (prompt, count, at, priority, cancel) in enumerate(wanted):
        steps[at].append(Request(str(number), prompt, Sampling(count, 0.0), priority))
        if cancel:
            cancelled.add(str(number))

    def on_event(event: Event) -> None:
        if isinstance(event, Delta) and event.request_id in cancelled:
            engine.cancel(event.request_id)

    results = run_over_time(engine, steps, on_event)
    for number, (prompt, count, *_) in enumerate(wanted):
        result, expected = results[str(number)], expect(kind, prompt, count)
        if result.finish_reason is FinishReason.CANCELLED:
            assert result.text and expected.startswith(result.text)
        else:
            assert (result.text, result.finish_reason) == (expected, FinishReason.LENGTH)
        assert result.prompt_tokens == len(prompt)


def test_a_seed_makes_the_same_text_alone_and_with_neighbours(engine: CompatibleEngine) -> None:
    request = Request("x", TEXT, Sampling(20, 1.2, 40, 0.95, 1.1, 3, seed=5))
    alone = run(engine, [request])["x"].text
    others = [Request(str(i), TEXT[i:], Sampling(20, 1.0, seed=i)) for i in range(5)]
    assert run(engine, [*others, request])["x"].text == alone
    texts = {run(engine, [Request("x", TEXT, Sampling(20, 1.2, seed=i))])["x"].text for i in range(4)}
    assert len(texts) == 4


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(24, 0.0, repetition_penalty=1.4),
        Sampling(24, 0.9, 7, 0.8, 1.2, 2, seed=3),
        Sampling(24, 0.0, 0, 1, 1, 1),
    ],
)
def test_settings_mean_what_they_mean_to_the_continuous_engine(sampling: Sampling) -> None:
    options: dict[str, Any] = {"slots": 2, "max_context": CONTEXT, "native": native.load()}
    model = copy.deepcopy(reference_model("llama"))
    continuous = ContinuousEngine(model, character_tokenizer(), **options)
    request = Request("x", TEXT, sampling, logprobs=True)
    one, other = run(continuous, [request])["x"], run(make_engine("llama"), [request])["x"]
    assert one.text == other.text and one.output_tokens == other.output_tokens == 24
    assert one.logprobs == pytest.approx(other.logprobs, abs=1e-3)


def test_a_stop_string_across_tokens_is_cut_and_never_shown(engine: CompatibleEngine) -> None:
    whole = run(engine, [Request("x", TEXT, Sampling(30, 1.5, seed=3))])["x"].text
    stop = whole[3:6]
    request = Request("x", TEXT, Sampling(30, 1.5, seed=3, stop=("no such", stop)))
    result = run(engine, [request])["x"]
    assert (result.text, result.finish_reason) == (whole[: whole.index(stop)], FinishReason.STOP_STRING)


def test_a_stop_token_ends_a_text(kind: str) -> None:
    expected = expect(kind, TEXT, 12)
    stop = ord(expected[5]) - FIRST_CHARACTER
    result = run(make_engine(kind, stop_tokens=[stop]), [Request("x", TEXT, Sampling(12, 0.0))])["x"]
    assert (result.text, result.finish_reason) == (expected[: expected.index(expected[5])], FinishReason.STOP)


def test_a_prompt_may_be_token_ids(engine: CompatibleEngine, kind: str) -> None:
    ids = tuple(character_tokenizer()(TEXT)["input_ids"])
    wrong = {"high": (3, VOCABULARY), "low": (3, -1), "none": ()}
    requests = [Request(name, tokens, Sampling(9, 0.0)) for name, tokens in {"x": ids, **wrong}.items()]
    results = run(engine, requests)
    assert results["x"].text == expect(kind, TEXT, 9)
    assert all(results[name].finish_reason is FinishReason.ERROR for name in wrong)


@pytest.mark.parametrize("failure", ["raises", "not a number"])
def test_one_that_fails_does_not_touch_its_neighbours(kind: str, failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine(kind)
    forward = engine._model.model.forward
    poison = ord(POISON) - FIRST_CHARACTER

    def failing(*args: Any, **options: Any) -> Any:
        out = forward(*args, **options)
        if (options["input_ids"] == poison).any():
            if failure == "raises":
                raise IndexError("index out of range in self")
            out.logits.fill_(float("nan"))
        return out

    monkeypatch.setattr(engine._model.model, "forward", failing)
    prompts = [TEXT, TEXT[2:] + POISON, TEXT[3:]]
    results = run(engine, [Request(text, text, Sampling(8, 0.0)) for text in prompts])
    bad = results[prompts[1]]
    assert bad.finish_reason is FinishReason.ERROR and bad.output_tokens == 0
    assert ("index out of range" if failure == "raises" else "probabilities") in (bad.error or "")
    for text in (prompts[0], prompts[2]):
        expected = expect(kind, text, 8)
        assert results[text].text == expected or POISON in expected


def test_without_memory_there_are_fewer_slots_and_the_same_texts(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine(kind)
    read = engine._model.read

    def failing(*args: Any) -> Any:
        if sum(sequence.state is not None for sequence in engine._sequences) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")
        return read(*args)

    monkeypatch.setattr(engine._model, "read", failing)
    prompts = [TEXT[i:] for i in range(5)]
    results = run(engine, [Request(text, text, Sampling(8, 0.0)) for text in prompts])
    assert engine.slots == 1
    assert {text: results[text].text for text in prompts} == {text: expect(kind, text, 8) for text in prompts}


def test_one_that_never_finds_memory_ends_with_a_clear_error(
    bloom: CompatibleEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = bloom._model.read

    def failing(tokens: list[int], *rest: Any) -> Any:
        if len(tokens) > 30:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return read(tokens, *rest)

    monkeypatch.setattr(bloom._model, "read", failing)
    prompts = [TEXT, TEXT * 6, TEXT[2:]]
    results = run(bloom, [Request(text, text, Sampling(8, 0.0)) for text in prompts])
    assert "memory" in (results[prompts[1]].error or "") and bloom.slots == 4
    assert [results[text].text for text in prompts[::2]] == [expect("bloom", text, 8) for text in prompts[::2]]


def test_an_urgent_request_goes_before_bulk_which_loses_nothing(bloom: CompatibleEngine) -> None:
    order: list[str] = []
    bulk = [Request(f"bulk{i}", TEXT[i:], Sampling(12, 1.0, seed=i), priority=1) for i in range(5)]
    calm = run(bloom, bulk)
    urgent = [Request(f"arena{i}", TEXT, Sampling(3, 0.0)) for i in range(4)]
    results = run_over_time(bloom, [bulk, [], [], [], [], urgent], lambda event: order.append(event.request_id))
    finished = [name for at, name in enumerate(order) if name not in order[at + 1 :]]
    assert sorted(finished[:4]) == [request.id for request in urgent]
    assert {r.id: results[r.id].text for r in bulk} == {r.id: calm[r.id].text for r in bulk}


@pytest.mark.parametrize(("length", "words"), [(CONTEXT, f"{CONTEXT} tokens"), (0, "no token")])
def test_an_impossible_prompt_is_a_clear_error(bloom: CompatibleEngine, length: int, words: str) -> None:
    bad = Request("bad", (TEXT * 40)[:length], Sampling(4, 0.0))
    results = run(bloom, [bad, Request("good", TEXT, Sampling(4, 0.0))])
    assert results["bad"].finish_reason is FinishReason.ERROR and words in (results["bad"].error or "")
    assert results["good"].text == expect("bloom", TEXT, 4)


def test_context_and_deadline_end_a_completion(bloom: CompatibleEngine) -> None:
    full = (TEXT * 40)[: CONTEXT - 4]
    result = run(bloom, [Request("x", full, Sampling(100, 0.0))])["x"]
    assert (result.output_tokens, result.finish_reason) == (4, FinishReason.CONTEXT)
    assert run(bloom, [Request("x", TEXT, Sampling(4), deadline=0.0)])["x"].admitted is None
    soon = Request("x", TEXT, Sampling(50, 0.0), deadline=time.monotonic() + 0.2)
    result = run(bloom, [soon], lambda event: time.sleep(0.1))["x"]
    assert result.finish_reason is FinishReason.DEADLINE and result.text and "deadline" in (result.error or "")


@pytest.mark.parametrize("name", ["openai-gpt", "recurrent_gemma"])
def test_a_model_without_a_cache_of_each_sequence_s_own_reads_everything_anew(name: str) -> None:
    """One has none at all, the other keeps its states in its layers, where sequences would share them."""
    engine = make_engine(name)
    prompts = [TEXT, TEXT[3:]]
    results = run(engine, [Request(text, text, Sampling(12, 0.0)) for text in prompts])
    assert engine.recomputes
    assert [results[text].text for text in prompts] == [expect(name, text, 12) for text in prompts]


def test_positions_that_grow_with_a_text_are_not_those_of_its_neighbours() -> None:
    engine = make_engine("dynamic")
    request = Request("x", TEXT, Sampling(40, 0.0))
    alone = run(make_engine("dynamic"), [request])["x"].text
    long = Request("long", TEXT * 12, Sampling(40, 0.0))
    assert run(engine, [long, request])["x"].text == alone


def test_a_model_that_computes_something_else_than_its_generate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = copy.deepcopy(reference_model("bloom"))
    forward = model.forward
    calls: list[int] = []

    def drifting(*args: Any, **options: Any) -> Any:
        calls.append(1)
        out = forward(*args, **options)
        out.logits.mul_(1 + 0.01 * len(calls))
        return out

    drifting.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    monkeypatch.setattr(model, "forward", drifting)
    with pytest.raises(ModelError, match="something else step by step"):
        CompatibleModel(model, CONTEXT)
