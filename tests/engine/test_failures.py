"""One that fails does not touch the others, and without memory there is less at a time, not less done."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig, GPTJConfig, GptOssConfig

from tasks.errors import ModelError
from tasks.sampling import Sampling
from tasks.states import FinishReason
from tests.engine.tiny import CONFIGS, character_tokenizer, expect, make_engine, run
from worker.engine import native
from worker.engine.detokenizer import Detokenizer
from worker.engine.engine import ContinuousEngine
from worker.engine.protocol import Request

kinds = pytest.mark.parametrize("kind", list(CONFIGS))


@kinds
def test_one_that_raises_does_not_touch_its_neighbours(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine(kind)
    poison = character_tokenizer()("z")["input_ids"][0]
    program = engine._runner._program

    def failing(ids: torch.Tensor, positions: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        if (ids == poison).any():
            raise IndexError("index out of range in self")
        return program(ids, positions, kept)

    monkeypatch.setattr(engine._runner, "_program", failing)
    results = run(engine, [Request(text, text, Sampling(6, 0.0)) for text in ("ab", "cdz", "cd", "efghij")])
    assert results["cdz"].finish_reason is FinishReason.ERROR and "index out of range" in (results["cdz"].error or "")
    for text in ("ab", "cd", "efghij"):
        assert results[text].text == expect(kind, text, 6) or "z" in expect(kind, text, 6)


def test_numbers_that_are_none_end_one_request_and_leave_no_trace() -> None:
    engine = make_engine("llama")  # whose output layer does not share the embedding
    poison = character_tokenizer()("z")["input_ids"][0]
    with torch.inference_mode():
        engine._runner.model.get_input_embeddings().weight[poison] = float("nan")
    results = run(engine, [Request(text, text, Sampling(6, 0.0)) for text in ("ab", "zzzzzzzzzzz", "cd")])
    assert results["zzzzzzzzzzz"].finish_reason is FinishReason.ERROR
    again = run(engine, [Request(str(i), "ab" * i, Sampling(6, 0.0)) for i in range(1, 5)])
    assert all(result.finish_reason is not FinishReason.ERROR for result in [*again.values(), results["ab"]])


@kinds
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_without_memory_there_are_fewer_slots_and_the_same_texts(
    kind: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    engine = make_engine(kind)
    compute = engine._runner.run

    def failing(chunks: Any) -> Any:
        if len(chunks) > 2:
            raise error
        return compute(chunks)

    monkeypatch.setattr(engine._runner, "run", failing)
    texts = ["ab", "cd", "efg", "hijk", "春"]
    results = run(engine, [Request(text, text, Sampling(8, 0.0)) for text in texts])
    assert engine.slots == 2
    assert {text: results[text].text for text in texts} == {text: expect(kind, text, 8) for text in texts}


def test_one_that_never_finds_memory_ends_with_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    gpt2 = make_engine("gpt2")
    compute = gpt2._runner.run

    def failing(chunks: Any) -> Any:
        if any(chunk.sequence.prompt_tokens > 20 for chunk in chunks):
            raise torch.OutOfMemoryError("out of memory")
        return compute(chunks)

    monkeypatch.setattr(gpt2._runner, "run", failing)
    results = run(gpt2, [Request(text, text, Sampling(8, 0.0)) for text in ("ab", "c" * 30, "efg")])
    assert "memory" in (results["c" * 30].error or "")
    assert [results[text].text for text in ("ab", "efg")] == [expect("gpt2", text, 8) for text in ("ab", "efg")]
    assert gpt2.slots == 4


@pytest.mark.parametrize("cancelled", [False, True])
def test_text_that_cannot_be_decoded_at_the_end_is_one_request_s_error(
    cancelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text that nobody watches is decoded when its request ends, from inside or from outside."""
    engine = make_engine("gpt2")
    engine.ends = frozenset()
    decode = Detokenizer._decode

    def failing(text: Detokenizer, tokens: list[int]) -> str:
        if len(tokens) > 20:
            raise ValueError("no such token")
        return decode(text, tokens)

    monkeypatch.setattr(Detokenizer, "_decode", failing)
    requests = [Request(str(n), "春", Sampling(n, 0.0), streams=False) for n in (10, 40)]
    for request in requests:
        engine.add(request)
    results: dict[str, Any] = {}
    for step in range(60):
        if cancelled and step == 30:
            engine.cancel("40")
        engine.step(lambda event: results.update({event.request_id: event}))
    assert results["10"].finish_reason is FinishReason.LENGTH and results["10"].error is None
    assert results["40"].finish_reason is FinishReason.ERROR and "no such token" in results["40"].error
    assert engine.active == 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (BloomConfig(vocab_size=33, hidden_size=32, n_layer=2, n_head=2), "does not run on the engine"),
        (
            GPTJConfig(vocab_size=33, n_embd=32, n_layer=2, n_head=2, n_positions=64, rotary_dim=8),
            "computes something else on the engine than by itself",
        ),
        (
            GptOssConfig(
                vocab_size=33,
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_local_experts=2,
                num_experts_per_tok=1,
                num_attention_heads=2,
                num_key_value_heads=2,
                head_dim=16,
            ),
            "sinks or position bias",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_model_with_another_kind_of_attention_is_refused(config: Any, message: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    with pytest.raises(ModelError, match=message):
        ContinuousEngine(model, character_tokenizer(), slots=2, max_context=32, native=native.load())
