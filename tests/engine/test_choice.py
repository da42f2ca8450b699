"""Which engine a model gets, and that it is unharmed by the choice."""

import copy
import logging
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tasks.errors import ModelError
from tasks.sampling import Sampling
from tests.engine import tiny
from tests.engine.test_compatible import TEXT, expect, reference_model
from worker.bench.families import COMMON, CONTEXT, FIRST_CHARACTER, character_tokenizer
from worker.engine import native
from worker.engine.choice import EngineKind, make_engine, why_not_continuous
from worker.engine.compatible import CompatibleEngine
from worker.engine.engine import ContinuousEngine
from worker.engine.protocol import Request

OPTIONS: dict[str, Any] = {"slots": 2, "max_context": CONTEXT, "native": native.load()}


def choose(name: str, **options: Any) -> Any:
    return make_engine(copy.deepcopy(reference_model(name)), character_tokenizer(), **OPTIONS | options)


def answer(engine: Any) -> str:
    run: Any = tiny.run
    return str(run(engine, [Request("x", TEXT, Sampling(16, 0.0))])["x"].text)


def test_what_runs_continuously_does() -> None:
    choice = choose("llama", deterministic=True, prefill_tokens=5)
    assert (choice.kind, choice.reason) == (EngineKind.CONTINUOUS, None)
    assert isinstance(choice.engine, ContinuousEngine) and answer(choice.engine) == expect("llama", TEXT, 16)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mamba", "states between tokens"),
        ("lfm2", "conv"),
        ("gpt_oss", "sinks"),
        ("gptj", "attention of its own"),
        ("diffllama", "attend more than once"),
        ("llama4", "chunked_attention"),
        ("doge", "window of 9 tokens"),
        ("phi3_long", "max_context = 16"),
    ],
)
def test_what_does_not_is_answered_all_the_same_and_the_log_says_why(
    name: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        choice = choose(name)
    assert choice.kind is EngineKind.COMPATIBLE and isinstance(choice.engine, CompatibleEngine)
    assert words in (choice.reason or "") and "\n" not in (choice.reason or "")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "worker.engine.choice"]
    assert words in line and "compatible but slow" in line
    assert answer(choice.engine) == expect(name, TEXT, 16)


@pytest.mark.parametrize("name", ["hrm_text", "jamba", "falcon_h1"])
def test_rounding_does_not_hide_what_the_engine_cannot_do(name: str) -> None:
    """With the engine's attention these are off by no more than what counts as rounding in bfloat16."""
    model = copy.deepcopy(reference_model(name)).to(torch.bfloat16)
    assert why_not_continuous(model, CONTEXT) is not None


@pytest.mark.parametrize("name", ["gemma2", "bloom", "nemotron", "llama", "gpt_oss"])
def test_asking_changes_no_bit_of_a_model(name: str) -> None:
    model = copy.deepcopy(reference_model(name))
    ids = torch.tensor([[5, 9, 200, 31]])
    with torch.inference_mode():
        before = model(input_ids=ids).logits
        assert (why_not_continuous(model, CONTEXT) is None) == (name in ("llama", "gemma2"))
        assert torch.equal(model(input_ids=ids).logits, before)


@pytest.mark.parametrize(("context", "fits"), [(16, True), (17, False)])
def test_positions_that_change_are_no_matter_in_a_context_that_they_do_not_change_in(context: int, fits: bool) -> None:
    for name in ("phi3_long", "dynamic"):
        chosen = choose(name, max_context=context)
        assert (chosen.kind is EngineKind.CONTINUOUS) == fits
        assert answer(chosen.engine) == expect(name, TEXT, context - len(TEXT))


def test_a_window_that_no_text_fills_is_no_matter() -> None:
    config = AutoConfig.for_model("doge", **COMMON | {"sliding_window": CONTEXT, "keep_window_size": 64})
    torch.manual_seed(0)
    assert why_not_continuous(AutoModelForCausalLM.from_config(config).eval(), CONTEXT) is None


def test_a_model_that_breaks_while_it_is_taken_over_is_loaded_once_more() -> None:
    """Its routers read the weights of linear layers, which are gone when those are packed."""
    with pytest.raises(ModelError, match="cannot be taken over"):
        choose("hunyuan_moe")
    loads: list[int] = []

    def reload() -> Any:
        loads.append(1)
        return copy.deepcopy(reference_model("hunyuan_moe"))

    choice = choose("hunyuan_moe", reload=reload)
    assert (choice.kind, len(loads)) == (EngineKind.COMPATIBLE, 1)
    assert answer(choice.engine) == expect("hunyuan_moe", TEXT, 16)


@pytest.mark.parametrize("name", ["llama", "bloom"])
def test_stop_tokens_end_a_text_on_either_engine(name: str) -> None:
    expected = expect(name, TEXT, 16)
    choice = choose(name, stop_tokens=[ord(expected[3]) - FIRST_CHARACTER])
    assert answer(choice.engine) == expected[: expected.index(expected[3])]


def test_an_unknown_option_is_an_error() -> None:
    with pytest.raises(TypeError, match="speed"):
        choose("llama", speed=2)
