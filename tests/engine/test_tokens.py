"""Prompts that are token ids already, and tokens that end a text because whoever made the engine says so."""

import pytest
from transformers import PreTrainedTokenizerFast

from tasks.sampling import Sampling
from tasks.states import FinishReason
from tests.engine.tiny import CONFIGS, character_tokenizer, expect, make_engine, run
from worker.engine.engine import ContinuousEngine
from worker.engine.protocol import Request


@pytest.fixture
def gpt2() -> ContinuousEngine:
    return make_engine("gpt2")


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_a_prompt_may_be_token_ids(kind: str) -> None:
    engine = make_engine(kind)
    tokens = tuple(character_tokenizer()("春夏abc")["input_ids"])
    results = run(engine, [Request("ids", tokens, Sampling(9, 0.0)), Request("text", "春夏abc", Sampling(9, 0.0))])
    assert results["ids"].text == results["text"].text == expect(kind, "春夏abc", 9)
    assert results["ids"].prompt_tokens == len(tokens)


def test_token_ids_are_not_tokenized(gpt2: ContinuousEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PreTrainedTokenizerFast, "__call__", lambda *_, **__: pytest.fail("a tokenizer was called"))
    end = 1  # an end token within a prompt is one like any other
    result = run(gpt2, [Request("ids", (3, end, 5), Sampling(4, 0.0))])["ids"]
    assert result.error is None and result.prompt_tokens == 3


@pytest.mark.parametrize(("tokens", "words"), [((), "no token"), ((3, -1), "token -1"), ((3, 999), "token 999")])
def test_impossible_token_ids_are_a_clear_error(gpt2: ContinuousEngine, tokens: tuple[int, ...], words: str) -> None:
    results = run(gpt2, [Request("bad", tokens, Sampling(4, 0.0)), Request("good", "ab", Sampling(4, 0.0))])
    assert results["bad"].finish_reason is FinishReason.ERROR and words in (results["bad"].error or "")
    assert results["good"].text == expect("gpt2", "ab", 4)


def test_stop_tokens_end_a_text_beside_the_model_s_own() -> None:
    plain = make_engine("gpt2")
    whole = run(plain, [Request("x", "ab", Sampling(12, 0.0))])["x"].text
    tokens = character_tokenizer()(whole)["input_ids"]
    engine = make_engine("gpt2", stop_tokens=[tokens[4]])
    assert engine.ends == plain.ends | {tokens[4]} and plain.ends
    result = run(engine, [Request("x", "ab", Sampling(12, 0.0))])["x"]
    assert (result.text, result.finish_reason) == (whole[: tokens.index(tokens[4])], FinishReason.STOP)
