"""The engine against transformers' own generate, whatever else is going on."""

import threading
import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from tasks.sampling import Sampling
from tasks.states import FinishReason
from tests.engine.tiny import (
    ALPHABET,
    CAPPED,
    CONFIGS,
    CONTEXT,
    byte_tokenizer,
    character_tokenizer,
    expect,
    make_engine,
    reference_model,
    run,
    run_over_time,
)
from worker.engine import native
from worker.engine.engine import ContinuousEngine
from worker.engine.packed import NativeLinear, PackedLinear
from worker.engine.protocol import Delta, Event, Request


@pytest.fixture(scope="module", params=list(CONFIGS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=["native", "torch"])
def engine(request: pytest.FixtureRequest, kind: str) -> ContinuousEngine:
    return make_engine(kind, native=native.load() if request.param == "native" else None)


@pytest.fixture
def gpt2() -> ContinuousEngine:
    return make_engine("gpt2")


@pytest.fixture
def endless() -> ContinuousEngine:
    made = make_engine("gpt2")
    made.ends = frozenset()
    return made


# Few first letters, so that prompts share beginnings.
prompts = st.builds(
    lambda head, tail: head + tail,
    st.sampled_from(["", "春夏" * 9, "春夏" * 12]),
    st.text(ALPHABET, min_size=1, max_size=30),
)
arrivals = st.lists(
    st.tuples(prompts, st.integers(1, 12), st.integers(0, 9), st.integers(0, 1), st.booleans()), min_size=1, max_size=8
)


@given(wanted=arrivals)
@hypothesis_settings(max_examples=15, deadline=None)
def test_greedy_text_is_that_of_generate(
    kind: str, engine: ContinuousEngine, wanted: list[tuple[str, int, int, int, bool]]
) -> None:
    """Random lengths, arrivals, priorities and cancellations; the prompts are read five tokens at a time."""
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
            assert expected.startswith(result.text)
        else:
            assert result.text == expected
        assert result.prompt_tokens == len(prompt)


@pytest.mark.parametrize("kind", sorted(CAPPED))
@pytest.mark.parametrize("kernels", [None, pytest.param("native", marks=pytest.mark.needs())])
def test_capped_scores_give_the_text_of_generate(kind: str, kernels: str | None) -> None:
    engine = make_engine(kind, native=native.load() if kernels else None)
    prompts = ("春夏秋冬abc", "z", "夏" * 20, "春夏" * 12 + "x", "ab")
    results = run(engine, [Request(prompt, prompt, Sampling(30, 0.0)) for prompt in prompts])
    assert {prompt: results[prompt].text for prompt in prompts} == {p: expect(kind, p, 30) for p in prompts}


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_seed_makes_the_same_text_alone_and_in_a_batch(kind: str, deterministic: bool) -> None:
    engine = make_engine(kind, deterministic=deterministic)
    sampling = Sampling(20, 1.2, 20, 0.95, 1.1, 3, seed=5)
    alone = run(engine, [Request("x", "春夏秋冬abc", sampling)])["x"].text
    others = [Request(str(i), "夏a" * (3 * i + 1), Sampling(20, 1.0, i, seed=i)) for i in range(3)]
    assert run(engine, [*others, Request("x", "春夏秋冬abc", sampling)])["x"].text == alone
    assert len({run(engine, [Request("x", "春", Sampling(20, 1.2, seed=i))])["x"].text for i in range(5)}) > 1


@pytest.mark.parametrize(
    ("kind", "dtype"), [("llama", torch.float32), ("llama", torch.bfloat16), ("gpt2", torch.bfloat16)]
)
@given(company=st.lists(st.tuples(st.text("春夏ab", min_size=1, max_size=20), st.integers(0, 6)), max_size=5))
@hypothesis_settings(max_examples=8, deadline=None)
def test_deterministic_logits_are_the_same_bits_in_any_company(
    kind: str, dtype: torch.dtype, company: list[tuple[str, int]]
) -> None:
    engine = make_engine(kind, dtype=dtype, deterministic=True)
    kernels = native.load()
    assert engine._runner.fills == (dtype is torch.float32 or kernels is None or not kernels.multiplies)
    seen: list[torch.Tensor] = []
    wanted = character_tokenizer()("春夏秋冬abc")["input_ids"]
    compute = engine._runner.run

    def watch(chunks: Any) -> torch.Tensor:
        logits = compute(chunks)
        sampling = [chunk for chunk in chunks if chunk.samples]
        seen.extend(row.clone() for row, c in zip(logits, sampling, strict=True) if c.sequence.tokens[:7] == wanted)
        return logits

    engine._runner.run = watch  # type: ignore[method-assign]
    request = Request("x", "春夏秋冬abc", Sampling(8, 0.0))
    run(engine, [request])
    alone = list(seen)
    seen.clear()
    steps: list[list[Request]] = [[] for _ in range(7)]
    for number, (prompt, at) in enumerate(company):
        steps[at].append(Request(str(number), prompt, Sampling(12, 0.0)))
    steps[2].append(request)
    run_over_time(engine, steps)
    assert alone and len(alone) == len(seen)
    assert all(torch.equal(one, other) for one, other in zip(alone, seen, strict=True))


@pytest.mark.parametrize("arrival", ["alone", "crowd"])
def test_a_stop_string_across_tokens_is_cut_and_never_shown(endless: ContinuousEngine, arrival: str) -> None:
    whole = run(endless, [Request("x", "ab", Sampling(30, 1.5, seed=3))])["x"].text
    stop = whole[3:6]
    request = Request("x", "ab", Sampling(30, 1.5, seed=3, stop=("no such", stop)))
    crowd = [Request(str(i), "cd", Sampling(9)) for i in range(5)] if arrival == "crowd" else []
    result = run(endless, [request, *crowd])["x"]
    assert len(stop) == 3
    assert (result.text, result.finish_reason) == (whole[: whole.index(stop)], FinishReason.STOP_STRING)


def test_what_only_looked_like_a_stop_string_is_shown(endless: ContinuousEngine) -> None:
    whole = run(endless, [Request("x", "ab", Sampling(8, 0.0))])["x"].text
    result = run(endless, [Request("x", "ab", Sampling(8, 0.0, stop=(whole[-2:] + "…",)))])["x"]
    assert (result.text, result.finish_reason) == (whole, FinishReason.LENGTH)


def test_several_tokens_may_end_a_text(endless: ContinuousEngine) -> None:
    whole = run(endless, [Request("x", "ab", Sampling(12, 0.0))])["x"].text
    tokens = character_tokenizer()(whole)["input_ids"]
    endless.ends = frozenset({1, tokens[4]})
    result = run(endless, [Request("x", "ab", Sampling(12, 0.0))])["x"]
    assert (result.text, result.finish_reason) == (whole[: tokens.index(tokens[4])], FinishReason.STOP)
    assert result.output_tokens == tokens.index(tokens[4])


@pytest.mark.parametrize(("prompt", "words"), [("a" * CONTEXT, f"{CONTEXT} tokens"), ("", "no token")])
def test_an_impossible_prompt_is_a_clear_error(engine: ContinuousEngine, kind: str, prompt: str, words: str) -> None:
    results = run(engine, [Request("bad", prompt, Sampling(4, 0.0)), Request("good", "ab", Sampling(4, 0.0))])
    assert results["bad"].finish_reason is FinishReason.ERROR and words in (results["bad"].error or "")
    assert results["good"].text == expect(kind, "ab", 4)


def test_the_context_ends_a_completion(endless: ContinuousEngine) -> None:
    result = run(endless, [Request("x", "a" * (CONTEXT - 4), Sampling(100, 0.0))])["x"]
    assert (result.output_tokens, result.finish_reason) == (4, FinishReason.CONTEXT)
    result = run(endless, [Request("x", "a" * (CONTEXT - 4), Sampling(4, 0.0))])["x"]
    assert (result.output_tokens, result.finish_reason) == (4, FinishReason.LENGTH)


def test_cancel_works_from_another_thread_and_keeps_the_text(endless: ContinuousEngine) -> None:
    def cancel(event: Event) -> None:
        if isinstance(event, Delta):
            thread = threading.Thread(target=endless.cancel, args=("x",))
            thread.start()
            thread.join()

    endless.cancel("nobody")
    result = run(endless, [Request("x", "ab", Sampling(40, 0.0))], cancel)["x"]
    assert result.finish_reason is FinishReason.CANCELLED
    assert result.output_tokens == 1 and len(result.text) == 1


def test_log_probabilities_come_with_the_tokens(endless: ContinuousEngine) -> None:
    asked = Request("x", "ab", Sampling(9, 0.0), logprobs=True)
    results = run(endless, [asked, Request("y", "ab", Sampling(9, 0.0))])
    assert results["y"].logprobs is None and results["y"].text == results["x"].text
    logprobs = results["x"].logprobs
    assert logprobs is not None and len(logprobs) == results["x"].output_tokens and max(logprobs) <= 0
    tokens = character_tokenizer()("ab" + results["x"].text)["input_ids"]
    with torch.inference_mode():
        logits = reference_model("gpt2")(torch.tensor([tokens])).logits[0]
    expected = torch.log_softmax(logits, -1)[range(1, 10), tokens[2:]]
    assert torch.allclose(torch.tensor(logprobs), expected, atol=1e-3)


def test_a_late_request_ends_with_what_it_has(endless: ContinuousEngine) -> None:
    assert run(endless, [Request("x", "ab", Sampling(4), deadline=0.0)])["x"].admitted is None
    soon = Request("x", "ab", Sampling(50, 0.0), deadline=time.monotonic() + 0.2)
    result = run(endless, [soon], lambda event: time.sleep(0.1))["x"]
    assert result.finish_reason is FinishReason.DEADLINE and result.text and "deadline" in (result.error or "")


@pytest.fixture
def babbling() -> ContinuousEngine:
    """A random model over bytes, which makes mostly rubbish."""
    config = GPT2Config(n_embd=32, n_layer=1, n_head=4, n_positions=CONTEXT, vocab_size=270)
    torch.manual_seed(3)
    model = GPT2LMHeadModel(config)
    engine = ContinuousEngine(model, byte_tokenizer(), slots=4, max_context=CONTEXT)
    engine.ends = frozenset()
    return engine


def test_no_half_character_is_ever_shown(babbling: ContinuousEngine) -> None:
    """`run` looks for what must not be there."""
    results = run(babbling, [Request(str(i), "春眠不觉晓", Sampling(40, 1.0, seed=i)) for i in range(6)])
    assert any(result.text for result in results.values())


@pytest.mark.parametrize("stop", [(), ("a",)])
def test_text_that_nobody_watches_is_the_same(babbling: ContinuousEngine, stop: tuple[str, ...]) -> None:
    engine = babbling
    sampling = Sampling(40, 1.0, stop=stop)
    requests = [Request(f"{i}", "春a", sampling.for_completion(i, 0)) for i in range(8)]
    watched = run(engine, requests)
    unwatched = run(engine, [replace(request, streams=False) for request in requests])
    assert {name: result.text for name, result in unwatched.items()} == {n: r.text for n, r in watched.items()}


def test_an_urgent_request_finds_a_slot_among_bulk(endless: ContinuousEngine) -> None:
    order: list[str] = []
    bulk = [Request(f"bulk{i}", "ab" * 9, Sampling(9, 0.0), priority=1) for i in range(8)]
    urgent = Request("arena", "cd", Sampling(3, 0.0))
    results = run_over_time(endless, [bulk, [], [], [], [urgent]], lambda event: order.append(event.request_id))
    assert max(results[request.id].batch_size for request in bulk) <= 4
    finished = [name for i, name in enumerate(order) if name not in order[i + 1 :]]
    assert finished[0] == "arena"


def test_a_long_prompt_does_not_stop_the_others(endless: ContinuousEngine) -> None:
    order: list[str] = []
    short, long = Request("short", "ab", Sampling(9, 0.0)), Request("long", "春" * 50, Sampling(2, 0.0))
    run_over_time(endless, [[short], [long]], lambda event: order.append(event.request_id))
    assert order.index("long") > 7


def test_steps_may_be_taken_on_any_thread(gpt2: ContinuousEngine) -> None:
    texts: list[str] = []
    for _ in range(2):
        thread = threading.Thread(
            target=lambda: texts.append(run(gpt2, [Request("x", "ab", Sampling(9, 0.0))])["x"].text)
        )
        thread.start()
        thread.join()
    assert texts == [expect("gpt2", "ab", 9)] * 2


def model_tensors(packed: list[PackedLinear]) -> list[torch.Tensor]:
    return [tensor for layer in packed for tensor in (layer.packed, layer.bias) if tensor is not None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_do_not_exist_twice(kind: str, dtype: torch.dtype) -> None:
    plain = {id(p): p.numel() for p in reference_model(kind).parameters()}
    model = make_engine(kind, dtype=dtype)._runner.model
    packed = [layer for layer in model.modules() if isinstance(layer, PackedLinear)]
    tensors = {id(t) if t.is_mkldnn else t.data_ptr(): t for t in [*model.parameters(), *model_tensors(packed)]}
    # oneDNN's layouts do not say how large they are.
    numbers = sum(m.inputs * m.outs for m in packed if m.packed.is_mkldnn)
    numbers += sum(t.numel() for t in tensors.values() if not t.is_mkldnn)
    padding = sum(m.packed.numel() - m.inputs * m.outs for m in packed if isinstance(m, NativeLinear))
    # Where oneDNN has no bfloat16, its layers stay torch's.
    packs = dtype is torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert len(packed) > 4 if packs else not packed
    assert numbers - padding <= sum(plain.values())
