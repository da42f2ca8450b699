"""An answer ends at every token that any part of a model calls an end."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.loading.checkpoints import ask, chat_tokenizer, one_word_model, opened
from worker.backends.stops import end_of_turn_tokens, stop_tokens


def with_template(template: str | None, *tokens: str) -> Any:
    tokenizer = chat_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("token", ["<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>"])
def test_the_templates_end_of_turn_is_an_end(token: str) -> None:
    tokenizer = with_template("{{ messages[0].content }}" + token, token)
    assert end_of_turn_tokens(tokenizer) == {tokenizer.convert_tokens_to_ids(token)}


def test_what_only_template_or_vocabulary_has_ends_nothing() -> None:
    assert end_of_turn_tokens(with_template("a<|eot_id|>")) == frozenset()
    assert end_of_turn_tokens(with_template("a", "<|eot_id|>")) == frozenset()
    assert end_of_turn_tokens(with_template(None, "<|eot_id|>")) == frozenset()


def test_the_end_of_one_message_of_several_is_none() -> None:
    tokenizer = with_template("<|channel|>analysis<|end|>…<|return|>", "<|channel|>", "<|end|>", "<|return|>")
    assert end_of_turn_tokens(tokenizer) == {tokenizer.convert_tokens_to_ids("<|return|>")}


def test_every_end_that_is_named_counts() -> None:
    tokenizer = chat_tokenizer()
    config = SimpleNamespace(eos_token_id=7)
    config.get_text_config = lambda: config
    model = SimpleNamespace(config=config, generation_config=SimpleNamespace(eos_token_id=[5, 6]))
    turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert stop_tokens(model, tokenizer) == {5, 6, 7, tokenizer.eos_token_id, turn}


def test_the_engine_stops_at_the_end_of_a_turn(tmp_path: Any) -> None:
    """The model always says end of turn, which only its template tells to be an end."""
    one_word_model(tmp_path, says="<|im_end|>")
    entry, backend = opened(tmp_path, template="chat")
    shown, answer = ask(entry, backend, "hello")
    assert (answer.finish_reason, shown, answer.text) == ("stop", "", "")
