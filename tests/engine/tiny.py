"""Tiny random models and tokenizers, and a loop that checks what every engine must keep to."""

import copy
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Cohere2Config,
    Ernie4_5Config,
    Gemma2Config,
    Glm4Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from tasks.states import FinishReason
from worker.engine import native
from worker.engine.engine import ContinuousEngine
from worker.engine.protocol import Delta, Event, Request, Result

ALPHABET = "abcdefghijklmnopqrstuvwxyz春夏秋冬\n"
CONTEXT = 64
SHAPE = {"vocab_size": len(ALPHABET) + 2, "eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None}
WIDE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
GROUPED = {**WIDE, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT}
CONFIGS = {
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=CONTEXT, **SHAPE),
    "llama": LlamaConfig(**GROUPED, head_dim=16, **SHAPE),
    "qwen2": Qwen2Config(**GROUPED, head_dim=16, **SHAPE),
    "qwen3": Qwen3Config(**GROUPED, head_dim=32, tie_word_embeddings=True, **SHAPE),
    "gpt_neox": GPTNeoXConfig(**WIDE, max_position_embeddings=CONTEXT, **SHAPE),
    "mistral": MistralConfig(**GROUPED, head_dim=16, sliding_window=9, **SHAPE),
    "llama_narrow": LlamaConfig(**GROUPED, head_dim=8, **SHAPE),  # too narrow for the engine's own attention
}
# Their rotations belong to neighbours in a head, not to its halves.
INTERLEAVED = {
    "cohere2": Cohere2Config(**GROUPED, sliding_window=9, **SHAPE),
    "glm4": Glm4Config(**GROUPED, head_dim=16, **SHAPE),
    "ernie4_5": Ernie4_5Config(**GROUPED, head_dim=16, **SHAPE),
}
# Scores and logits are capped low enough to matter; every other layer sees a window.
CAPPED = {
    "gemma2": Gemma2Config(
        **GROUPED,
        head_dim=16,
        sliding_window=9,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=30.0,
        query_pre_attn_scalar=16,
        **SHAPE,
    ),
    "gemma2_narrow": Gemma2Config(**GROUPED, head_dim=8, sliding_window=9, attn_logit_softcapping=2.0, **SHAPE),
}


@cache
def reference_model(name: str) -> Any:
    """A model of a kind in these tables with large random weights, so that no two tokens are nearly as likely."""
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config((CONFIGS | INTERLEAVED | CAPPED)[name]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return model


def make_engine(
    name: str, tokenizer: Any = None, dtype: torch.dtype = torch.float32, **options: Any
) -> ContinuousEngine:
    options = {"slots": 4, "max_context": CONTEXT, "prefill_tokens": 5, "native": native.load()} | options
    return ContinuousEngine(
        copy.deepcopy(reference_model(name)).to(dtype), tokenizer or character_tokenizer(), **options
    )


@cache
def character_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character of ``ALPHABET``, after [PAD] and [EOS]."""
    made = Tokenizer(models.WordLevel({token: i for i, token in enumerate(["[PAD]", "[EOS]", *ALPHABET])}, "[PAD]"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", eos_token="[EOS]")


@cache
def byte_tokenizer(vocabulary: int = 270) -> PreTrainedTokenizerFast:
    """Byte-level BPE that knows next to no merges, so that a Chinese character is three tokens."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, special_tokens=["<end>"])
    made.train_from_iterator(["the cat sat on the mat"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")


def run(
    engine: ContinuousEngine, requests: Iterable[Request], on_event: Callable[[Event], None] | None = None
) -> dict[str, Result]:
    """All results of ``requests``, which are added at once."""
    return run_over_time(engine, [list(requests)], on_event)


def run_over_time(
    engine: ContinuousEngine, arrivals: list[list[Request]], on_event: Callable[[Event], None] | None = None
) -> dict[str, Result]:
    """Like `run`, the n-th list of ``arrivals`` being added before the n-th step."""
    results: dict[str, Result] = {}
    shown: dict[str, str] = {}

    def emit(event: Event) -> None:
        assert event.request_id not in results
        if isinstance(event, Delta):
            assert event.text and "\ufffd" not in event.text
            shown[event.request_id] = shown.get(event.request_id, "") + event.text
        else:
            results[event.request_id] = event
        if on_event:
            on_event(event)

    waiting = list(arrivals)
    while waiting or engine.active:
        for request in waiting.pop(0) if waiting else []:
            engine.add(request)
        engine.step(emit)
    assert results.keys() == {request.id for requests in arrivals for request in requests}
    silent = {request.id for requests in arrivals for request in requests if not request.streams}
    for name, result in results.items():
        assert shown.get(name, "") == ("" if name in silent else result.text)
        assert (result.error is not None) == (result.finish_reason in (FinishReason.ERROR, FinishReason.DEADLINE))
    return results


def generate(name: str, tokens: list[int], count: int) -> list[int]:
    """The tokens that transformers' own generate makes greedily, without the one that ends the text."""
    ids = torch.tensor([tokens])
    out = reference_model(name).generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, pad_token_id=0
    )
    made = out[0, len(tokens) :].tolist()
    return made[: made.index(1)] if 1 in made else made


def expect(kind: str, prompt: str, count: int) -> str:
    """The text that transformers' own generate makes greedily."""
    tokenizer = character_tokenizer()
    tokens = tokenizer(prompt)["input_ids"]
    return str(tokenizer.decode(generate(kind, tokens, min(count, CONTEXT - len(tokens))), skip_special_tokens=True))
