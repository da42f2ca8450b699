"""The engine against transformers' own generate, on tiny random models."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tasks.sampling import Sampling
from tasks.states import FinishReason
from worker.engine.batch import BatchEngine
from worker.engine.protocol import Delta, Event, Request, Result

ALPHABET = "abcdefghijklmnopqrstuvwxyz春夏秋冬\n"
SHAPE = {"vocab_size": len(ALPHABET) + 2, "eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None}
WIDE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def build(name: str) -> Any:
    torch.manual_seed(7)
    if name == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **SHAPE)).eval()
    if name == "llama":
        return LlamaForCausalLM(LlamaConfig(**WIDE, num_key_value_heads=2, max_position_embeddings=64, **SHAPE)).eval()
    return Qwen2ForCausalLM(Qwen2Config(**WIDE, num_key_value_heads=2, max_position_embeddings=64, **SHAPE)).eval()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[EOS]", *ALPHABET])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[PAD]"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", eos_token="[EOS]")


@pytest.fixture(scope="module", params=["gpt2", "llama", "qwen2"])
def engine(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast) -> BatchEngine:
    return BatchEngine(build(request.param), tokenizer, slots=4, max_context=64, add_special_tokens=False)


def run(
    engine: BatchEngine, requests: list[Request], on_event: Callable[[Event], None] | None = None
) -> dict[str, Result]:
    results: dict[str, Result] = {}
    shown: dict[str, str] = {}

    def emit(event: Event) -> None:
        if isinstance(event, Delta):
            assert event.request_id not in results and "\ufffd" not in event.text
            shown[event.request_id] = shown.get(event.request_id, "") + event.text
        else:
            assert event.request_id not in results
            results[event.request_id] = event
        if on_event:
            on_event(event)

    for request in requests:
        engine.add(request)
    while engine.active:
        engine.step(emit)
    assert results.keys() == {request.id for request in requests}
    for name, result in results.items():
        assert shown.get(name, "") == result.text
        assert (result.error is not None) == (result.finish_reason in (FinishReason.ERROR, FinishReason.DEADLINE))
    return results


def reference(engine: BatchEngine, prompt: str, new_tokens: int) -> str:
    ids = torch.tensor([engine.tokenizer(prompt)["input_ids"]])
    out = engine.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, do_sample=False)
    return str(engine.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


prompts = st.lists(st.tuples(st.text(ALPHABET, min_size=1, max_size=20), st.integers(1, 12)), min_size=1, max_size=7)


@given(prompts)
@hypothesis_settings(max_examples=12, deadline=None)
def test_greedy_text_is_that_of_generate_whatever_shares_the_batch(
    engine: BatchEngine, wanted: list[tuple[str, int]]
) -> None:
    requests = [
        Request(str(i), text, Sampling(max_new_tokens=count, temperature=0.0)) for i, (text, count) in enumerate(wanted)
    ]
    results = run(engine, requests)
    for request in requests:
        expected = reference(engine, request.prompt, request.sampling.max_new_tokens)
        assert results[request.id].text == expected


def test_a_seed_makes_the_same_text_alone_and_in_a_batch(engine: BatchEngine) -> None:
    sampling = Sampling(max_new_tokens=20, temperature=1.2, top_k=20, top_p=0.95, seed=5)
    alone = run(engine, [Request("x", "春", sampling)])["x"].text
    others = [Request(str(i), "夏" * (i + 1), Sampling(20, 1.2, 20, 0.95, seed=i)) for i in range(3)]
    assert run(engine, [*others, Request("x", "春", sampling)])["x"].text == alone
    assert len({run(engine, [Request("x", "春", Sampling(20, 1.2, seed=i))])["x"].text for i in range(5)}) > 1


def test_sampling_follows_the_models_distribution(engine: BatchEngine) -> None:
    ids = torch.tensor([engine.tokenizer("春")["input_ids"]])
    with torch.inference_mode():
        expected = torch.softmax(engine.model(ids).logits[0, -1].float() / 0.5, 0)
    number = 1500
    requests = [Request(str(i), "春", Sampling(max_new_tokens=1, temperature=0.5, seed=i)) for i in range(number)]
    slots, engine.slots = engine.slots, 500
    results = run(engine, requests)
    engine.slots = slots
    for token, character in enumerate(ALPHABET, start=2):
        share = sum(result.text == character for result in results.values()) / number
        spread = float((expected[token] * (1 - expected[token]) / number) ** 0.5)
        assert abs(share - float(expected[token])) < 5 * spread + 1e-3


def test_a_stop_string_across_tokens_is_cut_and_never_shown(engine: BatchEngine) -> None:
    engine_ends, engine.ends = engine.ends, frozenset()
    whole = run(engine, [Request("x", "ab", Sampling(30, 1.5, seed=3))])["x"].text
    stop = whole[3:6]
    result = run(engine, [Request("x", "ab", Sampling(30, 1.5, seed=3, stop=(stop,)))])["x"]
    engine.ends = engine_ends
    assert len(stop) == 3
    assert (result.text, result.finish_reason) == (whole[: whole.index(stop)], FinishReason.STOP_STRING)


@pytest.mark.parametrize(("prompt", "words"), [("a" * 64, "64 tokens"), ("", "no token")])
def test_an_impossible_prompt_is_a_clear_error(engine: BatchEngine, prompt: str, words: str) -> None:
    results = run(engine, [Request("bad", prompt, Sampling(4, 0.0)), Request("good", "ab", Sampling(4, 0.0))])
    assert results["bad"].finish_reason is FinishReason.ERROR and words in (results["bad"].error or "")
    assert results["good"].text == reference(engine, "ab", 4)


def test_the_context_ends_a_completion(engine: BatchEngine) -> None:
    engine_ends, engine.ends = engine.ends, frozenset()
    result = run(engine, [Request("x", "a" * 60, Sampling(100, 0.0))])["x"]
    engine.ends = engine_ends
    assert (result.output_tokens, result.finish_reason) == (4, FinishReason.CONTEXT)


def test_cancel_keeps_the_text_so_far(engine: BatchEngine) -> None:
    engine_ends, engine.ends = engine.ends, frozenset()

    def cancel(event: Event) -> None:
        if isinstance(event, Delta):
            engine.cancel("x")

    result = run(engine, [Request("x", "ab", Sampling(40, 0.0))], cancel)["x"]
    engine.ends = engine_ends
    assert result.finish_reason is FinishReason.CANCELLED
    assert 0 < result.output_tokens < 40 and result.text


def test_a_late_request_ends_with_an_error(engine: BatchEngine) -> None:
    result = run(engine, [Request("x", "ab", Sampling(4), deadline=0.0)])["x"]
    assert result.finish_reason is FinishReason.DEADLINE


def test_one_that_fails_does_not_touch_its_neighbours(engine: BatchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = type(engine.model).forward
    poison = engine.tokenizer("z")["input_ids"][0]

    def failing(self: Any, input_ids: Any = None, **options: Any) -> Any:
        if (input_ids == poison).any():
            raise torch.OutOfMemoryError("no memory for z")
        return forward(self, input_ids=input_ids, **options)

    slots = engine.slots
    expected = {text: reference(engine, text, 3) for text in ("ab", "cd", "ef")}
    monkeypatch.setattr(type(engine.model), "forward", failing)
    results = run(engine, [Request(text, text, Sampling(3, 0.0)) for text in ("ab", "zz", "cd", "ef")])
    assert results["zz"].finish_reason is FinishReason.ERROR and "no memory" in (results["zz"].error or "")
    assert {name: results[name].text for name in expected} == expected
    assert engine.slots < slots
    engine.slots = slots


def test_urgent_requests_go_first(engine: BatchEngine) -> None:
    order: list[str] = []
    slow = [Request(f"bulk{i}", "ab", Sampling(3, 0.0), priority=1) for i in range(6)]
    results = run(engine, [*slow, Request("arena", "cd", Sampling(3, 0.0))], lambda e: order.append(e.request_id))
    assert len(results) == 7 and order[0] == "arena"
