"""Steps whose kernel calls are made again, against steps that go through Python."""

import logging
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from tasks.sampling import Sampling
from tests.engine.tiny import character_tokenizer, make_engine, run, run_over_time
from worker.engine import native, replay
from worker.engine.batch import BatchMetadata, Span
from worker.engine.cache import SlotCache
from worker.engine.engine import ContinuousEngine
from worker.engine.native import Native
from worker.engine.protocol import Request
from worker.engine.replay import CapturedSteps, Inputs, Memory

COMPUTED_BY_KERNELS = ("gpt2", "llama", "qwen2", "qwen3", "mistral")
PROMPTS = ("春夏", "秋冬abc", "a", "xyz春", "夏夏夏夏夏夏夏")


pytestmark = pytest.mark.needs()
multiplies = pytest.mark.needs("avx512_bf16")


@pytest.fixture
def kernels() -> Native:
    found = native.load()
    assert found is not None
    return Native(found.library)


@pytest.fixture
def engine(kernels: Native) -> ContinuousEngine:
    made = make_engine("gpt2", dtype=torch.bfloat16)
    made.ends = frozenset()
    return made


def logits_of(engine: ContinuousEngine, arrivals: list[list[Request]]) -> list[Tensor]:
    """The logits of every step, copied."""
    seen: list[Tensor] = []
    compute = engine._runner._compute

    def watch(batch: BatchMetadata, ids: list[int], kept: list[int]) -> Tensor:
        logits = compute(batch, ids, kept)
        seen.append(logits.clone())
        return logits

    engine._runner._compute = watch  # type: ignore[method-assign]
    run_over_time(engine, arrivals)
    engine._runner._compute = compute  # type: ignore[method-assign]
    return seen


@multiplies
@pytest.mark.parametrize("kind", COMPUTED_BY_KERNELS)
@given(
    arrivals=st.lists(st.lists(st.sampled_from(PROMPTS), max_size=2), min_size=1, max_size=6), length=st.integers(1, 50)
)
@hypothesis_settings(max_examples=6, deadline=None)
def test_steps_made_again_give_the_same_bits(kind: str, arrivals: list[list[str]], length: int) -> None:
    found = []
    for replays in (True, False):
        engine = make_engine(kind, dtype=torch.bfloat16)
        assert engine._runner._captured is not None
        engine.ends = frozenset()
        if not replays:
            engine._runner._captured = None
        number = iter(range(100))
        steps = [[Request(str(next(number)), p, Sampling(length, 0.0)) for p in prompts] for prompts in arrivals]
        found.append([logits_of(engine, [list(step) for step in steps]) for _ in range(2)])
        kept = engine._runner._captured is not None and engine._runner._captured._steps
        assert replays == bool(kept) or length < 4 or not any(arrivals)
    for replayed, without in zip(*found, strict=True):
        assert len(replayed) == len(without)
        assert all(torch.equal(one, other) for one, other in zip(replayed, without, strict=True))


