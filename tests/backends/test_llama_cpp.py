"""llama.cpp's server, started by the worker, with a real chat model."""

import importlib.util
import sys
from pathlib import Path

import pytest

from tasks.conversation import Message, Role
from tasks.states import FinishReason
from tests.backends.conftest import Opener
from tests.conftest import require

SERVE = (sys.executable, "-m", "tests.backends.llama_server", "{source}", "{port}", "{slots}")
SYSTEM = "You are a helpful assistant."
QUESTION = "What is the capital of France?"


def test_a_real_chat_model_answers(opener: Opener, smollm2_gguf: Path) -> None:
    require(importlib.util.find_spec("xllamacpp") is not None, "xllamacpp")
    model = opener(serve=SERVE, source=str(smollm2_gguf), concurrency=2, system=SYSTEM, device="cpu")
    answer, increments = model.ask(QUESTION, sampling={"temperature": 0.0, "max_new_tokens": 24})
    assert "Paris" in answer.text and answer.finish_reason is FinishReason.STOP
    assert "".join(one.text for one in increments) == answer.text and len(increments) > 3
    assert answer.prompt_tokens and answer.prompt_tokens > 20 and answer.output_tokens and answer.output_tokens > 5
    again, _ = model.ask(
        (Message(Role.USER, QUESTION), Message(Role.ASSISTANT, answer.text), Message(Role.USER, "Say it again.")),
        sampling={"temperature": 0.0, "max_new_tokens": 2},
    )
    assert again.finish_reason is FinishReason.LENGTH and again.output_tokens == 2
    assert again.prompt_tokens and again.prompt_tokens > answer.prompt_tokens
    stopped, _ = model.ask(QUESTION, sampling={"temperature": 0.0, "stop": (" is",)})
    assert (stopped.text, stopped.finish_reason) == ("The capital of France", FinishReason.STOP), (
        "it does not say which"
    )
    description = model.backend.description
    assert description.environment.facts["dialect"] == "llamacpp" and description.facts["context"] == 1024
    assert description.facts["parameters"] == pytest.approx(135e6, rel=0.02)


def test_plain_text_goes_on(opener: Opener, smollm2_gguf: Path) -> None:
    require(importlib.util.find_spec("xllamacpp") is not None, "xllamacpp")
    model = opener(serve=SERVE, source=str(smollm2_gguf), concurrency=1, api="completions")
    settings = {"temperature": 1.0, "max_new_tokens": 8, "seed": 5, "top_k": 40, "repetition_penalty": 1.1}
    answers = [model.ask("The capital of France is", sampling=settings)[0] for _ in range(2)]
    assert answers[0].text == answers[1].text != "" and answers[0].output_tokens == 8
    other, _ = model.ask("The capital of France is", sampling=settings | {"seed": 6})
    assert other.text != answers[0].text
