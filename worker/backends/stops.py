"""Tokens that end an answer."""

from collections.abc import Iterable
from typing import Any

END_OF_TURN = (
    *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<end_of_turn>", "<turn|>", "<|end|>", "<|end_of_turn|>"),
    *("<|END_OF_TURN_TOKEN|>", "<|role_end|>", "<|end_of_text|>", "<|endofassistant|>", "[|endofturn|]", "<|return|>"),
)
# Where a turn has several messages, thinking and answer, this ends only the first of them.
ENDS_A_MESSAGE, CHANNELS = "<|end|>", "<|channel|>"


def stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Ids at which an answer ends: each end of text that config, generation config or tokenizer name, and of turns."""
    named = [
        getattr(model.generation_config, "eos_token_id", None),
        getattr(model.config.get_text_config(), "eos_token_id", None),
        tokenizer.eos_token_id,
    ]
    return frozenset(each for ids in named for each in _ids(ids)) | end_of_turn_tokens(tokenizer)


def end_of_turn_tokens(tokenizer: Any) -> frozenset[int]:
    """Ids of the tokens by which a tokenizer's chat template ends a turn; none without a template."""
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        return frozenset()
    text, vocabulary = str(template), tokenizer.get_vocab()
    return frozenset(
        vocabulary[token]
        for token in END_OF_TURN
        if token in text and token in vocabulary and not (token == ENDS_A_MESSAGE and CHANNELS in text)
    )


def _ids(value: int | Iterable[int] | None) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else list(value)