@multiplies
def test_most_steps_of_a_long_completion_do_not_go_through_python(
    engine: ContinuousEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured = engine._runner._captured
    assert captured is not None
    program, calls = captured._program, []
    monkeypatch.setattr(captured, "_program", lambda *inputs: calls.append(1) or program(*inputs))  # type: ignore[func-returns-value]
    run(engine, [Request("x", "春夏", Sampling(50, 0.0))])
    assert len(calls) == 3  # the prompt, one token, and once more to note the calls
    run(engine, [Request("y", "春夏", Sampling(50, 0.0))])
    assert len(calls) == 3 + 1  # the prompt's shape is there for the second time


@multiplies
def test_other_slots_need_other_calls(engine: ContinuousEngine) -> None:
    """What lies elsewhere after memory ran short must not be read at its old place."""
    requests = [Request("x", "春", Sampling(20, 0.0))]
    expected = run(engine, requests)["x"].text
    assert engine._runner._captured is not None and engine._runner._captured._steps
    engine._runner.reset(2)
    engine._scheduler.resize(2)
    assert not engine._runner._captured._steps
    assert run(engine, requests)["x"].text == expected


@multiplies
def test_keys_that_move_are_found(engine: ContinuousEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that is widened in the middle of a completion lies elsewhere afterwards."""
    requests = [Request("x", "春", Sampling(50, 0.0))]
    expected = run(engine, requests)["x"].text
    monkeypatch.setattr("worker.engine.cache.FIRST_CAPACITY", 8)
    engine._runner.reset(4)
    assert run(engine, requests)["x"].text == expected
    assert engine._runner.cache.capacity == 64


def test_what_differs_when_made_again_is_not_kept(kernels: Native, caplog: pytest.LogCaptureFixture) -> None:
    """A program that does more than call kernels."""
    counted = iter(range(100))
    zeros, ones = torch.zeros(1, 1, 48), torch.ones(1, 1, 48)

    def program(ids: Tensor, positions: Tensor, kept: Tensor) -> Tensor:
        return kernels.product(zeros, ones).add_(next(counted))

    cache = SlotCache(1, 8, kernels)
    captured = CapturedSteps(program, kernels)
    with caplog.at_level(logging.WARNING):
        for step in range(4):
            cache.begin(BatchMetadata([Span(0, 0, 1, step + 1)], False, torch.device("cpu")))
            one = torch.zeros(1, dtype=torch.long)
            assert captured.run(Inputs(one[None], one[None], one), cache)[0, 0, 20] == step
    assert "none are kept" in caplog.text and not captured._steps


def test_what_torch_has_to_copy_is_not_kept(kernels: Native) -> None:
    """A copy that torch makes between kernels would be missing when their calls are made again."""
    x = torch.arange(32.0).view(1, 16, 2).transpose(1, 2)
    ones = torch.ones(x.shape)
    assert not x.is_contiguous()
    cache = SlotCache(1, 8, kernels)
    captured = CapturedSteps(lambda ids, positions, kept: kernels.product(x, ones), kernels)
    for _ in range(3):
        cache.begin(BatchMetadata([Span(0, 0, 2, 2)], False, torch.device("cpu")))
        two = torch.zeros(2, dtype=torch.long)
        assert torch.equal(captured.run(Inputs(two[None], two[None], two), cache), x)
    assert not captured._steps


def test_attention_that_torch_computes_is_not_kept(kernels: Native) -> None:
    """Heads too narrow for the kernel: calls without attention would be missing it."""
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=40)).bfloat16()
    engine = ContinuousEngine(model, character_tokenizer(), slots=2, max_context=64, native=kernels)
    assert not kernels.attends(torch.bfloat16, 8) and engine._runner._captured is None


@multiplies
def test_shapes_that_come_and_go_take_no_more_than_their_share(
    engine: ContinuousEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "MOST_SHAPES", 2)
    captured = engine._runner._captured
    assert captured is not None
    requests = [Request(str(i), "春", Sampling(8 + 9 * i, 0.0)) for i in range(4)]
    first = {name: result.text for name, result in run(engine, requests).items()}
    assert {name: result.text for name, result in run(engine, requests).items()} == first
    assert len(captured._steps) == 2


@pytest.fixture
def memory() -> Iterator[Memory]:
    yield Memory()


def test_memory_is_lent_again_when_nobody_looks_at_it_any_more(memory: Memory) -> None:
    first = memory.empty((2, 3), torch.float32)
    place, view = first.data_ptr(), first[1].view(3, 1)
    del first
    other = memory.empty((2, 3), torch.float32)
    assert other.data_ptr() != place
    del view
    assert memory.empty((5,), torch.float32).data_ptr() == place  # of the same power of two
    again = memory.again(place, (4,), torch.float32)
    del again
    assert {memory.empty((6,), torch.float32).data_ptr() for _ in range(3)} == {place}
